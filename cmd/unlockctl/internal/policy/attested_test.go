package policy_test

import (
	"encoding/hex"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"

	"unlock/cmd/unlockctl/internal/measure"
	"unlock/cmd/unlockctl/internal/policy"
	"unlock/internal/config"
	"unlock/test/ec2sim"
)

const (
	administrator = "arn:aws:iam::111122223333:role/key-admin"
	session       = "arn:aws:sts::111122223333:assumed-role/unlock/i-0123456789abcdef0"
	adminSession  = "arn:aws:sts::111122223333:assumed-role/key-admin/somebody"
	developer     = "arn:aws:iam::111122223333:user/developer" // whom IAM allows everything
)

// pcrs of an image: those that are not given are zero.
func pcrs(set map[int]string) map[int][]byte {
	all := map[int][]byte{}
	for n := range 24 {
		all[n] = make([]byte, 48)
		if v := set[n]; v != "" {
			all[n], _ = hex.DecodeString(strings.Repeat(v, 48))
		}
	}
	return all
}

func prediction(secure bool, set map[int]string) measure.Prediction {
	p := measure.Prediction{PCRs: map[string]string{}, SecureBoot: secure, Images: []measure.Loaded{{File: "unlock.efi"}}}
	for _, n := range measure.Predicted() {
		p.PCRs[map[int]string{2: "2", 4: "4", 7: "7", 11: "11", 12: "12", 13: "13"}[n]] = hex.EncodeToString(pcrs(set)[n])
	}
	return p
}

// TestAttestedKey has the simulated KMS evaluate the policy, beside the statement that
// lets the account administer the key.
func TestAttestedKey(t *testing.T) {
	t.Parallel()
	cloud, err := ec2sim.New(ec2sim.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cloud.Close() })
	key := cloud.CreateKey()
	c, err := config.Parse("unlock.toml", []byte("[key]\nsource = \"header\"\nattest = true\nkms_key = \""+key+"\"\n[[volume]]\nname = \"a\"\ndevice = \"instance-store\"\nformat = \"blank\"\n"))
	if err != nil {
		t.Fatal(err)
	}
	context := map[string]string{config.ContextSet: "x"}
	one, two := map[int]string{4: "aa", 7: "77"}, map[int]string{4: "bb", 7: "77"}
	with := func(set map[int]string, n int, v string) map[int]string {
		m := maps.Clone(set)
		m[n] = v
		return m
	}
	type call struct {
		who, action string
		booted      map[int]string // nil: no document
	}
	for name, row := range map[string]struct {
		measured []measure.Prediction
		allowed  []call
		denied   []call
	}{
		"one image": {
			[]measure.Prediction{prediction(false, one)},
			[]call{{session, "Decrypt", one}, {session, "GenerateDataKey", one}, {session, "Decrypt", with(one, 7, "78")}, {session, "Decrypt", with(one, 11, "11")}, {adminSession, "PutKeyPolicy", nil}, {adminSession, "CreateGrant", nil},
				{developer, "Encrypt", nil}, {developer, "DescribeKey", nil}, {developer, "DisableKey", nil}},
			[]call{{session, "Decrypt", nil}, {session, "GenerateDataKey", nil}, {session, "Decrypt", two}, {session, "Decrypt", with(one, 12, "01")}, {session, "Decrypt", with(one, 13, "01")}, {session, "Decrypt", with(one, 2, "01")},
				{developer, "Decrypt", nil}, {adminSession, "Decrypt", nil}, {adminSession, "GenerateDataKey", nil}, {developer, "Decrypt", two},
				{developer, "CreateGrant", nil}, {developer, "PutKeyPolicy", nil}, {developer, "ReEncryptFrom", nil}, {developer, "ReplicateKey", nil}, {session, "ReEncryptFrom", one}, {session, "CreateGrant", one}},
		},
		"two images": {
			[]measure.Prediction{prediction(false, one), prediction(false, two)},
			[]call{{session, "Decrypt", one}, {session, "Decrypt", two}},
			[]call{{session, "Decrypt", nil}, {session, "Decrypt", with(one, 4, "cc")}, {session, "Decrypt", with(two, 12, "01")}},
		},
		"Secure Boot": {
			[]measure.Prediction{prediction(true, one)},
			[]call{{session, "Decrypt", one}},
			[]call{{session, "Decrypt", with(one, 7, "78")}, {session, "Decrypt", with(one, 4, "cc")}, {session, "Decrypt", with(one, 2, "01")}, {session, "Decrypt", nil}},
		},
		"one with Secure Boot, one without": {
			[]measure.Prediction{prediction(true, one), prediction(false, two)},
			[]call{{session, "Decrypt", one}, {session, "Decrypt", two}, {session, "Decrypt", with(two, 7, "78")}},
			[]call{{session, "Decrypt", nil}, {session, "Decrypt", with(two, 12, "01")}},
		},
	} {
		a := policy.Attestation{Measured: row.measured, Administrator: administrator}
		if err := a.Check(); err != nil {
			t.Fatal(err)
		}
		d := policy.Key(c, key, role, a)
		d.Statement = append([]policy.Statement{{Sid: "Account", Effect: "Allow", Principal: map[string]string{"AWS": "arn:aws:iam::111122223333:root"}, Action: []string{"kms:*"}, Resource: []string{"*"}, Why: "the account"}}, d.Statement...)
		text, err := json.Marshal(d)
		if err != nil {
			t.Fatal(err)
		}
		cloud.SetKeyPolicy(key, string(text))
		for i, k := range slices.Concat(row.allowed, row.denied) {
			var document *ec2sim.Document
			if k.booted != nil {
				document = &ec2sim.Document{PCRs: pcrs(k.booted)}
			}
			err := cloud.Allowed(k.who, key, k.action, context, document)
			if want := i < len(row.allowed); (err == nil) != want {
				t.Errorf("%s: %s by %s, booted %v: %v, want allowed: %v\n%s", name, k.action, k.who, k.booted, err, want, text)
			}
		}
		for _, s := range d.Statement {
			if s.Why == "" {
				t.Errorf("%s: %s is not explained", name, s.Sid)
			}
		}
		// In an account that gives its IAM no say, the role has the key by its own statement.
		d.Statement = d.Statement[1:]
		text, err = json.Marshal(d)
		if err != nil {
			t.Fatal(err)
		}
		cloud.SetKeyPolicy(key, string(text))
		if err := cloud.Allowed(session, key, "Decrypt", context, &ec2sim.Document{PCRs: pcrs(row.allowed[0].booted)}); err != nil {
			t.Errorf("%s, without the account's statement: %v", name, err)
		}
	}
	if r := (policy.Attestation{Administrator: administrator}).Remaining(); !strings.Contains(r, administrator) || !strings.Contains(r, "ScheduleKeyDeletion") {
		t.Errorf("what remains: %s", r)
	}
}

// TestMeasurements are what no policy should have.
func TestMeasurements(t *testing.T) {
	t.Parallel()
	good := prediction(false, map[int]string{4: "aa"})
	change := func(pcr, v string) measure.Prediction {
		p := prediction(false, map[int]string{4: "aa"})
		p.PCRs[pcr] = v
		return p
	}
	for name, row := range map[string]struct {
		p    measure.Prediction
		want string
	}{
		"good":                    {good, ""},
		"no PCR 4":                {change("4", ""), "no PCR 4"},
		"no PCR 2":                {change("2", ""), "no PCR 2"},
		"SHA-256":                 {change("12", strings.Repeat("0", 64)), "no PCR 12 of 96"},
		"capitals":                {change("4", strings.Repeat("AB", 48)), "in lower case"},
		"after the key":           {change("13", strings.Repeat("ab", 48)), "PCR 13 of a measurement is not zero"},
		"no PCR 7, Secure Boot":   {func() measure.Prediction { p := change("7", ""); p.SecureBoot = true; return p }(), "no PCR 7"},
		"no PCR 7, which is none": {change("7", ""), ""},
	} {
		err := policy.Attestation{Measured: []measure.Prediction{good, row.p}}.Check()
		if row.want == "" && err != nil || row.want != "" && (err == nil || !strings.Contains(err.Error(), row.want)) {
			t.Errorf("%s: %v, want %q", name, err, row.want)
		}
	}
}
