package doctor

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"unlock/cmd/unlockctl/internal/account"
	"unlock/cmd/unlockctl/internal/measure"
	"unlock/internal/config"
	"unlock/internal/ec2/attest"
	"unlock/internal/hint"
)

// This file is what keys with attest = true need: an image that can be measured, a TPM
// that attests, and a key policy that asks for the one and refuses all else.

// attested looks at the image and the TPM, and returns what the next boot will measure,
// nil if that cannot be told.
func (d *Doctor) attested(ctx context.Context, r *report, c *config.Config) *measure.Prediction {
	if !c.Attests() {
		return nil
	}
	d.tpmDriver(r)
	if !d.Offline {
		d.tpm(ctx, r)
	}
	if d.ESP == "" {
		r.add("measure", Skip, "name it with --esp", "no EFI system partition is mounted: what the next boot measures is not known")
		return nil
	}
	const advice = "boot a unified kernel image by systemd-boot or as EFI/BOOT/BOOTX64.EFI: GRUB and stubs without version cannot be predicted"
	images, err := measure.Open(d.ESP)
	if err != nil {
		r.add("measure", Fail, advice, "%v", err)
		return nil
	}
	p, err := measure.Predict(images, nil)
	if err != nil {
		r.add("measure", Fail, advice, "%v", err)
		return nil
	}
	last := p.Images[len(p.Images)-1]
	r.add("measure", OK, "", "%s is a %s; the next boot's PCR 4 is %s", last.File, last.What, p.PCRs["4"])
	d.closed(r, last.File, strings.Fields(images[len(images)-1].CommandLine()))
	if d.Policy != "" {
		text, err := os.ReadFile(d.Policy)
		if err != nil {
			r.add("policy", Fail, "name the file that unlockctl policy key --measured FILE printed", "%v", err)
		} else {
			d.judge(r, "file "+d.Policy, string(text), p)
		}
	}
	return p
}

// closed looks on an image's kernel command line for what keeps root of the running system
// out of the next boot.
func (d *Doctor) closed(r *report, file string, cmdline []string) {
	if !slices.Contains(cmdline, "nohibernate") {
		r.add("measure", Fail, "build the image with nohibernate on its kernel command line",
			"%s would resume a system that hibernated, which could ask for keys as if it were the image: unlock does not attest in it", file)
	}
	systemd := d.exists("usr/bin/dracut") || slices.Contains(hooksOf(d.read("etc/mkinitcpio.conf")), "sd-unlock")
	if d.System != "" && systemd && !slices.Contains(cmdline, "efi=noruntime") {
		r.add("measure", Warn, "build the image with efi=noruntime on its kernel command line, or turn Secure Boot on",
			"%s: where Secure Boot is off, systemd in the initramfs obeys a variable of the firmware (SystemdOptions) that root can set, and no PCR of the policy shows it", file)
	}
}

// tpmDriver looks for a driver of NitroTPM in the kernel.
func (d *Doctor) tpmDriver(r *report) {
	if have, err := moduleNames(d.Modules); err == nil && !have["tpm_crb"] && !have["tpm_tis"] {
		r.add("tpm", Fail, "use a kernel that has one", "kernel %s has no driver for a TPM (tpm_crb, tpm_tis)", filepath.Base(d.Modules))
	}
}

// tpm asks the TPM for a document, as a boot does.
func (d *Doctor) tpm(ctx context.Context, r *report) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	t, err := d.TPM(ctx)
	if err != nil {
		r.add("tpm", Fail, hint.Of(err), "%v", err)
		return
	}
	defer t.Close()
	to := attest.New(t.Request)
	defer to.Close()
	if _, err := to.Document(ctx); err != nil {
		r.add("tpm", Fail, hint.Of(err), "%v", err)
		return
	}
	m := to.Measured()
	if m == nil {
		r.add("tpm", Fail, "report this to AWS", "the attestation document cannot be read")
		return
	}
	r.add("tpm", OK, "", "%s attests", m.Module)
	all, err := t.Indices(ctx)
	if err != nil {
		r.add("tpm", Fail, hint.Of(err), "listing NV indices: %v", err)
	}
	for _, i := range all {
		if i.Left() {
			r.add("tpm", Warn, fmt.Sprintf("undefine it, unless an attestation tool is running just now: tpm2_nvundefine %#x", i.Handle),
				"NV index %#x of %d bytes has been left behind; when there is no more space, no boot attests", i.Handle, i.Size)
		}
	}
	if m.Closed() {
		r.add("tpm", OK, "", "PCR %d is extended: nothing gets attested keys in this boot any more", attest.LastPCR)
	} else {
		r.add("tpm", Warn, "rebuild the image with this configuration, and boot it", "PCR %d is not extended: in this boot, root can have attested keys from KMS once more", attest.LastPCR)
	}
}

// refused judges what came of a call without a document for an attested key, and reports
// whether it was made as it should.
func refused(r *report, what string, err error) {
	switch {
	case err == nil:
		r.add("attest", Fail, "give the key the policy that unlockctl policy key --measured FILE prints", "%s: KMS gives the key without attestation", what)
	case account.Denied(err):
		r.add("attest", OK, "", "%s: KMS refuses it without attestation", what)
	default:
		r.add("kms", Fail, hint.Of(err), "%s: %v", what, err)
	}
}

// policies looks whether the policies of attested keys have the next boot's PCR 4, where
// no file has stood for them.
func (d *Doctor) policies(ctx context.Context, r *report, a *account.Account, c *config.Config, p *measure.Prediction) {
	if p == nil || d.Policy != "" {
		return
	}
	var seen []string
	for _, v := range c.Volumes {
		if !v.Key.Attest {
			continue
		}
		for _, key := range v.Key.KMSKeys {
			if slices.Contains(seen, key.String()) {
				continue
			}
			seen = append(seen, key.String())
			d.policy(ctx, r, a, key.String(), p)
		}
	}
}

func (d *Doctor) policy(ctx context.Context, r *report, a *account.Account, key string, p *measure.Prediction) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	text, err := a.KeyPolicy(ctx, key)
	if err != nil {
		r.add("policy", Skip, "run it as somebody who may read the key's policy, or name a file with the policy", "%v", err)
		return
	}
	d.judge(r, key, text, p)
}

// judge holds a key policy against what the next boot will measure.
func (d *Doctor) judge(r *report, key, policy string, p *measure.Prediction) {
	values, open, err := measuredBy(policy)
	for _, pcr := range open {
		r.add("policy", Warn, "put the policy that unlockctl policy key --measured FILE prints", "the policy of %s asks for PCR 4 without PCR %s: %s", key, pcr, openBy[pcr])
	}
	switch {
	case err != nil:
		r.add("policy", Warn, "", "reading the policy of %s: %v", key, err)
	case slices.ContainsFunc(values, func(v string) bool { return strings.EqualFold(v, p.PCRs["4"]) }):
		r.add("policy", OK, "", "the policy of %s has the next boot's PCR 4, among %d", key, len(values))
	default:
		r.add("policy", Fail, "before the next boot: unlockctl measure --json "+d.ESP+" >FILE, and unlockctl policy key with --measured FILE beside those that are there",
			"the policy of %s does not have the next boot's PCR 4, %s", key, p.PCRs["4"])
	}
}

// openBy says what passes a policy that lacks a PCR.
var openBy = map[string]string{
	"2":  "root on the running system puts a driver on the ESP, or names one in a variable of the firmware, and the next boot starts it before the image",
	"12": "whoever starts the instance, or writes to its ESP, adds to the kernel command line",
	"13": "root on the running system can have the key once more",
}

const attestation = "kms:recipientattestation:nitrotpmpcr" // in lower case; AWS does not distinguish

// measuredBy returns the values of PCR 4 for which a key policy allows something, and
// which other PCRs a statement that allows it does not ask for.
func measuredBy(policy string) (values, open []string, err error) {
	var document struct {
		Statement []struct {
			Effect    string
			Condition map[string]map[string]any
		}
	}
	if err := json.Unmarshal([]byte(policy), &document); err != nil {
		return nil, nil, err
	}
	for _, s := range document.Statement {
		if s.Effect != "Allow" {
			continue
		}
		asked := map[string][]string{}
		for _, keys := range s.Condition {
			for name, value := range keys {
				if pcr, ok := strings.CutPrefix(strings.ToLower(name), attestation); ok {
					asked[pcr] = append(asked[pcr], texts(value)...)
				}
			}
		}
		if asked["4"] == nil {
			continue
		}
		values = append(values, asked["4"]...)
		for _, pcr := range []string{"2", "12", "13"} {
			if asked[pcr] == nil && !slices.Contains(open, pcr) {
				open = append(open, pcr)
			}
		}
	}
	return values, open, nil
}

// texts are the values of a condition, which is a string or a list of strings.
func texts(value any) []string {
	switch v := value.(type) {
	case string:
		return []string{v}
	case []any:
		var all []string
		for _, one := range v {
			all = append(all, texts(one)...)
		}
		return all
	}
	return nil
}
