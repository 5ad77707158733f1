package audit_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"unlock/cmd/unlockctl/internal/audit"
	"unlock/cmd/unlockctl/internal/trail"
)

// TestFiles puts files into the trail that do not belong there, or are damaged: each is
// reported, and the rest is read and counted.
func TestFiles(t *testing.T) {
	t.Parallel()
	content := func(f trail.File) []byte {
		r, _, err := f.Open(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	file := func(name string, data []byte) trail.File {
		return trail.File{Bucket: "trail", Name: name, Open: func(context.Context) (io.ReadCloser, map[string]string, error) {
			return io.NopCloser(bytes.NewReader(data)), nil, nil
		}}
	}
	const other = "AWSLogs/111122223333/Config/us-east-1/111122223333_Config_us-east-1.json.gz"
	for _, row := range []struct {
		name     string
		do       func(files []trail.File, log int) []trail.File
		findings string // names
		notes    string // in them
		lost     int    // calls that are missing
		counts   func(c audit.Counts) bool
	}{
		{name: "as delivered", do: func(f []trail.File, _ int) []trail.File { return f }},
		{name: "reordered", do: func(f []trail.File, _ int) []trail.File { slices.Reverse(f); return f }},
		{name: "truncated", do: func(f []trail.File, log int) []trail.File {
			data := content(f[log])
			f[log] = file(f[log].Name, data[:len(data)/2])
			return f
		}, findings: "file-unreadable", lost: 1},
		{name: "corrupted", do: func(f []trail.File, log int) []trail.File {
			data := content(f[log])
			data[len(data)/2] ^= 0xff
			f[log] = file(f[log].Name, data)
			return f
		}, findings: "file-unreadable", lost: 1},
		{name: "empty", do: func(f []trail.File, log int) []trail.File {
			f[log] = file(f[log].Name, nil)
			return f
		}, findings: "file-changed", lost: 1},
		{name: "of another content", do: func(f []trail.File, log int) []trail.File {
			f[log] = file(f[log].Name, []byte(`{"hello":1}`))
			return f
		}, findings: "file-unreadable", lost: 1},
		{name: "duplicated", do: func(f []trail.File, log int) []trail.File {
			return append(f, file("elsewhere/"+f[log].Name[strings.LastIndexByte(f[log].Name, '/')+1:]+".copy", content(f[log])))
		}, notes: "the same as", counts: func(c audit.Counts) bool { return c.Duplicate > 0 }},
		{name: "foreign", do: func(f []trail.File, _ int) []trail.File {
			return append(f, file(other, []byte(`{"fileVersion":"1.0","configurationItems":[]}`)), file("readme.txt", []byte("hello")))
		}, notes: "not CloudTrail's"},
		{name: "not decodable", do: func(f []trail.File, _ int) []trail.File {
			return append(f, file("AWSLogs/x.json", []byte(`{"Records":[{"eventSource":"kms.amazonaws.com","eventTime":5,"a":"`+sealedKey+`"}]}`)))
		}, findings: "record-skipped", counts: func(c audit.Counts) bool { return c.Skipped == 1 }},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld()
			for i := range 3 {
				m := w.machine()
				w.launched(m, begin.Add(time.Duration(i)*10*time.Minute), "RunInstances")
				w.boot(m, begin.Add(time.Duration(i)*10*time.Minute+time.Second), true)
			}
			files, keys := w.files()
			total := len(w.events)
			log := slices.IndexFunc(files, func(f trail.File) bool { _, ok := trail.Delivered(f.Name); return ok })
			r := judge(t, audit.New(question), row.do(files, log), keys)
			var names []string
			for _, f := range r.Findings {
				names = append(names, f.Name)
			}
			if got := strings.Join(names, " "); got != row.findings {
				t.Errorf("findings %q, want %q: %+v", got, row.findings, r.Findings)
			}
			if row.notes != "" && !strings.Contains(fmt.Sprint(r.Notes), row.notes) || row.notes == "" && len(r.Notes) > 0 {
				t.Errorf("notes %v, want %q", r.Notes, row.notes)
			}
			c := r.Counts
			if c.Read != c.Ours+c.Other+c.Outside+c.Duplicate+c.Skipped || row.counts != nil && !row.counts(c) {
				t.Errorf("counts %+v", c)
			}
			if row.lost == 0 && c.Ours != int64(total) || row.lost > 0 && c.Ours >= int64(total) {
				t.Errorf("%d of %d records concern it", c.Ours, total)
			}
		})
	}
}

// TestAttested wants documents where they are asked for.
func TestAttested(t *testing.T) {
	t.Parallel()
	w := newWorld()
	m := &machine{id: "i-0123456789abcdef0", addr: "172.31.5.10", kmsVia: kmsDoor, key: "ASIAEXAMPLE", created: begin}
	w.kms(m, begin, "Decrypt", sealedKey, purposeSecret)
	w.kms(m, begin.Add(time.Second), "Decrypt", sealedKey, purposeData).Additional = map[string]any{
		"recipient": map[string]any{"attestationDocumentModuleId": m.id + "-tpm0000000000000000", "attestationDocumentNitroTPMPCR4": pcr4}}
	files, keys := w.files()
	q := question
	q.Attested, q.PCRs = true, map[int]string{4: strings.ToUpper(pcr4)}
	r := judge(t, audit.New(q), files, keys)
	if len(r.Findings) != 1 || r.Findings[0].Name != "unattested" || r.Findings[0].Call.Volumes[0] != "secretfs" {
		t.Errorf("findings %+v, want one", r.Findings)
	}
	if c := r.Calls[1]; c.PCRs["PCR4"] != pcr4 || !strings.HasPrefix(c.Attested, m.id) {
		t.Errorf("attested call %+v", c)
	}
}

// TestRange keeps to --since and --until, and still knows what came before.
func TestRange(t *testing.T) {
	t.Parallel()
	w := newWorld()
	m := w.machine()
	w.launched(m, begin, "RunInstances")
	w.boot(m, begin.Add(time.Second), true)
	w.session(m, begin.Add(2*time.Hour))
	again := w.kms(m, begin.Add(2*time.Hour), "GenerateDataKey", headerKey, bound(m.set))
	w.kms(m, begin.Add(4*time.Hour), "GenerateDataKey", headerKey, bound(m.set))
	files, keys := w.files()
	q := question
	q.Since, q.Until = begin.Add(time.Hour), begin.Add(3*time.Hour)
	r := judge(t, audit.New(q), files, keys)
	if len(r.Calls) != 1 || r.Calls[0].EventID != again.EventID || !slices.Contains(r.Calls[0].Findings, "set-exists") {
		t.Errorf("calls %+v, want the second GenerateDataKey", r.Calls)
	}
	if c := r.Counts; c.Outside != int64(len(w.events))-2 {
		t.Errorf("counts %+v of %d", c, len(w.events))
	}
}

// TestStatus misses the calls of a boot in the trail.
func TestStatus(t *testing.T) {
	t.Parallel()
	w := newWorld()
	m := w.machine()
	w.boot(m, begin, true)
	w.boot(m, begin.Add(time.Hour), false)
	w.boot(m, begin.Add(2*time.Hour), false)
	lost := w.boots[1].Calls[1].RequestID
	for i, e := range w.events {
		if e.RequestID == lost {
			w.events = slices.Delete(w.events, i, i+1)
			break
		}
	}
	files, keys := w.files()
	a := audit.New(question)
	for i := range w.boots {
		a.AddStatus(fmt.Sprint("boot", i), &w.boots[i])
	}
	r := judge(t, a, files, keys)
	if len(r.Findings) != 1 || r.Findings[0].Name != "boot-without-call" || r.Findings[0].File != "boot1" || !strings.Contains(r.Findings[0].Why, lost) {
		t.Errorf("findings %+v, want that of request %s", r.Findings, lost)
	}
}
