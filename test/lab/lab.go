package lab

import (
	"cmp"
	"context"
	_ "embed"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"unlock/test/ec2sim"
	"unlock/test/nitrotpm"
	"unlock/test/vm"
)

// What every lab has: S3 objects with the ciphertext, the same as a parameter and in
// a file, and what scripts write to the volume.
const (
	Bucket       = "an-internalstoragekeybucket"
	Object       = "LuksInternalStorageKey"
	Parameter    = "/unlock/key"
	StoredSecret = "unlock/key"
	OtherObject  = "OtherStorageKey" // of the key $OTHER, without an encryption context
	CipherFile   = "/etc/unlock/key.bin"
	CAFile       = "/etc/unlock/test-ca.pem"
	FileText     = "kept across boots"
	Passphrase   = "correct horse battery staple kW7-pZ3_xN9"
	ShortOne     = "open sesame" // of scenarios with Typed
)

// MemoryFile is the dump of a boot's memory, in the lab's directory.
const MemoryFile = "memory"

// guest are the functions that all scripts have.
//
//go:embed guest.sh
var guest string

// Bench is what the labs of a run share.
type Bench struct {
	Bin   string // directory of unlock and unlockctl
	Shell string // functions for scripts, beside those of guest.sh
}

// Functions returns all that scripts can call.
func (b Bench) Functions() string { return guest + "\n" + b.Shell }

// Lab is one scenario being run.
type Lab struct {
	Scenario
	Bench
	Base  vm.Machine                          // what every boot begins with
	Build func(context.Context, string) error // makes the image with a configuration before each boot; nil: it is there
	Up    string                              // the command that begins each script; it may print its trace

	SharedRoot string // Base.Root, before the scenario got its own

	Cloud    *ec2sim.Cloud
	TPM      *nitrotpm.TPM // nil without Scenario.Attested
	UKI      UKI           // of a Unified system; boots may change it before
	Drives   []vm.Disk     // made of Disks
	Console  vm.Console    // of the last boot
	Consoles vm.Console    // of all
	Kept     any           // what judges of this scenario keep for those of later boots

	dir    string
	key    string // ARNs
	other  string
	asked  int      // requests before the last boot
	faults []string // of the last boot
	expand *strings.Replacer
	notes  []string
}

// Run runs a scenario. The Lab tells what happened, as far as it went, even with an error.
func (b Bench) Run(ctx context.Context, s Scenario) (*Lab, error) {
	l := &Lab{Scenario: s, Bench: b}
	return l, l.run(ctx)
}

func (l *Lab) run(ctx context.Context) (err error) {
	if l.dir, err = os.MkdirTemp("", "qemu-test-"); err != nil {
		return err
	}
	defer os.RemoveAll(l.dir)
	cloud := l.Scenario.Cloud
	cloud.Faults, l.faults = l.Faults, l.Faults
	if l.Cloud, err = ec2sim.New(cloud); err != nil {
		return err
	}
	defer l.Cloud.Close()
	if err := l.prepare(ctx); err != nil {
		return fmt.Errorf("preparing: %w", err)
	}
	for i, b := range l.Boots {
		if err := l.boot(ctx, b); err != nil {
			return fmt.Errorf("boot %d %s: %w", i+1, b.Name, err)
		}
	}
	return nil
}

// Note adds to the line that reports success.
func (l *Lab) Note(format string, args ...any) {
	l.notes = append(l.notes, fmt.Sprintf(format, args...))
}

// Summary returns the notes.
func (l *Lab) Summary() string { return strings.Join(l.notes, ", ") }

// File returns the path of a file in the lab's directory, which goes when the scenario ends.
func (l *Lab) File(name string) string { return filepath.Join(l.dir, name) }

// Expand replaces $KEY and the like.
func (l *Lab) Expand(text string) string { return l.expand.Replace(text) }

// Secret returns the passphrase.
func (l *Lab) Secret() string {
	if l.Typed {
		return ShortOne
	}
	return Passphrase
}

// Requests returns those of the last boot.
func (l *Lab) Requests() []ec2sim.Request { return l.Cloud.Requests()[l.asked:] }

// PrintRequests shows what the simulated cloud was asked in the last boot.
func (l *Lab) PrintRequests() {
	if l.Cloud == nil {
		return
	}
	for _, r := range l.Requests() {
		fmt.Printf("  %s %s %s %s: %d %s\n", r.Time.Format("05.000"), r.Service, r.Operation, r.Resource, r.Status, r.ErrorType)
	}
}

// prepare makes keys, ciphertext, disks and the system.
func (l *Lab) prepare(ctx context.Context) error {
	l.key, l.other = l.Cloud.CreateKey(), l.Cloud.CreateKey()
	ciphertext := l.Cloud.Encrypt(l.key, []byte(l.Secret()), map[string]string{"purpose": "secretfs"})
	if l.CLI {
		var err error
		if ciphertext, err = l.awsEncrypt(ctx, l.key); err != nil {
			return err
		}
	}
	l.Cloud.PutObject(Bucket, Object, ciphertext)
	l.Cloud.PutParameter(Parameter, base64.StdEncoding.EncodeToString(ciphertext))
	l.Cloud.PutSecret(StoredSecret, ciphertext)
	l.expand = strings.NewReplacer("$KEY", l.key, "$OTHER", l.other, "$PASSPHRASE", l.Secret(), "$VERSION", l.Cloud.Versions(Bucket, Object)[0])
	l.Cloud.PutObject(Bucket, OtherObject, l.Cloud.Encrypt(l.other, []byte(l.Secret()), nil))
	if err := errors.Join(
		os.WriteFile(l.File("key.bin"), ciphertext, 0o600),
		os.WriteFile(l.File("ca.pem"), l.Cloud.CA(), 0o600),
	); err != nil {
		return err
	}
	for i, content := range l.Disks {
		d, err := MakeDisk(ctx, l.File(fmt.Sprintf("disk%d.img", i)), content)
		if err != nil {
			return fmt.Errorf("making a disk with %s: %w", content, err)
		}
		d.Serial = cmp.Or(d.Serial, vm.Serial(i))
		l.Drives = append(l.Drives, d)
	}
	l.Base.Cards = []vm.Card{{Plug: l.Cloud.Plug}}
	if l.Attested {
		if err := l.newTPM(); err != nil {
			return err
		}
	}
	system := l.System
	if system == nil {
		system = uncompressed
	}
	if err := system(ctx, l); err != nil {
		return err
	}
	if l.KeepRoot {
		if err := l.ownRoot(ctx); err != nil {
			return err
		}
	}
	if l.Prepare != nil {
		return l.Prepare(ctx, l)
	}
	return nil
}

// newTPM gives the machine a NitroTPM whose documents KMS accepts.
func (l *Lab) newTPM() error {
	authority, err := nitrotpm.NewAuthority()
	if err != nil {
		return err
	}
	dir := l.File("tpm")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	l.TPM = nitrotpm.New(dir, authority)
	l.Base.TPM = l.TPM
	return l.Cloud.TrustAttestation(authority.Root())
}

// attached returns the disks that a boot has. A disk keeps its serial number wherever it is.
func (l *Lab) attached(b Boot) []vm.Disk {
	if b.Attach == nil {
		for i := range l.Drives {
			b.Attach = append(b.Attach, i)
		}
	}
	var chosen []vm.Disk
	for _, i := range b.Attach {
		chosen = append(chosen, l.Drives[i])
	}
	if b.Late != "" {
		chosen[len(chosen)-1].Late = b.Late
	}
	return chosen
}

// script returns what the machine runs: assignments, functions, commands. Whatever
// shows its trace, the passphrase is not in it.
func (l *Lab) script(b Boot) string {
	var s strings.Builder
	s.WriteString("set +x\n")
	fmt.Fprintf(&s, "KEY='%s' OTHER='%s' CA='%s' TEXT='%s'\n", l.key, l.other, l.Cloud.CA(), FileText)
	if b.Secret {
		fmt.Fprintf(&s, "PASSPHRASE='%s'\n", l.Secret())
	}
	fmt.Fprintf(&s, "%s\n%s\n%s\n", l.Functions(), l.Up, b.Script)
	if b.Dump {
		s.WriteString("dump_memory\n")
	}
	return s.String()
}

// machine puts together what is started.
func (l *Lab) machine(b Boot) vm.Machine {
	m := l.Base
	m.Cards = slices.Clone(m.Cards)
	m.Disks = append(slices.Clone(m.Disks), l.attached(b)...)
	m.Append = strings.Join([]string{m.Append, l.Append, b.Append}, " ")
	if b.Deadline > 0 {
		m.Append += fmt.Sprintf(" rd.unlock.timeout=%v", b.Deadline)
	}
	m.Script = l.script(b)
	m.Cut, m.CutWait, m.Type = b.Cut, b.After, b.Typed
	if b.CutAt != nil {
		m.CutWhen = func() bool { return slices.ContainsFunc(l.Images(), b.CutAt) }
	}
	if l.Tool {
		m.Disks = append(m.Disks, vm.Disk{File: filepath.Join(l.Bin, "unlockctl"), Virtio: true, ReadOnly: true})
	}
	for _, change := range []Change{l.Scenario.Machine, b.Machine} {
		if change != nil {
			change(l, &m)
		}
	}
	if b.Dump {
		m.Events = append(m.Events, vm.Event{When: dumpMark, Do: m.DumpMemory(l.File(MemoryFile))})
		m.Type = append(m.Type, vm.Typed{When: dumpMark, Text: "\n"})
	}
	return m
}

// dumpMark is what dump_memory prints.
const dumpMark = "memory: dump now"

// boot starts the machine and judges what comes of it. Where there is a deadline, it may
// have been too early for a busy machine: then the boot has twice the time and, for the
// last time, four times. It must have left the disks alone.
func (l *Lab) boot(ctx context.Context, b Boot) error {
	var before string // of no use where disks may change
	if b.Script == "" || b.Deadline > 0 {
		var err error
		if before, err = vm.Sums(l.Drives); err != nil {
			return err
		}
	}
	for again := 2; ; again-- {
		err := l.start(ctx, b, before)
		if err == nil || b.Deadline == 0 || again == 0 {
			return err
		}
		if after, err2 := vm.Sums(l.Drives); err2 != nil || after != before {
			return errors.Join(err, err2)
		}
		b.Deadline *= 2
		l.Note("again with %v, as %v", b.Deadline, err)
		if err := l.Cloud.SetFaults(l.faults...); err != nil { // their counts begin anew
			return err
		}
	}
}

func (l *Lab) start(ctx context.Context, b Boot, before string) error {
	if b.Before != nil {
		if err := b.Before(ctx, l); err != nil {
			return err
		}
	}
	if l.Build != nil {
		if err := l.Build(ctx, cmp.Or(b.Config, l.Config)); err != nil {
			return fmt.Errorf("building the image: %w", err)
		}
	} else if b.Config != "" {
		return errors.New("this system's image is built once: no boot has a configuration of its own")
	}
	if b.Faults != nil {
		l.faults = b.Faults
		if err := l.Cloud.SetFaults(l.faults...); err != nil {
			return err
		}
	}
	if b.TPMFaults != nil {
		if err := l.TPM.SetFaults(b.TPMFaults...); err != nil {
			return err
		}
	}
	m := l.machine(b)
	l.asked = len(l.Cloud.Requests())
	var err error
	l.Console, err = m.Run(ctx)
	l.Consoles = append(l.Consoles, l.Console...)
	if err != nil {
		return err
	}
	return l.judge(b, before)
}
