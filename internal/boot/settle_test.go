package boot_test

import (
	"bytes"
	"context"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"unlock/internal/block"
	"unlock/internal/boot"
	"unlock/internal/netup"
	"unlock/test/pipecloud"
)

// TestSettling: while devices settle the network comes up if the disks of a volume are
// there and need a key, and nothing else happens: what is decided is decided by what is
// there afterwards, and that is when the deadline begins.
func TestSettling(t *testing.T) {
	t.Parallel()
	const settles = 10 * time.Second
	const ours = pipecloud.Passphrase
	data := func(settings ...string) string { return volume("data", "serial=A", settings...) }
	for name, row := range map[string]struct {
		volumes   string
		a, b      string // as in TestDisks
		attested  bool
		change    func(*machine)
		meanwhile func(*testing.T, *machine) // once devices have been looked at
		outcome   boot.Outcome
		takes     time.Duration // in all; 0: settles
		early     bool          // the network is up before devices have settled
		want      []string
		never     []string
	}{
		"open":             {volumes: data(), a: ours, early: true, want: []string{"network up", "settled", "confine to [A]", "map data", "network down", "info: done in 10.0"}},
		"format":           {volumes: data(blank), early: true, want: []string{"network up", "settled", "map data"}},
		"none of a volume": {volumes: data(optional), a: "-", b: ours, want: []string{"settled", "info: no disk for any volume"}, never: []string{"network"}},
		"refused":          {volumes: data(blank), a: "data", outcome: boot.Locked, want: []string{"settled", "error: refusing"}, never: []string{"network"}},
		"another refused":  {volumes: data() + volume("more", "serial=B", blank), a: ours, b: "data", outcome: boot.Locked, want: []string{"settled", "error: refusing"}, never: []string{"network"}},
		"without AWS":      {volumes: volume("data", "instance-store", `format = "ephemeral"`, `key = { source = "ephemeral" }`), b: "-", want: []string{"settled", "map data"}, never: []string{"network"}},
		"skipped":          {volumes: data(), a: ours, change: func(m *machine) { m.Cmdline = "rd.unlock=0" }, takes: 1, want: []string{"warning: skipped"}, never: []string{"settled", "network"}},
		"attested":         {volumes: data(), a: ours, attested: true, want: []string{"settled", "map data"}},
		"written meanwhile": {volumes: data(blank), early: true, outcome: boot.Locked,
			meanwhile: func(t *testing.T, m *machine) { m.disk(t, "A", "data") },
			want:      []string{"network up", "settled", "error: refusing", "error: hint: only blank disks are formatted"}, never: []string{"map"}},
		"open already": {volumes: data(), a: ours, never: []string{"network", "map"}, want: []string{"settled", `info: volume "data": already open A`},
			change: func(m *machine) {
				m.active["data"], m.table = "CRYPT-LUKS2-0a1b2c3d00004000800000000000000f-data", tableOfA("0:0")
			}},
		"KMS is silent": {volumes: data(), a: ours, early: true, outcome: boot.Locked, takes: settles + timeout,
			change: func(m *machine) { m.answer("kms", "", -1, "") }, want: []string{"network up", "settled", "network down", `error: volume "data": decrypting with KMS`}},
		"a late disk": {volumes: data(), a: ours, takes: settles + 20*time.Second,
			change: func(m *machine) {
				m.attach = append([]event{{settled: true}}, event{20 * time.Second, m.attach[0].disks, true})
			},
			want: []string{"settled", `warning: volume "data": waiting`, "network up", "map data"}},
		"no network, in time": {volumes: data(), a: ours, outcome: boot.Locked, takes: settles + timeout, change: never,
			want: []string{"settled", `error: volume "data": bringing up the network: no lease`}},
		"no network, and of no use": {volumes: data(blank), outcome: boot.Locked, change: never,
			meanwhile: func(t *testing.T, m *machine) { m.disk(t, "A", "data") }, want: []string{"settled", "error: refusing"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newMachine(t, row.volumes)
			m.startWith(t, row.a, row.b)
			if row.attested {
				m.attest(t, 0, nil)
			}
			synctest.Test(t, func(t *testing.T) {
				if row.change != nil {
					row.change(m)
				}
				settled := make(chan struct{})
				m.Settled = settled
				start := time.Now()
				done := make(chan struct{})
				var outcome boot.Outcome
				var took time.Duration
				go func() {
					defer close(done)
					outcome = m.Disks(t.Context())
					took = time.Since(start)
				}()
				<-time.After(settles)
				if early := m.noted("network up"); early != row.early {
					t.Errorf("the network is up before devices have settled: %v", early)
				}
				if row.meanwhile != nil {
					row.meanwhile(t, m)
				}
				if row.takes != 1 {
					m.note("settled")
				}
				close(settled)
				<-done
				want := row.takes
				if want == 0 {
					want = settles
				}
				if row.takes != 1 && (took < want || took > want+time.Second) {
					t.Errorf("it took %v, want %v", took, want)
				}
				if outcome != row.outcome {
					t.Errorf("outcome %d, want %d", outcome, row.outcome)
				}
				m.cloud.Wait()
			})
			m.check(t, row.want, row.never)
		})
	}
}

// noted reports whether that is in the journal.
func (m *machine) noted(what string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Contains(m.journal, what)
}

// never has the network never come up.
func never(m *machine) {
	m.Network = func(ctx context.Context, _ boot.Wanted) (boot.Network, error) {
		<-ctx.Done()
		return nil, netup.ErrNoLease
	}
}

// TestInnocent: a part that neither asked AWS nor opened anything says so.
func TestInnocent(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		volumes, content string
		cmdline          string
		want             bool
	}{
		"opens":        {volumes: volume("data", "serial=A"), content: pipecloud.Passphrase},
		"a random key": {volumes: volume("data", "instance-store", `format = "ephemeral"`, `key = { source = "ephemeral" }`)},
		"no disk":      {volumes: volume("data", "serial=B", optional), want: true},
		"skipped":      {volumes: volume("data", "serial=A"), content: pipecloud.Passphrase, cmdline: "rd.unlock=0", want: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newMachine(t, row.volumes)
			m.Cmdline = row.cmdline
			m.start([]block.Disk{m.disk(t, "A", row.content)})
			var said bytes.Buffer
			m.Progress = boot.NewProgress(&said)
			synctest.Test(t, func(t *testing.T) {
				if got := m.Disks(t.Context()); got != boot.Done {
					t.Errorf("outcome %d: %q", got, m.journal)
				}
				m.cloud.Wait()
			})
			if got := strings.Contains(said.String(), "innocent\n"); got != row.want {
				t.Errorf("innocent: %v, want %v", got, row.want)
			}
			said.WriteString("outcome 0\n")
			if _, got, err := boot.Follow(&said); got != row.want || err != nil {
				t.Errorf("Follow: innocent %v, %v; want %v", got, err, row.want)
			}
		})
	}
}
