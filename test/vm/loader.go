package vm

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Loader is systemd's part of a Debian release's boot under UEFI.
type Loader struct {
	Stub string // makes a unified kernel image of kernel and initramfs
	Boot string // systemd-boot
}

// machines are UEFI's names of Debian's architectures.
var machines = map[string]string{"amd64": "x64", "arm64": "aa64"}

// Loaders returns those of a Debian release, such as "trixie", for an architecture of
// Debian's, from the cache, else fetches them with apt; nothing is installed.
func Loaders(ctx context.Context, suite, architecture string) (Loader, error) {
	const pkg = "systemd-boot-efi"
	name := pkg + "-" + suite
	if architecture != "amd64" {
		name += "-" + architecture
	}
	tree, err := cached(name, func(dir string) (string, error) { return fetchPackage(ctx, dir, suite, architecture, pkg) })
	if err != nil {
		return Loader{}, fmt.Errorf("fetching %s of %s: %w", pkg, suite, err)
	}
	dir, machine := filepath.Join(tree, "usr/lib/systemd/boot/efi"), machines[architecture]
	return Loader{Stub: filepath.Join(dir, "linux"+machine+".efi.stub"), Boot: filepath.Join(dir, "systemd-boot"+machine+".efi")}, nil
}

// KernelOf returns the kernel for clouds of a Debian release, to be looked at: from the
// cache, else it is fetched with apt.
func KernelOf(ctx context.Context, suite, architecture string) (image string, err error) {
	meta := "linux-image-cloud-" + architecture
	tree, err := cached("kernel-"+suite+"-"+architecture, func(dir string) (string, error) { return fetchPackage(ctx, dir, suite, architecture, meta) })
	if err != nil {
		return "", fmt.Errorf("fetching %s of %s: %w", meta, suite, err)
	}
	found, err := filepath.Glob(filepath.Join(tree, "boot/vmlinuz-*"))
	if err == nil && len(found) != 1 {
		err = fmt.Errorf("%s of %s has %d kernels", meta, suite, len(found))
	}
	if err != nil {
		return "", err
	}
	return found[0], nil
}

// fetchPackage unpacks a package of a release and architecture that need not be the
// machine's; of a kernel's meta package, the kernel.
func fetchPackage(ctx context.Context, dir, suite, architecture, pkg string) (string, error) {
	uri, err := run(ctx, dir, "apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages", "Origin: Debian", "Component: main")
	if err != nil {
		return "", err
	}
	var first string
	if _, err := fmt.Sscan(uri, &first); err != nil {
		return "", fmt.Errorf("apt knows no Debian archive; run apt-get update")
	}
	list, status, tree := filepath.Join(dir, "sources.list"), filepath.Join(dir, "status"), filepath.Join(dir, "tree")
	source := "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] " + first + " " + suite + " main\n"
	for file, text := range map[string]string{list: source, status: ""} {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			return "", err
		}
	}
	options := []string{"-qq", "-o", "APT::Sandbox::User=", "-o", "APT::Architecture=" + architecture, "-o", "APT::Architectures=" + architecture}
	for name, value := range map[string]string{"Dir::State::lists": "lists", "Dir::Cache": "cache", "Dir::Etc::sourcelist": "sources.list", "Dir::State::status": "status"} {
		options = append(options, "-o", name+"="+filepath.Join(dir, value))
	}
	options = append(options, "-o", "Dir::Etc::sourceparts=/dev/null")
	for _, sub := range []string{"lists/partial", "cache/archives/partial"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			return "", err
		}
	}
	if _, err := run(ctx, dir, "apt-get", append(options, "update")...); err != nil {
		return "", err
	}
	if strings.HasPrefix(pkg, "linux-image-") {
		var err error
		if pkg, err = currentKernel(ctx, pkg, options...); err != nil {
			return "", err
		}
	}
	if _, err := run(ctx, dir, "apt-get", append(options, "download", pkg)...); err != nil {
		return "", err
	}
	debs, err := filepath.Glob(filepath.Join(dir, "*.deb"))
	if err != nil || len(debs) != 1 {
		return "", fmt.Errorf("apt-get download left %d packages", len(debs))
	}
	_, err = run(ctx, dir, "dpkg-deb", "-x", debs[0], tree)
	return tree, err
}
