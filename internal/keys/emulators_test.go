//go:build emulators

package keys_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"unlock/internal/aws"
	"unlock/internal/aws/arn"
	"unlock/internal/config"
	"unlock/internal/ec2"
	"unlock/internal/keys"
	"unlock/internal/keys/source"
	"unlock/test/ec2sim"
	"unlock/test/emulators"
)

// world is an AWS to ask: emulators that others wrote, or ec2sim.
type world struct {
	md     *ec2.Client
	moto   bool // KMS and SSM are moto's
	client func(t *testing.T, change func(*aws.Role)) *keys.Client

	keys         [2]string // ARNs
	put          func(bucket, key string, data []byte)
	putParameter func(name, value string)
	encrypt      func(keyARN, plaintext string, ec map[string]string) []byte
}

// TestEmulators asks the emulators the same as ec2sim, and wants the same results.
func TestEmulators(t *testing.T) {
	worlds := map[string]*world{"emulators": emulated(t), "ec2sim": simulated(t)}
	ec := map[string]string{"purpose": "secretfs"}
	for name, w := range worlds {
		w.put("bucket", "key", w.encrypt(w.keys[0], password+"\n", ec))
		w.put("bucket", "a b/ü+(1)/~", w.encrypt(w.keys[0], password, ec))
		w.put("bucket", "other-context", w.encrypt(w.keys[0], password, map[string]string{"purpose": "other"}))
		w.put("bucket", "other-key", w.encrypt(w.keys[1], password, ec))
		w.put("bucket", "garbage", bytes.Repeat([]byte("not a ciphertext"), 10))
		w.putParameter("/unlock/key", base64.StdEncoding.EncodeToString(w.encrypt(w.keys[0], password, ec)))
		if got, err := w.md.Region(t.Context()); err != nil || got != "us-east-1" {
			t.Errorf("%s: Region = %q, %v, want us-east-1", name, got, err)
		}
	}
	for _, row := range []struct {
		name   string
		source string
		change func(*aws.Role)
		key    func(w *world) string // nil: the first
		says   string                // "" for success
		theirs string                // what versitygw says, where it differs
		motos  string                // what moto says, where it differs
		hint   string
	}{
		{name: "S3", source: "s3://bucket/key"},
		{name: "S3, odd key", source: "s3://bucket/a b/ü+(1)/~"},
		{name: "SSM", source: "ssm:/unlock/key"},
		{name: "no object", source: "s3://bucket/none", says: "NoSuchKey", hint: "put the ciphertext at s3://bucket/none"},
		{name: "no bucket", source: "s3://no-such-bucket-here/key", says: "NoSuchBucket", hint: "does not exist"},
		{name: "wrong secret", source: "s3://bucket/key", change: func(r *aws.Role) { r.Credentials.SecretAccessKey = "wrong" }, says: "SignatureDoesNotMatch", hint: "does not accept the signature"},
		{name: "unknown access key", source: "s3://bucket/key", change: func(r *aws.Role) { r.Credentials.AccessKeyID = "ASIAUNKNOWN000000000" }, says: "InvalidAccessKeyId", theirs: "InvalidToken", hint: "does not accept the credentials"},
		{name: "no parameter", source: "ssm:/none", says: "ParameterNotFound", hint: "ssm:/none does not exist"},
		{name: "garbage", source: "s3://bucket/garbage", says: "InvalidCiphertextException", motos: "AccessDeniedException"},
		{name: "other context", source: "s3://bucket/other-context", says: "InvalidCiphertextException", hint: "with context purpose=secretfs"},
		{name: "no key", source: "s3://bucket/key", key: func(w *world) string { return w.keys[0][:len(w.keys[0])-3] + "000" }, says: "NotFoundException", hint: "check kms_key"},
		{name: "other key", source: "s3://bucket/other-key", says: "IncorrectKeyException", motos: "AccessDeniedException"},
	} {
		for name, w := range worlds {
			says := row.says
			if name == "emulators" && row.theirs != "" {
				says = row.theirs
			}
			if w.moto && row.motos != "" {
				says = row.motos
			}
			t.Run(row.name+"/"+name, func(t *testing.T) {
				t.Parallel()
				// What is tried again for a while keeps its error until then.
				ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
				defer cancel()
				k := config.Key{Source: source.MustParse(row.source), KMSKeys: []arn.ARN{arn.MustParse(w.keys[0])}, Context: ec}
				if row.key != nil {
					k.KMSKeys[0] = arn.MustParse(row.key(w))
				}
				s, _, err := w.client(t, row.change).Open(ctx, k)
				defer s.Wipe()
				if says == "" {
					if err != nil || string(s.Bytes()) != password {
						t.Errorf("passphrase = %q, %v, want %q", s.Bytes(), err, password)
					}
					return
				}
				if err == nil || !strings.Contains(err.Error(), says) || !strings.Contains(hintOf(err), row.hint) {
					t.Errorf("error = %v, hint = %q, want %q and %q", err, hintOf(err), says, row.hint)
				}
			})
		}
	}
	for name, w := range worlds {
		t.Run("data key/"+name, func(t *testing.T) {
			t.Parallel()
			c := w.client(t, nil)
			k := config.Key{Source: source.Header.Source(), KMSKeys: []arn.ARN{arn.MustParse(w.keys[0])}, Context: ec}
			made, blob, _, err := c.Generate(t.Context(), k, "set-1")
			if err != nil {
				t.Fatal(err)
			}
			opened, _, err := c.OpenBlob(t.Context(), k, "set-1", blob)
			if err != nil {
				t.Fatal(err)
			}
			if made.Len() != 44 || !bytes.Equal(made.Bytes(), opened.Bytes()) || blob.KeyARN != w.keys[0] {
				t.Errorf("made %d bytes under %s, opened the same: %v", made.Len(), blob.KeyARN, bytes.Equal(made.Bytes(), opened.Bytes()))
			}
			if _, _, err := c.OpenBlob(t.Context(), k, "set-2", blob); err == nil || !strings.Contains(err.Error(), "InvalidCiphertextException") {
				t.Errorf("for another set: %v, want InvalidCiphertextException", err)
			}
		})
	}
}

func simulated(t *testing.T) *world {
	i := newInstance(t, ec2sim.Config{})
	return &world{
		md:   i.md,
		keys: [2]string{i.key, i.CreateKey()},
		client: func(t *testing.T, change func(*aws.Role)) *keys.Client {
			g, err := i.Guest()
			if err != nil {
				t.Fatal(err)
			}
			roots := x509.NewCertPool()
			roots.AppendCertsFromPEM(i.CA())
			return newClient(t, keys.Options{Identity: changed(i.md, change), Dial: g.DialContext, Roots: roots})
		},
		put:          i.PutObject,
		putParameter: i.PutParameter,
		encrypt: func(keyARN, plaintext string, ec map[string]string) []byte {
			return i.Encrypt(keyARN, []byte(plaintext), ec)
		},
	}
}

func emulated(t *testing.T) *world {
	e := emulators.Start(t)
	e.CLI(t, "s3api", "create-bucket", "--bucket", "bucket")
	md := ec2.New(ec2.Options{Endpoint: e.IMDS})
	t.Cleanup(md.Close)
	if d, err := md.BlockDevices(t.Context()); err != nil || d["ephemeral0"] != "sdb" {
		t.Errorf("BlockDevices = %v, %v, want ephemeral0 as sdb", d, err)
	}
	roots := x509.NewCertPool()
	pem, err := os.ReadFile(e.CA)
	if err != nil {
		t.Fatal(err)
	}
	roots.AppendCertsFromPEM(pem)
	file := func(content []byte) string {
		name := filepath.Join(t.TempDir(), "file")
		if err := os.WriteFile(name, content, 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	return &world{
		md:   md,
		moto: e.Moto,
		keys: [2]string{e.CreateKey(t), e.CreateKey(t)},
		client: func(t *testing.T, change func(*aws.Role)) *keys.Client {
			return newClient(t, keys.Options{
				Identity: changed(md, func(r *aws.Role) {
					r.Credentials.SessionToken = "" // these emulators know of no sessions
					if change != nil {
						change(r)
					}
				}),
				Dial:  (&net.Dialer{}).DialContext,
				Roots: roots,
				AWS:   config.AWS{Endpoint: map[string]string{"s3": e.S3, "kms": e.API, "ssm": e.API}},
			})
		},
		put: func(bucket, key string, data []byte) {
			e.CLI(t, "s3api", "put-object", "--bucket", bucket, "--key", key, "--body", file(data))
		},
		putParameter: func(name, value string) {
			e.CLI(t, "ssm", "put-parameter", "--name", name, "--type", "String", "--value", value)
		},
		encrypt: func(keyARN, plaintext string, ec map[string]string) []byte {
			context, _ := json.Marshal(ec)
			text := e.CLI(t, "kms", "encrypt", "--key-id", keyARN, "--plaintext", "fileb://"+file([]byte(plaintext)),
				"--encryption-context", string(context), "--query", "CiphertextBlob")
			blob, err := base64.StdEncoding.DecodeString(text)
			if err != nil {
				t.Fatal(err)
			}
			return blob
		},
	}
}

func changed(md *ec2.Client, change func(*aws.Role)) func(context.Context) (aws.Role, error) {
	return func(ctx context.Context) (aws.Role, error) {
		r, err := md.Role(ctx)
		if err == nil && change != nil {
			change(&r)
		}
		return r, err
	}
}

func newClient(t *testing.T, o keys.Options) *keys.Client {
	t.Helper()
	c, err := keys.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}
