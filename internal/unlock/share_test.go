package unlock_test

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"unlock/internal/aws/arn"
	"unlock/internal/block"
	"unlock/internal/config"
	"unlock/internal/dm"
	"unlock/internal/ec2"
	"unlock/internal/keys"
	"unlock/internal/keys/source"
	"unlock/internal/luks"
	"unlock/internal/plan"
	"unlock/internal/secret"
	"unlock/internal/status"
	"unlock/internal/unlock"
	"unlock/test/ec2sim"
)

// volumeOf is a volume whose passphrase is sealed in an object.
func volumeOf(keyARN string, context map[string]string) *config.Volume {
	return &config.Volume{Name: "data", Key: config.Key{Source: source.MustParse("s3://bucket/object"), KMSKeys: []arn.ARN{arn.MustParse(keyARN)}, Context: context}}
}

// TestShare opens many disks with one key: one request each of S3 and KMS, one set
// of credentials; and one more of S3 and KMS for a volume whose context is another.
func TestShare(t *testing.T) {
	t.Parallel()
	cloud, err := ec2sim.New(ec2sim.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer cloud.Close()
	guest, err := cloud.Guest()
	if err != nil {
		t.Fatal(err)
	}
	keyARN := cloud.CreateKey()
	cloud.PutObject("bucket", "object", cloud.Encrypt(keyARN, []byte("passphrase"), map[string]string{"a": "1", "b": "2"}))
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(cloud.CA())
	imds := ec2.New(ec2.Options{Dial: guest.DialContext})
	defer imds.Close()
	client, err := keys.New(keys.Options{Identity: imds.Role, Region: imds.Region, Dial: guest.DialContext, Roots: roots})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()

	p := &plan.Plan{}
	for i := range 24 {
		v := volumeOf(keyARN, map[string]string{"b": "2", "a": "1"})
		p.Steps = append(p.Steps, openingStep(t, v, i))
	}
	p.Steps = append(p.Steps, openingStep(t, volumeOf(keyARN, map[string]string{"a": "1"}), 24))
	a := unlock.Apply{
		Keys: client.Get, Rec: status.NewRecorder(), Log: t.Logf,
		Kernel: mapsAll{},
	}
	for i, r := range a.Run(t.Context(), p) {
		if i < 24 && r.Err != nil {
			t.Errorf("disk %d: %v", i, r.Err)
		}
		if i == 24 && (r.Err == nil || !strings.Contains(r.Err.Error(), "InvalidCiphertextException")) {
			t.Errorf("another context: %v, want InvalidCiphertextException", r.Err)
		}
	}
	seen := map[string]int{}
	for _, r := range cloud.Requests() {
		seen[r.Service+" "+r.Operation]++
	}
	for request, want := range map[string]int{"s3 GetObject": 2, "kms Decrypt": 2, "imds PUT /latest/api/token": 1, "imds GET /latest/meta-data/iam/security-credentials/unlock-demo": 1} {
		if seen[request] != want {
			t.Errorf("%d requests %s, want %d (%v)", seen[request], request, want, seen)
		}
	}
}

// mapsAll is a kernel that maps whatever it is asked to, and nothing else.
type mapsAll struct{ unlock.Kernel }

func (mapsAll) Create(string, string, dm.Target, dm.Options) (dm.Device, error) {
	return dm.Device{}, nil
}

// openingStep opens a disk that has been formatted with "passphrase".
func openingStep(t *testing.T, v *config.Volume, i int) plan.Step {
	t.Helper()
	const size = 20 << 20
	path := filepath.Join(t.TempDir(), "disk")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	pass := secret.Take([]byte("passphrase"))
	defer pass.Wipe()
	h, err := luks.Format(f, size, pass, luks.FormatOptions{UUID: fmt.Sprintf("6f2b1c9e-0000-4000-8000-%012d", i), SectorSize: 512})
	if err != nil {
		t.Fatal(err)
	}
	name := fmt.Sprint(v.Name, i)
	c := &plan.Candidate{Disk: block.Disk{Name: name, Path: path, Size: size}, LUKS: &plan.LUKS{Version: 2, UUID: h.UUID(), Header: h}}
	return plan.Step{Volume: v, Name: name, Members: []plan.Member{{Candidate: c, UUID: h.UUID(), Mapping: name}}, Set: h.UUID(), Count: 1}
}

// TestShareFailure reports the one failure to all who wanted the key, and asks no
// second time.
func TestShareFailure(t *testing.T) {
	t.Parallel()
	var asked atomic.Int32
	a := unlock.Apply{Rec: status.NewRecorder(), Log: t.Logf, Keys: func(context.Context, keys.Want) (keys.Got, error) {
		asked.Add(1)
		return keys.Got{}, errors.New("denied")
	}}
	p := &plan.Plan{}
	for i := range 3 {
		p.Steps = append(p.Steps, openingStep(t, volumeOf("arn:aws:kms:us-east-1:111122223333:key/1", nil), i))
	}
	for _, r := range a.Run(t.Context(), p) {
		if r.Err == nil || !strings.Contains(r.Err.Error(), "denied") {
			t.Errorf("%s: %v, want why there is no key", r.Step.Name, r.Err)
		}
	}
	if n := asked.Load(); n != 1 {
		t.Errorf("asked %d times, want once", n)
	}
}
