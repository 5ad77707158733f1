package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"unlock/test/lab"
	"unlock/test/vm"
)

// Configurations whose key is attested.
var (
	attestedS3     = with(s3Key, "[key]", "attest = true")
	attestedHeader = with(headerKey, "[key]", "attest = true")
)

// attested are machines with a NitroTPM that boot a unified kernel image under UEFI
// firmware. The key's policy is what unlockctl policy prints for what unlockctl measure
// predicts; the simulated KMS evaluates it.
var attested = []lab.Scenario{
	{
		Name: "attest-first-boot", Config: attestedHeader + secretfs, Disks: blank(1), System: unified, Attested: true,
		Boots: []lab.Boot{
			{Before: pin(lab.UKI{}), Script: "door_closed\nwrite_file", Check: lab.All(lab.Formatted, released("GenerateDataKey"))},
			{Script: "door_closed\nread_file", Want: []string{lab.FileText}, Check: released("Decrypt")},
		},
	},
	{
		Name: "attest-fips", Config: attestedHeader + secretfs, Disks: blank(1), System: lab.Unified(lab.StandaloneFIPS), Attested: true,
		Boots: []lab.Boot{
			{Before: pin(lab.UKI{}), Script: "door_closed\nwrite_file", Check: lab.All(lab.Formatted, released("GenerateDataKey"))},
			{Script: "door_closed\nread_file", Want: []string{lab.FileText}, Check: released("Decrypt")},
		},
	},
	{
		Name: "attest-s3", Config: attestedS3 + secretfs, Disks: blank(1), System: unified, Attested: true,
		Boots: []lab.Boot{
			{Before: pin(lab.UKI{Suite: "trixie", Boot: true}), Script: "door_closed\nwrite_file", Check: lab.All(lab.Formatted, released("Decrypt"))},
			{Script: "door_closed\nread_file", Want: []string{lab.FileText}, Check: released("Decrypt")},
		},
	},
	{
		// A stub takes more of the command line from whoever starts the machine. It is in
		// none of the image's own measurements.
		Name: "attest-cmdline", Config: attestedS3 + secretfs, Disks: blank(1), System: unified, Attested: true,
		Boots: []lab.Boot{
			{Before: pin(lab.UKI{Suite: "trixie"}), Script: "write_file", Check: released("Decrypt")},
			{Machine: commandLine("init=/bin/sh"), Want: []string{"AccessDenied", "PCR 12", "exit status 1"}, Check: lab.Answered("kms", 400)},
			{Script: "read_file", Want: []string{lab.FileText}, Check: released("Decrypt")},
		},
	},
	{
		Name: "attest-other-image", Config: attestedS3 + secretfs, Disks: blank(1), System: unified, Attested: true,
		Boots: []lab.Boot{
			{Before: pin(lab.UKI{}), Script: "write_file", Check: released("Decrypt")},
			{Before: boot(lab.UKI{Changed: true}), Want: []string{"AccessDenied", "PCR 4", "exit status 1"}, Check: lab.All(lab.Answered("kms", 400), showsBothPCR4)},
			{Before: boot(lab.UKI{}), Script: "read_file", Want: []string{lab.FileText}},
		},
	},
	{
		// Root on the running system, or whoever else writes to the ESP, has systemd-boot
		// start a driver before the very image that was measured. It could do anything.
		Name: "attest-driver", Config: attestedS3 + secretfs, Disks: blank(1), System: unified, Attested: true,
		Boots: []lab.Boot{
			{Before: pin(lab.UKI{Suite: "trixie", Boot: true}), Script: "write_file", Check: released("Decrypt")},
			{Before: boot(lab.UKI{Suite: "trixie", Boot: true, Driver: true}), Want: []string{"AccessDenied", "PCR 2", "exit status 1"}, Check: lab.All(lab.Answered("kms", 400), showsSamePCR4)},
			{Before: boot(lab.UKI{Suite: "trixie", Boot: true}), Script: "read_file", Want: []string{lab.FileText}, Check: released("Decrypt")},
		},
	},
	{
		Name: "attest-two-images", Config: attestedS3 + secretfs, Disks: blank(1), System: unified, Attested: true,
		Boots: []lab.Boot{
			{Before: pin(lab.UKI{}, lab.UKI{Changed: true}), Script: "write_file", Check: released("Decrypt")},
			{Before: boot(lab.UKI{}), Script: "read_file", Want: []string{lab.FileText}, Check: released("Decrypt")},
			{Before: pin(lab.UKI{Changed: true}), Script: "read_file", Want: []string{lab.FileText}, Check: released("Decrypt")},
			{Before: boot(lab.UKI{}), Want: []string{"AccessDenied", "exit status 1"}},
		},
	},
	{
		// Root has the role's credentials and the TPM, in the very image that was measured.
		Name: "attest-late", Config: attestedS3 + secretfs, Disks: blank(1), System: unified, Attested: true, Tool: true,
		Boots: []lab.Boot{
			{Before: pin(lab.UKI{}), Script: "write_file", Check: released("Decrypt")},
			{Script: "read_file\nask_again true\nask_again false", Want: []string{lab.FileText, "refused with attest = true", "refused with attest = false"}, Check: refusedLate(2)},
		},
	},
	{
		// A shell that opens in the image, as the root file system does not come, is given
		// the key no more, though it is the image that was measured.
		Name: "attest-late-failed", Config: attestedS3 + secretfs, Disks: blank(1), Attested: true,
		System: lab.Unified(installed{System: trixieDracut, Generator: dracut("no", plainDisks+noSystemd)}.machine),
		Boots: []lab.Boot{
			{Before: pin(rootless, lab.UKI{Suite: "trixie"}), Script: "write_open", Check: released("Decrypt")},
			{Before: boot(rootless), Want: []string{"PCR 13 is extended", "AccessDenied"}, Machine: askFromShell, Check: refusedLate(1)},
		},
	},
	{
		// The worker is killed once it has the key: SysRq ends every process but the first,
		// which is its parent.
		Name: "attest-killed", Config: attestedHeader + secretfs, Disks: blank(1), System: unified, Attested: true, Append: "sysrq_always_enabled=1",
		Boots: []lab.Boot{
			{Before: pin(lab.UKI{}), Machine: killWhen("unlock: key header"), Cut: "PCR 13 is extended", After: time.Second, Want: []string{"Kill All Tasks"}, Check: released("GenerateDataKey")},
			{Script: "door_closed\nwrite_file", Check: lab.Formatted},
		},
	},
	{
		Name: "secrets-attest", Config: attestedHeader + secretfs, Disks: blank(1), Machine: smallMemory, System: unified, Attested: true,
		Boots: []lab.Boot{
			{Before: pin(lab.UKI{}), Script: "write_file", Dump: true, Check: lab.All(lab.Formatted, exposes("first boot", nothing), envelopesUnseen)},
			{Script: "read_file", Dump: true, Want: []string{lab.FileText}, Check: lab.All(exposes("second boot", nothing), envelopesUnseen)},
		},
	},
	{
		// What make image makes: systemd-boot, then an image with systemd in the initramfs.
		Name: "attest-uki", Config: attestedS3 + secretfs, Disks: blank(1), System: ami("UKI=1"), Attested: true,
		Boots: []lab.Boot{
			{Before: pinAMI, Script: "ami_up\nami_open 1\ndoor_closed\nwrite_open", Want: amiWants, Check: lab.All(lab.Formatted, released("Decrypt"))},
			{Script: "ami_up\nami_open 1\ndoor_closed\nread_open", Want: append(amiWants, lab.FileText), Check: released("Decrypt")},
		},
	},
}

var unified = lab.Unified(lab.Standalone)

// commandLine has whoever starts the machine add to its command line.
func commandLine(more string) lab.Change {
	return func(_ *lab.Lab, m *vm.Machine) { m.OEM = append(m.OEM, "io.systemd.stub.kernel-cmdline-extra="+more) }
}

// boot has the machine boot an image from now on.
func boot(uki lab.UKI) lab.Step {
	return func(_ context.Context, l *lab.Lab) error { l.UKI = uki; return nil }
}

// pin gives the key a policy for these images, the last of which is booted.
func pin(images ...lab.UKI) lab.Step {
	return func(ctx context.Context, l *lab.Lab) error {
		var files []string
		for i, uki := range images {
			l.UKI = uki
			if err := l.Build(ctx, l.Config); err != nil {
				return fmt.Errorf("building an image to be measured: %w", err)
			}
			p, err := predict(ctx, l)
			if err != nil {
				return err
			}
			file := l.File(fmt.Sprintf("measured%d.json", i))
			if err := os.Rename(l.File(measurement), file); err != nil {
				return err
			}
			files = append(files, file)
			l.Kept = p
		}
		return pinned(ctx, l, files)
	}
}

// pinned gives the key the policy for measured images.
func pinned(ctx context.Context, l *lab.Lab, files []string) error {
	config := l.File("policy.toml")
	if err := os.WriteFile(config, []byte(l.Expand(l.Config)), 0o600); err != nil {
		return err
	}
	command := []string{filepath.Join(l.Bin, "unlockctl"), "policy", "key", "--config", config,
		"--role", "arn:aws:iam::111122223333:role/unlock-demo", "--administrator", "arn:aws:iam::111122223333:user/admin"}
	for _, f := range files {
		command = append(command, "--measured", f)
	}
	out, err := lab.Output(ctx, nil, "", command...)
	if err != nil {
		return err
	}
	var policy struct {
		Version   string
		Statement []any
	}
	if err := json.Unmarshal(out, &policy); err != nil {
		return fmt.Errorf("reading the policy: %w", err)
	}
	// The account's own statement, as AWS gives it to new keys; IAM allows the role everything.
	policy.Statement = append(policy.Statement, map[string]any{"Sid": "Account", "Effect": "Allow", "Principal": map[string]any{"AWS": "arn:aws:iam::111122223333:root"}, "Action": "kms:*", "Resource": "*"})
	text, err := json.Marshal(policy)
	if err != nil {
		return err
	}
	l.Cloud.SetKeyPolicy(l.Expand("$KEY"), string(text))
	return nil
}

// pinAMI gives the key a policy for the disk image that make image made.
func pinAMI(ctx context.Context, l *lab.Lab) error {
	out, err := lab.Output(ctx, nil, "", filepath.Join(l.Bin, "unlockctl"), "measure", "--json", l.Base.Disks[0].File)
	if err != nil {
		return err
	}
	file := l.File(measurement)
	if err := os.WriteFile(file, out, 0o600); err != nil {
		return err
	}
	l.Base.Disks[0].First = true
	return pinned(ctx, l, []string{file})
}

// kmsCall is a CloudTrail record, as far as it is judged.
type kmsCall struct {
	EventName, ErrorCode string
	AdditionalEventData  struct{ Recipient map[string]string }
}

// calls returns those to KMS of the machine in the last boot.
func calls(l *lab.Lab) ([]kmsCall, error) {
	n := 0
	for _, r := range l.Requests() {
		if r.Service == "kms" {
			n++
		}
	}
	var all []kmsCall
	for _, b := range l.Cloud.Events() {
		var c kmsCall
		if err := json.Unmarshal(b, &c); err != nil {
			return nil, err
		}
		if c.EventName == "Decrypt" || c.EventName == "GenerateDataKey" {
			all = append(all, c)
		}
	}
	return all[max(0, len(all)-n):], nil
}

// released checks that the key came by one attested call.
func released(operation string) lab.Judge {
	return func(l *lab.Lab) error {
		all, err := calls(l)
		if err != nil {
			return err
		}
		good := 0
		for _, c := range all {
			if c.AdditionalEventData.Recipient == nil {
				return fmt.Errorf("KMS was called without a document: %+v", c)
			}
			if c.EventName == operation && c.ErrorCode == "" {
				good++
			}
		}
		if good != 1 {
			return fmt.Errorf("%d attested calls of %s succeeded, want 1: %+v", good, operation, all)
		}
		l.Note("%s attested", operation)
		return nil
	}
}

// refusedLate checks that the last so many calls were refused by the key's policy.
func refusedLate(n int) lab.Judge {
	return func(l *lab.Lab) error {
		all, err := calls(l)
		if err != nil {
			return err
		}
		refused := 0
		for i, c := range slices.Backward(all) {
			if c.ErrorCode != "AccessDenied" {
				break
			}
			refused = len(all) - i
		}
		if refused < n {
			return fmt.Errorf("the last %d calls were refused, want %d at least: %+v", refused, n, all)
		}
		l.Note("%d calls refused", refused)
		return nil
	}
}

// showsBothPCR4 checks that the console names this boot's PCR 4, and that of the boot that
// was given the key.
func showsBothPCR4(l *lab.Lab) error {
	p, err := predict(context.Background(), l)
	if err != nil {
		return err
	}
	before := l.Kept.(*prediction)
	for what, want := range map[string]string{"this boot's PCR 4": "PCR 4 " + p.PCRs["4"], "PCR 4 of the boot that formatted": "formatted the volume was " + before.PCRs["4"]} {
		if !l.Console.Contains(want) {
			return fmt.Errorf("the console does not show %s: %s", what, want)
		}
	}
	if p.PCRs["4"] == before.PCRs["4"] {
		return errors.New("both images have one PCR 4")
	}
	l.Note("both PCR 4 shown")
	return nil
}

// showsSamePCR4 checks that the console names the PCR 4 that the policy asks for as this
// boot's.
func showsSamePCR4(l *lab.Lab) error {
	if want := "PCR 4 " + l.Kept.(*prediction).PCRs["4"]; !l.Console.Contains(want) {
		return fmt.Errorf("the console does not show the measured %s", want)
	}
	return nil
}

// rootless is an image that does not find its root file system.
var rootless = lab.UKI{Suite: "trixie", More: "root=LABEL=absent rd.retry=20"}

// killWhen kills all processes but the first when the console shows something.
func killWhen(text string) lab.Change {
	return func(_ *lab.Lab, m *vm.Machine) {
		m.Events = append(m.Events, vm.Event{When: text, Do: []vm.Request{{Execute: "chardev-send-break", Arguments: map[string]any{"id": "serial0"}}}})
		m.Type = append(m.Type, vm.Typed{When: text, Text: "i", After: 300 * time.Millisecond})
	}
}

// askFromShell closes the volume in dracut's shell and has unlock open it again.
func askFromShell(_ *lab.Lab, m *vm.Machine) {
	m.Type = append(m.Type, vm.Typed{When: "dracut:/#", Text: "dmsetup remove secretfs; /usr/lib/unlock/unlock & sleep 90; poweroff -f\n", After: 5 * time.Second})
}

// envelopesUnseen looks for what opens KMS' answers in the dump of the memory.
func envelopesUnseen(l *lab.Lab) error {
	memory, err := os.ReadFile(l.File(lab.MemoryFile))
	if err != nil {
		return err
	}
	h := newHaystack(memory)
	envelopes := l.Cloud.Envelopes()
	if len(envelopes) == 0 {
		return errors.New("KMS made no envelope")
	}
	var found []string
	for i, e := range envelopes {
		for _, s := range h.find(needlesOf(e.ContentKey)) {
			found = append(found, fmt.Sprintf("content key %d %v", i, s))
		}
		for _, at := range h.primes(e.Modulus) {
			found = append(found, fmt.Sprintf("a prime of key %d at %#x", i, at))
		}
		if l.Console.Contains(fmt.Sprintf("%x", e.ContentKey)) {
			found = append(found, "content key on the console")
		}
	}
	if found != nil {
		return fmt.Errorf("in memory: %s", strings.Join(found, "\n  "))
	}
	l.Note("content keys 0, RSA primes 0")
	return nil
}

// index is where unlock defines its own NV index.
const nvIndex = 0x0180756c

// leave defines NV indices before the boot.
func leave(attributes uint32, size int) lab.Step {
	return func(ctx context.Context, l *lab.Lab) error {
		return errors.Join(pin(lab.UKI{})(ctx, l), l.TPM.Leave(ctx, nvIndex, attributes, size))
	}
}

// kept checks that an index is still there.
func kept(l *lab.Lab) error {
	if !l.TPM.Has(nvIndex) {
		return errors.New("the index of another program is gone")
	}
	return nil
}

// gone checks that no index is left.
func gone(l *lab.Lab) error {
	if l.TPM.Has(nvIndex) {
		return errors.New("unlock left its index")
	}
	return nil
}

// once checks that a fault was met once: what is refused for good is not asked for again.
func once(fault string) lab.Judge {
	return func(l *lab.Lab) error {
		if n := l.TPM.Struck(fault); n != 1 {
			return fmt.Errorf("the fault %s struck %d times, want once", fault, n)
		}
		return nil
	}
}

// attestFault is what can go wrong with a TPM, its documents and KMS' answers.
type attestFault struct {
	name   string
	tpm    []string // faults of nitrotpm
	kms    []string // of ec2sim
	hint   string   // with which the boot stops; "": it must not
	before lab.Step // pin, by default
	change lab.Change
	check  lab.Judge
}

const (
	ownAttributes   = 1<<2 | 1<<18        // AUTHWRITE, AUTHREAD
	otherAttributes = 1<<1 | 1<<2 | 1<<18 // OWNERWRITE, too
)

var attestFaults = []attestFault{
	{name: "no-tpm", change: func(_ *lab.Lab, m *vm.Machine) { m.TPM = nil }, hint: "--tpm-support v2.0"},
	{name: "tpm-busy", tpm: []string{"testing:5s"}, check: gone},
	{name: "tpm-busy-for-ever", tpm: []string{"testing"}, hint: ""},
	{name: "no-vendor-command", tpm: []string{"no-vendor-command"}, hint: "this instance type's TPM does not attest", check: lab.All(gone, once("no-vendor-command"))},
	{name: "nv-full", tpm: []string{"nv-full"}, hint: "undefine indices that nobody needs"},
	{name: "index-left", before: leave(ownAttributes, 8192), check: gone},
	{name: "index-foreign", before: leave(otherAttributes, 4096), hint: "it is another program's", check: kept},
	{name: "owner-auth", tpm: []string{"owner-auth"}, hint: "owner"},
	{name: "lockout", tpm: []string{"lockout"}, hint: "lockout"},
	{name: "retry", tpm: []string{"retry:3"}, check: gone},
	{name: "yielded", tpm: []string{"yielded:1"}, check: gone},
	{name: "truncated", tpm: []string{"truncated"}, hint: "", check: gone},
	{name: "nsm-error", tpm: []string{"nsm-error"}, hint: "reboot the instance", check: gone},
	{name: "stale", tpm: []string{"stale"}, hint: "KMS does not accept this instance's attestation document", check: gone},
	{name: "forged", tpm: []string{"forged"}, hint: "KMS does not accept this instance's attestation document", check: gone},
	{name: "plaintext-beside", kms: []string{"kms-plaintext"}, hint: "KMS did not attest this call"},
	{name: "plaintext-instead", kms: []string{"kms-unattested"}, hint: "KMS did not attest this call"},
	{name: "cms-other-key", kms: []string{"cms-other-key"}, hint: "something other than KMS answers, or it has encrypted to another machine"},
	{name: "cms-truncated", kms: []string{"cms-truncated"}, hint: "something other than KMS answers"},
	{name: "cms-padding", kms: []string{"cms-padding"}, hint: "something other than KMS answers"},
}

// stops are the faults with which a boot stops though their hint is not fixed.
var stops = []string{"tpm-busy-for-ever", "truncated"}

// attestFaultScenarios boots each.
func attestFaultScenarios() []lab.Scenario {
	var all []lab.Scenario
	for _, f := range attestFaults {
		before := f.before
		if before == nil {
			before = pin(lab.UKI{})
		}
		b := lab.Boot{Before: before, TPMFaults: f.tpm, Machine: f.change, Check: lab.All(f.met, judgeOr(f.check)), Script: "door_closed\nwrite_file"}
		if b.TPMFaults == nil {
			b.TPMFaults = []string{}
		}
		if f.hint != "" || slices.Contains(stops, f.name) {
			b.Script, b.Want = "", []string{"hint: ", f.hint, "exit status 1"}
		}
		all = append(all, lab.Scenario{Name: "attest-fault-" + f.name, Config: attestedHeader + secretfs, Disks: blank(1), Faults: f.kms,
			System: unified, Attested: true, Append: "rd.unlock.timeout=40s", Boots: []lab.Boot{b}})
	}
	return all
}

func judgeOr(j lab.Judge) lab.Judge {
	if j == nil {
		return func(*lab.Lab) error { return nil }
	}
	return j
}

// met checks that the fault was met.
func (f attestFault) met(l *lab.Lab) error {
	struck := func(names []string, count func(string) int) error {
		for _, name := range names {
			name, _, _ = strings.Cut(name, ":")
			n := count(name)
			if n == 0 {
				return fmt.Errorf("the fault %s was never met", name)
			}
			l.Note("%s struck %d times", name, n)
		}
		return nil
	}
	return errors.Join(struck(f.tpm, l.TPM.Struck), struck(f.kms, l.Cloud.Struck))
}
