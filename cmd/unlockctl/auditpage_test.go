package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"unlock/cmd/unlockctl/internal/audit"
	"unlock/test/program"
)

// TestAuditPage runs the lines of docs/audit.md in the account that it describes, and
// wants every finding explained there.
func TestAuditPage(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/audit.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range audit.Rules {
		if row := fmt.Sprintf("| `%s` | %s |", r.Name, r.Text); !strings.Contains(string(page), row) {
			t.Errorf("docs/audit.md has no row\n%s", row)
		}
	}
	if testing.Short() {
		t.Skip("-short: the lines of the page ask the AWS CLI")
	}
	program.Need(t, "aws")
	w := newAuditWorld(t)
	one, err := newInstance(w.cloud)
	if err != nil {
		t.Fatal(err)
	}
	two, err := newInstance(w.cloud)
	if err != nil {
		t.Fatal(err)
	}
	w.cloud.PutObject("a-bucket", "LuksInternalStorageKey", w.cloud.Encrypt(w.key, []byte("correct horse battery staple"), map[string]string{"purpose": "secretfs"}))
	text := strings.ReplaceAll(configOf(t, string(page)), "1234abcd-12ab-34cd-56ef-1234567890ab", filepath.Base(w.key))
	if err := os.WriteFile(w.file("unlock.toml"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	for n, i := range []*instance{one, two, one} {
		if err := i.boot(t.Context(), w.file("unlock.toml"), w.file(fmt.Sprintf("status/%d.json", n))); err != nil {
			t.Fatal(err)
		}
	}
	bin := w.file("bin")
	if err := wrapAWS(bin); err != nil {
		t.Fatal(err)
	}
	env := append(w.environment(t), "PATH="+bin+":"+os.Getenv("PATH"), "KEY="+w.key)
	for _, setting := range env {
		if url, ok := strings.CutPrefix(setting, "AWS_ENDPOINT_URL="); ok {
			env = append(env, "AWS_ENDPOINT_URL_S3="+url)
			break
		}
	}
	// Calls of one second are in the order of their ids. How wide a column is depends
	// on lines that a command leaves out.
	runExamples(t, examples(string(page)), w.dir, env, func(output string) string {
		lines := strings.Split(regexp.MustCompile("  +").ReplaceAllString(output, "  "), "\n")
		slices.Sort(lines)
		return strings.Join(lines, "\n")
	})
}

// configOf returns the configuration that the page shows.
func configOf(t *testing.T, page string) string {
	for _, e := range examples(page) {
		if e.command == "cat unlock.toml\n" {
			return e.output
		}
	}
	t.Fatal("the page has no unlock.toml")
	return ""
}
