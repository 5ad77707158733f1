package manual_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os/exec"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"unlock/cmd/unlockctl/internal/manual"
	"unlock/internal/config"
)

// TestSettings holds the table against the settings that package config decodes.
func TestSettings(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "../../../../internal/config/parse.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	structs := map[string]*ast.StructType{}
	ast.Inspect(file, func(n ast.Node) bool {
		if s, ok := n.(*ast.TypeSpec); ok {
			if body, ok := s.Type.(*ast.StructType); ok {
				structs[s.Name.Name] = body
			}
		}
		return true
	})
	var want []string
	var walk func(prefix, name string)
	walk = func(prefix, name string) {
		for _, f := range structs[name].Fields.List {
			tag, err := strconv.Unquote(f.Tag.Value)
			if err != nil {
				t.Fatal(err)
			}
			setting := prefix + reflect.StructTag(tag).Get("toml")
			want = append(want, setting)
			kind := f.Type
			if star, ok := kind.(*ast.StarExpr); ok {
				kind = star.X
			}
			if array, ok := kind.(*ast.ArrayType); ok {
				kind = array.Elt
			}
			if id, ok := kind.(*ast.Ident); ok && structs[id.Name] != nil && setting != "volume.key" {
				walk(setting+".", id.Name)
			}
		}
	}
	walk("", "fileTOML")
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
	groff, err := exec.LookPath("groff")
	if err != nil {
		t.Fatal("groff is missing (Debian package groff-base)")
	}
	for _, name := range []string{"unlock.8", "unlock.toml.5"} {
		page, _ := manual.Page(name, nil)
		cmd := exec.Command(groff, "-man", "-Tutf8", "-ww", "-z")
		cmd.Stdin = strings.NewReader(page)
		if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
}
