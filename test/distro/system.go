// Package distro makes real distributions and has their own generators build
// initramfs images with unlock's hook: what the scenarios of test/qemu boot. Systems
// are made with mmdebstrap from the machine's own apt sources and kept in vm's cache;
// images are built in a chroot, which takes root. unlock and its hooks get there by
// "make install-hooks".
package distro

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"unlock/test/vm"
)

// System is a suite of Debian with the packages that bring a generator, separated
// by commas.
type System struct {
	Suite, Packages string
	Init            string // package that brings /sbin/init; systemd-sysv if empty
}

// common are the packages that s has beside its generator.
func (s System) common() string {
	return "linux-image-cloud-amd64," + cmp.Or(s.Init, "systemd-sysv") + ",dbus,udev,kmod,dmsetup,e2fsprogs,iproute2,cryptsetup-bin,busybox,zstd"
}

// Files of a System in the cache, without unlock.
type Files struct {
	Root   string // ext4 image
	Kernel string
}

// systemScript is what mmdebstrap runs at last: a network, a console, and a
// service that runs Machine.Script when the system is up.
//
//go:embed system.sh
var systemScript []byte

// keyring is of Debian's package debian-archive-keyring.
const keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"

// Get returns the system from the cache, else makes it.
func (s System) Get(ctx context.Context) (Files, error) {
	cache, err := vm.CacheDir()
	if err != nil {
		return Files{}, err
	}
	key := sha256.Sum256(append([]byte(s.Suite+" "+s.Packages+" "+s.common()+" "+vm.RootLabel), systemScript...))
	dir := filepath.Join(cache, fmt.Sprintf("%s-%x", s.Suite, key[:6]))
	f := Files{Root: filepath.Join(dir, "root.ext4"), Kernel: filepath.Join(dir, "vmlinuz")}
	if _, err := os.Stat(dir); err == nil {
		return f, nil
	}
	tmp, err := os.MkdirTemp(cache, "new-")
	if err != nil {
		return Files{}, fmt.Errorf("filling the cache: %w", err)
	}
	defer os.RemoveAll(tmp)
	if err := s.make(ctx, tmp); err != nil {
		return Files{}, fmt.Errorf("making %s with %s: %w", s.Suite, s.Packages, err)
	}
	if err := os.Rename(tmp, dir); err != nil && !errors.Is(err, os.ErrExist) { // or somebody else was quicker
		return Files{}, fmt.Errorf("filling the cache: %w", err)
	}
	return f, nil
}

func (s System) make(ctx context.Context, dir string) error {
	sources, err := sourcesOf(ctx, s.Suite)
	if err != nil {
		return err
	}
	list, script, tree := filepath.Join(dir, "sources.list"), filepath.Join(dir, "system.sh"), filepath.Join(dir, "root")
	if err := errors.Join(os.WriteFile(list, []byte(sources), 0o644), os.WriteFile(script, systemScript, 0o755)); err != nil {
		return err
	}
	// Of suites that are not released, the lists on a mirror expire within days.
	if _, err := run(ctx, nil, "mmdebstrap", "--quiet", "--variant=minbase", `--aptopt=Acquire::Check-Valid-Until "false"`, "--include="+s.common()+","+s.Packages,
		"--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=path-exclude=/usr/share/locale/*", "--dpkgopt=path-exclude=/usr/share/man/*",
		`--customize-hook=sh "`+script+`" "$1"`, s.Suite, tree, list); err != nil {
		return err
	}
	if _, err := run(ctx, nil, "sh", "-euc", `mke2fs -q -t ext4 -L "$2" -d "$1/root" "$1/root.ext4" 2G
		mv "$1"/root/boot/vmlinuz-* "$1/vmlinuz"; rm -rf "$1/root" "$1/system.sh" "$1/sources.list"`, "sh", dir, vm.RootLabel); err != nil {
		return err
	}
	return nil
}

// alone are suites that have no updates of their own, or need not have them any more.
var alone = []string{"bullseye", "sid"}

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
		if slices.Contains(alone, suite) && !strings.Contains(l, " "+slices.Min(own)+" ") {
			continue
		}
		fmt.Fprintf(&b, "deb [signed-by=%s] %s\n", keyring, strings.Replace(l, " "+slices.Min(own), " "+suite, 1))
	}
	return b.String(), nil
}

// run runs a program and returns what it printed, both outputs together.
func run(ctx context.Context, env []string, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.WaitDelay = 5 * time.Second
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		lines := strings.Split(strings.TrimSpace(out.String()), "\n")
		return out.String(), fmt.Errorf("%s: %w: %s", name, err, strings.Join(lines[max(0, len(lines)-20):], "\n"))
	}
	return out.String(), nil
}
