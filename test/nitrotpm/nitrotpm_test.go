package nitrotpm_test

import (
	"bytes"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"
	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
	"golang.org/x/sys/unix"

	"unlock/test/ec2sim"
	"unlock/test/nitrotpm"
	"unlock/test/program"
)

// device is the TPM as go-tpm, which others wrote, talks to it.
type device struct {
	io.ReadWriteCloser
	tpm   *nitrotpm.TPM
	root  []byte
	again bool // a TPM that was not shut down answers RETRY once, before it counts wrong passwords
}

func (d *device) Send(command []byte) ([]byte, error) {
	if _, err := d.Write(command); err != nil {
		return nil, err
	}
	answer := make([]byte, 4096)
	n, err := d.Read(answer)
	if d.again && n >= 10 && binary.BigEndian.Uint32(answer[6:]) == uint32(tpm2.TPMRCRetry) {
		d.again = false
		return d.Send(command)
	}
	return answer[:n], err
}

func newTPM(t *testing.T) (*nitrotpm.TPM, []byte) {
	t.Helper()
	program.Need(t, "swtpm")
	a, err := nitrotpm.NewAuthority()
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(a.Root())
	return nitrotpm.New(t.TempDir(), a), block.Bytes
}

func newDevice(t *testing.T, faults ...string) *device {
	t.Helper()
	tpm, root := newTPM(t)
	if err := tpm.SetFaults(faults...); err != nil {
		t.Fatal(err)
	}
	conn, err := tpm.Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	})
	return &device{conn, tpm, root, !slices.Contains(faults, "retry:1")}
}

const number = 0x01800100

var ownerless = tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Auth: tpm2.PasswordAuth(nil)}

func define(d transport.TPM, size uint16, attributes tpm2.TPMANV, password string) error {
	_, err := tpm2.NVDefineSpace{AuthHandle: ownerless, Auth: tpm2.TPM2BAuth{Buffer: []byte(password)},
		PublicInfo: tpm2.New2B(tpm2.TPMSNVPublic{NVIndex: tpm2.TPMHandle(number), NameAlg: tpm2.TPMAlgSHA256, Attributes: attributes, DataSize: size})}.Execute(d)
	return err
}

var usual = tpm2.TPMANV{AuthRead: true, AuthWrite: true}

// index names the index for a command, with its password.
func index(t *testing.T, d transport.TPM, password string) tpm2.AuthHandle {
	t.Helper()
	answer, err := tpm2.NVReadPublic{NVIndex: tpm2.TPMHandle(number)}.Execute(d)
	if err != nil {
		t.Fatal(err)
	}
	return tpm2.AuthHandle{Handle: tpm2.TPMHandle(number), Name: answer.NVName, Auth: tpm2.PasswordAuth([]byte(password))}
}

func write(d transport.TPM, h tpm2.AuthHandle, offset uint16, data []byte) error {
	_, err := tpm2.NVWrite{AuthHandle: h, NVIndex: tpm2.NamedHandle{Handle: h.Handle, Name: h.Name}, Data: tpm2.TPM2BMaxNVBuffer{Buffer: data}, Offset: offset}.Execute(d)
	return err
}

func read(d transport.TPM, h tpm2.AuthHandle, offset, size uint16) ([]byte, error) {
	answer, err := tpm2.NVRead{AuthHandle: h, NVIndex: tpm2.NamedHandle{Handle: h.Handle, Name: h.Name}, Size: size, Offset: offset}.Execute(d)
	if err != nil {
		return nil, err
	}
	return answer.Data.Buffer, nil
}

// nsm sends the vendor command, which go-tpm does not know, and returns the answer's code.
func nsm(t *testing.T, d *device, tag uint16, password string, more ...byte) uint32 {
	t.Helper()
	b := binary.BigEndian.AppendUint16(nil, tag)
	b = append(b, 0, 0, 0, 0, 0x20, 0, 0, 1, 1, 0x80, 1, 0, 1, 0x80, 1, 0)
	if tag == 0x8002 {
		b = append(b, 0, 0, 0, byte(9+len(password)), 0x40, 0, 0, 9, 0, 0, 0, 0, byte(len(password)))
		b = append(b, password...)
	}
	b = append(b, more...)
	binary.BigEndian.PutUint32(b[2:], uint32(len(b)))
	answer, err := d.Send(b)
	if err != nil || len(answer) < 10 {
		t.Fatalf("the vendor command: %x, %v", answer, err)
	}
	return binary.BigEndian.Uint32(answer[6:])
}

// request of a document.
func request(t *testing.T, nonce []byte) []byte {
	t.Helper()
	b, err := cbor.Marshal(map[string]any{"Attestation": map[string]any{"user_data": nil, "nonce": nonce, "public_key": []byte("a key")}})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// documentOf does all that a client does.
func documentOf(t *testing.T, d *device, nonce []byte) (document []byte, refused string) {
	t.Helper()
	if err := define(d, nitrotpm.MaxIndex, usual, ""); err != nil {
		t.Fatal(err)
	}
	h := index(t, d, "")
	r := request(t, nonce)
	for offset := 0; offset < len(r); offset += 1024 {
		if err := write(d, h, uint16(offset), r[offset:min(len(r), offset+1024)]); err != nil {
			t.Fatal(err)
		}
	}
	h = index(t, d, "") // that it was written is part of its name
	if code := nsm(t, d, 0x8002, ""); code != 0 {
		t.Fatalf("the vendor command: 0x%x", code)
	}
	var all []byte
	for offset := uint16(0); offset < nitrotpm.MaxIndex; offset += 1024 {
		part, err := read(d, h, offset, 1024)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, part...)
	}
	if _, err := (tpm2.NVUndefineSpace{AuthHandle: ownerless, NVIndex: tpm2.NamedHandle{Handle: h.Handle, Name: h.Name}}).Execute(d); err != nil {
		t.Fatal(err)
	}
	var answer cbor.RawMessage
	dec := cbor.NewDecoder(bytes.NewReader(all))
	if err := dec.Decode(&answer); err != nil {
		t.Fatal(err)
	}
	if rest := all[dec.NumBytesRead():]; len(rest) == 0 || bytes.Trim(rest, "\xff") != nil && len(bytes.Trim(rest, "\xff")) > 0 {
		t.Errorf("after the answer: %x", rest[:min(32, len(rest))])
	}
	var out struct {
		Attestation struct {
			Document []byte `cbor:"document"`
		}
		Error string
	}
	if err := cbor.Unmarshal(answer, &out); err != nil {
		t.Fatal(err)
	}
	return out.Attestation.Document, out.Error
}

// TestDocument extends a PCR between two documents, which KMS' own check accepts.
func TestDocument(t *testing.T) {
	t.Parallel()
	d := newDevice(t)
	var before []byte
	for i := range 2 {
		document, refused := documentOf(t, d, []byte("a nonce"))
		if refused != "" {
			t.Fatal(refused)
		}
		got, err := ec2sim.ReadDocument(document, d.root, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		if len(got.PCRs) != 24 || string(got.Nonce) != "a nonce" || string(got.PublicKey) != "a key" || got.UserData != nil || len(got.CABundle) != 4 || len(document) < 4000 || len(document) > 6000 {
			t.Errorf("a document of %d bytes: %+v", len(document), got)
		}
		if bytes.Equal(got.PCRs[13], before) || !bytes.Equal(got.PCRs[12], make([]byte, 48)) || got.PCRs[17][0] != 0xff {
			t.Errorf("time %d: PCR 12 = %x, 13 = %x, 17 = %x", i, got.PCRs[12], got.PCRs[13], got.PCRs[17])
		}
		before = got.PCRs[13]
		if _, err := (tpm2.PCRExtend{PCRHandle: tpm2.AuthHandle{Handle: tpm2.TPMHandle(13), Auth: tpm2.PasswordAuth(nil)},
			Digests: tpm2.TPMLDigestValues{Digests: []tpm2.TPMTHA{{HashAlg: tpm2.TPMAlgSHA384, Digest: make([]byte, 48)}}}}).Execute(d); err != nil {
			t.Fatal(err)
		}
	}
	if d.tpm.Has(number) {
		t.Error("the index is still there")
	}
	if _, refused := documentOf(t, d, make([]byte, 1025)); refused != "InputTooLarge" {
		t.Errorf("a nonce of 1025 bytes: %q", refused)
	}
}

func TestCapabilities(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		faults []string
		want   bool
	}{"a NitroTPM": {nil, true}, "without": {[]string{"no-vendor-command"}, false}} {
		d := newDevice(t, row.faults...)
		get := func(capability tpm2.TPMCap, property, count uint32) *tpm2.GetCapabilityResponse {
			answer, err := tpm2.GetCapability{Capability: capability, Property: property, PropertyCount: count}.Execute(d)
			if err != nil {
				t.Fatal(err)
			}
			return answer
		}
		list := func(property, count uint32) ([]tpm2.TPMACC, bool) {
			answer := get(tpm2.TPMCapCommands, property, count)
			commands, err := answer.CapabilityData.Data.Command()
			if err != nil {
				t.Fatal(err)
			}
			return commands.CommandAttributes, bool(answer.MoreData)
		}
		p, err := get(tpm2.TPMCapTPMProperties, 0x129, 1).CapabilityData.Data.TPMProperties()
		if err != nil {
			t.Fatal(err)
		}
		all, more := list(0x11f, p.TPMProperty[0].Value)
		if uint32(len(all)) != p.TPMProperty[0].Value || more {
			t.Errorf("%s: %d commands, more: %v, and TPM_PT_TOTAL_COMMANDS is %d", name, len(all), more, p.TPMProperty[0].Value)
		}
		some, more := list(0x20000001, 1)
		if has := len(some) == 1 && some[0].V && some[0].CommandIndex == 1 && some[0].CHandles == 2; has != row.want || more {
			t.Errorf("%s: commands from 0x20000001: %+v, more: %v", name, some, more)
		}
		if few, more := list(0x11f, uint32(len(all))-1); !more || len(few) != len(all)-1 {
			t.Errorf("%s: of all commands but one: %d, more: %v", name, len(few), more)
		}
		if got := nsm(t, d, 0x8002, ""); (got == 0x143) == row.want {
			t.Errorf("%s: the vendor command answers 0x%x", name, got)
		}
	}
}

// TestRules is what a TPM refuses, on large indices as on small ones.
func TestRules(t *testing.T) {
	t.Parallel()
	for name, size := range map[string]uint16{"small": 512, "large": 8192} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDevice(t)
			undefine := func(h tpm2.AuthHandle) {
				if _, err := (tpm2.NVUndefineSpace{AuthHandle: ownerless, NVIndex: tpm2.NamedHandle{Handle: h.Handle, Name: h.Name}}).Execute(d); err != nil {
					t.Fatal(err)
				}
			}
			is := func(what string, err error, want tpm2.TPMRC) {
				t.Helper()
				if !errors.Is(err, want) {
					t.Errorf("%s: %v, want %v", what, err, want)
				}
			}
			if err := define(d, size, usual, "secret"); err != nil {
				t.Fatal(err)
			}
			is("defined twice", define(d, size, usual, "secret"), tpm2.TPMRCNVDefined)
			good := index(t, d, "secret")
			_, err := read(d, good, 0, 8)
			is("read before it was written", err, tpm2.TPMRCNVUninitialized)
			is("a wrong password", write(d, index(t, d, "guess"), 0, []byte("x")), tpm2.TPMRCAuthFail)
			is("written beyond its end", write(d, good, size-4, []byte("12345")), tpm2.TPMRCNVRange)
			if err := write(d, good, size-5, []byte("12345")); err != nil {
				t.Error(err)
			}
			good = index(t, d, "secret")
			_, err = read(d, good, size-4, 8)
			is("read beyond its end", err, tpm2.TPMRCNVRange)
			if got, err := read(d, good, size-5, 5); err != nil || string(got) != "12345" {
				t.Errorf("read %q, %v", got, err)
			}
			public, err := tpm2.NVReadPublic{NVIndex: tpm2.TPMHandle(number)}.Execute(d)
			if err != nil {
				t.Fatal(err)
			}
			area, err := public.NVPublic.Contents()
			if err != nil || area.DataSize != size || !area.Attributes.Written {
				t.Errorf("its public area: %+v, %v", area, err)
			}
			if want, err := tpm2.NVName(area); err != nil || !bytes.Equal(want.Buffer, public.NVName.Buffer) {
				t.Errorf("its name is %x, want %x, %v", public.NVName.Buffer, want, err)
			}
			undefine(good)
			if err := define(d, size, tpm2.TPMANV{AuthRead: true, OwnerWrite: true}, ""); err != nil {
				t.Fatal(err)
			}
			is("not to be written by who knows its password", write(d, index(t, d, ""), 0, []byte("x")), tpm2.TPMRCAuthUnavailable)
			undefine(index(t, d, ""))
			if err := define(d, size, tpm2.TPMANV{AuthRead: true, AuthWrite: true, WriteDefine: true}, ""); err != nil {
				t.Fatal(err)
			}
			h := index(t, d, "")
			if err := write(d, h, 0, []byte("x")); err != nil {
				t.Fatal(err)
			}
			h = index(t, d, "")
			if _, err := (tpm2.NVWriteLock{AuthHandle: h, NVIndex: tpm2.NamedHandle{Handle: h.Handle, Name: h.Name}}).Execute(d); err != nil {
				t.Fatal(err)
			}
			is("locked", write(d, index(t, d, ""), 0, []byte("y")), tpm2.TPMRCNVLocked)
		})
	}
}

// TestVendorCommand is what the vendor command refuses.
func TestVendorCommand(t *testing.T) {
	t.Parallel()
	d := newDevice(t)
	if got := nsm(t, d, 0x8002, ""); got != 0x28b && got != 0x18b {
		t.Errorf("without an index: 0x%x", got)
	}
	if err := define(d, 9000, usual, ""); !errors.Is(err, tpm2.TPMRCSize) {
		t.Errorf("9000 bytes: %v", err)
	}
	if err := define(d, 8192, usual, "secret"); err != nil {
		t.Fatal(err)
	}
	if got := nsm(t, d, 0x8002, "secret"); got != 0x14a {
		t.Errorf("nothing written: 0x%x", got)
	}
	if err := write(d, index(t, d, "secret"), 0, request(t, nil)); err != nil {
		t.Fatal(err)
	}
	for name, row := range map[string]struct {
		tag      uint16
		password string
		more     []byte
		want     uint32
	}{
		"without sessions": {0x8001, "", nil, 0x125},
		"a wrong password": {0x8002, "guess", nil, 0x98e},
		"parameters":       {0x8002, "secret", []byte{0}, 0x142},
		"good":             {0x8002, "secret", nil, 0},
	} {
		if got := nsm(t, d, row.tag, row.password, row.more...); got != row.want {
			t.Errorf("%s: 0x%x, want 0x%x", name, got, row.want)
		}
	}
}

// TestFaults shows each fault, and that it ends.
func TestFaults(t *testing.T) {
	t.Parallel()
	tested := map[string]bool{}
	for name, row := range map[string]struct {
		see func(t *testing.T, d *device) bool
	}{
		"retry:1":      {defining(tpm2.TPMRCRetry)},
		"testing:1":    {defining(tpm2.TPMRCTesting)},
		"yielded:1":    {defining(tpm2.TPMRCYielded)},
		"nv-full:1":    {defining(tpm2.TPMRCNVSpace)},
		"owner-auth:1": {defining(tpm2.TPMRCBadAuth)},
		"lockout:1":    {defining(tpm2.TPMRCLockout)},
		"nsm-error:1": {func(t *testing.T, d *device) bool {
			_, refused := documentOf(t, d, nil)
			return refused == "InternalError"
		}},
		"stale:1":           {judged("it was made 10m")},
		"forged:1":          {judged("its signature")},
		"no-vendor-command": {func(t *testing.T, d *device) bool { return nsm(t, d, 0x8002, "") == 0x143 }},
		"slow:50ms": {func(t *testing.T, d *device) bool {
			start := time.Now()
			return define(d, 8192, usual, "") == nil && time.Since(start) >= 50*time.Millisecond
		}},
		"truncated:1": {func(t *testing.T, d *device) bool {
			if err := errors.Join(define(d, 8192, usual, ""), write(d, index(t, d, ""), 0, []byte("x"))); err != nil {
				t.Fatal(err)
			}
			_, err := read(d, index(t, d, ""), 0, 1024)
			_, err2 := read(d, index(t, d, ""), 0, 1024)
			return err != nil && err2 == nil
		}},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDevice(t, name)
			fault, arg, _ := strings.Cut(name, ":")
			if !row.see(t, d) || d.tpm.Struck(fault) == 0 {
				t.Errorf("it was not met; struck %d times", d.tpm.Struck(fault))
			}
			if arg == "1" && d.tpm.Struck(fault) != 1 {
				t.Errorf("it struck %d times", d.tpm.Struck(fault))
			}
		})
		fault, _, _ := strings.Cut(name, ":")
		tested[fault] = true
	}
	for _, f := range nitrotpm.Faults() {
		if !tested[f.Name] {
			t.Errorf("%s has no test", f.Name)
		}
	}
}

// defining expects an error of the first NV_DefineSpace, and none of the second.
func defining(want tpm2.TPMRC) func(*testing.T, *device) bool {
	return func(t *testing.T, d *device) bool {
		first := define(d, 8192, usual, "")
		return errors.Is(first, want) && define(d, 8192, usual, "") == nil
	}
}

// judged expects KMS' refusal of the first document, and none of the second.
func judged(want string) func(*testing.T, *device) bool {
	return func(t *testing.T, d *device) bool {
		document, _ := documentOf(t, d, nil)
		_, err := ec2sim.ReadDocument(document, d.root, time.Now())
		second, _ := documentOf(t, d, nil)
		_, err2 := ec2sim.ReadDocument(second, d.root, time.Now())
		return err != nil && strings.Contains(err.Error(), want) && err2 == nil
	}
}

// TestPlug is QEMU's part of the control channel, for two boots. What one leaves is
// there in the other.
func TestPlug(t *testing.T) {
	t.Parallel()
	tpm, _ := newTPM(t)
	if err := tpm.Leave(t.Context(), number, 1<<2|1<<18, 8192); err != nil {
		t.Fatal(err)
	}
	for boot := range 2 {
		socket, unplug, err := tpm.Plug(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		control, err := net.Dial("unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
		if err != nil {
			t.Fatal(err)
		}
		data := os.NewFile(uintptr(fds[0]), "data")
		result := make([]byte, 4)
		for _, command := range []struct {
			bytes  []byte
			rights []byte
		}{{[]byte{0, 0, 0, 0x10}, unix.UnixRights(fds[1])}, {[]byte{0, 0, 0, 2, 0, 0, 0, 0}, nil}} {
			if _, _, err := control.(*net.UnixConn).WriteMsgUnix(command.bytes, command.rights, nil); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(control, result); err != nil || !bytes.Equal(result, make([]byte, 4)) {
				t.Fatalf("boot %d: %x answers %x, %v", boot, command.bytes, result, err)
			}
		}
		d := transport.FromReadWriter(data)
		if _, err := (tpm2.Startup{StartupType: tpm2.TPMSUClear}).Execute(d); err != nil {
			t.Fatal(err)
		}
		if public, err := (tpm2.NVReadPublic{NVIndex: tpm2.TPMHandle(number)}).Execute(d); err != nil {
			t.Error(err)
		} else if area, err := public.NVPublic.Contents(); err != nil || area.DataSize != 8192 {
			t.Errorf("boot %d: the index: %+v, %v", boot, area, err)
		}
		if err := errors.Join(data.Close(), unix.Close(fds[1]), control.Close(), unplug()); err != nil {
			t.Error(err)
		}
	}
	if !tpm.Has(number) {
		t.Error("the index is gone")
	}
	if err := tpm.SetFaults("bad"); err == nil || !slices.ContainsFunc(nitrotpm.Faults(), func(f nitrotpm.Fault) bool { return f.Name == "retry" }) {
		t.Errorf("a fault named bad: %v", err)
	}
}
