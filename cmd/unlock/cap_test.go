package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"unlock/internal/ec2/tpm"
)

// TestLogMeasurement appends a record to systemd's log, where there is one.
func TestLogMeasurement(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "tpm2-measure.log")
	digests := []tpm.Digest{{Bank: "sha256", Sum: []byte{1, 2}}, {Bank: "sha384", Sum: []byte{3}}}
	if err := logMeasurement(file, digests); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(file); err == nil {
		t.Error("a log is made")
	}
	const before = "\x1e{\"pcr\":11}\n"
	if err := os.WriteFile(file, []byte(before), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := logMeasurement(file, digests); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	record, ok := strings.CutPrefix(string(data), before+"\x1e")
	if !ok || !strings.HasSuffix(record, "}\n") {
		t.Fatalf("the log is %q", data)
	}
	var got struct {
		PCR     int
		Digests []struct{ HashAlg, Digest string }
		Type    string `json:"content_type"`
		Content struct {
			String, BootID string
			Timestamp      int64
		}
	}
	if err := json.Unmarshal([]byte(record), &got); err != nil {
		t.Fatal(err)
	}
	if got.PCR != 13 || len(got.Digests) != 2 || got.Digests[0].HashAlg != "sha256" || got.Digests[0].Digest != "0102" || got.Type != "systemd" ||
		got.Content.String != "unlock: key released" || len(got.Content.BootID) != 32 || got.Content.Timestamp <= 0 {
		t.Errorf("the record is %s", record)
	}
}
