package tpm_test

import (
	"bytes"
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"unlock/internal/ec2/tpm"
	"unlock/internal/hint"
	"unlock/test/attested"
	"unlock/test/program"
)

// number is that of the index which the package uses.
const number = 0x0180756c

func echo(request []byte) []byte { return append([]byte("answer to "), request...) }

var be = binary.BigEndian

func TestRequest(t *testing.T) {
	t.Parallel()
	foreign := bytes.Clone(attested.Mine)
	foreign[5] = 6 // OWNERWRITE
	small := append(bytes.Clone(attested.Mine[:8]), 0x10, 0x00)
	written := bytes.Clone(attested.Mine)
	written[2] |= 0x20
	policy := append(append(bytes.Clone(attested.Mine[:6]), 0, 1, 7), attested.Mine[8:]...)
	at := func(code uint32, n int, rc uint32) func(*attested.TPM) {
		return func(f *attested.TPM) {
			f.Fault = func(c uint32, i int) uint32 {
				if c == code && i <= n {
					return rc
				}
				return 0
			}
		}
	}
	left := func(public []byte) func(*attested.TPM) {
		return func(f *attested.TPM) {
			f.Indices[number] = &attested.NV{Public: bytes.Clone(public), Data: make([]byte, 8192)}
		}
	}
	const ever = 1 << 30
	for name, row := range map[string]struct {
		prepare func(*attested.TPM)
		says    string // "" for success
		hint    string
		keeps   bool // the index
	}{
		"as it should be":     {prepare: func(*attested.TPM) {}},
		"large chunks":        {prepare: func(f *attested.TPM) { f.Chunk = 2048 }},
		"larger than we take": {prepare: func(f *attested.TPM) { f.Chunk = 65000 }},
		"small chunks":        {prepare: func(f *attested.TPM) { f.Chunk = 100 }},
		"left over":           {prepare: left(attested.Mine)},
		"left over, written":  {prepare: left(written)},
		"foreign attributes":  {left(foreign), "is taken", "another program's", true},
		"foreign size":        {left(small), "is taken", "another program's", true},
		"foreign policy":      {left(policy), "is taken", "another program's", true},
		"retry":               {prepare: at(attested.Vendor, 3, attested.Retry)},
		"yielded":             {prepare: at(attested.Define, 3, attested.Yielded)},
		"testing":             {prepare: at(attested.Write, 3, attested.Testing)},
		"retry for ever":      {at(attested.Write, ever, attested.Retry), "TPM2_NV_Write: response code 0x922", "stays busy", false},
		"no vendor command":   {func(f *attested.TPM) { f.NSM = nil }, "TPM2_VENDOR_AWS_NSM_REQUEST: response code 0x143", "instance type", false},
		"owner auth":          {at(attested.Define, ever, attested.BadAuth), "response code 0x9a2", "owner authorization", false},
		"lockout":             {at(attested.Define, ever, attested.Lockout), "response code 0x921", "locked", false},
		"no space": {func(f *attested.TPM) {
			f.Indices[0x01800001] = &attested.NV{Public: bytes.Clone(attested.Mine), Data: nil}
			at(attested.Define, ever, attested.NVSpace)(f)
		}, "no space for an NV index of 8192 bytes, with 0x1800001 (8192 bytes)", "tpm2_nvundefine", false},
		"undefining fails": {at(attested.Undefine, ever, 0x101), "TPM2_NV_UndefineSpace: response code 0x101", "", true},
		"reading fails":    {at(attested.Read, ever, 0x101), "TPM2_NV_Read: response code 0x101", "", false},
		"truncated": {func(f *attested.TPM) {
			f.Garble = func(code uint32, resp []byte) []byte {
				if code == attested.Read {
					return resp[:len(resp)/2]
				}
				return resp
			}
		}, "reading the response to TPM2_NV_Read", "kernel's messages", false},
		"truncated within": {func(f *attested.TPM) {
			f.Garble = func(code uint32, resp []byte) []byte {
				if code == attested.Read {
					resp = resp[:len(resp)/2]
					be.PutUint32(resp[2:], uint32(len(resp)))
				}
				return resp
			}
		}, "the response to TPM2_NV_Read is malformed", "kernel's messages", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := attested.NewTPM()
				f.NSM = func(r []byte) []byte { return echo(r) }
				row.prepare(f)
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				request := bytes.Repeat([]byte("request "), 50)
				got, err := tpm.New(f).Request(ctx, request)
				if row.says == "" {
					if err != nil || len(got) != 8192 || !bytes.HasPrefix(got, echo(request)) {
						t.Errorf("Request = %d bytes, %.40q, %v", len(got), got, err)
					}
				} else if err == nil || !strings.Contains(err.Error(), row.says) || !strings.Contains(hint.Of(err), row.hint) {
					t.Errorf("Request = %v (hint: %s), want %q and %q", err, hint.Of(err), row.says, row.hint)
				}
				if _, kept := f.Indices[number]; kept != row.keeps {
					t.Errorf("the index is there: %v, want %v", kept, row.keeps)
				}
			})
		})
	}
}

// TestLate undefines the index also when there is no time left.
func TestLate(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	f := attested.NewTPM()
	f.Fault = func(code uint32, _ int) uint32 {
		if code == attested.Vendor {
			cancel()
			return attested.Retry
		}
		return 0
	}
	if _, err := tpm.New(f).Request(ctx, []byte("request")); err == nil {
		t.Error("no error")
	}
	if len(f.Indices) != 0 {
		t.Errorf("left: %v", f.Indices)
	}
}

// TestOpen waits for a device that is busy or late, and does not confuse one that is not
// there with one that fails.
func TestOpen(t *testing.T) {
	t.Parallel()
	none := filepath.Join(t.TempDir(), "tpm0")
	synctest.Test(t, func(t *testing.T) {
		begun := time.Now()
		_, err := tpm.Open(t.Context(), none)
		if !errors.Is(err, os.ErrNotExist) || !strings.Contains(hint.Of(err), "--tpm-support v2.0 --boot-mode uefi") {
			t.Errorf("Open = %v (hint: %s)", err, hint.Of(err))
		}
		if waited := time.Since(begun); waited < 5*time.Second || waited > 6*time.Second {
			t.Errorf("after %v, want 5 s", waited)
		}
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := tpm.Open(short, none); !errors.Is(err, os.ErrNotExist) || hint.Of(err) == "" {
			t.Errorf("Open = %v (hint: %s)", err, hint.Of(err))
		}
		time.AfterFunc(3*time.Second, func() { os.WriteFile(none, nil, 0o600) })
		late, err := tpm.Open(t.Context(), none)
		if err != nil {
			t.Fatal(err)
		}
		if err := late.Close(); err != nil {
			t.Error(err)
		}
	})
	if _, err := tpm.Open(t.Context(), t.TempDir()); !errors.Is(err, unix.EISDIR) {
		t.Errorf("Open = %v, want EISDIR", err)
	}
}

// TestBlocking: a device is read from in blocking mode. A FIFO stands for it, which Go
// would poll, too.
func TestBlocking(t *testing.T) {
	t.Parallel()
	fifo := filepath.Join(t.TempDir(), "tpm0")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	device, err := tpm.Open(t.Context(), fifo)
	if err != nil {
		t.Fatal(err)
	}
	defer device.Close()
	fds, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	found := false
	for _, fd := range fds {
		if to, _ := os.Readlink(fd); to != fifo {
			continue
		}
		found = true
		info, err := os.ReadFile(strings.Replace(fd, "/fd/", "/fdinfo/", 1))
		if err != nil {
			t.Fatal(err)
		}
		// O_CLOEXEC and O_RDWR, without O_NONBLOCK
		if !strings.Contains(string(info), "flags:\t02100002\n") && !strings.Contains(string(info), "flags:\t02000002\n") {
			t.Errorf("%s", info)
		}
	}
	if !found {
		t.Errorf("%s is not open", fifo)
	}
}

// swtpm starts a TPM that others wrote, and returns a connection to it.
func swtpm(t *testing.T) net.Conn {
	t.Helper()
	program.Need(t, "swtpm")
	dir := t.TempDir()
	socket := filepath.Join(dir, "socket")
	cmd := exec.Command("swtpm", "socket", "--tpm2", "--server", "type=unixio,path="+socket, "--tpmstate", "dir="+dir, "--flags", "not-need-init,startup-clear")
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	for {
		conn, err := net.Dial("unix", socket)
		if err == nil {
			t.Cleanup(func() { conn.Close() })
			return conn
		}
		select {
		case <-t.Context().Done():
			t.Fatal(err)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// TestPCR reads and extends PCRs of a real TPM, in all of its banks.
func TestPCR(t *testing.T) {
	t.Parallel()
	real := tpm.New(swtpm(t))
	value := func(bank tpm.Bank, pcr int) []byte {
		t.Helper()
		v, err := real.PCR(t.Context(), bank, pcr)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	if got := value(tpm.SHA384, 13); !bytes.Equal(got, make([]byte, 48)) {
		t.Errorf("PCR 13 = %x", got)
	}
	digests, err := real.Extend(t.Context(), 13, "event")
	if err != nil {
		t.Fatal(err)
	}
	s1, s2, s3, s5 := sha1.Sum([]byte("event")), sha256.Sum256([]byte("event")), sha512.Sum384([]byte("event")), sha512.Sum512([]byte("event"))
	want := []tpm.Digest{{"sha1", s1[:]}, {"sha256", s2[:]}, {"sha384", s3[:]}, {"sha512", s5[:]}}
	for i, d := range digests {
		if len(digests) != len(want) || d.Bank != want[i].Bank || !bytes.Equal(d.Sum, want[i].Sum) {
			t.Errorf("digests = %x, want %x", digests, want)
			break
		}
	}
	extended := sha512.Sum384(append(make([]byte, 48), s3[:]...))
	if got := value(tpm.SHA384, 13); !bytes.Equal(got, extended[:]) {
		t.Errorf("PCR 13 = %x, want %x", got, extended)
	}
	extended256 := sha256.Sum256(append(make([]byte, 32), s2[:]...))
	if got := value(0x000b, 13); !bytes.Equal(got, extended256[:]) {
		t.Errorf("PCR 13 = %x, want %x", got, extended256)
	}
	if got := value(tpm.SHA384, 12); !bytes.Equal(got, make([]byte, 48)) {
		t.Errorf("PCR 12 = %x", got)
	}
	if v, err := real.PCR(t.Context(), 0x0012, 0); err == nil && v != nil { // SM3, which it lacks
		t.Errorf("a bank that there is not has %x", v)
	}
}

// TestBanks: without the bank that is attested nothing is extended, as with none at all.
func TestBanks(t *testing.T) {
	t.Parallel()
	for name, list := range map[string][]byte{
		"none":             {0, 0, 0, 0},
		"SHA-256":          {0, 0, 0, 1, 0, 0x0b, 3, 0xff, 0xff, 0xff},
		"SHA-384 in part":  {0, 0, 0, 1, 0, 0x0c, 3, 0xff, 0xdf, 0xff},
		"SHA-384, too few": {0, 0, 0, 1, 0, 0x0c, 1, 0xff},
		"cut off":          {0, 0, 0, 2, 0, 0x0c, 3, 0xff, 0xff, 0xff},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := attested.NewTPM()
			f.Garble = func(_ uint32, resp []byte) []byte {
				resp = append(append(resp[:10:10], 0, 0, 0, 0, 5), list...)
				be.PutUint32(resp[2:], uint32(len(resp)))
				be.PutUint32(resp[6:], 0)
				return resp
			}
			if _, err := tpm.New(f).Extend(t.Context(), 13, "event"); err == nil || f.Count[attested.PCRExtend] > 0 {
				t.Errorf("Extend = %v after %d commands", err, f.Count[attested.PCRExtend])
			}
		})
	}
}

// large lets a real TPM, which takes indices of 2048 bytes at most, seem to have ours,
// and its vendor command do nothing. The rest of the index stays as it is.
type large struct {
	net.Conn
	t    *testing.T
	seen map[uint32]int
	own  []byte // the response to a command that did not reach it
}

const real = 2048

func (l *large) Write(cmd []byte) (int, error) {
	code := be.Uint32(cmd[6:])
	l.seen[code]++
	cmd = bytes.Clone(cmd)
	switch code {
	case attested.Define:
		be.PutUint16(cmd[len(cmd)-2:], real)
	case attested.Vendor:
		l.own = []byte{0x80, 2, 0, 0, 0, 19, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
		return len(cmd), nil
	case attested.Read:
		if n, at := be.Uint16(cmd[len(cmd)-4:]), be.Uint16(cmd[len(cmd)-2:]); at >= real {
			params := append(be.AppendUint16(nil, n), bytes.Repeat([]byte{0xff}, int(n))...)
			l.own = append(append([]byte{0x80, 2, 0, 0, 0, 0, 0, 0, 0, 0}, be.AppendUint32(nil, uint32(len(params)))...), params...)
			l.own = append(l.own, 0, 0, 0, 0, 0)
			be.PutUint32(l.own[2:], uint32(len(l.own)))
			return len(cmd), nil
		}
	}
	return l.Conn.Write(cmd)
}

func (l *large) Read(b []byte) (int, error) {
	if len(l.own) > 0 {
		n := copy(b, l.own)
		l.own = l.own[n:]
		return n, nil
	}
	n, err := l.Conn.Read(b)
	// The response to NV_ReadPublic ends in the index's size and name.
	if i := bytes.LastIndex(b[:n], []byte{0x08, 0x00, 0x00, 0x22, 0x00, 0x0b}); i > 0 {
		be.PutUint16(b[i:], 8192)
	}
	return n, err
}

// TestNV has a real TPM judge the commands about NV.
func TestNV(t *testing.T) {
	t.Parallel()
	conn := swtpm(t)
	l := &large{Conn: conn, t: t, seen: map[uint32]int{}}
	device := tpm.New(l)
	request := bytes.Repeat([]byte{7}, 1500)
	for range 2 {
		got, err := device.Request(t.Context(), request)
		if err != nil {
			t.Fatal(err)
		}
		if len(got) != 8192 || !bytes.HasPrefix(got, request) {
			t.Errorf("Request = %d bytes, %.40x…", len(got), got)
		}
	}
	if l.seen[attested.Undefine] != 2 {
		t.Errorf("commands = %v, want two of NV_UndefineSpace", l.seen)
	}
	// What a crash leaves is replaced: the command to undefine is lost.
	crash := &lost{large: l}
	if _, err := tpm.New(crash).Request(t.Context(), request); err == nil {
		t.Error("no error of a command that is lost")
	}
	if _, err := device.Request(t.Context(), request); err != nil {
		t.Errorf("after a crash: %v", err)
	}
	if l.seen[attested.ReadPublic] != 1 {
		t.Errorf("commands = %v, want one of NV_ReadPublic", l.seen)
	}
}

// lost loses commands to undefine an index.
type lost struct{ *large }

func (l *lost) Write(cmd []byte) (int, error) {
	if be.Uint32(cmd[6:]) == attested.Undefine {
		return 0, errors.New("power cut")
	}
	return l.large.Write(cmd)
}

// FuzzTPM: no response harms.
func FuzzTPM(f *testing.F) {
	f.Add(uint32(attested.Capability), []byte{0x80, 1, 0, 0, 0, 10, 0, 0, 1, 0})
	f.Add(uint32(attested.Read), []byte{0x80, 2, 0, 0, 0, 19, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0})
	f.Add(uint32(attested.ReadPublic), append([]byte{0x80, 1, 0, 0, 0, 24, 0, 0, 0, 0, 0, 14, 1, 0x80, 0x75, 0x6c}, attested.Mine...))
	f.Add(uint32(attested.PCRRead), []byte{0x80, 1, 0, 0, 0, 24, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0})
	f.Fuzz(func(t *testing.T, which uint32, resp []byte) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel() // what is busy is not waited for
		for _, left := range []bool{false, true} {
			fake := attested.NewTPM()
			fake.NSM = echo
			if left {
				fake.Indices[number] = &attested.NV{Public: bytes.Clone(attested.Mine), Data: make([]byte, 8192)}
			}
			fake.Garble = func(code uint32, sent []byte) []byte {
				if code == which {
					return resp
				}
				return sent
			}
			device := tpm.New(fake)
			if got, err := device.Request(ctx, []byte("request")); err == nil && len(got) != 8192 {
				t.Errorf("Request = %d bytes", len(got))
			}
			_, _ = device.Extend(ctx, 13, "event")
			_, _ = device.PCR(ctx, tpm.SHA384, 13)
		}
	})
}
