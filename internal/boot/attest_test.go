package boot_test

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"unlock/internal/block"
	"unlock/internal/boot"
	"unlock/internal/ec2/tpm"
	"unlock/internal/hint"
	"unlock/internal/luks"
	"unlock/test/attested"
	"unlock/test/pipecloud"
)

// attest has the machine's keys attested, by a TPM that opens after a while.
func (m *machine) attest(t *testing.T, after time.Duration, err error) *attested.TPM {
	t.Helper()
	m.rewrite(t, "[key.context]", "attest = true\n[key.context]")
	device := attested.NewTPM()
	device.NSM = answering(t, map[int][]byte{4: bytes.Repeat([]byte{4}, 48), 13: make([]byte, 48)})
	m.TPM = func(ctx context.Context) (*tpm.TPM, error) {
		select {
		case <-time.After(after):
		case <-ctx.Done():
			return nil, hint.New("opening the TPM: it is busy", "see who holds it")
		}
		m.note("TPM open")
		return tpm.New(device), err
	}
	return device
}

// answering is a security module of a machine with these PCRs.
func answering(t *testing.T, pcrs map[int][]byte) func(request []byte) []byte {
	return func(request []byte) []byte {
		document, err := attested.Document(request, pcrs)
		if err != nil {
			t.Error(err)
		}
		return attested.Answer(document)
	}
}

// TestAttest: the document is fetched while the rest goes on; the TPM is opened before
// the process is confined, and closed at the end.
func TestAttest(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		after   time.Duration
		err     error
		cmdline string
		disks   int
		outcome boot.Outcome
		journal []string
		never   []string
		says    string
		hint    string
	}{
		"at once":  {disks: 1, journal: []string{"TPM open", "confine to [A]", "map data", "network down"}},
		"busy":     {disks: 1, after: 5 * time.Second, journal: []string{"network up", "TPM open", "confine to [A]", "map data"}},
		"for ever": {disks: 1, after: time.Hour, outcome: boot.Locked, journal: []string{"confine to [A]"}, never: []string{"map data"}, says: "it is busy", hint: "see who holds it"},
		"none": {disks: 1, err: hint.New("there is no TPM", "launch another"), outcome: boot.Locked, never: []string{"map data"},
			says: "asking NitroTPM for an attestation document: there is no TPM", hint: "launch another"},
		"no disk":      {outcome: boot.Locked, never: []string{"TPM open"}, says: "no device"},
		"rd.unlock=0 ": {disks: 1, cmdline: "rd.unlock=0", never: []string{"TPM open"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newMachine(t, volume("data", "serial=A"))
			device := m.attest(t, row.after, row.err)
			m.Cmdline = row.cmdline
			m.start(nil)
			if row.disks > 0 {
				m.start([]block.Disk{m.disk(t, "A", pipecloud.Passphrase)})
			}
			synctest.Test(t, func(t *testing.T) {
				if got := m.Disks(t.Context()); got != row.outcome {
					t.Errorf("outcome %d, want %d", got, row.outcome)
				}
				m.cloud.Wait()
			})
			m.check(t, row.journal, row.never)
			b := m.status(t)
			if !strings.Contains(b.Error, row.says) || !strings.Contains(b.Hint, row.hint) {
				t.Errorf("error %q, hint %q; want %q, %q", b.Error, b.Hint, row.says, row.hint)
			}
			if len(device.Indices) != 0 {
				t.Errorf("indices %v are left", device.Indices)
			}
			if row.outcome != boot.Done || row.cmdline != "" {
				return
			}
			if !device.Closed {
				t.Error("the TPM is still open")
			}
			a := b.Attested
			if a == nil || a.Module != "i-0123456789abcdef0" || len(a.PCRs) != 2 || a.PCRs["4"] != strings.Repeat("04", 48) || a.PCRs["13"] != strings.Repeat("00", 48) {
				t.Errorf("attestation = %+v", a)
			}
			if len(b.Calls) != 2 || b.Calls[1].RequestID == "" {
				t.Errorf("calls = %+v", b.Calls)
			}
		})
	}
}

// TestAttestOptional: a volume that is refused, and need not be there, does not put the
// TPM out of reach of others; one that is required keeps the boot from asking for keys.
func TestAttestOptional(t *testing.T) {
	t.Parallel()
	for required, row := range map[string]struct {
		outcome boot.Outcome
		journal []string
		never   []string
	}{
		"required = false": {boot.Done, []string{"TPM open", "confine to [A]", "map data"}, nil},
		"required = true":  {boot.Locked, nil, []string{"TPM open", "network up", "map data"}},
	} {
		t.Run(required, func(t *testing.T) {
			t.Parallel()
			m := newMachine(t, volume("data", "serial=A")+volume("more", "serial=B", required))
			m.attest(t, time.Second, nil)
			m.start([]block.Disk{m.disk(t, "A", pipecloud.Passphrase), m.disk(t, "B", "data")})
			synctest.Test(t, func(t *testing.T) {
				if got := m.Disks(t.Context()); got != row.outcome {
					t.Errorf("outcome %d, want %d", got, row.outcome)
				}
				m.cloud.Wait()
			})
			m.check(t, row.journal, row.never)
		})
	}
}

// TestAttestRefused: what the TPM refuses for good it is not asked again, by whichever key;
// what passes it is.
func TestAttestRefused(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		fault   func(code uint32, n int) uint32
		garble  func(code uint32, resp []byte) []byte
		outcome boot.Outcome
		defines int // of the index, by which each request begins
		says    string
	}{
		"no vendor command": {fault: always(attested.Vendor, attested.CommandCode), outcome: boot.Locked, defines: 1, says: "response code 0x143"},
		"owner":             {fault: always(attested.Define, attested.BadAuth), outcome: boot.Locked, defines: 1, says: "response code 0x9a2"},
		"no space":          {fault: always(attested.Define, attested.NVSpace), outcome: boot.Locked, defines: 1, says: "no space"},
		"busy, then not": {fault: func(code uint32, n int) uint32 {
			if code == attested.Define && n < 5 {
				return attested.Testing
			}
			return 0
		}, defines: 5},
		"garbled once": {garble: func() func(uint32, []byte) []byte {
			garbled := false
			return func(code uint32, resp []byte) []byte {
				if code == attested.Read && !garbled {
					garbled = true
					return resp[:len(resp)-1]
				}
				return resp
			}
		}(), defines: 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newMachine(t, volume("data", "serial=A")+volume("more", "serial=B", `key = { source = "s3://bucket/other", attest = true, kms_key = "`+pipecloud.KeyARN+`" }`))
			device := m.attest(t, 0, nil)
			device.Fault, device.Garble = row.fault, row.garble
			m.start([]block.Disk{m.disk(t, "A", pipecloud.Passphrase), m.disk(t, "B", pipecloud.Passphrase)})
			synctest.Test(t, func(t *testing.T) {
				if got := m.Disks(t.Context()); got != row.outcome {
					t.Errorf("outcome %d, want %d", got, row.outcome)
				}
				m.cloud.Wait()
			})
			if n := device.Count[attested.Define]; n != row.defines {
				t.Errorf("the TPM was asked %d times, want %d", n, row.defines)
			}
			if b := m.status(t); !strings.Contains(b.Error, row.says) {
				t.Errorf("error %q, want %q", b.Error, row.says)
			}
		})
	}
}

// always is a fault of each command of a kind.
func always(command, rc uint32) func(code uint32, n int) uint32 {
	return func(code uint32, _ int) uint32 {
		if code == command {
			return rc
		}
		return 0
	}
}

// TestAttestOtherImage: KMS' refusal is explained with both PCR 4, this boot's, and that of
// the boot that formatted the volume, which its header keeps.
func TestAttestOtherImage(t *testing.T) {
	t.Parallel()
	one, two := strings.Repeat("04", 48), strings.Repeat("05", 48)
	m := newMachine(t, volume("data", "serial=A", `format = "blank"`))
	device := m.attest(t, 0, nil)
	m.start([]block.Disk{m.disk(t, "A", "")})
	again := func(want boot.Outcome) {
		synctest.Test(t, func(t *testing.T) {
			if got := m.Disks(t.Context()); got != want {
				t.Errorf("outcome %d, want %d", got, want)
			}
			m.cloud.Wait()
		})
		clear(m.active)
	}
	again(boot.Done)
	f, err := os.Open(m.file("A"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h, err := luks.Read(f, diskSize, luks.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	if set, ok, err := h.Set(); !ok || err != nil || set.PCR4 != one || set.State != luks.StateReady {
		t.Errorf("Set = %+v, %v, %v; want PCR 4 %s", set, ok, err, one)
	}
	device.NSM = answering(t, map[int][]byte{4: bytes.Repeat([]byte{5}, 48), 13: make([]byte, 48)})
	m.answer("kms", "", http.StatusBadRequest, `{"__type":"AccessDeniedException"}`)
	again(boot.Locked)
	b := m.status(t)
	if !strings.Contains(b.Hint, "PCR 4 "+two+", ") || !strings.HasSuffix(b.Hint, "; PCR 4 of the boot that formatted the volume was "+one) {
		t.Errorf("hint %q; want %s, and %s as what it was", b.Hint, two, one)
	}
	m.cloud.Answer = nil
	again(boot.Done) // the policy has it now
	if set, _, err := h.Set(); err != nil || set.PCR4 != one {
		t.Errorf("Set = %+v, %v; want PCR 4 %s still", set, err, one)
	}
}

// TestAttestNothing: a program that has no TPM makes no unattested call instead.
func TestAttestNothing(t *testing.T) {
	t.Parallel()
	m := newMachine(t, volume("data", "serial=A"))
	m.attest(t, 0, nil)
	m.TPM = nil
	m.start([]block.Disk{m.disk(t, "A", pipecloud.Passphrase)})
	synctest.Test(t, func(t *testing.T) {
		if got := m.Disks(t.Context()); got != boot.Locked {
			t.Errorf("outcome %d, want %d", got, boot.Locked)
		}
		m.cloud.Wait()
	})
	m.check(t, nil, []string{"map data"})
	if b := m.status(t); len(b.Calls) != 1 || b.Calls[0].Service != "s3" || !strings.Contains(b.Error, "no TPM") {
		t.Errorf("calls %+v, error %q", b.Calls, b.Error)
	}
}

// TestClose: the boot goes on when the door is closed, and not before; a shell comes
// behind it.
func TestClose(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		failures int
		hold     bool
		shell    bool
		outcome  boot.Outcome
		caps     int
		said     int // how often why the boot stops is said, at least
	}{
		"at once":            {outcome: boot.Done, hold: true, caps: 1},
		"in the end":         {failures: 3, hold: true, outcome: boot.Done, caps: 4, said: 3},
		"not held up":        {failures: 1, outcome: boot.Locked, caps: 1, said: 1},
		"no shell meanwhile": {failures: 2, hold: true, shell: true, outcome: boot.Done, caps: 3, said: 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newSupervised()
				s.Hold = row.hold
				caps := 0
				s.Cap = func() error {
					if caps++; caps <= row.failures {
						return fmt.Errorf("busy")
					}
					return nil
				}
				if row.shell {
					s.Shell = func(time.Duration) error { t.Error("a shell is opened"); return nil }
				}
				if got := s.Close(); got != row.outcome || caps != row.caps || s.said("busy") < row.said {
					t.Errorf("Close = %d after %d tries, want %d after %d; the console shows %q", got, caps, row.outcome, row.caps, s.lines)
				}
			})
		})
	}
}

// TestShellCapped: before a shell the door is closed, once.
func TestShellCapped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSupervised(boot.Locked, boot.Locked, boot.Done)
		caps, shells := 0, 0
		s.Cap = func() error { caps++; return nil }
		s.Shell = func(patience time.Duration) error {
			if shells++; caps != 1 {
				t.Errorf("shell %d after %d times", shells, caps)
			}
			time.Sleep(patience)
			return nil
		}
		if got := s.Run(); got != boot.Done || shells < 2 {
			t.Errorf("Run = %d, %d shells", got, shells)
		}
	})
}
