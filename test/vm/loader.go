package vm

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
)

// Loader is systemd's part of a Debian release's boot under UEFI, for amd64.
type Loader struct {
	Stub string // makes a unified kernel image of kernel and initramfs
	Boot string // systemd-boot
}

// Loaders returns those of a Debian release, such as "trixie", from the cache, else
// fetches them with apt; nothing is installed.
func Loaders(ctx context.Context, suite string) (Loader, error) {
	const pkg = "systemd-boot-efi"
	tree, err := cached(pkg+"-"+suite, func(dir string) (string, error) { return fetchPackage(ctx, dir, suite, pkg) })
	if err != nil {
		return Loader{}, fmt.Errorf("fetching %s of %s: %w", pkg, suite, err)
	}
	dir := filepath.Join(tree, "usr/lib/systemd/boot/efi")
	return Loader{Stub: filepath.Join(dir, "linuxx64.efi.stub"), Boot: filepath.Join(dir, "systemd-bootx64.efi")}, nil
}

// fetchPackage unpacks a package of a release that need not be the machine's.
func fetchPackage(ctx context.Context, dir, suite, pkg string) (string, error) {
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
	options := []string{"-qq", "-o", "APT::Sandbox::User="}
	for name, value := range map[string]string{"Dir::State::lists": "lists", "Dir::Cache": "cache", "Dir::Etc::sourcelist": "sources.list", "Dir::State::status": "status"} {
		options = append(options, "-o", name+"="+filepath.Join(dir, value))
	}
	options = append(options, "-o", "Dir::Etc::sourceparts=/dev/null")
	for _, sub := range []string{"lists/partial", "cache/archives/partial"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			return "", err
		}
	}
	for _, command := range [][]string{{"update"}, {"download", pkg}} {
		if _, err := run(ctx, dir, "apt-get", append(options, command...)...); err != nil {
			return "", err
		}
	}
	debs, err := filepath.Glob(filepath.Join(dir, "*.deb"))
	if err != nil || len(debs) != 1 {
		return "", fmt.Errorf("apt-get download left %d packages", len(debs))
	}
	_, err = run(ctx, dir, "dpkg-deb", "-x", debs[0], tree)
	return tree, err
}
