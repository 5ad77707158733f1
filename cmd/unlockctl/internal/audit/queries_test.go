//go:build athena

package audit_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"unlock/cmd/unlockctl/internal/audit"
)

// deployments are what the templates can make: the view's words, and the question that
// the command is asked with the configuration which they print.
var deployments = map[string]struct {
	words    map[string]string
	question audit.Question
}{
	"s3": {map[string]string{"key": sealedKey, "purpose": "secretfs", "role": "unlock", "bucket": bucket, "object": object, "source": "s3", "instance_store": "true"},
		audit.Question{Keys: question.Keys[:1], Roles: question.Roles, Window: question.Window}},
	"header": {map[string]string{"key": headerKey, "purpose": "scratch", "role": "unlock", "bucket": "", "object": "", "source": "header", "instance_store": "true"},
		audit.Question{Keys: question.Keys[1:2], Roles: question.Roles, Window: question.Window}},
}

// TestQueries: the view of deploy/ has the calls that the command lists, and finds on each
// what it finds, among a thousand boots and all acts that are planted. Athena is not to be
// had; test/athena says who judges in its place. make deploy-test brings it.
func TestQueries(t *testing.T) {
	engine := os.Getenv("UNLOCK_ATHENA")
	if engine == "" {
		t.Fatal("UNLOCK_ATHENA does not name the directory of the engine; make deploy-test sets it")
	}
	w := newWorld()
	plantAll(w, fleet(w, 1000))
	twins(w)
	for range 2 {
		m := w.machine()
		at := func(seconds int) time.Time { return begin.Add(time.Duration(seconds) * time.Second) }
		w.launched(m, at(0), "RunInstances")
		w.boot(m, at(20), true)
		w.launched(m, at(170), "StartInstances") // the same start
		w.boot(m, at(195), false)
		w.launched(m, at(400), "RebootInstances")
		moved := w.kms(m, at(410), "Decrypt", sealedKey, purposeSecret)
		moved.Address, moved.Endpoint = "172.31.200.1", kmsDoor
		e := w.kms(m, at(500), "Decrypt", sealedKey, purposeSecret)
		e.Address = "lambda.amazonaws.com"
		odd := w.machine() // whose first call is from no address
		w.session(odd, at(0))
		w.kms(odd, at(20), "Decrypt", sealedKey, purposeSecret).Address = "lambda.amazonaws.com"
		later := w.machine() // whose first call is from another address than it was launched with
		later.kmsVia, later.s3Via = kmsDoor, s3Door
		w.launched(later, at(0), "RunInstances")
		later.addr = "172.31.200.2"
		w.boot(later, at(20), true)
	}
	w.events = append(w.events, w.events[100:200]...) // delivered twice
	table := rows(t, w)
	files, keys := w.files()
	for name, d := range deployments {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := judge(t, audit.New(d.question), files, keys)
			want := map[string]string{}
			kinds := map[string]int{}
			for _, c := range r.Calls {
				found := slices.Compact(slices.Sorted(slices.Values(c.Findings)))
				want[c.EventID] = strings.Join(found, " ")
				for _, f := range found {
					kinds[f]++
				}
			}
			answers := query(t, engine, table, d.words, "view.sql", "SELECT * FROM audit", "who.sql", "found.sql", "denied.sql")
			got := map[string]string{}
			for _, row := range answers[1] {
				found := strings.Fields(row["found"])
				slices.Sort(found)
				got[row["eventid"]] = strings.Join(found, " ")
			}
			for id, found := range want {
				if g, ok := got[id]; !ok || g != found {
					t.Errorf("the view has %q (there: %v), the command %q: %s", g, ok, found, describe(w, id))
				}
			}
			for id, found := range got {
				if _, ok := want[id]; !ok {
					t.Errorf("the view has %q, the command has no such call: %s", found, describe(w, id))
				}
			}
			t.Logf("%d calls, with the findings %v", len(got), kinds)
			for i, fits := range []func(c *audit.Call) bool{
				func(c *audit.Call) bool { return c.Outcome == "ok" && having[c.Operation] },
				func(c *audit.Call) bool { return len(c.Findings) > 0 },
				func(c *audit.Call) bool { return c.Outcome != "ok" || revoking[c.Operation] },
			} {
				n := 0
				for _, c := range r.Calls {
					if fits(c) {
						n++
					}
				}
				if len(answers[2+i]) != n {
					t.Errorf("query %d has %d rows, want %d", i, len(answers[2+i]), n)
				}
			}
		})
	}
}

// having are the operations that give the key, or its ciphertext.
var having = map[string]bool{"Decrypt": true, "ReEncrypt": true, "GenerateDataKey": true, "GetObject": true}

var revoking = map[string]bool{"DisableKey": true, "EnableKey": true, "ScheduleKeyDeletion": true, "CancelKeyDeletion": true, "PutKeyPolicy": true, "RevokeGrant": true, "RetireGrant": true}

// filled is a query of deploy/ as the templates fill it in, or one that is given.
func filled(t *testing.T, name string, words map[string]string) string {
	t.Helper()
	if !strings.HasSuffix(name, ".sql") {
		return name
	}
	text, err := os.ReadFile(deployed + name)
	if err != nil {
		t.Fatal(err)
	}
	s := string(text)
	for word, value := range words {
		s = strings.ReplaceAll(s, "${"+word+"}", value)
	}
	if strings.Contains(s, "${") {
		t.Fatalf("%s has a word that nobody fills in: %s", name, s)
	}
	return s
}

// query runs statements and returns the rows of each.
func query(t *testing.T, engine, table string, words map[string]string, statements ...string) [][]map[string]string {
	t.Helper()
	job := map[string]any{"file": table, "columns": columns(t)}
	var texts []string
	for _, s := range statements {
		texts = append(texts, filled(t, s, words))
	}
	job["statements"] = texts
	in, err := json.Marshal(job)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "node", "../../../../test/athena/run.mjs", engine)
	cmd.Stdin = bytes.NewReader(in)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, &stderr)
	}
	var list [][]map[string]any
	if err := json.Unmarshal(out, &list); err != nil {
		t.Fatal(err)
	}
	answers := make([][]map[string]string, len(list))
	for i, rows := range list {
		for _, row := range rows {
			text := map[string]string{}
			for name, v := range row {
				text[name], _ = v.(string)
			}
			answers[i] = append(answers[i], text)
		}
	}
	return answers
}

// columns are those of the table, as DuckDB has Hive's types.
func columns(t *testing.T) map[string]string {
	t.Helper()
	data, err := os.ReadFile(deployed + "columns.json")
	if err != nil {
		t.Fatal(err)
	}
	list := map[string]string{}
	if err := json.Unmarshal(data, &list); err != nil {
		t.Fatal(err)
	}
	for name, hive := range list {
		kind, rest := duckType(hive)
		if rest != "" {
			t.Fatalf("%s: %q is left of %q", name, rest, hive)
		}
		list[name] = kind
	}
	return list
}

// duckType takes a type off the front of text: string, struct<name:type,…>, array<type>.
func duckType(text string) (kind, rest string) {
	if inner, ok := strings.CutPrefix(text, "array<"); ok {
		kind, rest = duckType(inner)
		return kind + "[]", strings.TrimPrefix(rest, ">")
	}
	inner, ok := strings.CutPrefix(text, "struct<")
	if !ok {
		return "VARCHAR", strings.TrimPrefix(text, "string")
	}
	var fields []string
	for ok := true; ok; inner, ok = strings.CutPrefix(inner, ",") {
		name, after, _ := strings.Cut(inner, ":")
		kind, inner = duckType(after)
		fields = append(fields, name+" "+kind)
	}
	return "STRUCT(" + strings.Join(fields, ", ") + ")", strings.TrimPrefix(inner, ">")
}

// rows writes the records as the table of Athena has them: its input format makes text of
// the elements whose form depends on the call, and the names of columns have no capitals.
func rows(t *testing.T, w *world) string {
	t.Helper()
	var out bytes.Buffer
	for _, e := range w.events {
		var r map[string]json.RawMessage
		if err := json.Unmarshal(e.JSON(), &r); err != nil {
			t.Fatal(err)
		}
		row := map[string]any{}
		for name, value := range r {
			if string(value) == "null" {
				continue
			}
			switch name {
			case "requestParameters", "responseElements", "additionalEventData", "readOnly":
				row[strings.ToLower(name)] = string(value)
			default:
				var v any
				if err := json.Unmarshal(value, &v); err != nil {
					t.Fatal(err)
				}
				row[strings.ToLower(name)] = small(v)
			}
		}
		data, err := json.Marshal(row)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&out, "%s\n", data)
	}
	file := filepath.Join(t.TempDir(), "records.json")
	if err := os.WriteFile(file, out.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// small writes the names of members small.
func small(v any) any {
	switch v := v.(type) {
	case map[string]any:
		m := map[string]any{}
		for name, e := range v {
			m[strings.ToLower(name)] = small(e)
		}
		return m
	case []any:
		for i := range v {
			v[i] = small(v[i])
		}
	}
	return v
}
