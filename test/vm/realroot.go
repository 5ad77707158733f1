package vm

import (
	"context"
	"crypto/sha256"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// RootLabel and RootUUID are those of the real root's file system.
const (
	RootLabel = "unlock-root"
	RootUUID  = "5f3c6b1e-7a0d-4c7e-9d55-2b8f0c1d9e42"
)

// rootPackages are what every real root has beyond Debian's essential packages.
const rootPackages = "busybox-static,cryptsetup-bin,dmsetup,e2fsprogs,lvm2,mount,udev"

// rootImage makes the image from root.tar and init; its size in MiB is to follow.
const rootImage = `mkdir root && tar -xf root.tar -C root && rm -f root/sbin/init && cp init root/sbin/init && chmod 755 root/sbin/init &&
	mkdir -p root/mnt/secretfs && PATH=$PATH:/sbin mke2fs -q -t ext4 -L ` + RootLabel + ` -U ` + RootUUID + ` -d root root.ext4 `

// rootInit is /sbin/init of the real root: it runs Machine.Script and powers off.
//
//go:embed root-init.sh
var rootInit []byte

// RealRoot returns an ext4 image of a small Debian, made by mmdebstrap from the
// machine's own apt sources, or the one in the cache. After the pivot it runs
// Machine.Script by sh -eu, prints "script: exit STATUS" and powers off. A root
// with more packages is a larger one.
func RealRoot(ctx context.Context, more ...string) (string, error) {
	packages, shell := rootPackages, rootImage+"512M"
	if len(more) > 0 {
		packages, shell = rootPackages+","+strings.Join(more, ","), rootImage+"1G"
	}
	key := sha256.Sum256(append([]byte(packages+shell), rootInit...))
	image, err := cached(fmt.Sprintf("root-%x.ext4", key[:6]), func(dir string) (string, error) { return makeRoot(ctx, dir, packages, shell) })
	if err != nil {
		return "", fmt.Errorf("making the real root: %w", err)
	}
	return image, nil
}

func makeRoot(ctx context.Context, dir, packages, script string) (string, error) {
	suite, list, err := aptSources(ctx, dir)
	if err != nil {
		return "", err
	}
	tar, image := filepath.Join(dir, "root.tar"), filepath.Join(dir, "root.ext4")
	if _, err := run(ctx, dir, "mmdebstrap", "--variant=essential", "--include="+packages,
		"--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=path-exclude=/usr/share/locale/*", "--dpkgopt=path-exclude=/usr/share/man/*",
		suite, tar, list); err != nil {
		return "", err
	}
	init := filepath.Join(dir, "init")
	if err := os.WriteFile(init, rootInit, 0o755); err != nil {
		return "", err
	}
	// Owners must be root in the image, whoever makes it.
	shell := []string{"sh", "-c", script}
	if os.Geteuid() != 0 {
		shell = append([]string{"fakeroot"}, shell...)
	}
	if _, err := run(ctx, dir, shell[0], shell[1:]...); err != nil {
		return "", err
	}
	return image, nil
}

// aptSources writes the machine's own apt sources for mmdebstrap, in dir.
func aptSources(ctx context.Context, dir string) (suite, list string, err error) {
	targets, err := run(ctx, dir, "apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE) $(COMPONENT)",
		"Created-By: Packages", "Origin: Debian")
	if err != nil {
		return "", "", err
	}
	var sources strings.Builder
	for line := range strings.Lines(targets) {
		sources.WriteString("deb " + line)
	}
	fields := strings.Fields(targets)
	if len(fields) < 3 {
		return "", "", errors.New("apt knows no Debian archive; run apt-get update")
	}
	list = filepath.Join(dir, "sources.list")
	if err := os.WriteFile(list, []byte(sources.String()), 0o644); err != nil {
		return "", "", err
	}
	return fields[1], list, nil
}
