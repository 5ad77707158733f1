package main

import (
	"context"
	"debug/elf"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"unlock/test/vm"
)

// arm64 is the standalone image on Graviton's architecture.
var arm64 = []scenario{
	{
		name: "arm64-first-boot", config: s3Key + secretfs, disks: []string{"blank"}, arm64: true,
		boots: []boot{{script: "test \"$(uname -m)\" = aarch64\n" + writeFile, check: formatted}},
	},
	{
		name: "arm64-second-boot", config: s3Key + secretfs, disks: []string{"blank"}, arm64: true,
		boots: []boot{
			{script: writeFile, check: formatted},
			{script: readFile + stockOpen, want: []string{fileText}},
		},
	},
}

// getARM64 puts a kernel, a real root and unlock for arm64 in place of this machine's.
func (l *lab) getARM64(ctx context.Context) error {
	unlock := filepath.Join(l.bin, "arm64", "unlock")
	if err := alone(ctx, "make", "-s", unlock); err != nil {
		return err
	}
	system, err := vm.GetARM64(ctx)
	if err != nil {
		return err
	}
	l.kernel, l.root = system.KernelFiles, system.Root
	l.imageArgs = []string{"--unlock", unlock}
	files := []string{"/lib/ld-linux-aarch64.so.1", "/sbin/mke2fs"}
	for i := 1; i < len(files); i++ {
		if files, err = addLibraries(system.Tree, files[i], files); err != nil {
			return err
		}
	}
	for _, f := range files {
		l.imageArgs = append(l.imageArgs, "--file", filepath.Join(system.Tree, f)+":"+f)
	}
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
	return tool(ctx, "", append([]string{"flock", "bin/qemu-test"}, command...)...)
}
