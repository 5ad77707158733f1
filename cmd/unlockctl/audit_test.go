package main

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"unlock/internal/aws"
	"unlock/internal/config"
	"unlock/internal/ec2"
	"unlock/internal/keys"
	"unlock/internal/keys/source"
	"unlock/internal/status"
	"unlock/test/cloudtrail"
	"unlock/test/ec2sim"
	"unlock/test/program"
)

// instance is one of a simulated cloud, which boots.
type instance struct {
	cloud *ec2sim.Cloud
	guest *ec2sim.Guest
	blobs map[string]keys.Blob // of volumes whose key is in the header, by name
	sets  map[string]string
}

func newInstance(c *ec2sim.Cloud) (*instance, error) {
	g, err := c.Guest()
	return &instance{c, g, map[string]keys.Blob{}, map[string]string{}}, err
}

// boot asks AWS for the keys of all volumes, as a boot does, and leaves a status file.
// The first one has the data keys of headers made.
func (i *instance) boot(ctx context.Context, configFile, statusFile string) error {
	cfg, err := config.Load(configFile, "")
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(i.cloud.CA())
	imds := ec2.New(ec2.Options{Dial: i.guest.DialContext})
	defer imds.Close()
	client, err := keys.New(keys.Options{Identity: imds.Role, Region: imds.Region, Dial: i.guest.DialContext, Roots: roots})
	if err != nil {
		return err
	}
	defer client.Close()
	rec := status.NewRecorder()
	b := &status.Boot{Version: "test", Result: status.ResultDone, Instance: &status.Instance{ID: i.guest.Instance(), Account: "111122223333", Region: "us-east-1", Image: "ami-0123456789abcdef0"}}
	var errs []error
	for n := range cfg.Volumes {
		v := &cfg.Volumes[n]
		calls, err := i.key(ctx, client, v)
		errs = append(errs, err)
		for _, call := range calls {
			rec.Called(status.Call{Service: call.Service, Operation: call.Operation, KeyARN: call.KeyARN, RequestID: call.RequestID, Attempts: call.Attempts})
		}
	}
	rec.Fill(b)
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return status.Write(statusFile, b)
}

func (i *instance) key(ctx context.Context, client *keys.Client, v *config.Volume) ([]aws.Call, error) {
	if v.Key.Source.Kind != source.Header {
		s, calls, err := client.Open(ctx, v.Key)
		s.Wipe()
		return calls, err
	}
	if blob, ok := i.blobs[v.Name]; ok {
		s, calls, err := client.OpenBlob(ctx, v.Key, i.sets[v.Name], blob)
		s.Wipe()
		return calls, err
	}
	set := fmt.Sprintf("%08d-0000-4000-8000-000000000000", len(i.blobs))
	set = set[:24] + strings.TrimPrefix(i.guest.Instance(), "i-")[5:]
	s, blob, calls, err := client.Generate(ctx, v.Key, set)
	s.Wipe()
	i.blobs[v.Name], i.sets[v.Name] = blob, set
	return calls, err
}

// auditWorld is a simulated account with a trail, what an administrator sealed, and
// the configuration for it.
type auditWorld struct {
	cloud *ec2sim.Cloud
	key   string
	dir   string
	env   []string
}

func newAuditWorld(t testing.TB) *auditWorld {
	t.Helper()
	c, err := ec2sim.New(ec2sim.Config{Role: "unlock"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	w := &auditWorld{cloud: c, key: c.CreateKey(), dir: t.TempDir()}
	c.StartTrail("a-trail")
	c.PutObject("a-bucket", "sealed", c.Encrypt(w.key, []byte("correct horse battery staple"), map[string]string{"purpose": "secretfs"}))
	text := fmt.Sprintf(`
[key]
source  = "s3://a-bucket/sealed"
kms_key = %q
context = { purpose = "secretfs" }
[[volume]]
name   = "secretfs"
device = "instance-store"
[[volume]]
name   = "scratch"
device = "instance-store:1"
[volume.key]
source  = "header"
kms_key = %[1]q
`, w.key)
	if err := os.WriteFile(w.file("unlock.toml"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *auditWorld) file(name string) string { return filepath.Join(w.dir, name) }

// TestAuditOfS3 audits what a trail delivered to S3: honest boots, then, but in a short
// run, what an administrator and a thief do with the AWS CLI.
func TestAuditOfS3(t *testing.T) {
	w := newAuditWorld(t)
	one, err := newInstance(w.cloud)
	if err != nil {
		t.Fatal(err)
	}
	for n := range 2 {
		if err := one.boot(t.Context(), w.file("unlock.toml"), w.file(fmt.Sprint("status/", n, ".json"))); err != nil {
			t.Fatal(err)
		}
	}
	var url string
	for _, setting := range w.environment(t) {
		name, value, _ := strings.Cut(setting, "=")
		t.Setenv(name, value)
		if name == "AWS_ENDPOINT_URL" {
			url = value
		}
	}
	audit := func(status int, args ...string) string {
		t.Helper()
		var out, stderr bytes.Buffer
		args = append([]string{"audit", "--config", w.file("unlock.toml"), "--role", "unlock"}, args...)
		if got := run(t.Context(), args, console{nil, &out, &stderr}); got != status {
			t.Errorf("%v: exit status %d, want %d\n%s%s", args, got, status, &out, &stderr)
		}
		return out.String()
	}
	text := audit(0, "--status", w.file("status"), "s3://a-trail/")
	for _, want := range []string{"kms:GenerateDataKey", "kms:Decrypt", "s3:GetObject", "i-0123456789abcde00", "secretfs", "scratch", "0 findings of 6 calls", "1 of 1 signed by CloudTrail, 1 of 1 file as delivered"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	if testing.Short() {
		return
	}
	program.Need(t, "aws")

	// The credentials of the instance, elsewhere; and an administrator.
	roles, _ := w.cloud.Issued()
	asAdmin := func(env []string, args ...string) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), "aws", append([]string{"--endpoint-url", url}, args...)...)
		cmd.Env = append(os.Environ(), env...)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("aws %v: %v\n%s", args, err, out)
		}
	}
	sealed := w.file("sealed")
	asAdmin([]string{"AWS_ACCESS_KEY_ID=" + roles[0].AccessKey, "AWS_SECRET_ACCESS_KEY=" + roles[0].SecretKey, "AWS_SESSION_TOKEN=" + roles[0].Token},
		"s3api", "get-object", "--bucket", "a-bucket", "--key", "sealed", sealed)
	asAdmin(nil, "kms", "decrypt", "--key-id", w.key, "--ciphertext-blob", "fileb://"+sealed, "--encryption-context", "purpose=secretfs")
	asAdmin(nil, "s3api", "put-object", "--bucket", "a-bucket", "--key", "sealed", "--body", sealed)
	asAdmin(nil, "kms", "create-grant", "--key-id", w.key, "--grantee-principal", "arn:aws:iam::111122223333:role/web", "--operations", "Decrypt")
	asAdmin(nil, "cloudtrail", "stop-logging", "--name", "unlock")
	text = audit(1, "--status", w.file("status"), "--json", "s3://a-trail/AWSLogs/")
	var r struct {
		Findings []struct{ Name string }
		Calls    []struct{ Findings []string }
	}
	if err := json.Unmarshal([]byte(text), &r); err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range r.Findings {
		names = append(names, f.Name)
	}
	slices.Sort(names) // those of one second are in the order of their ids
	if got, want := strings.Join(names, " "), "ciphertext-replaced elsewhere grant not-the-role trail-changed"; got != want {
		t.Errorf("found %s, want %s", got, want)
	}

	// What CloudTrail itself keeps has no reads of objects, and no writes.
	text = audit(1, "lookup")
	if !strings.Contains(text, "not-the-role") || !strings.Contains(text, "grant") || !strings.Contains(text, "trail-changed") || strings.Contains(text, "GetObject") || !strings.Contains(text, "no digests") {
		t.Errorf("lookup:\n%s", text)
	}

	// A copy, with the public keys in a file; a file of it is gone.
	copied := w.file("copy")
	asAdmin(nil, "s3", "sync", "--quiet", "s3://a-trail", copied)
	public := exec.CommandContext(t.Context(), "aws", "--endpoint-url", url, "--output", "json", "cloudtrail", "list-public-keys")
	list, err := public.Output()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(w.file("keys.json"), list, 0o644); err != nil {
		t.Fatal(err)
	}
	text = audit(1, "--public-keys", w.file("keys.json"), "--csv", "--report", w.file("report.html"), copied)
	if lines := strings.Count(text, "\n"); lines != len(r.Calls)+1 {
		t.Errorf("%d lines of CSV for %d calls:\n%s", lines, len(r.Calls), text)
	}
	if page, err := os.ReadFile(w.file("report.html")); err != nil || !bytes.Contains(page, []byte("<svg")) {
		t.Errorf("the report: %v", err)
	}
	logs, err := filepath.Glob(copied + "/AWSLogs/*/CloudTrail/*/*/*/*/*.json.gz")
	if err != nil || len(logs) != 2 {
		t.Fatalf("%d files in the copy, %v, want 2", len(logs), err)
	}
	if err := os.Remove(logs[0]); err != nil {
		t.Fatal(err)
	}
	if text := audit(1, copied); !strings.Contains(text, "file-missing") {
		t.Errorf("without %s:\n%s", logs[0], text)
	}
}

// TestAuditMistakes are those on the command line.
func TestAuditMistakes(t *testing.T) {
	t.Parallel()
	w := newAuditWorld(t)
	empty := t.TempDir()
	for _, row := range []struct {
		args []string
		want string
	}{
		{[]string{"--since", "yesterday", w.dir}, "no time"},
		{[]string{"--network", "10.0.0.0/33", w.dir}, "no network"},
		{[]string{"--context", "a=b", w.dir}, "go with --kms-key"},
		{[]string{"--volume", "other", w.dir}, `no volume "other"`},
		{[]string{empty}, "there is no file"},
		{[]string{"--json", "--csv", w.dir}, "can't be used together"},
		{[]string{}, "trail"},
	} {
		var out, stderr bytes.Buffer
		if got := run(t.Context(), append([]string{"audit", "--config", w.file("unlock.toml")}, row.args...), console{nil, &out, &stderr}); got != exitUsage || !strings.Contains(stderr.String(), row.want) {
			t.Errorf("%v: exit status %d, %q, want 2 and %q", row.args, got, &stderr, row.want)
		}
	}
	// Standard input; the key by flags.
	var out, stderr bytes.Buffer
	in := strings.NewReader(`{"Records":[]}`)
	if got := run(t.Context(), []string{"audit", "--kms-key", w.key, "--sealed", "s3://a-bucket/sealed", "-"}, console{in, &out, &stderr}); got != 0 || !strings.Contains(out.String(), "0 findings of 0 calls") {
		t.Errorf("standard input: exit status %d, %q, %q", got, &out, &stderr)
	}
}

// TestAuditProgress is what a terminal shows while files come slowly.
func TestAuditProgress(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	w := newAuditWorld(t)
	one, err := newInstance(w.cloud)
	if err != nil {
		t.Fatal(err)
	}
	if err := one.boot(ctx, w.file("unlock.toml"), w.file("status.json")); err != nil {
		t.Fatal(err)
	}
	env := w.environment(t)
	if err := w.cloud.SetFaults("s3-slow:2s"); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(ctx, "unlockctl", "audit", "--config", w.file("unlock.toml"), "s3://a-trail/")
	cmd.Env = append(os.Environ(), env...)
	shown, err := onTerminal(t, cmd)
	if err != nil || !strings.Contains(shown, "[..............................]   0 %  0 records") || !strings.Contains(shown, "0 findings of 3 calls") {
		t.Errorf("%v: the terminal showed %q", err, shown)
	}
}

// environment is that of a program that takes the simulation for AWS.
func (w *auditWorld) environment(t testing.TB) []string {
	t.Helper()
	url, err := w.cloud.Loopback()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(w.file("ca.pem"), w.cloud.CA(), 0o600); err != nil {
		t.Fatal(err)
	}
	return []string{"HOME=" + w.dir, "AWS_ENDPOINT_URL=" + url, "AWS_CA_BUNDLE=" + w.file("ca.pem"), "AWS_REGION=us-east-1", "AWS_DEFAULT_REGION=us-east-1",
		"AWS_ACCESS_KEY_ID=" + ec2sim.AccessKey, "AWS_SECRET_ACCESS_KEY=" + ec2sim.SecretKey, "AWS_EC2_METADATA_DISABLED=true"}
}

// BenchmarkAudit reads a trail of a million records of a busy account, one in a hundred
// of which concerns the question. It fails below 100,000 records for each second of a
// processor's time, or above 100 MB of memory.
func BenchmarkAudit(b *testing.B) {
	const files, perFile, every = 500, 2000, 100
	w := newAuditWorld(b)
	ct := &cloudtrail.Trail{Account: "111122223333", Region: "us-east-1", Name: "unlock", Bucket: "a-trail", Put: func(key string, data []byte, _ map[string]string) {
		file := w.file("trail/" + key)
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, data, 0o644)); err != nil {
			b.Fatal(err)
		}
	}}
	type file struct {
		records [][]byte
		last    time.Time
	}
	made := make(chan file, 2) // while one is packed the next is written
	go func() {
		defer close(made)
		for f := range files {
			one := file{records: make([][]byte, perFile)}
			for i := range one.records {
				e := cloudtrail.Busy(f*perFile + i)
				if one.last = e.Time; i%every == 0 {
					e.Service, e.Name, e.Data, e.Additional = "kms", "Decrypt", false, nil
					e.Request = map[string]any{"keyId": w.key, "encryptionContext": map[string]string{"purpose": "secretfs"}, "encryptionAlgorithm": "SYMMETRIC_DEFAULT"}
					e.Resources = []cloudtrail.Resource{{Account: "111122223333", Type: "AWS::KMS::Key", ARN: w.key}}
				}
				one.records[i] = e.JSON()
			}
			made <- one
		}
	}()
	n := 0
	for f := range made {
		ct.Deliver(f.last, f.last.Add(-time.Duration(perFile)*time.Second), f.last, f.records...)
		if n++; n%10 == 0 {
			ct.Digest(f.last)
		}
	}
	bin := w.file("unlockctl")
	if out, err := exec.CommandContext(b.Context(), "go", "build", "-o", bin, ".").CombinedOutput(); err != nil {
		b.Fatalf("%v\n%s", err, out)
	}
	var used time.Duration
	var memory int64
	for b.Loop() {
		cmd := exec.CommandContext(b.Context(), bin, "audit", "--config", w.file("unlock.toml"), w.file("trail"))
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), fmt.Sprintf("%d records of %d files: %d concern it", files*perFile, files, files*perFile/every)) {
			b.Fatalf("%v\n%s", err, out[max(0, len(out)-1000):])
		}
		used += cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
		memory = max(memory, cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss<<10)
	}
	rate := float64(files*perFile*b.N) / used.Seconds()
	b.ReportMetric(rate, "records/cpu-s")
	b.ReportMetric(float64(memory)/1e6, "MB")
	if rate < 100_000 || memory > 100e6 {
		b.Errorf("%.0f records for each second of a processor, %.1f MB", rate, float64(memory)/1e6)
	}
}
