package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"unlock/internal/status"
	"unlock/test/ec2sim"
	"unlock/test/lab"
	"unlock/test/vm"
)

// auditing boots three machines, one of them twice and one that is denied its key. Then
// the credentials of the first are used from elsewhere, the object is replaced, and a
// grant is made: unlockctl audit names each act, and nothing else.
var auditing = []lab.Scenario{{
	Name: "audit", Disks: blank(3), Append: "rd.unlock.timeout=15s",
	Config: volume(s3Key, "ext4", atSecretfs),
	Prepare: func(_ context.Context, l *lab.Lab) error {
		l.Cloud.StartTrail(trailBucket)
		return os.Mkdir(l.File("status"), 0o755)
	},
	Boots: []lab.Boot{
		{Name: "of the first", Attach: []int{0}, Machine: instance(1), Script: "write_file\nshow_status", Check: keepStatus(0)},
		{Name: "of the second", Attach: []int{1}, Machine: instance(2), Script: "write_file\nshow_status", Check: keepStatus(1)},
		{Name: "of the first again", Attach: []int{0}, Machine: instance(1), Script: "read_file\nshow_status", Check: keepStatus(2)},
		{Name: "of the third", Attach: []int{2}, Machine: instance(3), Faults: []string{"kms-denied"}, Want: []string{"AccessDenied"}, Check: audited},
	},
}}

const trailBucket = "a-trail"

// instance makes the machine the one with this number.
func instance(n int) lab.Change {
	return func(_ *lab.Lab, m *vm.Machine) { m.Cards[0].MAC = fmt.Sprintf("0a:00:00:00:01:%02x", n) }
}

// keepStatus collects what the boot left, as a fleet's agent would.
func keepStatus(n int) lab.Judge {
	return func(l *lab.Lab) error {
		b, err := l.BootStatus()
		if err != nil {
			return err
		}
		if b.Instance == nil || b.Volumes[0].Calls == nil {
			return fmt.Errorf("the status says neither who the instance is nor how volumes were unlocked: %+v", b)
		}
		return status.Write(l.File(fmt.Sprintf("status/%d.json", n)), b)
	}
}

// audited does the acts, runs unlockctl audit, and judges what it found.
func audited(l *lab.Lab) error {
	if err := l.Cloud.SetFaults(); err != nil {
		return err
	}
	url, err := l.Cloud.Loopback()
	if err != nil {
		return err
	}
	env := []string{"HOME=" + l.File(""), "AWS_ENDPOINT_URL=" + url, "AWS_CA_BUNDLE=" + l.File("ca.pem"), "AWS_REGION=us-east-1", "AWS_DEFAULT_REGION=us-east-1",
		"AWS_ACCESS_KEY_ID=" + ec2sim.AccessKey, "AWS_SECRET_ACCESS_KEY=" + ec2sim.SecretKey, "AWS_EC2_METADATA_DISABLED=true"}
	first := fmt.Sprintf("i-0123456789abcde%02x", 0)
	stolen, err := l.Cloud.IssuedTo(first)
	if err != nil {
		return err
	}
	thief := append(slices.Clone(env), "AWS_ACCESS_KEY_ID="+stolen.AccessKey, "AWS_SECRET_ACCESS_KEY="+stolen.SecretKey, "AWS_SESSION_TOKEN="+stolen.Token)
	loot := l.File("loot")
	for _, act := range []struct {
		env  []string
		args string
	}{
		{thief, "s3api get-object --bucket " + lab.Bucket + " --key " + lab.Object + " " + loot},
		{thief, "kms decrypt --key-id $KEY --encryption-context purpose=secretfs --ciphertext-blob fileb://" + loot},
		{env, "s3api put-object --bucket " + lab.Bucket + " --key " + lab.Object + " --body " + loot},
		{env, "kms create-grant --key-id $KEY --grantee-principal arn:aws:iam::111122223333:role/web --operations Decrypt"},
	} {
		if _, err := lab.Output(context.Background(), act.env, "", append([]string{"aws", "--endpoint-url", url}, strings.Fields(l.Expand(act.args))...)...); err != nil {
			return err
		}
	}
	return judgeAudit(l, env)
}

func judgeAudit(l *lab.Lab, env []string) error {
	config := l.File("audit.toml")
	if err := os.WriteFile(config, []byte(l.Expand(l.Config)), 0o600); err != nil {
		return err
	}
	cmd := exec.Command(filepath.Join(l.Bin, "unlockctl"), "audit", "--config", config, "--role", "unlock-demo", "--status", l.File("status"), "--json", "s3://"+trailBucket+"/")
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.Output()
	if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.ExitCode() != 1 {
		return fmt.Errorf("unlockctl audit found nothing: %w\n%s", err, out)
	}
	var r struct {
		Calls []struct {
			Operation string
			Address   string `json:"source_address"`
			Instance  string
			Findings  []string
		}
		Digests []struct{ Digests, Signed, Files, Valid int }
	}
	if err := json.Unmarshal(out, &r); err != nil {
		return err
	}
	found := map[string]bool{}
	honest := 0
	for _, c := range r.Calls {
		for _, f := range c.Findings {
			found[c.Operation+" "+f] = true
		}
		if strings.HasPrefix(c.Address, "172.31.") && c.Findings == nil {
			honest++
		}
	}
	// What the thief decrypts is also one call more than the boot has.
	maps.DeleteFunc(found, func(name string, _ bool) bool {
		return name == "Decrypt repeated" || name == "Decrypt call-without-boot"
	})
	got, want := slices.Sorted(maps.Keys(found)), []string{"CreateGrant grant", "Decrypt denied", "Decrypt elsewhere", "GetObject elsewhere", "PutObject ciphertext-replaced"}
	if !slices.Equal(got, want) {
		return fmt.Errorf("found %q, want %q\n%s", got, want, out)
	}
	// GetObject and Decrypt of three boots, GetObject of the one that was denied.
	if honest != 7 {
		return fmt.Errorf("%d calls of honest boots, want 7\n%s", honest, out)
	}
	if len(r.Digests) != 1 || r.Digests[0].Signed != r.Digests[0].Digests || r.Digests[0].Valid != r.Digests[0].Files {
		return fmt.Errorf("digests %+v, want all signed and valid", r.Digests)
	}
	l.Note("%d acts found, %d honest calls not flagged", len(want), honest)
	return nil
}
