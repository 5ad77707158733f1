package ec2sim_test

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"

	"unlock/test/ec2sim"
	"unlock/test/nitrotpm"
	"unlock/test/program"
)

// rootG1 is the SHA-256 of AWS' Root-G1 (Nitro Enclaves User Guide, "Verifying the root
// of trust").
const rootG1 = "641a0321a3e244efe456463195d606317ed7cdcc3c1756e09893f3c68f79bb5b"

// TestRealDocument judges a document that an EC2 instance made on 2026-02-03, as
// published with lockboot/vaportpm (MIT or Apache-2.0).
func TestRealDocument(t *testing.T) {
	t.Parallel()
	document, err := os.ReadFile("testdata/nitrotpm-document")
	if err != nil {
		t.Fatal(err)
	}
	var parts []cbor.RawMessage
	var payload []byte
	var d ec2sim.Document
	for _, err := range []error{cbor.Unmarshal(document, &parts), cbor.Unmarshal(parts[2], &payload), cbor.Unmarshal(payload, &d)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	root := d.CABundle[0]
	if sum := sha256.Sum256(root); hex.EncodeToString(sum[:]) != rootG1 {
		t.Fatalf("its root is %x", sum)
	}
	now := d.Time().Add(time.Minute)
	got, err := ec2sim.ReadDocument(document, root, now)
	if err != nil {
		t.Fatalf("at its own time: %v", err)
	}
	if len(document) != 4964 || len(got.PCRs) != 24 || !strings.HasPrefix(hex.EncodeToString(got.PCRs[7]), "98441c7f7625d100") {
		t.Errorf("%d bytes, %d PCRs, PCR 7 = %x", len(document), len(got.PCRs), got.PCRs[7])
	}
	for name, row := range map[string]struct {
		at   time.Time
		want string
	}{
		"5 min":         {d.Time().Add(5 * time.Minute), ""},
		"6 min later":   {d.Time().Add(6 * time.Minute), "it was made 6m0s ago"},
		"a day later":   {d.Time().Add(24 * time.Hour), "has expired"},
		"before it was": {d.Time().Add(-6 * time.Minute), "its chain"},
	} {
		if _, err := ec2sim.ReadDocument(document, root, row.at); row.want == "" && err != nil || row.want != "" && (err == nil || !strings.Contains(err.Error(), row.want)) {
			t.Errorf("%s: %v, want %q", name, err, row.want)
		}
	}
	other, err := nitrotpm.NewAuthority()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ec2sim.ReadDocument(document, der(other.Root()), now); err == nil || !strings.Contains(err.Error(), "its root is another") {
		t.Errorf("with another root: %v", err)
	}
	bits := 0
	for bit := 0; bit < 8*len(document); bit += 37 {
		changed := slices.Clone(document)
		changed[bit/8] ^= 1 << (bit % 8)
		if _, err := ec2sim.ReadDocument(changed, root, now); err == nil {
			t.Errorf("bit %d changed: accepted", bit)
		}
		bits++
	}
	for n := 0; n < len(document); n += 101 {
		if _, err := ec2sim.ReadDocument(document[:n], root, now); err == nil {
			t.Errorf("%d bytes: accepted", n)
		}
	}
	if _, err := ec2sim.ReadDocument(append(slices.Clone(document), 0), root, now); err == nil {
		t.Error("a byte more: accepted")
	}
	t.Logf("%d changed bits were refused", bits)
}

func der(p []byte) []byte {
	block, _ := pem.Decode(p)
	return block.Bytes
}

// attested is a machine with a TPM, as far as KMS sees it.
type attested struct {
	*machine
	authority *nitrotpm.Authority
	rsa       *rsa.PrivateKey
	key       string
	pcrs      map[int][]byte
}

func newAttested(t *testing.T, m *machine) *attested {
	t.Helper()
	a := &attested{machine: m, pcrs: map[int][]byte{}}
	var err1, err2 error
	a.authority, err1 = nitrotpm.NewAuthority()
	a.rsa, err2 = rsa.GenerateKey(rand.Reader, 2048)
	if err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
	if err := a.cloud.TrustAttestation(a.authority.Root()); err != nil {
		t.Fatal(err)
	}
	a.key = a.cloud.CreateKey()
	for i := range 24 {
		a.pcrs[i] = make([]byte, 48)
	}
	a.pcrs[4] = bytes.Repeat([]byte{0xAB}, 48)
	return a
}

// recipient of a document with changes.
func (a *attested) recipient(t *testing.T, change func(*nitrotpm.Content)) map[string]any {
	t.Helper()
	spki, err := x509.MarshalPKIXPublicKey(&a.rsa.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	c := nitrotpm.Content{ModuleID: "i-0123456789abcdef0", Time: time.Now(), PCRs: maps.Clone(a.pcrs), PublicKey: spki}
	if change != nil {
		change(&c)
	}
	document, err := a.authority.Document(c)
	if err != nil {
		t.Fatal(err)
	}
	return map[string]any{"AttestationDocument": document, "KeyEncryptionAlgorithm": "RSAES_OAEP_SHA_256"}
}

// open has OpenSSL decrypt an envelope.
func (a *attested) open(t *testing.T, cms []byte) ([]byte, error) {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "key.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(a.rsa)}), 0o600); err != nil {
		t.Fatal(err)
	}
	program.Need(t, "openssl")
	cmd := exec.Command("openssl", "cms", "-decrypt", "-inform", "DER", "-inkey", file)
	cmd.Stdin = bytes.NewReader(cms)
	return cmd.Output()
}

type kmsAnswer struct {
	Plaintext, CiphertextBlob, CiphertextForRecipient []byte
}

// TestRecipient has OpenSSL open what KMS answers in both forms.
func TestRecipient(t *testing.T) {
	t.Parallel()
	a := newAttested(t, newMachine(t, ec2sim.Config{}))
	secret := []byte("correct horse battery staple")
	blob := a.cloud.Encrypt(a.key, secret, nil)
	forms := map[string]int{}
	for range 2 {
		got := a.kms(t, admin, "Decrypt", map[string]any{"CiphertextBlob": blob, "Recipient": a.recipient(t, nil)})
		var out kmsAnswer
		if err := json.Unmarshal([]byte(got.body), &out); err != nil || got.status != 200 || out.Plaintext != nil {
			t.Fatalf("Decrypt = %+v, %v", got, err)
		}
		if plain, err := a.open(t, out.CiphertextForRecipient); err != nil || !bytes.Equal(plain, secret) {
			t.Errorf("openssl cms -decrypt: %q, %v", plain, err)
		}
		forms[fmt.Sprintf("%x", out.CiphertextForRecipient[len(out.CiphertextForRecipient)-12:])] = len(out.CiphertextForRecipient)
		if !bytes.HasPrefix(out.CiphertextForRecipient, []byte{0x30, 0x80}) {
			t.Errorf("the envelope begins with %x", out.CiphertextForRecipient[:8])
		}
		if bytes.Contains(out.CiphertextForRecipient, []byte{0xa0, 0x80, 0x04}) {
			forms["constructed"]++
		} else {
			forms["primitive"]++
		}
	}
	if forms["constructed"] != 1 || forms["primitive"] != 1 {
		t.Errorf("the forms of two answers: %v", forms)
	}
	got := a.kms(t, admin, "GenerateDataKey", map[string]any{"KeyId": a.key, "KeySpec": "AES_256", "Recipient": a.recipient(t, nil)})
	var out kmsAnswer
	if err := json.Unmarshal([]byte(got.body), &out); err != nil || out.Plaintext != nil {
		t.Fatalf("GenerateDataKey = %+v, %v", got, err)
	}
	plain, err := a.open(t, out.CiphertextForRecipient)
	want, err2 := a.cloud.Decrypt(a.key, out.CiphertextBlob, nil)
	if err != nil || err2 != nil || !bytes.Equal(plain, want) || len(plain) != 32 {
		t.Errorf("the data key: %v, %v", err, err2)
	}

	events := a.cloud.Events()
	var e struct {
		AdditionalEventData struct{ Recipient map[string]string }
		RequestParameters   map[string]any
	}
	if err := json.Unmarshal(events[len(events)-1], &e); err != nil {
		t.Fatal(err)
	}
	recipient := e.AdditionalEventData.Recipient
	if recipient["attestationDocumentModuleId"] != "i-0123456789abcdef0" || recipient["attestationDocumentNitroTPMPCR4"] != strings.Repeat("ab", 48) || e.RequestParameters["recipient"] != nil {
		t.Errorf("CloudTrail's record: %s", events[len(events)-1])
	}
}

func TestRecipientRefused(t *testing.T) {
	t.Parallel()
	a := newAttested(t, newMachine(t, ec2sim.Config{}))
	other := newAttested(t, newMachine(t, ec2sim.Config{}))
	blob := a.cloud.Encrypt(a.key, []byte("x"), nil)
	with := func(change func(*nitrotpm.Content)) map[string]any { return a.recipient(t, change) }
	flipped := with(nil)
	flipped["AttestationDocument"].([]byte)[3000] ^= 1
	algorithm := with(nil)
	algorithm["KeyEncryptionAlgorithm"] = "RSAES_OAEP_SHA_1"
	for name, row := range map[string]struct {
		recipient map[string]any
		want      string
	}{
		"another root":          {other.recipient(t, nil), "its root is another"},
		"a bit changed":         {flipped, "its signature is not that of its certificate"},
		"another algorithm":     {algorithm, "recipient.keyEncryptionAlgorithm"},
		"no document":           {map[string]any{"KeyEncryptionAlgorithm": "RSAES_OAEP_SHA_256"}, "recipient.attestationDocument"},
		"no COSE":               {map[string]any{"AttestationDocument": []byte("x"), "KeyEncryptionAlgorithm": "RSAES_OAEP_SHA_256"}, "it is no COSE_Sign1"},
		"6 min old":             {with(func(c *nitrotpm.Content) { c.Time = c.Time.Add(-6 * time.Minute) }), "it was made 6m"},
		"no key":                {with(func(c *nitrotpm.Content) { c.PublicKey = nil }), "not an RSA key"},
		"a short PCR":           {with(func(c *nitrotpm.Content) { c.PCRs[3] = make([]byte, 32) }), "PCR 3 has 32 bytes"},
		"too long a nonce":      {with(func(c *nitrotpm.Content) { c.Nonce = make([]byte, 1025) }), "more than 1024 bytes"},
		"4 min, good":           {with(func(c *nitrotpm.Content) { c.Time = c.Time.Add(-4 * time.Minute) }), `"CiphertextForRecipient"`},
		"a nonce of 1024 bytes": {with(func(c *nitrotpm.Content) { c.Nonce = make([]byte, 1024) }), `"CiphertextForRecipient"`},
	} {
		got := a.kms(t, admin, "Decrypt", map[string]any{"CiphertextBlob": blob, "Recipient": row.recipient})
		if !strings.Contains(got.body, row.want) || strings.Contains(got.body, `"Plaintext"`) {
			t.Errorf("%s: %s, want %s", name, got.body, row.want)
		}
	}
}

// doAttested decrypts with a document and says what the answer has: "200 -" is
// nothing of use.
func doAttested(t *testing.T, m *machine) string {
	a := newAttested(t, m)
	return line(m.kms(t, admin, "Decrypt", map[string]any{"CiphertextBlob": blobOf(m), "Recipient": a.recipient(t, nil)}), func(got answer) string {
		var out kmsAnswer
		if err := json.Unmarshal([]byte(got.body), &out); err != nil {
			return err.Error()
		}
		var has []string
		if out.Plaintext != nil {
			has = append(has, "plaintext")
		}
		if plain, err := a.open(t, out.CiphertextForRecipient); err == nil && string(plain) == "x" {
			has = append(has, "envelope")
		} else if out.CiphertextForRecipient != nil {
			has = append(has, "rubbish")
		}
		return strings.Join(has, " and ") + "."
	})
}
