package initramfs

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/u-root/u-root/pkg/kmodule"

	"unlock/internal/hint"
	"unlock/internal/needs"
)

// rootTypes are file systems that the real root may have. Each gets its own list,
// loaded only if the root needs it: btrfs alone costs a benchmark at load.
var rootTypes = []string{"ext4", "xfs", "btrfs"}

// addModules adds plain .ko files, so that the boot program decompresses nothing,
// and the lists that say in which order they are loaded.
func (o *Options) addModules(t *tree, n needs.List) error {
	if o.Modules == "" {
		return nil
	}
	k, err := readKernel(o.Modules)
	if err != nil {
		return err
	}
	var absent []string
	for _, name := range slices.Concat(n.Modules, n.Hardware) {
		if !k.has(name) {
			absent = append(absent, name)
		}
	}
	for _, name := range n.Modules {
		if slices.Contains(absent, name) {
			return fmt.Errorf("kernel %s has no %s, neither as a module nor built in: volumes cannot be opened with it", k.version(), name)
		}
	}
	if len(absent) > 0 {
		o.Note(fmt.Sprintf("kernel %s has no %s", k.version(), strings.Join(absent, ", ")))
	}
	if err := o.addList(t, k, moduleList, slices.Concat(n.Modules, n.Hardware, n.Optional)); err != nil {
		return err
	}
	for _, fs := range rootTypes {
		if k.has(fs) && !k.builtin[canonical(fs)] {
			if err := o.addList(t, k, moduleList+"."+fs, needs.Filesystem(fs)); err != nil {
				return err
			}
		}
	}
	return nil
}

// kernel is what depmod and the kernel's build left in /lib/modules/VERSION.
type kernel struct {
	dir     string
	file    map[string]string   // canonical name → path below dir
	deps    map[string][]string // path → paths that it needs, in load order (modules.dep, reversed)
	soft    map[string][]string // canonical name → names to load before (modules.softdep)
	alias   map[string][]string // canonical alias → the modules that answer to it (modules.alias)
	builtin map[string]bool     // canonical names
	busy    map[string]bool     // paths that order is at
}

func (k *kernel) version() string { return filepath.Base(k.dir) }

func (k *kernel) has(name string) bool {
	return k.file[canonical(name)] != "" || k.builtin[canonical(name)]
}

// canonical is the module's name as the kernel prints it.
func canonical(file string) string {
	name, _, _ := strings.Cut(path.Base(file), ".ko")
	return strings.ReplaceAll(name, "-", "_")
}

// readKernel reads the files that depmod(8) writes. u-root's kmodule can resolve
// dependencies too, but in an order that differs from run to run.
func readKernel(dir string) (*kernel, error) {
	k := &kernel{dir: dir, file: map[string]string{}, deps: map[string][]string{},
		soft: map[string][]string{}, alias: map[string][]string{}, builtin: map[string]bool{}, busy: map[string]bool{}}
	lines, err := readLines(filepath.Join(dir, "modules.dep"))
	if err != nil {
		return nil, fmt.Errorf("%w (depmod makes it; is the kernel installed?)", err)
	}
	for _, line := range lines {
		file, deps, _ := strings.Cut(line, ":")
		k.file[canonical(file)] = file
		k.deps[file] = strings.Fields(deps)
		slices.Reverse(k.deps[file])
	}
	if lines, err = readLines(filepath.Join(dir, "modules.builtin")); err != nil {
		return nil, err
	}
	for _, line := range lines {
		k.builtin[canonical(line)] = true
	}
	if lines, err = readLines(filepath.Join(dir, "modules.softdep")); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	for _, line := range lines {
		f := strings.Fields(line) // softdep NAME pre: A B post: C
		if len(f) < 4 || f[0] != "softdep" || f[2] != "pre:" {
			continue
		}
		before := f[3:]
		if i := slices.Index(before, "post:"); i >= 0 {
			before = before[:i]
		}
		name := canonical(f[1])
		k.soft[name] = append(k.soft[name], before...)
	}
	if lines, err = readLines(filepath.Join(dir, "modules.alias")); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	for _, line := range lines {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "alias" {
			k.alias[canonical(f[1])] = append(k.alias[canonical(f[1])], f[2])
		}
	}
	return k, nil
}

func readLines(file string) ([]string, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("reading the kernel's module list: %w", err)
	}
	return strings.FieldsFunc(string(data), func(r rune) bool { return r == '\n' }), nil
}

// order appends to files the module called name after all that it needs. What is
// built in or unknown is left out.
func (k *kernel) order(files []string, name string) []string {
	file := k.file[canonical(name)]
	if file == "" || k.busy[file] || slices.Contains(files, file) {
		return files
	}
	k.busy[file] = true // soft dependencies may go round in circles
	defer delete(k.busy, file)
	for _, f := range append(slices.Clone(k.deps[file]), file) {
		for _, s := range k.softDeps(f) {
			files = k.order(files, s)
		}
		if !slices.Contains(files, f) {
			files = append(files, f)
		}
	}
	return files
}

// softDeps returns the names of what is loaded before a module if it is there. Often
// they are aliases, such as that of a checksum, with several modules that compute it.
func (k *kernel) softDeps(file string) []string {
	var names []string
	for _, s := range k.soft[canonical(file)] {
		if k.has(s) {
			names = append(names, canonical(s))
			continue
		}
		for _, m := range k.alias[canonical(s)] {
			names = append(names, canonical(m))
		}
	}
	return names
}

// addList adds the modules of k called names, all that they need, and their list.
func (o *Options) addList(t *tree, k *kernel, list string, names []string) error {
	var files []string
	for _, name := range names {
		files = k.order(files, name)
	}
	var text strings.Builder
	for _, f := range files {
		data, err := readModule(filepath.Join(k.dir, f))
		if err != nil {
			return err
		}
		if err := o.suits(filepath.Join(k.dir, f), data); err != nil {
			return hint.With(err, "give unlock of the kernel's architecture: --unlock FILE; or another kernel: --kernel DIRECTORY")
		}
		stem, _, _ := strings.Cut(f, ".ko")
		name := path.Join("/lib/modules", k.version(), stem+".ko")
		t.content(name, 0o644, data)
		fmt.Fprintln(&text, name)
	}
	t.content(list, 0o644, []byte(text.String()))
	return nil
}

// readModule reads a module and undoes its compression (.xz, .zst, .gz).
func readModule(file string) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("reading kernel module: %w", err)
	}
	defer f.Close()
	r, err := kmodule.CompressionReader(f)
	if err != nil {
		return nil, fmt.Errorf("reading kernel module %s: %w", file, err)
	}
	data, err := io.ReadAll(r)
	if err != nil {
		return nil, fmt.Errorf("reading kernel module %s: %w", file, err)
	}
	return data, nil
}
