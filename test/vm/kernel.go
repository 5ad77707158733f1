package vm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// KernelFiles are the parts of an unpacked kernel package.
type KernelFiles struct {
	Image   string // vmlinuz
	Modules string // lib/modules/VERSION, with depmod's files
}

// kernelPackage is Debian's kernel for clouds; it depends on the current one.
const kernelPackage = "linux-image-cloud-amd64"

// Kernel returns Debian's cloud kernel from the cache, else fetches it with apt
// and unpacks it there; nothing is installed. With a kernel in the cache it needs
// neither network nor apt.
func Kernel(ctx context.Context) (KernelFiles, error) {
	cache, err := CacheDir()
	if err != nil {
		return KernelFiles{}, err
	}
	if dirs, _ := filepath.Glob(filepath.Join(cache, "linux-image-*")); len(dirs) > 0 {
		return findKernel(slices.Max(dirs))
	}
	name, err := currentKernel(ctx, kernelPackage)
	if err != nil {
		return KernelFiles{}, err
	}
	dir, err := cached(name, func(dir string) (string, error) { return fetchKernel(ctx, dir, name) })
	if err != nil {
		return KernelFiles{}, fmt.Errorf("fetching %s: %w", name, err)
	}
	return findKernel(dir)
}

// currentKernel resolves a meta package; options are apt's.
func currentKernel(ctx context.Context, meta string, options ...string) (string, error) {
	out, err := run(ctx, "", "apt-cache", append(options[:len(options):len(options)], "depends", "--important", meta)...)
	if err != nil {
		return "", fmt.Errorf("looking up the kernel: %w (has apt-get update been run?)", err)
	}
	for line := range strings.Lines(out) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "Depends: "); ok {
			return name, nil
		}
	}
	return "", fmt.Errorf("apt knows no package %s; run apt-get update", meta)
}

func fetchKernel(ctx context.Context, dir, name string) (string, error) {
	if _, err := run(ctx, dir, "apt-get", "download", "-o", "APT::Sandbox::User=", name); err != nil {
		return "", err
	}
	debs, err := filepath.Glob(filepath.Join(dir, "*.deb"))
	if err != nil || len(debs) != 1 {
		return "", fmt.Errorf("apt-get download left %d packages", len(debs))
	}
	tree := filepath.Join(dir, "tree")
	if _, err := run(ctx, dir, "dpkg-deb", "-x", debs[0], tree); err != nil {
		return "", err
	}
	k, err := findKernel(tree)
	if err != nil {
		return "", err
	}
	// Administrators' programs are not in everybody's PATH.
	depmod := "/sbin/depmod"
	if _, err := run(ctx, dir, depmod, "-b", tree, filepath.Base(k.Modules)); err != nil {
		return "", err
	}
	return tree, nil
}

func findKernel(tree string) (KernelFiles, error) {
	images, _ := filepath.Glob(filepath.Join(tree, "boot/vmlinuz-*"))
	modules, _ := filepath.Glob(filepath.Join(tree, "lib/modules/*"))
	if len(images) != 1 || len(modules) != 1 {
		return KernelFiles{}, errors.Join(fmt.Errorf("%s: %d kernels and %d module directories, want one each", tree, len(images), len(modules)), os.ErrInvalid)
	}
	return KernelFiles{Image: images[0], Modules: modules[0]}, nil
}
