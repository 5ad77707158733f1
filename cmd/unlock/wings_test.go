package main

import (
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// TestWings holds the layout of the source: the program links what lies below internal/
// and nothing else of ours, and all that lies there is linked.
func TestWings(t *testing.T) {
	t.Parallel()
	out, err := exec.Command("go", "list", "-deps", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	linked := strings.Fields(string(out))
	for _, p := range linked {
		if strings.HasPrefix(p, "unlock/") && p != "unlock/cmd/unlock" && !strings.HasPrefix(p, "unlock/internal/") {
			t.Errorf("unlock links %s, which is not below internal/", p)
		}
	}
	dirs, err := os.ReadDir("../../internal")
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range dirs {
		if !slices.Contains(linked, "unlock/internal/"+d.Name()) {
			t.Errorf("internal/%s is not linked by unlock: it belongs to what uses it", d.Name())
		}
	}
}
