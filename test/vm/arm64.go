package vm

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
)

// arm64Packages are those of the real root, and what they take for granted, and a
// kernel. They are only unpacked: this machine cannot run their scripts.
const arm64Packages = "base-files,busybox-static,coreutils,cryptsetup-bin,dash,diffutils,dmsetup,e2fsprogs,grep,linux-image-cloud-arm64,mount,sed,udev,util-linux"

// arm64Image makes the image from tree and init, and depmod's files for the tree.
const arm64Image = `PATH=$PATH:/sbin
depmod -b tree "$(ls tree/lib/modules)"
cp -a tree root && rm -rf root/boot root/lib/modules root/usr/share/doc root/usr/share/locale
mkdir -p root/mnt/secretfs && cp init root/sbin/init && chmod 755 root/sbin/init
mke2fs -q -t ext4 -L ` + RootLabel + ` -U ` + RootUUID + ` -d root tree/root.ext4 512M`

// ARM64 is what a machine with ARM64 boots: unpacked packages of Debian.
type ARM64 struct {
	KernelFiles
	Tree string // with the programs that an initramfs takes along
	Root string // ext4 image, as RealRoot makes
}

// GetARM64 returns Debian's cloud kernel and a small Debian for arm64 from the
// cache, else fetches them with mmdebstrap; nothing of them runs here.
func GetARM64(ctx context.Context) (ARM64, error) {
	key := sha256.Sum256(append([]byte(arm64Packages+arm64Image), rootInit...))
	tree, err := cached(fmt.Sprintf("arm64-%x", key[:6]), func(dir string) (string, error) { return makeARM64(ctx, dir) })
	if err != nil {
		return ARM64{}, fmt.Errorf("making the system for arm64: %w", err)
	}
	kernel, err := findKernel(tree)
	return ARM64{kernel, tree, filepath.Join(tree, "root.ext4")}, err
}

func makeARM64(ctx context.Context, dir string) (string, error) {
	suite, list, err := aptSources(ctx, dir)
	if err != nil {
		return "", err
	}
	tree := filepath.Join(dir, "tree")
	if _, err := run(ctx, dir, "mmdebstrap", "--architectures=arm64", "--variant=extract", "--include="+arm64Packages, suite, tree, list); err != nil {
		return "", err
	}
	if err := os.WriteFile(filepath.Join(dir, "init"), rootInit, 0o755); err != nil {
		return "", err
	}
	_, err = run(ctx, dir, "sh", "-euc", arm64Image)
	return tree, err
}
