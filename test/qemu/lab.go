package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"unlock/internal/config"
	"unlock/test/ec2sim"
	"unlock/test/vm"
)

// scenario is a simulated cloud, a machine's disks and configuration, and what
// must come of booting it. In config, scripts and texts, $KEY stands for the ARN
// of a KMS key, $OTHER for that of another, $PASSPHRASE for the passphrase, $CA for
// the certificate authorities.
type scenario struct {
	name    string
	config  string
	faults  []string // of ec2sim
	plain   bool     // the ciphertext is made by the AWS CLI, without an encryption context
	typed   bool     // the passphrase is one that people type, which gets argon2id
	disks   []string // see parseDisk
	append  string   // to the kernel command line
	fips    bool     // unlock is built with Go's FIPS 140-3 module
	mistake string   // in the configuration, as the build and the boot tell of it; "": none
	boots   []boot

	mapping  map[string]string // IMDS's block-device-mapping; nil: that of ec2sim
	hosts    []string          // that the machine may talk to besides the usual ones
	machine  func(*vm.Machine) // changes it before each boot; may be nil
	keepRoot bool              // boots see what earlier ones wrote to the root
	arm64    bool              // the machine's architecture, instead of amd64
	tool     bool              // there is one more disk, which is nothing but unlockctl
	timed    bool              // its times are judged: no other machine runs meanwhile

	instead func(context.Context, *lab) error // runs the scenario; all but its name is then unused
}

// boot is one start of the machine. The zero value must stop before the pivot
// and leave the disks as they are.
type boot struct {
	name    string                            // for messages; may be ""
	config  string                            // in place of the scenario's
	faults  []string                          // in place of the scenario's and those of earlier boots
	typed   []vm.Typed                        // at the console
	append  string                            // to the kernel command line, after the scenario's
	attach  []int                             // which disks are there, in this order; nil: all
	late    string                            // the last of them is attached when the console shows this; "": from the beginning
	script  string                            // runs after the pivot; "": there must be none
	cut     string                            // power fails when the console shows this; "": it does not
	after   time.Duration                     // and that much time has passed
	cutAt   mark                              // or when this is on a disk; nil: never
	want    []string                          // texts on the console
	dump    bool                              // the memory goes to memoryFile when the script has run
	before  func(context.Context, *lab) error // prepares the boot; may be nil
	check   judge                             // may be nil
	machine func(*vm.Machine)                 // changes it further; may be nil
}

// The S3 objects with the ciphertext, and where the image has it in file scenarios.
const (
	bucket      = "an-internalstoragekeybucket"
	object      = "LuksInternalStorageKey"
	otherObject = "OtherStorageKey" // of the key $OTHER, without an encryption context
	cipherFile  = "/etc/unlock/key.bin"
	caFile      = "/etc/unlock/test-ca.pem"
	fileText    = "kept across boots" // what scripts write to the volume
	passphrase  = "correct horse battery staple kW7-pZ3_xN9"
	shortOne    = "open sesame" // of scenarios with typed
)

// lab is one scenario being run.
type lab struct {
	scenario
	kernel vm.KernelFiles
	root   string // image
	bin    string // directory of unlock and unlockctl

	imageArgs []string // of unlockctl initramfs, besides the usual ones

	disksAt  []vm.Disk // as they are attached
	dir      string
	cloud    *ec2sim.Cloud
	asked    int // requests before the last boot
	expand   *strings.Replacer
	console  vm.Console // of the last boot
	consoles vm.Console // of all
	notes    []string   // for the line that reports success

	exposures []exposure // of boots so far
}

func (l *lab) summary() string { return strings.Join(l.notes, ", ") }

func (l *lab) note(format string, args ...any) {
	l.notes = append(l.notes, fmt.Sprintf(format, args...))
}

func (l *lab) run(ctx context.Context) error {
	if l.instead != nil {
		return l.instead(ctx, l)
	}
	var err error
	if l.dir, err = os.MkdirTemp("", "qemu-test-"); err != nil {
		return err
	}
	defer os.RemoveAll(l.dir)
	if l.cloud, err = ec2sim.New(ec2sim.Config{Faults: l.faults, BlockDevices: l.mapping}); err != nil {
		return err
	}
	defer l.cloud.Close()
	if err := l.prepare(ctx); err != nil {
		return fmt.Errorf("preparing: %w", err)
	}
	for i, b := range l.boots {
		if err := l.boot(ctx, b); err != nil {
			return fmt.Errorf("boot %d %s: %w", i+1, b.name, err)
		}
	}
	return nil
}

// requests returns those of the last boot.
func (l *lab) requests() []ec2sim.Request { return l.cloud.Requests()[l.asked:] }

// printRequests shows what the simulated cloud was asked in the last boot.
func (l *lab) printRequests() {
	if l.cloud == nil {
		return
	}
	for _, r := range l.requests() {
		fmt.Printf("  %s %s %s %s: %d %s\n", r.Time.Format("05.000"), r.Service, r.Operation, r.Resource, r.Status, r.ErrorType)
	}
}

// prepare makes keys, ciphertext and disks.
func (l *lab) prepare(ctx context.Context) error {
	if l.arm64 {
		if err := l.getARM64(ctx); err != nil {
			return err
		}
	}
	key, other := l.cloud.CreateKey(), l.cloud.CreateKey()
	passphrase := passphrase
	if l.typed {
		passphrase = shortOne
	}
	l.expand = strings.NewReplacer("$KEY", key, "$OTHER", other, "$PASSPHRASE", passphrase, "$CA", string(l.cloud.CA()))
	ciphertext := l.cloud.Encrypt(key, []byte(passphrase), map[string]string{"purpose": "secretfs"})
	if l.plain {
		var err error
		if ciphertext, err = l.awsEncrypt(ctx, key); err != nil {
			return err
		}
	}
	l.cloud.PutObject(bucket, object, ciphertext)
	l.cloud.PutObject(bucket, otherObject, l.cloud.Encrypt(other, []byte(passphrase), nil))
	for i, content := range l.disks {
		d, err := makeDisk(ctx, l.file(fmt.Sprintf("disk%d.img", i)), content)
		if err != nil {
			return fmt.Errorf("making a disk with %s: %w", content, err)
		}
		d.Serial = cmp.Or(d.Serial, vm.Serial(i))
		l.disksAt = append(l.disksAt, d)
	}
	if l.keepRoot {
		if err := tool(ctx, "", "cp", "--sparse=always", l.root, l.file("root.img")); err != nil {
			return err
		}
		l.root = l.file("root.img")
	}
	return errors.Join(
		os.WriteFile(l.file("key.bin"), ciphertext, 0o600),
		os.WriteFile(l.file("ca.pem"), l.cloud.CA(), 0o600),
		os.WriteFile(l.file("good.toml"), []byte(l.expand.Replace(s3Key+secretfs)), 0o600),
	)
}

func (l *lab) file(name string) string { return filepath.Join(l.dir, name) }

// image builds the initramfs as an administrator does.
func (l *lab) image(ctx context.Context, conf string) error {
	if err := os.WriteFile(l.file("unlock.toml"), []byte(l.expand.Replace(conf)), 0o600); err != nil {
		return err
	}
	build := func(conf string, more ...string) error {
		if l.fips {
			more = append(more, "--unlock", filepath.Join(l.bin, "fips", "unlock"))
		}
		return tool(ctx, "", append([]string{filepath.Join(l.bin, "unlockctl"), "initramfs",
			"--kernel", l.kernel.Modules, "--config", l.file(conf), "-o", l.file("initrd"),
			"--file", l.file("key.bin") + ":" + cipherFile, "--file", l.file("ca.pem") + ":" + caFile}, slices.Concat(l.imageArgs, more)...)...)
	}
	err := build("unlock.toml")
	if l.mistake == "" {
		return err
	}
	// The build must refuse what the boot refuses. Put it past the build to see that the boot does.
	if err == nil || !strings.Contains(err.Error(), "exit status 2") || !strings.Contains(err.Error(), l.mistake) {
		return fmt.Errorf("building the image: %w, want exit status 2 and %q", err, l.mistake)
	}
	return build("good.toml", "--file", l.file("unlock.toml")+":"+config.DefaultFile)
}

// attached returns the disks that a boot has. A disk keeps its serial number wherever it is.
func (l *lab) attached(b boot) []vm.Disk {
	if b.attach == nil {
		for i := range l.disksAt {
			b.attach = append(b.attach, i)
		}
	}
	var chosen []vm.Disk
	for _, i := range b.attach {
		chosen = append(chosen, l.disksAt[i])
	}
	if b.late != "" {
		chosen[len(chosen)-1].Late = b.late
	}
	return chosen
}

func (l *lab) boot(ctx context.Context, b boot) error {
	if b.before != nil {
		if err := b.before(ctx, l); err != nil {
			return err
		}
	}
	if err := l.image(ctx, cmp.Or(b.config, l.config)); err != nil {
		return err
	}
	before, err := vm.Sums(l.disksAt)
	if err != nil {
		return err
	}
	m := vm.Machine{
		Kernel: l.kernel.Image, Initrd: l.file("initrd"), Root: l.root, Plug: l.cloud.Plug, Disks: l.attached(b),
		Append: strings.Join([]string{"root=LABEL=" + vm.RootLabel, "rw loglevel=7", l.append, b.append}, " "),
		Script: prelude + l.expand.Replace(b.script), Cut: b.cut, CutWait: b.after, KeepRoot: l.keepRoot, Type: b.typed,
		ARM64: l.arm64,
	}
	if b.dump {
		m.Script += dumpScript
		m.Dump = []vm.Dump{{When: dumpMark, File: l.file(memoryFile)}}
		m.Type = append(m.Type, vm.Typed{When: dumpMark, Text: "\n"})
	}
	if b.faults != nil {
		if err := l.cloud.SetFaults(b.faults...); err != nil {
			return err
		}
	}
	if l.tool {
		m.Disks = append(m.Disks, vm.Disk{File: filepath.Join(l.bin, "unlockctl"), Virtio: true, ReadOnly: true})
	}
	if b.cutAt != nil {
		m.CutWhen = func() bool { return slices.ContainsFunc(l.images(), b.cutAt) }
	}
	for _, change := range []func(*vm.Machine){l.machine, b.machine} {
		if change != nil {
			change(&m)
		}
	}
	l.asked = len(l.cloud.Requests())
	l.console, err = m.Run(ctx)
	l.consoles = append(l.consoles, l.console...)
	if err != nil {
		return err
	}
	for _, want := range b.want {
		if want = l.expand.Replace(want); !l.console.Contains(want) {
			return fmt.Errorf("the console does not show %q", want)
		}
	}
	switch {
	case b.cut != "" && !l.console.Contains(b.cut):
		return fmt.Errorf("the console does not show %q, at which power was to fail", b.cut)
	case b.cutAt != nil && l.console.Contains("script: begin"):
		return errors.New("the real root was started before power failed")
	case b.cut != "", b.cutAt != nil:
	case b.script != "" && !l.console.Contains("script: exit 0"):
		return errors.New("the script after the pivot did not succeed")
	case b.script == "":
		if err := l.refused(before); err != nil {
			return err
		}
	}
	if err := onlyAWS(l); err != nil {
		return err
	}
	if b.check != nil {
		return b.check(l)
	}
	return nil
}

// refused checks that a boot stopped with a message and left the disks alone.
func (l *lab) refused(before string) error {
	after, err := vm.Sums(l.disksAt)
	switch {
	case err != nil:
		return err
	case after != before:
		return errors.New("a disk changed, though the boot was refused")
	case l.console.Contains("script: begin"):
		return errors.New("the real root was started, though the boot was refused")
	case l.console.Contains("Kernel panic"):
		return errors.New("the kernel panicked")
	case !l.console.Contains("hint: "):
		return errors.New("the console gives no hint")
	}
	return nil
}
