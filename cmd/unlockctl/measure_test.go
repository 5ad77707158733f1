package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"unlock/cmd/unlockctl/internal/measure"
)

// TestMeasure predicts for a small unified kernel image.
func TestMeasure(t *testing.T) {
	t.Parallel()
	call := func(args ...string) (string, string, int) {
		var out, stderr bytes.Buffer
		status := run(t.Context(), append([]string{"measure"}, args...), console{nil, &out, &stderr})
		return out.String(), stderr.String(), status
	}
	const file = "testdata/uki.efi"
	text, stderr, status := call(file)
	if status != 0 || !strings.Contains(text, file+": unified kernel image with systemd-stub 257.9-1\n") || !strings.Contains(text, "Secure Boot is off: the same for every machine, proves nothing") {
		t.Errorf("measure = %d\n%s%s", status, text, stderr)
	}
	out, stderr, status := call("--json", file)
	var p measure.Prediction
	if err := json.Unmarshal([]byte(out), &p); err != nil || status != 0 || len(p.PCRs) != 6 || len(p.Images) != 1 || p.SecureBoot {
		t.Errorf("measure --json = %d, %v\n%s%s", status, err, out, stderr)
	}
	for n, v := range p.PCRs {
		if len(v) != 96 || !strings.Contains(text, v) {
			t.Errorf("PCR %s = %s is not in the text", n, v)
		}
	}
	if _, stderr, status := call(file, file); status != exitUsage || !strings.Contains(stderr, "cannot be predicted") || !strings.Contains(stderr, "hint: attestation takes a unified kernel image") {
		t.Errorf("two images: %d, %s", status, stderr)
	}
}
