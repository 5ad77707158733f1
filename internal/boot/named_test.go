package boot_test

import (
	"bytes"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"unlock/internal/block"
	"unlock/internal/boot"
	"unlock/test/pipecloud"
)

// TestNamedContext: where the encryption context names the instance, KMS is asked once
// IMDS has said who that is, for which the boot waits as long as it may.
func TestNamedContext(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		refusals int32 // of IMDS to say it, before it does
		outcome  boot.Outcome
		says     string
	}{
		"at once":    {0, boot.Done, ""},
		"in the end": {3, boot.Done, ""},
		"never":      {1 << 30, boot.Locked, "asking who this instance is: GET /latest/dynamic/instance-identity/document: 503 Service Unavailable"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newMachine(t, volume("data", "serial=A"))
			text, err := os.ReadFile(m.Config)
			if err != nil {
				t.Fatal(err)
			}
			m.write(t, "unlock.toml", bytes.Replace(text, []byte(`"test"`), []byte(`"${instance-id}"`), 1))
			m.start([]block.Disk{m.disk(t, "A", pipecloud.Passphrase)})
			var refused, early atomic.Int32
			m.cloud.Answer = func(service string, r *http.Request) (int, string) {
				switch {
				case strings.HasSuffix(r.URL.Path, "/instance-identity/document") && refused.Add(1) <= row.refusals:
					return http.StatusServiceUnavailable, ""
				case service == "kms" && refused.Load() <= row.refusals:
					early.Add(1)
				}
				return 0, ""
			}
			synctest.Test(t, func(t *testing.T) {
				if got := m.Disks(t.Context()); got != row.outcome {
					t.Errorf("outcome %d, want %d", got, row.outcome)
				}
				m.cloud.Wait()
			})
			if n := early.Load(); n > 0 {
				t.Errorf("KMS was asked %d times before it was known who asks", n)
			}
			b := m.status(t)
			if !strings.Contains(b.Error, row.says) || (b.Hint == "") != (row.says == "") {
				t.Errorf("error %q, hint %q, want %q and a hint", b.Error, b.Hint, row.says)
			}
			if known := b.Instance != nil && b.Instance.ID == "i-0123456789abcdef0"; known != (row.outcome == boot.Done) {
				t.Errorf("instance %+v", b.Instance)
			}
		})
	}
}
