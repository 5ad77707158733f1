package doctor

import (
	"context"
	"encoding/json"
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
	return p
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

// policies looks whether the policies of attested keys have the next boot's PCR 4.
func (d *Doctor) policies(ctx context.Context, r *report, a *account.Account, c *config.Config, p *measure.Prediction) {
	if p == nil {
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
		r.add("policy", Skip, "run it as somebody who may read the key's policy", "%v", err)
		return
	}
	values, err := measuredBy(text)
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

// measuredBy returns the values of PCR 4 for which a key policy allows something.
func measuredBy(policy string) ([]string, error) {
	var document struct {
		Statement []struct {
			Effect    string
			Condition map[string]map[string]any
		}
	}
	if err := json.Unmarshal([]byte(policy), &document); err != nil {
		return nil, err
	}
	var all []string
	for _, s := range document.Statement {
		if s.Effect != "Allow" {
			continue
		}
		for _, keys := range s.Condition {
			for name, value := range keys {
				if !strings.EqualFold(name, "kms:RecipientAttestation:NitroTPMPCR4") {
					continue
				}
				switch v := value.(type) {
				case string:
					all = append(all, v)
				case []any:
					for _, one := range v {
						if text, ok := one.(string); ok {
							all = append(all, text)
						}
					}
				}
			}
		}
	}
	return all, nil
}
