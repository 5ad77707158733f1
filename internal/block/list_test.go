package block

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// tree makes a fake sysfs below a temporary directory: "path: content" lines,
// or "path -> target" for links.
func tree(t *testing.T, root, spec string) {
	t.Helper()
	for line := range strings.Lines(spec) {
		line = strings.TrimSpace(line)
		if link, target, ok := strings.Cut(line, " -> "); ok {
			link = filepath.Join(root, link)
			must(t, os.MkdirAll(filepath.Dir(link), 0o755))
			must(t, os.Symlink(target, link))
			continue
		}
		name, content, _ := strings.Cut(line, ": ")
		if name == "" {
			continue
		}
		name = filepath.Join(root, strings.TrimSuffix(name, ":"))
		must(t, os.MkdirAll(filepath.Dir(name), 0o755))
		must(t, os.WriteFile(name, []byte(strings.ReplaceAll(content, `\n`, "\n")+"\n"), 0o644))
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
