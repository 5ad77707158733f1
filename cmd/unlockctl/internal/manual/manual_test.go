package manual_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"

	"unlock/cmd/unlockctl/internal/manual"
	"unlock/internal/config"
	"unlock/test/program"
)

// TestSettings holds the table against the settings that package config decodes.
func TestSettings(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "../../../../internal/config/settings.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	funcs := map[string]*ast.FuncDecl{}
	for _, d := range file.Decls {
		if f, ok := d.(*ast.FuncDecl); ok && strings.HasSuffix(f.Name.Name, "Settings") {
			funcs[f.Name.Name] = f
		}
	}
	var want []string
	var walk func(prefix string, n ast.Node)
	walk = func(prefix string, n ast.Node) {
		ast.Inspect(n, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.KeyValueExpr:
				name, err := strconv.Unquote(n.Key.(*ast.BasicLit).Value)
				if err != nil {
					t.Fatal(err)
				}
				want = append(want, prefix+name)
				if prefix+name != "volume.key" {
					walk(prefix+name+".", n.Value)
				}
				return false
			case *ast.CallExpr:
				if id, ok := n.Fun.(*ast.Ident); ok && funcs[id.Name] != nil {
					walk(prefix, funcs[id.Name].Body)
					return false
				}
			}
			return true
		})
	}
	walk("", funcs["fileSettings"].Body)
	var got []string
	for _, s := range manual.Settings() {
		got = append(got, s.Name)
	}
	slices.Sort(got)
	slices.Sort(want)
	if len(want) < 20 || !slices.Equal(got, want) {
		t.Errorf("the page lists\n%q, config reads\n%q", got, want)
	}
}

func TestExample(t *testing.T) {
	page, _ := manual.Page("unlock.toml.5", nil)
	_, text, _ := strings.Cut(page, ".EX\n")
	text, _, _ = strings.Cut(text, ".EE\n")
	text = strings.NewReplacer(`\-`, "-", `\&`, "").Replace(text)
	if _, err := config.Parse("example", []byte(text)); err != nil {
		t.Errorf("the example: %v\n%s", err, text)
	}
}

// TestRender has man's own formatter read the pages.
func TestRender(t *testing.T) {
	program.Need(t, "groff")
	for _, name := range []string{"unlock.8", "unlock.toml.5"} {
		page, _ := manual.Page(name, nil)
		cmd := exec.Command("groff", "-man", "-Tutf8", "-ww", "-z")
		cmd.Stdin = strings.NewReader(page)
		if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
}
