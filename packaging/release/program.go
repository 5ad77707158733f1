package main

import (
	"cmp"
	"crypto/sha256"
	"debug/buildinfo"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// program is a binary and what Go says is linked into it.
type program struct {
	name      string
	sha256    string // in hexadecimal
	goVersion string // without "go"
	modules   []module
}

type module struct{ path, version, sum string }

func readProgram(file string) (program, error) {
	info, err := buildinfo.ReadFile(file)
	if err != nil {
		return program{}, fmt.Errorf("reading build information: %w", err)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return program{}, err
	}
	version, _, _ := strings.Cut(strings.TrimPrefix(info.GoVersion, "go"), " ") // experiments follow
	p := program{name: filepath.Base(file), sha256: fmt.Sprintf("%x", sha256.Sum256(data)), goVersion: version}
	for _, m := range info.Deps {
		m = cmp.Or(m.Replace, m)
		p.modules = append(p.modules, module{m.Path, m.Version, m.Sum})
	}
	return p, nil
}

func readPrograms(files []string) ([]program, error) {
	var all []program
	for _, f := range files {
		p, err := readProgram(f)
		if err != nil {
			return nil, err
		}
		all = append(all, p)
	}
	return all, nil
}

// allModules returns the modules of all programs, each once, sorted.
func allModules(programs []program) []module {
	set := map[module]bool{}
	for _, p := range programs {
		for _, m := range p.modules {
			set[m] = true
		}
	}
	return slices.SortedFunc(maps.Keys(set), func(a, b module) int {
		return cmp.Or(cmp.Compare(a.path, b.path), cmp.Compare(a.version, b.version))
	})
}
