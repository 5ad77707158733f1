package audit_test

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"unlock/cmd/unlockctl/internal/audit"
	"unlock/test/cloudtrail"
)

var begin = time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)

// fleet boots n times: instances that are launched, and most of which boot again, some
// by EC2 and some by themselves.
func fleet(w *world, n int) []*machine {
	w.trouble = true
	var machines []*machine
	at := begin
	for boots := 0; boots < n; {
		m := w.machine()
		machines = append(machines, m)
		t := at
		w.launched(m, t, "RunInstances")
		w.boot(m, t.Add(20*time.Second), true)
		boots++
		for range w.random.IntN(3) {
			if boots == n {
				break
			}
			t = t.Add(time.Duration(30+w.random.IntN(300)) * time.Minute)
			if w.random.IntN(2) == 0 {
				w.launched(m, t, "RebootInstances")
			}
			w.boot(m, t.Add(20*time.Second), false)
			boots++
		}
		at = at.Add(time.Duration(w.random.IntN(180)) * time.Second)
	}
	return machines
}

// TestPlanted has a thousand honest boots and whatever somebody may do beside them: all
// of that is found, under its own name, and nothing else.
func TestPlanted(t *testing.T) {
	t.Parallel()
	w := newWorld()
	machines := fleet(w, 1000)
	if len(w.boots) != 1000 {
		t.Fatalf("%d boots", len(w.boots))
	}
	acts := plantAll(w, machines)
	if acts < 25 {
		t.Fatalf("%d acts are planted", acts)
	}
	files, keys := w.files()
	q := question
	q.PCRs = map[int]string{4: pcr4}
	a := audit.New(q)
	for i := range w.boots {
		a.AddStatus(fmt.Sprint("boot", i), &w.boots[i])
	}
	r := judge(t, a, files, keys)
	found, wrong := map[string]bool{}, 0
	for _, f := range r.Findings {
		if f.Call == nil {
			t.Errorf("%s: %s %s", f.Name, f.Why, f.File)
			continue
		}
		if !slices.Contains(strings.Fields(w.planted[f.Call.EventID]), f.Name) {
			t.Errorf("false: %s: %s: %+v", f.Name, f.Why, f.Call)
			wrong++
		}
		found[f.Call.EventID+f.Name] = true
	}
	hits := 0
	for id, names := range w.planted {
		for _, name := range strings.Fields(names) {
			if !found[id+name] {
				t.Errorf("not found: %s on %s", name, describe(w, id))
			} else {
				hits++
			}
		}
	}
	t.Logf("%d acts planted, with %d findings wanted: %d found, %d false, among %d boots", acts, len(r.Findings), hits, wrong, len(w.boots))
	if c := r.Counts; c.Read != int64(len(w.events)) || c.Read != c.Ours+c.Other+c.Outside+c.Duplicate+c.Skipped {
		t.Errorf("counts %+v of %d records", c, len(w.events))
	}
	if len(r.Chains) != 1 || r.Chains[0].Signed != r.Chains[0].Digests || r.Chains[0].Valid != r.Chains[0].Files {
		t.Errorf("digests %+v, want all signed and valid", r.Chains)
	}
}

func describe(w *world, id string) string {
	for _, e := range w.events {
		if e.EventID == id {
			return string(e.JSON())
		}
	}
	return id
}

// plantAll does everything that should be found, and returns how many acts that were.
func plantAll(w *world, machines []*machine) int {
	n := 0
	at := begin.Add(90 * time.Minute)
	// act plants one, with all findings that it leads to.
	act := func(e *cloudtrail.Event, findings ...string) *cloudtrail.Event {
		for _, f := range findings {
			w.plant(f, e)
		}
		n++
		at = at.Add(31 * time.Second)
		return e
	}
	victim := func() *machine { // it runs for half a day
		m := w.machine()
		w.launched(m, at.Add(-12*time.Hour), "RunInstances")
		w.session(m, at)
		return m
	}
	unseen := "call-without-boot" // as no status file has the call
	nobody := &machine{public: "192.0.2.44"}

	// Strangers.
	act(by(w.kms(nobody, at, "Decrypt", sealedKey, purposeSecret), admin), "not-the-role")
	act(by(w.kms(nobody, at, "Encrypt", sealedKey, purposeSecret), admin), "not-the-role")
	act(by(w.kms(nobody, at, "Decrypt", sealedKey, purposeSecret), "arn:aws:iam::111122223333:root"), "not-the-role")
	e := w.kms(victim(), at, "Decrypt", sealedKey, purposeSecret)
	e.Identity.ARN = strings.Replace(e.Identity.ARN, "/unlock/", "/web/", 1)
	act(e, "not-the-role")
	e = w.kms(victim(), at, "Decrypt", sealedKey, purposeSecret)
	e.Identity.Delivery = "" // sts:AssumeRole with an instance's name
	act(e, "not-the-role")
	act(by(w.kms(nobody, at, "Decrypt", sealedKey, purposeSecret), "arn:aws:iam::444455556666:user/eve"), "not-the-role")
	e = w.kms(nobody, at, "Decrypt", sealedKey, purposeSecret)
	e.Identity, e.Address = cloudtrail.Identity{InvokedBy: "backup.amazonaws.com"}, "backup.amazonaws.com"
	act(e, "not-the-role")

	// Stolen credentials, of a boot that was honest.
	m := machines[40]
	w.boot(m, at.Add(time.Hour), false)
	e = w.kms(m, at.Add(time.Hour+time.Minute), "Decrypt", sealedKey, purposeSecret)
	e.Address, e.Endpoint = "192.0.2.66", ""
	act(e, "elsewhere", unseen, "repeated")
	m = machines[41]
	w.boot(m, at.Add(time.Hour), false)
	e = w.get(m, at.Add(time.Hour+time.Minute))
	e.Address, e.Endpoint = "172.31.99.99", "vpce-0aaaaaaaaaaaaaaaa"
	act(e, "elsewhere")
	e = w.kms(victim(), at, "Decrypt", sealedKey, purposeSecret)
	e.Identity.Delivery = "1.0"
	act(e, "imdsv1", unseen, "late")

	// The right instance at the wrong time, or doing something else.
	act(w.kms(victim(), at.Add(24*time.Hour), "Decrypt", sealedKey, purposeSecret), "late")
	act(w.kms(victim(), at, "Encrypt", sealedKey, purposeSecret), "other-operation")
	act(w.kms(victim(), at, "Decrypt", sealedKey, map[string]string{"purpose": "payroll"}), "other-context", unseen, "late")
	act(w.kms(victim(), at, "Decrypt", sealedKey, nil), "other-context", unseen, "late")
	act(w.kms(victim(), at, "Decrypt", headerKey, purposeScratch), "other-context", unseen, "late")
	e = w.kms(victim(), at, "Decrypt", strings.Replace(headerKey, "us-east-1", "eu-west-1", 1), bound(w.uuid()))
	e.Region = "eu-west-1"
	act(e, "other-region", unseen, "late")

	// Sets.
	m = victim()
	w.boot(m, at.Add(-12*time.Hour), true)
	w.session(m, at)
	act(w.kms(m, at, "GenerateDataKey", headerKey, bound(m.set)), "set-exists", unseen, "late")
	m = victim()
	act(w.kms(m, at, "Decrypt", headerKey, bound(machines[50].set)), "set-moved", unseen, "late")

	// Keys.
	e = by(w.kms(nobody, at, "ReEncrypt", sealedKey, nil), admin)
	e.Request = map[string]any{"sourceEncryptionContext": purposeSecret, "destinationEncryptionContext": map[string]string{}, "destinationKeyId": "0987dcba-09fe-87dc-65ba-ab0987654321"}
	e.Resources = append(e.Resources, cloudtrail.Resource{Account: account, Type: "AWS::KMS::Key", ARN: "arn:aws:kms:us-east-1:111122223333:key/0987dcba-09fe-87dc-65ba-ab0987654321"})
	act(e, "re-encrypted", "not-the-role")
	for name, finding := range map[string]string{"CreateGrant": "grant", "PutKeyPolicy": "key-policy", "DisableKey": "key-disabled", "ScheduleKeyDeletion": "key-deletion",
		"DisableKeyRotation": "rotation-off", "ReplicateKey": "key-changed", "EnableKey": "key-changed"} {
		e := by(w.kms(nobody, at, name, sealedKey, nil), admin)
		e.ReadOnly = false
		e.Request = map[string]any{"keyId": sealedKey, "granteePrincipal": "arn:aws:iam::111122223333:role/web", "operations": []string{"Decrypt"}}
		act(e, finding)
	}

	// The ciphertext.
	act(by(w.get(nobody, at), admin), "ciphertext-read")
	for _, name := range []string{"PutObject", "DeleteObject"} {
		e := by(w.get(nobody, at), admin)
		e.Name, e.ReadOnly = name, false
		act(e, "ciphertext-replaced")
	}
	e = by(w.get(nobody, at), admin)
	e.Name, e.ReadOnly, e.Request = "CopyObject", false, map[string]any{"bucketName": "loot", "key": "x", "x-amz-copy-source": bucket + "/" + object}
	act(e, "ciphertext-read")
	for _, name := range []string{"PutBucketVersioning", "PutBucketPolicy", "DeleteObjects"} {
		e := by(w.get(nobody, at), admin)
		e.Name, e.ReadOnly, e.Data, e.Request = name, false, false, map[string]any{"bucketName": bucket, "Host": "s3.amazonaws.com"}
		act(e, "bucket-changed")
	}
	e = by(w.call(nobody, at, "ssm", "GetParameters"), admin)
	e.Request = map[string]any{"names": []string{"/other", "arn:aws:ssm:us-east-1:111122223333:parameter/unlock/data"}}
	act(e, "ciphertext-read")
	e = by(w.call(nobody, at, "ssm", "PutParameter"), admin)
	e.ReadOnly, e.Request = false, map[string]any{"name": "/unlock/data", "overwrite": true}
	act(e, "ciphertext-replaced")
	e = by(w.call(nobody, at, "secretsmanager", "GetSecretValue"), admin)
	e.Request = map[string]any{"secretId": "arn:aws:secretsmanager:us-east-1:111122223333:secret:unlock/vault-a1b2c3", "versionId": "v"}
	act(e, "ciphertext-read")
	e = by(w.call(nobody, at, "secretsmanager", "PutSecretValue"), admin)
	e.ReadOnly, e.Request = false, map[string]any{"secretId": "unlock/vault"}
	act(e, "ciphertext-replaced")

	// Attempts.
	act(refused(by(w.kms(nobody, at, "Decrypt", sealedKey, purposeSecret), admin), "AccessDenied"), "denied", "not-the-role")
	e = refused(by(w.kms(nobody, at, "Decrypt", sealedKey, nil), admin), "AccessDenied")
	e.Request, e.Resources, e.Message = nil, nil, "User: "+admin+" is not authorized to perform: kms:Decrypt on resource: "+sealedKey
	act(e, "denied", "not-the-role")
	act(refused(w.kms(victim(), at, "Decrypt", sealedKey, purposeSecret), "DisabledException"), "denied")
	act(refused(w.kms(victim(), at, "Decrypt", sealedKey, purposeSecret), "InvalidCiphertextException"), "wrong-ciphertext")
	act(refused(by(w.get(nobody, at), admin), "AccessDenied"), "denied")

	// Attestation.
	m = victim()
	e = w.kms(m, at, "Decrypt", sealedKey, purposeSecret)
	e.Additional = map[string]any{"recipient": map[string]any{"attestationDocumentModuleId": m.id + "-tpm0000000000000000", "attestationDocumentNitroTPMPCR4": "deadbeef"}}
	act(e, "other-pcr", unseen, "late")
	m = victim()
	e = w.kms(m, at, "Decrypt", sealedKey, purposeSecret)
	e.Additional = map[string]any{"recipient": map[string]any{"attestationDocumentModuleId": machines[60].id + "-tpm0000000000000000", "attestationDocumentNitroTPMPCR4": pcr4}}
	act(e, "elsewhere", unseen, "late")

	// The trail itself.
	for _, name := range []string{"StopLogging", "DeleteTrail", "PutEventSelectors"} {
		e := by(w.call(nobody, at, "cloudtrail", name), admin)
		e.ReadOnly, e.Request = false, map[string]any{"name": "unlock"}
		act(e, "trail-changed")
	}

	// What is no act: administrators look, others work, AWS encrypts other things.
	for range 50 {
		by(w.kms(nobody, at, "DescribeKey", sealedKey, nil), admin)
		by(w.kms(nobody, at, "Decrypt", "arn:aws:kms:us-east-1:111122223333:key/99999999-2222-3333-4444-555555555555", purposeSecret), admin)
		other := w.get(machines[0], at)
		other.Request["key"] = "another"
		at = at.Add(time.Second)
	}
	return n
}

// TestWithoutStatus judges the times of calls by the starts that EC2 recorded, and by
// those of --boots.
func TestWithoutStatus(t *testing.T) {
	t.Parallel()
	w := newWorld()
	m, other := w.machine(), w.machine()
	w.launched(m, begin, "RunInstances")
	w.boot(m, begin.Add(20*time.Second), true)
	w.launched(m, begin.Add(time.Hour), "RebootInstances")
	w.boot(m, begin.Add(time.Hour+20*time.Second), false)
	w.boot(m, begin.Add(5*time.Hour), false) // nobody saw it start
	w.boot(other, begin.Add(2*time.Hour), true)
	files, keys := w.files()
	for _, row := range []struct {
		name, boots string
		want        []string // findings by instance
	}{
		{"of the trail", "", []string{"late m", "late m", "late m"}},
		{"DescribeInstances", describeInstances(m, begin.Add(5*time.Hour-20*time.Second)), []string{"unknown-instance other"}},
		{"EventBridge", stateChange(m, begin.Add(5*time.Hour-20*time.Second)) + "[" + stateChange(other, begin.Add(2*time.Hour)) + "]", nil},
		{"of another time", stateChange(m, begin.Add(9*time.Hour)) + stateChange(other, begin), []string{"late m", "late m", "late m", "late other", "late other", "late other"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			a := audit.New(question)
			if err := a.AddBoots(strings.NewReader(row.boots)); err != nil {
				t.Fatal(err)
			}
			got := map[string]int{}
			for _, f := range judge(t, a, files, keys).Findings {
				name := map[string]string{m.id: "m", other.id: "other"}[f.Call.Instance]
				got[f.Name+" "+name]++
			}
			want := map[string]int{}
			for _, f := range row.want {
				want[f]++
			}
			if row.name == "DescribeInstances" { // every call of it
				want["unknown-instance other"] = 5
			}
			if fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("found %v, want %v", got, want)
			}
		})
	}
	if err := audit.New(question).AddBoots(strings.NewReader(`{"a":1}`)); err == nil {
		t.Error("AddBoots took what is neither")
	}
}

func describeInstances(m *machine, at time.Time) string {
	data, _ := json.Marshal(map[string]any{"Reservations": []any{map[string]any{"Instances": []any{map[string]any{
		"InstanceId": m.id, "LaunchTime": at, "PrivateIpAddress": m.addr, "PublicIpAddress": m.public}}}}})
	return string(data)
}

func stateChange(m *machine, at time.Time) string {
	return fmt.Sprintf(`{"detail-type":"EC2 Instance State-change Notification","time":%q,"detail":{"instance-id":%q,"state":"running"}}`, at.Format(time.RFC3339), m.id)
}

// TestPlaces judges where calls come from by networks, endpoints and addresses.
func TestPlaces(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name     string
		networks []string
		doors    []string
		boots    bool
		addr     string
		door     string
		want     bool
	}{
		{name: "nothing known", addr: "192.0.2.66"},
		{name: "in the networks", networks: []string{"172.31.0.0/16"}, addr: "172.31.5.10", door: kmsDoor},
		{name: "not in the networks", networks: []string{"172.31.0.0/16"}, addr: "192.0.2.66", want: true},
		{name: "not through the endpoint", doors: []string{kmsDoor}, addr: "172.31.5.10", want: true},
		{name: "through another endpoint", doors: []string{kmsDoor}, addr: "172.31.5.10", door: s3Door, want: true},
		{name: "its own address", boots: true, addr: "172.31.5.10", door: kmsDoor},
		{name: "its neighbour's", boots: true, addr: "172.31.5.11", door: kmsDoor, want: true},
		{name: "a service's", addr: "lambda.amazonaws.com", want: true},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld()
			m := &machine{id: "i-0123456789abcdef0", addr: "172.31.5.10", key: "ASIAEXAMPLE", created: begin}
			q := question
			for _, n := range row.networks {
				q.Networks = append(q.Networks, netip.MustParsePrefix(n))
			}
			q.Endpoints = row.doors
			a := audit.New(q)
			if row.boots {
				if err := a.AddBoots(strings.NewReader(describeInstances(m, begin))); err != nil {
					t.Fatal(err)
				}
			}
			e := w.kms(m, begin, "Decrypt", sealedKey, purposeSecret)
			e.Address, e.Endpoint = row.addr, row.door
			files, keys := w.files()
			r := judge(t, a, files, keys)
			if got := slices.ContainsFunc(r.Findings, func(f audit.Finding) bool { return f.Name == "elsewhere" }); got != row.want || len(r.Calls) != 1 {
				t.Errorf("elsewhere = %v, want %v: %+v", got, row.want, r.Findings)
			}
		})
	}
}
