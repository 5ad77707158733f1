package main

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"unlock/cmd/unlockctl/internal/manual"
	"unlock/test/program"
)

// TestManualPages holds the pages in docs/man against what the programs have now.
func TestManualPages(t *testing.T) {
	t.Parallel()
	program.Need(t, "groff")
	for _, name := range manual.Names() {
		var out, stderr bytes.Buffer
		if got := run(t.Context(), []string{"man", name}, console{nil, &out, &stderr}); got != 0 {
			t.Fatalf("man %s: %d, %s", name, got, &stderr)
		}
		file := filepath.Join("../../docs/man", name)
		kept, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(kept, out.Bytes()) {
			t.Errorf("%s is out of date: unlockctl man %s >docs/man/%s", file, name, name)
		}
		cmd := exec.Command("groff", "-man", "-Tutf8", "-ww", "-z")
		cmd.Stdin = &out
		if text, err := cmd.CombinedOutput(); err != nil || len(text) > 0 {
			t.Errorf("%s: %v\n%s", name, err, text)
		}
	}
}

// TestManualComplete: every command and flag is on the page.
func TestManualComplete(t *testing.T) {
	t.Parallel()
	k := newParser(context.Background(), console{nil, os.Stdout, os.Stderr})
	page, _ := manual.Page("unlockctl.8", k.Model)
	page = strings.ReplaceAll(page, `\-`, "-")
	for _, c := range k.Model.Children {
		if !strings.Contains(page, ".SS "+c.Name) || c.Help == "" {
			t.Errorf("command %s is not on the page, or has no help", c.Name)
		}
		for _, f := range c.Flags {
			if !strings.Contains(page, "--"+f.Name) || f.Help == "" {
				t.Errorf("%s --%s is not on the page, or has no help", c.Name, f.Name)
			}
		}
	}
}

// TestBashCompletion asks bash itself.
func TestBashCompletion(t *testing.T) {
	t.Parallel()
	var script, stderr bytes.Buffer
	if got := run(t.Context(), []string{"completion", "bash"}, console{nil, &script, &stderr}); got != 0 {
		t.Fatal(&stderr)
	}
	for typed, want := range map[string]string{
		"ro":                       "rotate",
		"seal --f":                 "--force",
		"seal --kms-key":           "--kms-key",
		"enroll --remove ":         "kms recovery",
		"policy b":                 "bucket",
		"completion z":             "zsh",
		"initramfs --compress n":   "none",
		"enroll --recovery-key --": "",
		"open --f":                 "--format",
		"man unlock.t":             "unlock.toml.5 unlock.toml",
	} {
		words := append([]string{"unlockctl"}, strings.Split(typed, " ")...)
		cmd := exec.Command("bash", "-c", script.String()+`
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
_unlockctl
echo "${COMPREPLY[*]}"`, "bash")
		cmd.Args = append(cmd.Args, words...)
		out, err := cmd.CombinedOutput()
		if got := strings.TrimSpace(string(out)); err != nil || want != "" && got != want || got == "" {
			t.Errorf("%q completes to %q, %v, want %q", typed, got, err, want)
		}
	}
}

// TestBashCompletesFiles: bash has no answer of ours where a file is wanted, and then
// completes names of files; where something else is, it offers neither.
func TestBashCompletesFiles(t *testing.T) {
	t.Parallel()
	var script, stderr bytes.Buffer
	if got := run(t.Context(), []string{"completion", "bash"}, console{nil, &script, &stderr}); got != 0 {
		t.Fatal(&stderr)
	}
	for _, typed := range []string{"doctor --config ", "recover --key-file ", "recover ", "recover --test d", "policy --role ", "seal "} {
		cmd := exec.Command("bash", "-c", script.String()+`
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
_unlockctl
echo "${COMPREPLY[*]}"`, "bash")
		cmd.Args = append(cmd.Args, append([]string{"unlockctl"}, strings.Split(typed, " ")...)...)
		out, err := cmd.CombinedOutput()
		if got := strings.TrimSpace(string(out)); err != nil || got != "" {
			t.Errorf("%q completes to %q, %v, want names of files only", typed, got, err)
		}
	}
}

// TestOtherShells: every command and flag is in the scripts for zsh and fish.
func TestOtherShells(t *testing.T) {
	t.Parallel()
	k := newParser(context.Background(), console{nil, os.Stdout, os.Stderr})
	for shell, flag := range map[string]string{"zsh": "--", "fish": "-l "} {
		var script, stderr bytes.Buffer
		if got := run(t.Context(), []string{"completion", shell}, console{nil, &script, &stderr}); got != 0 {
			t.Fatal(&stderr)
		}
		if bare := strings.ReplaceAll(script.String(), `'\''`, ""); strings.Count(bare, "'")%2 != 0 {
			t.Errorf("%s: unbalanced quotes", shell)
		}
		for _, c := range k.Model.Children {
			for _, f := range c.Flags {
				if !strings.Contains(script.String(), flag+f.Name) {
					t.Errorf("%s: no %s --%s", shell, c.Name, f.Name)
				}
			}
		}
	}
}
