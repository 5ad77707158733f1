package policy

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"unlock/cmd/unlockctl/internal/measure"
	"unlock/internal/config"
)

// Attestation is what the policy of a key asks for where the configuration has attest =
// true (KMS Developer Guide, "Condition keys for attested platforms").
type Attestation struct {
	Measured      []measure.Prediction // the images that may have the key
	Administrator string               // ARN of who may change the policy
}

// condition is KMS' key for a PCR.
func condition(pcr int) string { return fmt.Sprintf("kms:RecipientAttestation:NitroTPMPCR%d", pcr) }

// bound are the PCRs that a policy asks for. Without Secure Boot PCR 7 is the same for
// every machine; 11 changes while systemd starts.
func bound(p measure.Prediction) []int { return boundWith(p.SecureBoot) }

func boundWith(secureBoot bool) []int {
	if secureBoot {
		return []int{2, 4, 7, 12, 13}
	}
	return []int{2, 4, 12, 13}
}

var pcrValue = regexp.MustCompile(`^[0-9a-f]{96}$`)

// Check refuses measurements that no policy should have.
func (a Attestation) Check() error {
	for _, p := range a.Measured {
		for _, n := range bound(p) {
			if !pcrValue.MatchString(value(p, n)) {
				return fmt.Errorf("a measurement has no PCR %d of 96 hexadecimal digits in lower case; unlockctl measure makes one that has", n)
			}
		}
		if strings.Trim(value(p, 13), "0") != "" {
			return errors.New("PCR 13 of a measurement is not zero: it was taken after the key was released, or with system extensions, which anybody who writes to the ESP can add; predict it with unlockctl measure IMAGE")
		}
	}
	return nil
}

func value(p measure.Prediction, pcr int) string { return p.PCRs[fmt.Sprint(pcr)] }

// Attests reports whether a configuration has a KMS key attested, and whether the same
// one is used without attestation, too.
func Attests(c *config.Config, arn string) (attested, plain bool) {
	for _, u := range uses(c) {
		if arn == "" || slices.Contains(names(u.key.KMSKeys), arn) {
			attested, plain = attested || u.key.Attest, plain || !u.key.Attest
		}
	}
	return attested, plain
}

// attested makes a statement one for each image.
func (a Attestation) attested(s Statement) []Statement {
	var all []Statement
	for i, p := range a.Measured {
		one := s
		one.Sid = sid(s.Sid+"Image", i)
		one.Condition = maps.Clone(s.Condition)
		pcrs := map[string]any{}
		var named []string
		for _, n := range bound(p) {
			pcrs[condition(n)] = value(p, n)
			named = append(named, fmt.Sprint(n))
		}
		one.Condition["StringEqualsIgnoreCase"] = pcrs
		one.Why += fmt.Sprintf("; for a machine that booted %s, as PCR %s of its NitroTPM say", booted(p), strings.Join(named, ", "))
		all = append(all, one)
	}
	return all
}

// booted names what was measured.
func booted(p measure.Prediction) string {
	var files []string
	for _, i := range p.Images {
		files = append(files, i.File)
	}
	if files == nil {
		return "what was measured"
	}
	return strings.Join(files, ", then ")
}

// meanings of PCRs, for people.
var meanings = map[int]string{
	2:  "a driver that firmware or systemd-boot started first, and that can change anything after it",
	4:  "another image: kernel, initramfs, our configuration or built-in command line",
	7:  "other keys of Secure Boot",
	12: "a command line, credentials or add-ons from beside the image",
	13: "system extensions from beside the image, or a key that was released before in this boot",
}

// denials are what closes the ways round: other Allows, those of IAM among them, count
// for nothing without the right PCRs.
func (a Attestation) denials() []Statement {
	var all []Statement
	pcrs := boundWith(!slices.ContainsFunc(a.Measured, func(p measure.Prediction) bool { return !p.SecureBoot }))
	// One statement a PCR: keys under one operator all have to differ.
	for _, n := range pcrs {
		var values []string
		for _, p := range a.Measured {
			values = add(values, value(p, n))
		}
		all = append(all, Statement{
			Sid: fmt.Sprintf("UnlockOnlyPCR%d", n), Effect: "Deny", Principal: "*", Action: slices.Clone(revealing), Resource: []string{"*"},
			Condition: map[string]map[string]any{"StringNotEqualsIgnoreCase": {condition(n): values}},
			Why:       fmt.Sprintf("nobody has plaintext without a NitroTPM's document, or with another PCR %d: %s", n, meanings[n]),
		})
	}
	return append(all, Statement{
		Sid: "UnlockOnlyAdministrator", Effect: "Deny", Principal: "*", Action: []string{"kms:CreateGrant", "kms:PutKeyPolicy", "kms:ReEncryptFrom", "kms:ReplicateKey"}, Resource: []string{"*"},
		Condition: map[string]map[string]any{"ArnNotEquals": {"aws:PrincipalArn": a.Administrator}},
		Why: "nobody but " + a.Administrator + " opens a way round: a grant, another policy, ciphertext that is encrypted anew under a key without these conditions, " +
			"which needs no document, or a replica of a multi-Region key, which has a policy of its own",
	})
}

// revealing are the calls that yield the plaintext of an unlock key.
var revealing = []string{"kms:Decrypt", "kms:GenerateDataKey"}

// Remaining says what a key policy with these denials leaves to the statement that lets
// the account administer the key.
func (a Attestation) Remaining() string {
	return "what the statement for the account's root still allows whom IAM lets: kms:Encrypt (new ciphertext, so a passphrase that they know), GenerateDataKeyWithoutPlaintext, " +
		"DescribeKey, GetKeyPolicy, and DisableKey and ScheduleKeyDeletion, after which nothing opens; and " + a.Administrator + " may change this policy, and have the key then. CloudTrail shows it: unlockctl audit"
}
