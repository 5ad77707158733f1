package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// writeLicenses writes our license, Go's, and those of the modules, found in Go's
// module cache. A module without a license is an error: it must not be shipped.
func writeLicenses(w io.Writer, files []string) error {
	programs, err := readPrograms(files)
	if err != nil {
		return err
	}
	goroot, err := goCommand("env", "GOROOT")
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "unlock is under the Apache License 2.0, whose text is below. Its programs are static;\nwhat is linked into them, and under which license, follows.\n")
	if err := writeLicense(w, "unlock", "."); err != nil {
		return err
	}
	if err := writeLicense(w, "the Go standard library "+programs[0].goVersion, goroot); err != nil {
		return err
	}
	for _, m := range allModules(programs) {
		dir, err := goCommand("list", "-m", "-f", "{{.Dir}}", m.path)
		if err != nil {
			return err
		}
		if err := writeLicense(w, m.path+" "+m.version, dir); err != nil {
			return err
		}
	}
	return nil
}

// writeLicense writes the license files in the top directory of a module.
func writeLicense(w io.Writer, name, dir string) error {
	all, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("looking for the license of %s: %w", name, err)
	}
	found := false
	for _, f := range all {
		base, _, _ := strings.Cut(strings.ToUpper(f.Name()), ".")
		if f.IsDir() || !slices.Contains([]string{"LICENSE", "LICENCE", "COPYING", "NOTICE", "PATENTS"}, base) {
			continue
		}
		text, err := os.ReadFile(filepath.Join(dir, f.Name()))
		if err != nil {
			return err
		}
		fmt.Fprintf(w, "\n==== %s: %s\n\n%s\n", name, f.Name(), bytes.TrimSpace(text))
		found = found || base != "NOTICE" && base != "PATENTS"
	}
	if !found {
		return fmt.Errorf("%s has no license in %s", name, dir)
	}
	return nil
}

func goCommand(args ...string) (string, error) {
	cmd := exec.Command("go", args...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("go %s: %w", strings.Join(args, " "), err)
	}
	return strings.TrimSpace(string(out)), nil
}
