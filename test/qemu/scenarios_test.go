package main

import (
	"regexp"
	"strings"
	"testing"

	"unlock/test/lab"
)

// every returns all scenarios, those of a soak among them.
func every() []lab.Scenario {
	all := append(soaks(10, 1), new(benchmark).scenario(2))
	for _, g := range groups {
		all = append(all, g.scenarios...)
	}
	return all
}

func TestNamesAreUnique(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, s := range every() {
		if seen[s.Name] {
			t.Errorf("two scenarios are named %s", s.Name)
		}
		seen[s.Name] = true
	}
	for _, g := range groups {
		if seen[g.name] {
			t.Errorf("a scenario is named %s, as a group is", g.name)
		}
	}
}

var (
	words    = regexp.MustCompile(`^[\w.,/:=@-]+( [\w.,/:=@-]+)*$`)
	function = regexp.MustCompile(`(?m)^(\w+)\(\)`)
)

// TestScriptsAreWords keeps shell out of Go, where shellcheck does not see it: a
// script calls functions and programs.
func TestScriptsAreWords(t *testing.T) {
	t.Parallel()
	b, err := newBench("bin")
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{}
	for _, m := range function.FindAllStringSubmatch(b.Functions(), -1) {
		if known[m[1]] {
			t.Errorf("two functions are named %s", m[1])
		}
		known[m[1]] = true
	}
	for _, s := range every() {
		for _, boot := range s.Boots {
			for line := range strings.Lines(boot.Script) {
				line = strings.TrimSpace(line)
				if line == "" {
					continue
				}
				if !words.MatchString(line) {
					t.Errorf("%s: %q is more than plain words: make it a function in guest/*.sh", s.Name, line)
				}
			}
		}
	}
}
