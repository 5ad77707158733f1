//go:build emulators

package keys_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"unlock/internal/config"
	"unlock/internal/ec2"
	"unlock/internal/ec2sim"
	"unlock/internal/keys"
)

// world is an AWS to ask: emulators that others wrote, or ec2sim.
type world struct {
	md     *ec2.Client
	moto   bool // KMS and SSM are moto's
	client func(t *testing.T, change func(*ec2.Role)) *keys.Client

	keys         [2]string // ARNs
	put          func(bucket, key string, data []byte)
	putParameter func(name, value string)
	encrypt      func(arn, plaintext string, ec map[string]string) []byte
}

// TestEmulators asks amazon-ec2-metadata-mock (IMDS), versitygw (S3) and moto
// (KMS, SSM) the same as ec2sim, and wants the same results. moto is a Python
// program that neither Debian nor the Go module proxy has: where it is not
// installed, ec2sim stands in for it, and the test says so.
func TestEmulators(t *testing.T) {
	worlds := map[string]*world{"emulators": emulators(t), "ec2sim": simulated(t)}
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
		source config.Source
		change func(*ec2.Role)
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
		{name: "wrong secret", source: "s3://bucket/key", change: func(r *ec2.Role) { r.Credentials.SecretAccessKey = "wrong" }, says: "SignatureDoesNotMatch", hint: "does not accept the signature"},
		{name: "unknown access key", source: "s3://bucket/key", change: func(r *ec2.Role) { r.Credentials.AccessKeyID = "ASIAUNKNOWN000000000" }, says: "InvalidAccessKeyId", theirs: "InvalidToken", hint: "does not accept the credentials"},
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
				k := config.Key{Source: row.source, KMSKeys: []string{w.keys[0]}, Context: ec}
				if row.key != nil {
					k.KMSKeys[0] = row.key(w)
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
			k := config.Key{Source: "header", KMSKeys: []string{w.keys[0]}, Context: ec}
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
		client: func(t *testing.T, change func(*ec2.Role)) *keys.Client {
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
		encrypt: func(arn, plaintext string, ec map[string]string) []byte {
			return i.Encrypt(arn, []byte(plaintext), ec)
		},
	}
}

// emulators starts them on the loopback interface.
func emulators(t *testing.T) *world {
	dir := t.TempDir()
	cert, key := selfSigned(t, dir)
	imds, s3 := freeAddr(t), freeAddr(t)

	// The mock's own credentials expired in 2020.
	cfg, _ := json.Marshal(map[string]any{"metadata": map[string]any{"values": map[string]any{"iam-security-credentials": map[string]string{
		"code": "Success", "type": "AWS-HMAC", "lastupdated": "2020-04-02T18:50:40Z", "token": "mock",
		"accesskeyid": ec2sim.AccessKey, "secretaccesskey": ec2sim.SecretKey,
		"expiration": time.Now().Add(time.Hour).UTC().Format(time.RFC3339),
	}}}})
	cfgFile := filepath.Join(dir, "imds.json")
	if err := os.WriteFile(cfgFile, cfg, 0o600); err != nil {
		t.Fatal(err)
	}
	host, port, _ := net.SplitHostPort(imds)
	start(t, imds, dir, "ec2-metadata-mock", "--imdsv2", "--hostname", host, "--port", port, "--config-file", cfgFile)

	data, side := filepath.Join(dir, "data"), filepath.Join(dir, "sidecar")
	if err := errors.Join(os.Mkdir(data, 0o700), os.Mkdir(side, 0o700)); err != nil {
		t.Fatal(err)
	}
	start(t, s3, dir, "versitygw", "--access", ec2sim.AccessKey, "--secret", ec2sim.SecretKey, "--port", s3, "--cert", cert, "--key", key, "--quiet", "posix", "--sidecar", side, data)

	api, moto := kmsAndSSM(t, dir, cert, key)

	aws := func(stdin []byte, args ...string) string {
		t.Helper()
		cmd := exec.Command("aws", append([]string{"--ca-bundle", cert, "--output", "text"}, args...)...)
		cmd.Env = append(os.Environ(), "AWS_ACCESS_KEY_ID="+ec2sim.AccessKey, "AWS_SECRET_ACCESS_KEY="+ec2sim.SecretKey, "AWS_DEFAULT_REGION=us-east-1", "AWS_PAGER=")
		cmd.Stdin = bytes.NewReader(stdin)
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("aws %s: %v: %s", strings.Join(args, " "), err, stderr.Bytes())
		}
		return strings.TrimSpace(string(out))
	}
	aws(nil, "--endpoint-url", "https://"+s3, "s3api", "create-bucket", "--bucket", "bucket")
	md := ec2.New(ec2.Options{Endpoint: "http://" + imds})
	t.Cleanup(md.Close)
	if d, err := md.BlockDevices(t.Context()); err != nil || d["ephemeral0"] != "sdb" {
		t.Errorf("BlockDevices = %v, %v, want ephemeral0 as sdb", d, err)
	}
	roots := x509.NewCertPool()
	pemBytes, err := os.ReadFile(cert)
	if err != nil {
		t.Fatal(err)
	}
	roots.AppendCertsFromPEM(pemBytes)
	return &world{
		md:   md,
		moto: moto,
		keys: [2]string{api.createKey(), api.createKey()},
		client: func(t *testing.T, change func(*ec2.Role)) *keys.Client {
			return newClient(t, keys.Options{
				Identity: changed(md, func(r *ec2.Role) {
					r.Credentials.SessionToken = "" // these emulators know of no sessions
					if change != nil {
						change(r)
					}
				}),
				Dial:  (&net.Dialer{}).DialContext,
				Roots: roots,
				AWS:   config.AWS{Endpoint: map[string]string{"s3": "https://" + s3, "kms": api.url, "ssm": api.url}},
			})
		},
		put: func(bucket, key string, data []byte) {
			file := filepath.Join(dir, "object")
			if err := os.WriteFile(file, data, 0o600); err != nil {
				t.Fatal(err)
			}
			aws(nil, "--endpoint-url", "https://"+s3, "s3api", "put-object", "--bucket", bucket, "--key", key, "--body", file)
		},
		putParameter: api.put,
		encrypt: func(arn, plaintext string, ec map[string]string) []byte {
			file := filepath.Join(dir, "plaintext")
			if err := os.WriteFile(file, []byte(plaintext), 0o600); err != nil {
				t.Fatal(err)
			}
			context, _ := json.Marshal(ec)
			text := aws(nil, "--endpoint-url", api.url, "kms", "encrypt", "--key-id", arn, "--plaintext", "fileb://"+file, "--encryption-context", string(context), "--query", "CiphertextBlob")
			blob, err := base64.StdEncoding.DecodeString(text)
			if err != nil {
				t.Fatal(err)
			}
			return blob
		},
	}
}

// kmsAPI is what stands for KMS and SSM.
type kmsAPI struct {
	url       string
	createKey func() string // returns the ARN
	put       func(name, value string)
}

// kmsAndSSM starts moto if it is installed, else a simulated EC2, whose
// certificate authority is added to the file cert.
func kmsAndSSM(t *testing.T, dir, cert, key string) (api kmsAPI, moto bool) {
	if _, err := exec.LookPath("moto_server"); err != nil {
		t.Log("moto_server is not installed: KMS and SSM are ec2sim's here")
		cloud, err := ec2sim.New(ec2sim.Config{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { cloud.Close() })
		url, err := cloud.Loopback()
		if err != nil {
			t.Fatal(err)
		}
		own, err := os.ReadFile(cert)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(cert, append(own, cloud.CA()...), 0o600); err != nil {
			t.Fatal(err)
		}
		return kmsAPI{url, cloud.CreateKey, cloud.PutParameter}, false
	}
	addr := freeAddr(t)
	host, port, _ := net.SplitHostPort(addr)
	start(t, addr, dir, "moto_server", "-H", host, "-p", port, "-c", cert, "-k", key)
	url := "https://" + addr
	aws := func(args ...string) string {
		t.Helper()
		cmd := exec.Command("aws", append([]string{"--ca-bundle", cert, "--output", "text", "--endpoint-url", url}, args...)...)
		cmd.Env = append(os.Environ(), "AWS_ACCESS_KEY_ID="+ec2sim.AccessKey, "AWS_SECRET_ACCESS_KEY="+ec2sim.SecretKey, "AWS_DEFAULT_REGION=us-east-1", "AWS_PAGER=")
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("aws %s: %v", strings.Join(args, " "), err)
		}
		return strings.TrimSpace(string(out))
	}
	return kmsAPI{
		url:       url,
		createKey: func() string { return aws("kms", "create-key", "--query", "KeyMetadata.Arn") },
		put: func(name, value string) {
			aws("ssm", "put-parameter", "--name", name, "--type", "String", "--value", value)
		},
	}, true
}

func changed(md *ec2.Client, change func(*ec2.Role)) func(context.Context) (ec2.Role, error) {
	return func(ctx context.Context) (ec2.Role, error) {
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

// start runs a server until the test ends, and waits until it answers at addr.
// UNLOCK_EMULATORS is the directory into which make installs what the Go module
// proxy has; moto comes with Python.
func start(t *testing.T, addr, home, name string, args ...string) {
	t.Helper()
	path := filepath.Join(os.Getenv("UNLOCK_EMULATORS"), name)
	if _, err := os.Stat(path); err != nil {
		if path, err = exec.LookPath(name); err != nil {
			t.Fatalf("%s is neither in $UNLOCK_EMULATORS (make emulators) nor in $PATH (moto_server: pip install 'moto[server]')", name)
		}
	}
	var log bytes.Buffer
	cmd := exec.Command(path, args...)
	cmd.Env = append(os.Environ(), "HOME="+home)
	cmd.Stdout, cmd.Stderr = &log, &log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.WaitDelay = time.Second
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	t.Cleanup(func() { syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL); <-done })
	for range 300 {
		if c, err := net.Dial("tcp", addr); err == nil {
			c.Close()
			return
		}
		select {
		case err := <-done:
			done <- err
			t.Fatalf("%s ended: %v: %s", name, err, log.Bytes())
		case <-time.After(100 * time.Millisecond):
		}
	}
	t.Fatalf("%s does not answer at %s", name, addr)
}

func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// selfSigned makes a certificate for the loopback address.
func selfSigned(t *testing.T, dir string) (certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "emulators"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certFile, keyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	err = errors.Join(
		os.WriteFile(certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600),
		os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}), 0o600))
	if err != nil {
		t.Fatal(err)
	}
	return certFile, keyFile
}
