package attest_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"unlock/internal/ec2/attest"
	"unlock/internal/hint"
	"unlock/test/attested"
	"unlock/test/program"
)

// vectors are KMS' answers that AWS publishes in the tests of aws-nitro-enclaves-sdk-c
// (cms_test.c, Apache License 2.0), in both of the forms that it uses, without the private
// key.
func vectors(t testing.TB) map[string]map[string][]byte {
	data, err := os.ReadFile("testdata/aws-cms.txt")
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]map[string][]byte{"constructed": {}, "primitive": {}}
	for line := range strings.Lines(string(data)) {
		f := strings.Fields(line)
		if all[f[0]][f[1]], err = hex.DecodeString(f[2]); err != nil {
			t.Fatal(err)
		}
	}
	return all
}

func TestVectors(t *testing.T) {
	t.Parallel()
	// Of all changes of one byte, counting that to itself, those are taken that are in
	// the identifier, the key, the IV and the ciphertext.
	for name, taken := range map[string]int{"constructed": 90253, "primitive": 82057} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			v := vectors(t)[name]
			e, err := attest.ParseEnvelope(v["envelope"])
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(e.Key, v["key"]) || !bytes.Equal(e.IV, v["iv"]) || !bytes.Equal(e.Ciphertext, v["ciphertext"]) || len(e.Recipient) != 32 {
				t.Errorf("ParseEnvelope = %x, want %x", e, v)
			}
			for n := range v["envelope"] {
				if _, err := attest.ParseEnvelope(v["envelope"][:n]); err == nil {
					t.Errorf("the first %d bytes of %d are an envelope", n, len(v["envelope"]))
				}
			}
			if _, err := attest.ParseEnvelope(append(v["envelope"][:len(v["envelope"]):len(v["envelope"])], 0)); err == nil {
				t.Error("a byte may follow")
			}
			changed, parsed := bytes.Clone(v["envelope"]), 0
			for i := range changed {
				for b := range 256 {
					changed[i] = byte(b)
					if _, err := attest.ParseEnvelope(changed); err == nil {
						parsed++
					}
				}
				changed[i] = v["envelope"][i]
			}
			if parsed != taken {
				t.Errorf("%d of %d changes of one byte parse, want %d", parsed, 256*len(changed), taken)
			}
		})
	}
}

// recipient returns one whose document is its public key, as the security module was
// given it, and that key.
func recipient(t testing.TB) (*attest.Recipient, *rsa.PublicKey) {
	t.Helper()
	r := attest.New(func(_ context.Context, request []byte) ([]byte, error) {
		public, err := attested.PublicKey(request)
		return attested.Answer(public), err
	})
	document, err := r.Document(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	key, err := x509.ParsePKIXPublicKey(document)
	if err != nil {
		t.Fatalf("the public key is no SubjectPublicKeyInfo: %v", err)
	}
	return r, key.(*rsa.PublicKey)
}

// TestOpenSSL opens what OpenSSL encrypts.
func TestOpenSSL(t *testing.T) {
	t.Parallel()
	r, key := recipient(t)
	defer r.Close()
	other, _ := recipient(t)
	cert := certificate(t, key)
	for _, size := range []int{1, 15, 16, 17, 32, 48, 4096, 40000} {
		for _, stream := range []bool{false, true} {
			want := make([]byte, size)
			rand.Read(want)
			envelope := encrypt(t, cert, want, stream)
			got, err := r.Open(envelope)
			if err != nil {
				t.Errorf("%d bytes, stream %v: %v", size, stream, err)
				continue
			}
			if !bytes.Equal(got.Bytes(), want) {
				t.Errorf("%d bytes, stream %v: they are others", size, stream)
			}
			got.Wipe()
			if _, err := other.Open(envelope); err == nil || hint.Of(err) == "" {
				t.Errorf("with another key: %v, want a refusal with a hint", err)
			}
		}
	}
	r.Close()
	if _, err := r.Open(encrypt(t, cert, []byte("late"), false)); err == nil {
		t.Error("a closed recipient opens")
	}
}

// TestPadding refuses what is padded wrong.
func TestPadding(t *testing.T) {
	t.Parallel()
	r, key := recipient(t)
	t.Cleanup(r.Close)
	block := func(last ...byte) []byte { return append(bytes.Repeat([]byte{7}, 16-len(last)), last...) }
	for name, row := range map[string]struct {
		last []byte
		left int // bytes; -1: refused
	}{
		"one":      {[]byte{1}, 15},
		"two":      {[]byte{2, 2}, 14},
		"all":      {bytes.Repeat([]byte{16}, 16), 0},
		"none":     {[]byte{0}, -1},
		"too many": {[]byte{17}, -1},
		"unequal":  {[]byte{1, 2}, -1},
		"far":      {append([]byte{9}, bytes.Repeat([]byte{16}, 15)...), -1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			envelope, err := attested.Blocks(key, make([]byte, 32), block(row.last...))
			if err != nil {
				t.Fatal(err)
			}
			got, err := r.Open(envelope)
			switch {
			case row.left < 0 && err == nil:
				t.Errorf("Open = %d bytes, want a refusal", got.Len())
			case row.left >= 0 && (err != nil || got.Len() != row.left):
				t.Errorf("Open = %d bytes, %v; want %d", got.Len(), err, row.left)
			}
			got.Wipe()
		})
	}
}

// encrypt has OpenSSL encrypt. Its options for OAEP are those that KMS uses.
func encrypt(t *testing.T, cert string, plaintext []byte, stream bool) []byte {
	t.Helper()
	args := []string{"cms", "-encrypt", "-binary", "-aes256", "-keyid", "-outform", "DER", "-recip", cert,
		"-keyopt", "rsa_padding_mode:oaep", "-keyopt", "rsa_oaep_md:sha256", "-keyopt", "rsa_mgf1_md:sha256"}
	if stream {
		args = append(args, "-stream")
	}
	cmd := exec.Command("openssl", args...)
	cmd.Stdin = bytes.NewReader(plaintext)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("openssl: %v", err)
	}
	return out
}

// certificate writes one for a key, signed by another: OpenSSL encrypts to certificates.
func certificate(t *testing.T, key *rsa.PublicKey) string {
	t.Helper()
	program.Need(t, "openssl")
	signer, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "recipient"}, SubjectKeyId: []byte("identifier"),
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key, signer)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "cert.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// FuzzCMS: no input harms.
func FuzzCMS(f *testing.F) {
	for _, v := range vectors(f) {
		f.Add(v["envelope"])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := attest.ParseEnvelope(b)
		if err == nil && (len(e.IV) != 16 || len(e.Ciphertext)%16 != 0 || len(e.Ciphertext) == 0) {
			t.Errorf("ParseEnvelope(%x) = %+v", b, e)
		}
	})
}
