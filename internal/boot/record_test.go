package boot_test

import (
	"net/http"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"unlock/internal/block"
	"unlock/internal/boot"
	"unlock/internal/status"
	"unlock/test/pipecloud"
)

// TestRecord: the status says which instance this is, when and how often AWS was asked,
// and which requests each volume's key came from. Not to know the instance costs
// nothing but that.
func TestRecord(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		change func(*machine)
		want   *status.Instance
	}{
		"all":            {want: &status.Instance{ID: "i-0123456789abcdef0", Account: "111122223333", Region: "us-east-1", Image: "ami-0123456789abcdef0"}},
		"no document":    {change: func(m *machine) { m.answer("imds", "/document", http.StatusNotFound, "") }},
		"not a document": {change: func(m *machine) { m.answer("imds", "/document", http.StatusOK, "hello") }},
		"hostile ids": {change: func(m *machine) {
			m.answer("imds", "/document", http.StatusOK, `{"accountId":"111122223333","imageId":"ami-0123456789abcdef0","instanceId":"i-\u001b[31m00000","region":"us-east-1"}`)
		}},
		"the document late": {change: func(m *machine) { m.answer("imds", "/document", -1, "") }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newMachine(t, volume("data", "serial=A")+volume("more", "serial=B"))
			m.start([]block.Disk{m.disk(t, "A", pipecloud.Passphrase), m.disk(t, "B", pipecloud.Passphrase)})
			if row.change != nil {
				row.change(m)
			}
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				if got := m.Disks(t.Context()); got != boot.Done {
					t.Errorf("outcome %d", got)
				}
				if took := time.Since(start); took > 200*time.Millisecond {
					t.Errorf("it took %v", took)
				}
				m.cloud.Wait()
			})
			b := m.status(t)
			if (b.Instance == nil) != (row.want == nil) || row.want != nil && *b.Instance != *row.want {
				t.Errorf("instance %+v, want %+v", b.Instance, row.want)
			}
			var ids []string
			for _, c := range b.Calls {
				ids = append(ids, c.RequestID)
				if c.Attempts != 1 || c.Start < 0 || c.Start > b.Duration || c.Duration < 0 {
					t.Errorf("call %+v of a boot that took %v", c, time.Duration(b.Duration))
				}
			}
			if len(ids) != 2 {
				t.Errorf("requests %q, want one of S3 and one of KMS", ids)
			}
			for _, v := range b.Volumes {
				if !slices.Equal(v.Calls, ids) {
					t.Errorf("volume %s: requests %q, want %q", v.Name, v.Calls, ids)
				}
			}
		})
	}
}
