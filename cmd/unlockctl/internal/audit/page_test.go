package audit_test

import (
	"encoding/csv"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"unlock/cmd/unlockctl/internal/audit"
	"unlock/test/cloudtrail"
	"unlock/test/program"
)

// TestPage has tidy validate the page of a run with findings of all kinds. With
// UNLOCK_KEEP_PAGE=FILE it stays, to be looked at.
func TestPage(t *testing.T) {
	t.Parallel()
	program.Need(t, "tidy")
	w := newWorld()
	plantAll(w, fleet(w, 300))
	hostile := w.kms(&machine{public: "192.0.2.44"}, begin, "Decrypt", sealedKey, map[string]string{"<script>": "</svg>&\x1b[31m"})
	hostile.Identity = cloudtrail.Identity{ARN: admin}
	files, keys := w.files()
	files = append(files[:3], files[4:]...)
	q := question
	a := audit.New(q)
	for i := range w.boots {
		a.AddStatus("boot", &w.boots[i])
	}
	r := judge(t, a, files, keys)
	page, err := audit.Page(q, r, `unlockctl audit "<trail>" --report x`, begin.AddDate(0, 0, 2))
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "page.html")
	if keep := os.Getenv("UNLOCK_KEEP_PAGE"); keep != "" {
		file = keep
	}
	if err := os.WriteFile(file, page, 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("tidy", "-errors", "-quiet", "--drop-empty-elements", "no", file).CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("tidy: %v\n%s", err, out)
	}
	text := string(page)
	for _, wrong := range []string{"<script", "src=", "href=", "url(", "@import"} {
		if strings.Contains(text, wrong) {
			t.Errorf("the page has %q in it", wrong)
		}
	}
	for _, f := range r.Findings {
		if !strings.Contains(text, ">"+f.Name+"</td>") {
			t.Errorf("%s is not on the page", f.Name)
		}
	}
	if strings.Index(text, "<h2>Findings") > strings.Index(text, "<h2>Volume") || !strings.Contains(text, r.Files[0].SHA256) || strings.Count(text, "<svg") < 3 {
		t.Error("findings are not first, or the digests of files or the time lines are missing")
	}
}

// TestText: what others wrote cannot move the terminal's cursor, and every call is in
// the table and in the CSV.
func TestText(t *testing.T) {
	t.Parallel()
	w := newWorld()
	m := w.machine()
	w.launched(m, begin, "RunInstances")
	w.boot(m, begin.Add(time.Second), true)
	e := w.kms(&machine{public: "192.0.2.44"}, begin, "Decrypt", sealedKey, map[string]string{"a": "\x1b[31m\nb,\""})
	e.Identity = cloudtrail.Identity{ARN: admin}
	files, keys := w.files()
	r := judge(t, audit.New(question), files, keys)
	var text, table strings.Builder
	if err := audit.Text(&text, r); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(text.String(), "\x1b") || !strings.Contains(text.String(), `\x1b[31m\nb,`) {
		t.Errorf("printed %q", &text)
	}
	if err := audit.CSV(&table, r); err != nil {
		t.Fatal(err)
	}
	rows, err := csv.NewReader(strings.NewReader(table.String())).ReadAll()
	if err != nil || len(rows) != len(r.Calls)+1 || len(r.Calls) != 6 {
		t.Errorf("%d rows for %d calls, %v", len(rows), len(r.Calls), err)
	}
	for _, c := range r.Calls {
		if !slices.ContainsFunc(rows, func(row []string) bool { return slices.Contains(row, c.EventID) }) {
			t.Errorf("%+v is not in the CSV", c)
		}
	}
}
