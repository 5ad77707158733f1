package main

import (
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
)

// TestProxy: a proxy in the environment sees nothing of what is asked of IMDS, which
// speaks HTTP: neither doctor's questions nor those for credentials.
func TestProxy(t *testing.T) {
	t.Parallel()
	var seen atomic.Value
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen.Store(r.Method + " " + r.URL.String())
		w.Header().Set("X-Aws-Ec2-Metadata-Token-Ttl-Seconds", "60")
		w.Write([]byte("a-word"))
	}))
	defer proxy.Close()
	dir := t.TempDir()
	file := filepath.Join(dir, "unlock.toml")
	if err := os.WriteFile(file, []byte(`[key]
source  = "s3://a-bucket/key"
kms_key = "arn:aws:kms:us-east-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
[[volume]]
name   = "a"
device = "instance-store"
`), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"doctor", "--config", file},
		{"seal", "--kms-key", "arn:aws:kms:us-east-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab", "file:" + dir + "/x"},
	} {
		cmd := exec.CommandContext(t.Context(), "unlockctl", args...)
		cmd.Env = []string{"HOME=" + dir, "PATH=" + os.Getenv("PATH"), "HTTP_PROXY=" + proxy.URL, "AWS_MAX_ATTEMPTS=1", "AWS_ENDPOINT_URL=http://127.0.0.1:1"}
		out, err := cmd.CombinedOutput()
		if err == nil {
			t.Errorf("%s succeeds without AWS:\n%s", args[0], out)
		}
		if got := seen.Load(); got != nil {
			t.Errorf("%s: the proxy saw %s", args[0], got)
		}
		if strings.Contains(string(out), "SDK ") {
			t.Errorf("%s prints what the SDK logs:\n%s", args[0], out)
		}
	}
}
