package trail_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"unlock/cmd/unlockctl/internal/trail"
)

func TestScan(t *testing.T) {
	t.Parallel()
	one, two := `{"eventID":"1","eventSource":"kms.amazonaws.com","a":{"eventSource":"x","b":[1,{"c":"}"}]}}`, `{"eventID":"2","q":"\\\"}\\","eventSource":"s3.amazonaws.com"}`
	quoted, err := json.Marshal(one)
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		name, in string
		want     []string
		err      string // "" for io.EOF
	}{
		{"file", `{"Records":[` + one + `,` + two + `]}`, []string{one, two}, ""},
		{"white space", " {\n\"Records\" : [\n" + one + " ,\t" + two + " ] }\n", []string{one, two}, ""},
		{"empty file", `{"Records":[]}`, nil, ""},
		{"nothing", "", nil, ""},
		{"files one after another", `{"Records":[` + one + `]}{"Records":[` + two + `]}`, []string{one, two}, ""},
		{"further members", `{"Records":[` + one + `],"x":"]}","y":[{}]}` + two, []string{one, two}, ""},
		{"records by themselves", one + "\n" + two + "\n", []string{one, two}, ""},
		{"LookupEvents", `{"Events":[{"EventId":"1","CloudTrailEvent":` + string(quoted) + `}],"NextToken":"x"}`, []string{one}, ""},
		{"LookupEvents without", `{"Events":[{"EventId":"1"}]}`, nil, "no CloudTrail records"},
		{"truncated between", `{"Records":[` + one + `,`, []string{one}, "unexpected EOF"},
		{"truncated within", `{"Records":[` + one + `,` + two[:20], []string{one}, "unexpected EOF"},
		{"truncated string", `{"Records":[{"a":"b`, nil, "unexpected EOF"},
		{"truncated end", `{"Records":[` + one + `]`, []string{one}, "unexpected EOF"},
		{"wrong bracket", `{"Records":[{"a":[}]}`, nil, `'}' at byte 18`},
		{"no object", `[1]`, nil, `'[' at byte 0`},
		{"no array", `{"Records":{}}`, nil, `'{' at byte 11`},
		{"no record", `{"Records":[1]}`, nil, `'1' at byte 12`},
		{"too long", `{"Records":[{"a":"` + strings.Repeat("x", 5<<20), nil, "a record of more than"},
	} {
		t.Run(row.name, func(t *testing.T) {
			for name, r := range map[string]io.Reader{"whole": strings.NewReader(row.in), "by bytes": iotest.OneByteReader(strings.NewReader(row.in))} {
				if len(row.in) > 1<<20 && name != "whole" {
					continue
				}
				s := trail.NewScanner(r)
				var got []string
				var err error
				for {
					var r trail.Raw
					if r, err = s.Next(); err != nil {
						break
					}
					got = append(got, string(r.JSON))
					if want := map[string]string{one: "kms.amazonaws.com", two: "s3.amazonaws.com"}[string(r.JSON)]; r.Source != want {
						t.Errorf("%s: eventSource = %q, want %q", name, r.Source, want)
					}
				}
				if strings.Join(got, "\n") != strings.Join(row.want, "\n") {
					t.Errorf("%s: %q, want %q", name, got, row.want)
				}
				if row.err == "" && err != io.EOF || row.err != "" && (errors.Is(err, io.EOF) || !strings.Contains(err.Error(), row.err)) {
					t.Errorf("%s: %v, want %q", name, err, row.err)
				}
			}
		})
	}
}

// FuzzScan compares the scanner with the decoder of encoding/json, where all records are
// objects.
func FuzzScan(f *testing.F) {
	for _, s := range []string{`{"Records":[{"a":1},{"b":"\\\"}"}]}`, `{"Records":[]}`, `{"Records":[{"a":[{}]}],"z":[[]]}`, `{"Records":[[]]} `, `{"a":{"eventSource":"x"},"eventSource":"y"}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		s := trail.NewScanner(iotest.HalfReader(bytes.NewReader(data)))
		var got [][]byte
		var err error
		for {
			var r trail.Raw
			if r, err = s.Next(); err != nil {
				break
			}
			got = append(got, bytes.Clone(r.JSON))
		}
		var file struct{ Records []json.RawMessage }
		d := json.NewDecoder(bytes.NewReader(data))
		d.DisallowUnknownFields()
		if !bytes.HasPrefix(data, []byte(`{"Records":[`)) || !json.Valid(data) || d.Decode(&file) != nil {
			return // whatever it is, it was survived
		}
		for i, r := range file.Records {
			if !bytes.HasPrefix(r, []byte("{")) {
				if len(got) > i || err == io.EOF {
					t.Errorf("%d records, %v, though number %d is %s", len(got), err, i, r)
				}
				return
			}
		}
		if err != io.EOF || len(got) != len(file.Records) {
			t.Fatalf("%d records, %v; want %d", len(got), err, len(file.Records))
		}
		for i := range got {
			if !bytes.Equal(got[i], file.Records[i]) {
				t.Errorf("record %d = %s, want %s", i, got[i], file.Records[i])
			}
		}
	})
}
