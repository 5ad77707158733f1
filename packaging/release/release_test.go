package main

import (
	"bytes"
	"encoding/json"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// build builds unlock, which has dependencies, and returns its path.
func build(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "unlock")
	if out, err := exec.Command("go", "build", "-o", file, "unlock/cmd/unlock").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return file
}

func TestRelease(t *testing.T) {
	t.Setenv("SOURCE_DATE_EPOCH", "1700000000")
	t.Chdir("../..")
	file := build(t)
	const module = "pkg:golang/github.com/vishvananda/netlink@"

	var text bytes.Buffer
	if err := run(&text, []string{"sbom", "1.2.3", file}); err != nil {
		t.Fatal(err)
	}
	var b bom
	if err := json.Unmarshal(text.Bytes(), &b); err != nil {
		t.Fatal(err)
	}
	if b.Metadata.Timestamp != "2023-11-14T22:13:20Z" || b.Metadata.Component.Version != "1.2.3" {
		t.Errorf("metadata = %+v", b.Metadata)
	}
	refs := map[string]int{}
	for _, c := range b.Components {
		if c.Type == "library" {
			refs[c.Ref]++
		}
		if strings.HasPrefix(c.Ref, module) && (len(c.Properties) != 1 || !strings.HasPrefix(c.Properties[0].Value, "h1:")) {
			t.Errorf("component %+v, want its hash of go.sum", c)
		}
	}
	for ref, n := range refs {
		if n != 1 {
			t.Errorf("%s is there %d times", ref, n)
		}
	}
	needed := false
	for _, d := range b.Dependencies {
		for _, ref := range d.DependsOn {
			needed = needed || strings.HasPrefix(ref, module)
			if strings.HasPrefix(ref, "pkg:") && refs[ref] == 0 {
				t.Errorf("%s depends on %s, which is no component", d.Ref, ref)
			}
		}
	}
	if !needed {
		t.Errorf("no program depends on %s…", module)
	}

	text.Reset()
	if err := run(&text, []string{"licenses", file}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"==== unlock: LICENSE", "==== the Go standard library", "==== github.com/vishvananda/netlink", "Redistribution and use"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("licenses lack %q", want)
		}
	}
}

func TestMistakes(t *testing.T) {
	t.Setenv("SOURCE_DATE_EPOCH", "")
	for name, row := range map[string]struct {
		args []string
		want string
	}{
		"no arguments":        {nil, "usage"},
		"no program":          {[]string{"sbom", "1.2.3"}, "usage"},
		"no time":             {[]string{"sbom", "1.2.3", "main.go"}, "SOURCE_DATE_EPOCH"},
		"not a program of Go": {[]string{"licenses", "main.go"}, "build information"},
	} {
		t.Run(name, func(t *testing.T) {
			if err := run(t.Output(), row.args); err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("run = %v, want %q", err, row.want)
			}
		})
	}
	if err := writeLicense(t.Output(), "example.com/x", t.TempDir()); err == nil || !strings.Contains(err.Error(), "no license") {
		t.Errorf("writeLicense = %v, want an error", err)
	}
}
