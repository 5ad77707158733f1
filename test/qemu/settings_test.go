package main

import (
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/pelletier/go-toml/v2"

	"unlock/internal/config"
)

// setting is one that unlock.toml(5) lists, with the values that it names.
type setting struct {
	name   string // "volume.format"
	kind   string // "string"
	values []string
	preset string // the default, which needs no scenario
}

var bold = regexp.MustCompile(`(Default: )?\\fB(.*?)\\fR( \(default\))?`)

// settings reads the manual page, which a test of package manual holds against
// package config.
func settings(t *testing.T) []setting {
	page, err := os.ReadFile("../../docs/man/unlock.toml.5")
	if err != nil {
		t.Fatal(err)
	}
	text, _, _ := strings.Cut(strings.ReplaceAll(string(page), `\-`, "-"), ".SH EXAMPLE")
	table := ""
	var all []setting
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		if header, ok := strings.CutPrefix(line, ".SS "); ok {
			table = strings.Trim(header, "[]") + "."
		}
		if line != ".TP" {
			continue
		}
		s := setting{name: table + bold.FindStringSubmatch(lines[i+1])[2]}
		s.kind, _, _ = strings.Cut(strings.TrimPrefix(lines[i+2], "("), ")")
		for _, m := range bold.FindAllStringSubmatch(lines[i+2], -1) {
			if s.values = append(s.values, m[2]); m[1] != "" || m[3] != "" {
				s.preset = m[2]
			}
		}
		all = append(all, s)
	}
	return all
}

// pattern makes of a value as the page has it the beginning of one that stands in a
// configuration, and says whether it may go on: "ssm:NAME" is "ssm:" and more.
func pattern(value string) (begin string, more bool) {
	place := regexp.MustCompile(`BUCKET|PATH|NAME|N$|VG|sdf$`)
	if at := place.FindStringIndex(value); at != nil {
		return value[:at[0]], true
	}
	return value, strings.HasSuffix(value, "=")
}

// TestSettingsAreBooted: each setting of the configuration is in that of a scenario,
// and so is each of the values that the manual page has for it.
func TestSettingsAreBooted(t *testing.T) {
	t.Parallel()
	const arn = "arn:aws:kms:us-east-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890a"
	filled := strings.NewReplacer("$KEY", arn+"b", "$OTHER", arn+"c", "$VERSION", "v1")
	used := map[string]map[string]bool{}
	note := func(name, value string) {
		if used[name] == nil {
			used[name] = map[string]bool{}
		}
		used[name][value] = true
	}
	var walk func(name string, value any)
	walk = func(name string, value any) {
		switch v := value.(type) {
		case map[string]any:
			for k, e := range v {
				note(name, k)
				walk(strings.Replace(strings.TrimPrefix(name+"."+k, "."), "volume.key.", "key.", 1), e)
			}
		case []any:
			note(name, "array")
			for _, e := range v {
				walk(name, e)
			}
		default:
			note(name, fmt.Sprint(v))
		}
	}
	for _, g := range groups {
		for _, s := range g.scenarios {
			configs := []string{s.Config}
			for _, b := range s.Boots {
				configs = append(configs, b.Config)
			}
			for _, text := range configs {
				var file map[string]any
				if err := toml.Unmarshal([]byte(text), &file); err != nil {
					t.Fatalf("%s: %v", s.Name, err)
				}
				if _, err := config.Parse("unlock.toml", []byte(filled.Replace(text))); text != "" && s.Mistake == "" && err != nil {
					t.Errorf("%s: %v", s.Name, err)
				}
				walk("", file)
			}
		}
	}
	has := func(name, value string) bool {
		begin, more := pattern(value)
		return slices.ContainsFunc(slices.Collect(maps.Keys(used[name])), func(v string) bool {
			return v == begin || more && strings.HasPrefix(v, begin) && len(v) > len(begin)
		})
	}
	all := settings(t)
	if len(all) < 20 {
		t.Fatalf("the page has %d settings", len(all))
	}
	for _, s := range all {
		if used[s.name] == nil {
			t.Errorf("no scenario sets %s", s.name)
			continue
		}
		if s.kind == "boolean" && !used[s.name]["true"] && !used[s.name]["false"] {
			t.Errorf("no scenario sets %s to true or false", s.name)
		}
		for _, value := range s.values {
			switch {
			case slices.ContainsFunc(all, func(o setting) bool { return strings.HasSuffix(o.name, "."+value) }): // speaks of another setting
			case value == s.preset, s.kind == "table" || s.name == "key.context":
			case s.name == "volume.mount_options", value == "/dev/VG/LV" && has(s.name, "/dev/vault/secret"):
			case !has(s.name, value):
				t.Errorf("no scenario has %s = %s", s.name, value)
			}
		}
	}
}

// TestCommandLineIsBooted: so is each setting of the kernel command line.
func TestCommandLineIsBooted(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/man/unlock.8")
	if err != nil {
		t.Fatal(err)
	}
	var used strings.Builder
	for _, s := range every() {
		used.WriteString(" " + s.Append)
		for _, b := range s.Boots {
			used.WriteString(" " + b.Append)
			if b.Deadline > 0 {
				used.WriteString(" rd.unlock.timeout=")
			}
		}
	}
	names := regexp.MustCompile(`\\fB(rd\.unlock[a-z.]*=?)`).FindAllStringSubmatch(string(page), -1)
	if len(names) < 3 {
		t.Fatalf("the page has %q", names)
	}
	for _, m := range names {
		if !strings.Contains(used.String(), m[1]) {
			t.Errorf("no scenario has %s", m[1])
		}
	}
}
