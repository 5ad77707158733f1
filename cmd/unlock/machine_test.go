package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"unlock/internal/hint"
)

// TestResumes: only where the kernel resumes nothing is a boot attested.
func TestResumes(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		state string // what the kernel says; "": it has no such file
		want  string
	}{
		"no hibernation in the kernel": {"", ""},
		"nohibernate":                  {"[disabled]\n", ""},
		"hibernation":                  {"[platform] shutdown reboot suspend test_resume\n", "would resume a system that hibernated"},
	} {
		file := filepath.Join(t.TempDir(), "disk")
		if row.state != "" {
			if err := os.WriteFile(file, []byte(row.state), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		err := resumes(file)
		if row.want == "" && err != nil || row.want != "" && (err == nil || !strings.Contains(err.Error(), row.want) || !strings.Contains(hint.Of(err), "nohibernate")) {
			t.Errorf("%s: %v (hint: %s), want %q", name, err, hint.Of(err), row.want)
		}
	}
}
