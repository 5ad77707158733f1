package main

import (
	"context"
	"debug/elf"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"unlock/test/lab"
	"unlock/test/vm"
)

// arm64 is the standalone image on Graviton's architecture.
var arm64 = []lab.Scenario{
	{
		Name: "arm64-first-boot", Config: s3Key + secretfs, Disks: []string{"blank"}, System: onARM64,
		Boots: []lab.Boot{{Script: "runs_on aarch64\nwrite_file", Check: lab.Formatted}},
	},
	{
		Name: "arm64-second-boot", Config: s3Key + secretfs, Disks: []string{"blank"}, System: onARM64,
		Boots: []lab.Boot{
			{Script: "write_file", Check: lab.Formatted},
			{Secret: true, Script: "read_file\nstock_opens", Want: []string{lab.FileText}},
		},
	},
}

// onARM64 is the standalone image with unlock, a kernel and a root for arm64.
func onARM64(ctx context.Context, l *lab.Lab) error {
	unlock := filepath.Join(l.Bin, "arm64", "unlock")
	if err := alone(ctx, "make", "-s", unlock); err != nil {
		return err
	}
	system, err := vm.GetARM64(ctx)
	if err != nil {
		return err
	}
	args := []string{"--unlock", unlock}
	files := []string{"/lib/ld-linux-aarch64.so.1", "/sbin/mke2fs", "/sbin/e2fsck"}
	for i := 1; i < len(files); i++ {
		if files, err = addLibraries(system.Tree, files[i], files); err != nil {
			return err
		}
	}
	for _, f := range files {
		args = append(args, "--file", filepath.Join(system.Tree, f)+":"+f)
	}
	l.BootStandalone(system.KernelFiles, system.Root, args...)
	l.Base.ARM64 = true
	return nil
}

// addLibraries appends the libraries of a program in tree, or of another library,
// that are not in files. This machine cannot ask the tree's own linker.
func addLibraries(tree, name string, files []string) ([]string, error) {
	f, err := elf.Open(filepath.Join(tree, name))
	if err != nil {
		return nil, fmt.Errorf("reading %s of arm64: %w", name, err)
	}
	defer f.Close()
	libraries, err := f.ImportedLibraries()
	if err != nil {
		return nil, fmt.Errorf("reading %s of arm64: %w", name, err)
	}
	for _, library := range libraries {
		file := "/lib/aarch64-linux-gnu/" + library
		if _, err := os.Stat(filepath.Join(tree, file)); err != nil {
			file = "/usr" + file
		}
		if !slices.Contains(files, file) {
			files = append(files, file)
		}
	}
	return files, nil
}

// alone runs a program while no other scenario does: make's products have one place.
func alone(ctx context.Context, command ...string) error {
	return lab.Command(ctx, "", append([]string{"flock", "bin/qemu-test"}, command...)...)
}
