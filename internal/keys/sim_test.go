package keys_test

import (
	"context"
	"crypto/x509"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"unlock/internal/aws"
	"unlock/internal/aws/arn"
	"unlock/internal/config"
	"unlock/internal/ec2"
	"unlock/internal/keys"
	"unlock/internal/keys/source"
	"unlock/test/ec2sim"
)

// instance is a machine in a simulated EC2.
type instance struct {
	*ec2sim.Cloud
	keys *keys.Client
	md   *ec2.Client
	key  string // ARN
}

func newInstance(t *testing.T, cfg ec2sim.Config) *instance {
	t.Helper()
	c, err := ec2sim.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	i := &instance{Cloud: c, key: c.CreateKey()}
	i.boot(t, config.AWS{})
	return i
}

// boot gives the instance new clients.
func (i *instance) boot(t *testing.T, o config.AWS) {
	t.Helper()
	g, err := i.Guest()
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(i.CA())
	i.md = ec2.New(ec2.Options{Dial: g.DialContext, Log: t.Logf})
	t.Cleanup(i.md.Close)
	t.Cleanup(i.md.Close)
	md := i.md
	who := func(ctx context.Context) (config.Identity, error) {
		who, err := md.AwaitInstance(ctx)
		return who.Identity(), err
	}
	i.keys, err = keys.New(keys.Options{Identity: i.md.Role, Region: i.md.Region, Instance: who, Dial: g.DialContext, Roots: roots, AWS: o, Log: t.Logf})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(i.keys.Close)
}

// config returns a key with the given scheme of source, whose ciphertext is there.
func (i *instance) config(t *testing.T, scheme string) config.Key {
	k := config.Key{KMSKeys: []arn.ARN{arn.MustParse(i.key)}, Context: map[string]string{"purpose": "secretfs"}}
	ciphertext := i.Encrypt(i.key, []byte(password+"\n"), k.Context)
	switch scheme {
	case "s3":
		i.PutObject("an-internalstoragekeybucket", "LuksInternalStorageKey", ciphertext)
		k.Source = source.MustParse("s3://an-internalstoragekeybucket/LuksInternalStorageKey")
	case "ssm":
		i.PutParameter("/unlock/key", base64Text(ciphertext))
		k.Source = source.MustParse("ssm:/unlock/key")
	case "secretsmanager":
		i.PutSecret("unlock/key", ciphertext)
		k.Source = source.MustParse("secretsmanager:unlock/key")
	case "file":
		path := filepath.Join(t.TempDir(), "ciphertext")
		if err := os.WriteFile(path, ciphertext, 0o600); err != nil {
			t.Fatal(err)
		}
		k.Source = source.MustParse("file:" + path)
	case "header":
		k.Source = source.Header.Source()
	}
	return k
}

// TestRoundTrips counts from the link being up and DHCP done: IMDS 4, S3 or SSM
// 1, KMS 1. Names, TCP and TLS of S3 and KMS are beside IMDS. They are counted by
// the clock. Where the machine is too busy for that, which can only add to the count,
// the round trip takes twice as long the next time, up to what IMDS is waited for.
func TestRoundTrips(t *testing.T) {
	for scheme, want := range map[string]int{"s3": 6, "ssm": 6, "secretsmanager": 6, "file": 5, "header": 5} {
		t.Run(scheme, func(t *testing.T) {
			t.Parallel()
			trips := 1000
			for rtt := 200 * time.Millisecond; rtt < 2*time.Second && trips > want; rtt *= 2 {
				i := newInstance(t, ec2sim.Config{RTT: rtt})
				took := fetch(t, i, i.config(t, scheme))
				trips = min(trips, int(took/rtt))
				t.Logf("%s: %d round trips of %v, and %v of work", scheme, took/rtt, rtt, (took % rtt).Round(time.Millisecond))
				if n := len(apiRequests(i)); n != want-2 {
					t.Errorf("requests %v: %d, want %d", apiRequests(i), n, want-2)
				}
			}
			if trips > want {
				t.Errorf("%d round trips, want %d", trips, want)
			}
		})
	}
}

// fetch gets a key as a boot does, and returns how long that took.
func fetch(t *testing.T, i *instance, k config.Key) time.Duration {
	t.Helper()
	start := time.Now()
	var warm sync.WaitGroup
	warm.Go(func() { i.keys.Warm(t.Context(), k) })
	defer warm.Wait()
	var err error
	if k.Source.Kind == source.Header {
		_, _, _, err = i.keys.Generate(t.Context(), k, thisSet)
	} else {
		_, _, err = i.keys.Open(t.Context(), k)
	}
	if err != nil {
		t.Fatal(err)
	}
	return time.Since(start)
}

// apiRequests returns what was asked of IMDS and AWS, tokens left out.
func apiRequests(i *instance) []string {
	var all []string
	for _, r := range i.Requests() {
		if r.Service != "dns" && r.Operation != "PUT /latest/api/token" {
			all = append(all, r.Service+" "+r.Operation)
		}
	}
	return all
}

// TestCloud has the simulated EC2 misbehave in ways that end well.
func TestCloud(t *testing.T) {
	for _, row := range []struct {
		name   string
		scheme string
		faults []string
	}{
		{"all is well", "s3", nil},
		{"late role", "s3", []string{"role-late:700ms"}},
		{"token revoked", "s3", []string{"imds-401-once"}},
		{"imds stumbles", "s3", []string{"imds-503:2"}},
		{"imds truncates", "file", []string{"imds-truncated:2"}},
		{"late names", "s3", []string{"dns-servfail:2"}},
		{"bucket elsewhere", "s3", []string{"s3-redirect:eu-west-1"}},
		{"clock behind", "s3", []string{"clock-skew:2h"}},
		{"clock ahead", "s3", []string{"clock-skew:-2h"}},
		{"clock and KMS", "file", []string{"clock-skew:2h"}},
		{"clock and SSM", "ssm", []string{"clock-skew:-2h"}},
		{"truncated object", "s3", []string{"s3-truncated:2"}},
		{"KMS stumbles", "file", []string{"kms-500:2"}},
		{"KMS resets", "file", []string{"kms-reset:2"}},
		{"SSM stumbles", "ssm", []string{"ssm-500:1"}},
		{"Secrets Manager stumbles", "secretsmanager", []string{"secretsmanager-500:1"}},
		{"Secrets Manager is late", "secretsmanager", []string{"secretsmanager-404:1"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			i := newInstance(t, ec2sim.Config{Faults: row.faults})
			k := i.config(t, row.scheme)
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
			defer cancel()
			i.keys.Warm(ctx, k)
			s, calls, err := i.keys.Open(ctx, k)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Wipe()
			if string(s.Bytes()) != password {
				t.Errorf("passphrase = %q, want %q", s.Bytes(), password)
			}
			last := calls[len(calls)-1]
			if last.Service != "kms" || last.KeyARN != i.key || last.RequestID == "" {
				t.Errorf("last call = %+v, want KMS' with key and request", last)
			}
			onlyAWS(t, i)
		})
	}
}

// onlyAWS checks that the machine talked to nobody else.
func onlyAWS(t *testing.T, i *instance) {
	t.Helper()
	allowed := []string{"169.254.169.254", "172.31.0.2", "192.0.2.10", "192.0.2.20", "192.0.2.30", "192.0.2.40",
		"kms.us-east-1.amazonaws.com", "ssm.us-east-1.amazonaws.com", "secretsmanager.us-east-1.amazonaws.com",
		"an-internalstoragekeybucket.s3.us-east-1.amazonaws.com", "an-internalstoragekeybucket.s3.eu-west-1.amazonaws.com"}
	for _, host := range i.Hosts() {
		if !slices.Contains(allowed, host) {
			t.Errorf("the machine talked to %s", host)
		}
	}
}

const (
	thisSet  = "6f2b1c9e-0000-4000-8000-000000000001"
	otherSet = "6f2b1c9e-0000-4000-8000-000000000002"
)

// TestSubstitution replaces what is decrypted, as someone with access to the
// bucket or the disk could.
func TestSubstitution(t *testing.T) {
	t.Parallel()
	i := newInstance(t, ec2sim.Config{})
	attacker := newInstance(t, ec2sim.Config{Account: "444455556666"})
	ours := map[string]string{"purpose": "secretfs"}
	theirs := map[string]string{"purpose": "other"}
	bound := map[string]string{"purpose": "secretfs", config.ContextSet: thisSet}
	k := i.config(t, "s3")
	bucket, key := k.Source.Bucket, k.Source.Name
	_, blob, _, err := i.keys.Generate(t.Context(), k, thisSet)
	if err != nil {
		t.Fatal(err)
	}
	secondKey := i.CreateKey()

	for _, row := range []struct {
		name   string
		object []byte // put in the bucket, or
		blob   *keys.Blob
		set    string // of the disk that the blob is on
		says   string
		hint   string
	}{
		{name: "another key of the account", object: i.Encrypt(secondKey, []byte(password), ours),
			says: "IncorrectKeyException", hint: "the ciphertext is under another key than " + i.key},
		{name: "the attacker's key", object: attacker.Encrypt(attacker.key, []byte(password), ours),
			says: "IncorrectKeyException", hint: "the ciphertext is under another key than " + i.key},
		{name: "another context", object: i.Encrypt(i.key, []byte(password), theirs),
			says: "InvalidCiphertextException", hint: "not encrypted under " + i.key + " with context purpose=secretfs"},
		{name: "no context", object: i.Encrypt(i.key, []byte(password), nil),
			says: "InvalidCiphertextException", hint: "with context purpose=secretfs"},
		{name: "a data key of a disk", object: blob.Ciphertext,
			says: "InvalidCiphertextException", hint: "with context purpose=secretfs"},
		{name: "no ciphertext at all", object: []byte("plain text passphrase"),
			says: "InvalidCiphertextException", hint: "the ciphertext is damaged"},

		{name: "token of another disk", blob: &blob, set: otherSet,
			says: "InvalidCiphertextException", hint: "token was made for set " + thisSet + ", not for this set " + otherSet},
		{name: "token of another disk, relabelled", blob: &keys.Blob{Ciphertext: blob.Ciphertext, KeyARN: i.key, Context: map[string]string{"purpose": "secretfs", config.ContextSet: otherSet}}, set: otherSet,
			says: "InvalidCiphertextException", hint: "this disk's token is damaged or forged"},
		{name: "token of another purpose", blob: &keys.Blob{Ciphertext: i.Encrypt(i.key, []byte(password), theirs), KeyARN: i.key, Context: map[string]string{"purpose": "other", config.ContextSet: thisSet}}, set: thisSet,
			says: "InvalidCiphertextException", hint: "made with context purpose=other, unlock:set=" + thisSet + ", but the configuration gives purpose=secretfs"},
		{name: "token under the attacker's key", blob: &keys.Blob{Ciphertext: attacker.Encrypt(attacker.key, []byte(password), bound), KeyARN: attacker.key, Context: bound}, set: thisSet,
			says: "IncorrectKeyException", hint: "data key is under " + attacker.key + ", not under " + i.key},
		{name: "token under the attacker's key, relabelled", blob: &keys.Blob{Ciphertext: attacker.Encrypt(attacker.key, []byte(password), bound), KeyARN: i.key, Context: bound}, set: thisSet,
			says: "IncorrectKeyException", hint: "this disk's token is forged"},
		{name: "empty token", blob: &keys.Blob{KeyARN: i.key, Context: bound}, set: thisSet,
			says: "the ciphertext is empty", hint: "restore the header"},
		{name: "oversized token", blob: &keys.Blob{Ciphertext: make([]byte, 6145), KeyARN: i.key, Context: bound}, set: thisSet,
			says: "longer than the 6144 bytes", hint: "restore the header"},
	} {
		t.Run(row.name, func(t *testing.T) {
			var err error
			if row.blob != nil {
				_, _, err = i.keys.OpenBlob(t.Context(), k, row.set, *row.blob)
			} else {
				i.PutObject(bucket, key, row.object)
				_, _, err = i.keys.Open(t.Context(), k)
			}
			var failed *aws.Error
			if !errors.As(err, &failed) {
				t.Fatalf("error = %v, want a aws.Error", err)
			}
			if !strings.Contains(err.Error(), row.says) {
				t.Errorf("error = %q, want %q in it", err, row.says)
			}
			if !strings.Contains(failed.Hint, row.hint) {
				t.Errorf("hint = %q, want %q in it", failed.Hint, row.hint)
			}
		})
	}
	s, _, err := i.keys.OpenBlob(t.Context(), k, thisSet, blob)
	if err != nil || s.Len() != 44 {
		t.Errorf("the right token gives %d bytes and %v, want 44", s.Len(), err)
	}

	// The whole header of another volume, its UUID and token together, cannot be told
	// from this disk's own within one context; the threat model says so. Another
	// context is what keeps volumes apart.
	for name, row := range map[string]struct {
		context map[string]string // of the other volume
		says    string
	}{
		"whole header, same context":    {ours, ""},
		"whole header, another context": {theirs, "InvalidCiphertextException"},
	} {
		t.Run(name, func(t *testing.T) {
			other := k
			other.Context = row.context
			_, blob, _, err := i.keys.Generate(t.Context(), other, otherSet)
			if err != nil {
				t.Fatal(err)
			}
			_, _, err = i.keys.OpenBlob(t.Context(), k, otherSet, blob)
			if row.says == "" && err != nil || row.says != "" && (err == nil || !strings.Contains(err.Error(), row.says)) {
				t.Errorf("error = %v, want %q in it", err, row.says)
			}
		})
	}
}

// TestVersion pins a version of the object, so that a later upload of an old
// ciphertext changes nothing.
func TestVersion(t *testing.T) {
	t.Parallel()
	i := newInstance(t, ec2sim.Config{})
	k := i.config(t, "s3")
	bucket, key := k.Source.Bucket, k.Source.Name
	k.Source.Version = i.Versions(bucket, key)[0]
	i.PutObject(bucket, key, i.Encrypt(i.key, []byte("an old passphrase"), k.Context))
	s, calls, err := i.keys.Open(t.Context(), k)
	if err != nil {
		t.Fatal(err)
	}
	if string(s.Bytes()) != password || calls[0].Version != k.Source.Version {
		t.Errorf("passphrase = %q of version %s, want %q of %s", s.Bytes(), calls[0].Version, password, k.Source.Version)
	}
	k.Source.Version = ""
	s, calls, err = i.keys.Open(t.Context(), k)
	if err != nil {
		t.Fatal(err)
	}
	if newest := i.Versions(bucket, key)[1]; string(s.Bytes()) == password || calls[0].Version != newest {
		t.Errorf("version %s was read, want the newest, %s", calls[0].Version, newest)
	}
}

// TestSecretVersion pins a version of a secret, given by its name or ARN, binary or as
// text, so that an old ciphertext put there later changes nothing.
func TestSecretVersion(t *testing.T) {
	t.Parallel()
	i := newInstance(t, ec2sim.Config{})
	k := i.config(t, "secretsmanager")
	pinned := i.PutSecretText("unlock/key", base64Text(i.Encrypt(i.key, []byte(password), k.Context)))
	i.PutSecret("unlock/key", i.Encrypt(i.key, []byte("an old passphrase"), k.Context))
	for _, name := range []string{"unlock/key", i.SecretARN("unlock/key")} {
		k.Source = source.MustParse("secretsmanager:" + name)
		for version, want := range map[string]string{"": "an old passphrase", pinned: password} {
			k.Source.Version = version
			s, calls, err := i.keys.Open(t.Context(), k)
			if err != nil {
				t.Fatal(err)
			}
			if string(s.Bytes()) != want || version != "" && calls[0].Version != version {
				t.Errorf("passphrase = %q of version %s, want %q of %s", s.Bytes(), calls[0].Version, want, version)
			}
		}
	}
}
