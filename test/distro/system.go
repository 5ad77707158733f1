package distro

import (
	"context"
	"crypto/sha256"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"unlock/test/vm"
)

// system is a distribution in the cache, without unlock.
type system struct {
	root   string // ext4 image
	kernel string
}

// commonPackages are what a system has beside its generator.
const commonPackages = "linux-image-cloud-amd64,systemd-sysv,dbus,udev,kmod,dmsetup,e2fsprogs,iproute2,cryptsetup-bin,busybox,zstd"

// systemScript is what mmdebstrap runs at last: a network, a console, and a
// service that runs Machine.Script when the system is up.
//
//go:embed system.sh
var systemScript []byte

// keyring is of Debian's package debian-archive-keyring.
const keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"

// get returns a suite of Debian with these packages from the cache, else makes it.
func (system) get(ctx context.Context, suite, packages string) (system, error) {
	cache, err := vm.CacheDir()
	if err != nil {
		return system{}, err
	}
	key := sha256.Sum256(append([]byte(suite+" "+packages+" "+commonPackages+" "+vm.RootLabel), systemScript...))
	dir := filepath.Join(cache, fmt.Sprintf("%s-%x", suite, key[:6]))
	s := system{root: filepath.Join(dir, "root.ext4"), kernel: filepath.Join(dir, "vmlinuz")}
	if _, err := os.Stat(dir); err == nil {
		return s, nil
	}
	tmp, err := os.MkdirTemp(cache, "new-")
	if err != nil {
		return system{}, fmt.Errorf("filling the cache: %w", err)
	}
	defer os.RemoveAll(tmp)
	if err := makeSystem(ctx, tmp, suite, packages); err != nil {
		return system{}, err
	}
	if err := os.Rename(tmp, dir); err != nil && !errors.Is(err, os.ErrExist) { // or somebody else was quicker
		return system{}, fmt.Errorf("filling the cache: %w", err)
	}
	return s, nil
}

func makeSystem(ctx context.Context, dir, suite, packages string) error {
	sources, err := sourcesOf(ctx, suite)
	if err != nil {
		return err
	}
	list, script, tree := filepath.Join(dir, "sources.list"), filepath.Join(dir, "system.sh"), filepath.Join(dir, "root")
	if err := errors.Join(os.WriteFile(list, []byte(sources), 0o644), os.WriteFile(script, systemScript, 0o755)); err != nil {
		return err
	}
	if _, err := run(ctx, nil, "mmdebstrap", "--quiet", "--variant=minbase", "--include="+commonPackages+","+packages,
		"--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=path-exclude=/usr/share/locale/*", "--dpkgopt=path-exclude=/usr/share/man/*",
		`--customize-hook=sh "`+script+`" "$1"`, suite, tree, list); err != nil {
		return err
	}
	if _, err := run(ctx, nil, "sh", "-euc", `mke2fs -q -t ext4 -L "$2" -d "$1/root" "$1/root.ext4" 2G
		mv "$1"/root/boot/vmlinuz-* "$1/vmlinuz"; rm -rf "$1/root" "$1/system.sh" "$1/sources.list"`, "sh", dir, vm.RootLabel); err != nil {
		return err
	}
	return nil
}

// sourcesOf returns a sources.list(5) of the suite on the mirrors from which this
// machine, also a Debian, gets its own suite.
func sourcesOf(ctx context.Context, suite string) (string, error) {
	targets, err := run(ctx, nil, "apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE) $(COMPONENT)",
		"Created-By: Packages", "Origin: Debian")
	if err != nil {
		return "", err
	}
	lines := strings.Split(strings.TrimSpace(targets), "\n")
	var own []string // bookworm, bookworm-updates, bookworm-security
	for _, l := range lines {
		if f := strings.Fields(l); len(f) == 3 {
			own = append(own, f[1])
		}
	}
	if len(own) == 0 {
		return "", errors.New("apt knows no Debian archive; run apt-get update")
	}
	var b strings.Builder
	for _, l := range lines {
		fmt.Fprintf(&b, "deb [signed-by=%s] %s\n", keyring, strings.Replace(l, " "+slices.Min(own), " "+suite, 1))
	}
	return b.String(), nil
}
