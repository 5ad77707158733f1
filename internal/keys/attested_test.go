package keys_test

import (
	"bytes"
	"context"
	"crypto/aes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"unlock/internal/aws/arn"
	"unlock/internal/config"
	"unlock/internal/ec2/attest"
	"unlock/internal/hint"
	"unlock/internal/keys"
	"unlock/internal/keys/source"
	"unlock/test/attested"
)

// module is a TPM's security module, which counts requests.
type module struct {
	asked int
	err   error
	last  byte // of each byte of PCR 13
}

func (m *module) exchange(_ context.Context, request []byte) ([]byte, error) {
	m.asked++
	pcrs := map[int][]byte{}
	for _, n := range []int{4, 7, 12} {
		pcrs[n] = bytes.Repeat([]byte{byte(n)}, 48)
	}
	pcrs[13] = bytes.Repeat([]byte{m.last}, 48)
	document, err := attested.Document(request, pcrs)
	return attested.Answer(document), errors.Join(err, m.err)
}

// changes are what a KMS may answer to a recipient: plaintext and envelope.
type changes func(t *testing.T, envelope []byte) (plaintext, sealed []byte)

// attesting is a KMS that takes a document for what it is.
func attesting(t *testing.T, plaintext []byte, change changes) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var in struct {
			KeyID     string
			Recipient *struct {
				AttestationDocument    []byte
				KeyEncryptionAlgorithm string
			}
		}
		body, _ := io.ReadAll(r.Body)
		if err := json.Unmarshal(body, &in); err != nil {
			t.Error(err)
		}
		w.Header().Set("X-Amzn-Requestid", "attested")
		out := map[string]any{"KeyId": in.KeyID, "CiphertextBlob": []byte(encrypted), "Plaintext": nil}
		if in.Recipient == nil || in.Recipient.KeyEncryptionAlgorithm != "RSAES_OAEP_SHA_256" {
			t.Errorf("a call with recipient %+v", in.Recipient)
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		public, err := attested.PublicKey(in.Recipient.AttestationDocument)
		if err != nil {
			t.Error(err)
		}
		envelope, err := attested.Envelope(public, plaintext)
		if err != nil {
			t.Error(err)
		}
		if change != nil {
			out["Plaintext"], envelope = change(t, envelope)
		}
		if envelope != nil {
			out["CiphertextForRecipient"] = envelope
		}
		reply(w, out)
	}
}

// attestedClient returns a client whose keys are attested by m.
func attestedClient(t *testing.T, c *cloud, m *module) *keys.Client {
	t.Helper()
	o := keys.Options{Identity: role, Dial: c.Dial, Roots: c.roots(), Image: func() string { return "ami-0123456789abcdef0" }}
	if m != nil {
		o.Attest = attest.New(m.exchange)
		t.Cleanup(o.Attest.Close)
	}
	k, err := keys.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.Close)
	return k
}

func TestAttested(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, m := newCloud(t), &module{}
		client := attestedClient(t, c, m)
		k := config.Key{Source: file(t), KMSKeys: []arn.ARN{arn.MustParse(keyARN)}, Attest: true}
		c.faults["kms"] = func(int) http.HandlerFunc { return attesting(t, []byte(password+"\n"), nil) }
		s, calls, err := client.Open(t.Context(), k)
		if err != nil {
			t.Fatal(err)
		}
		if string(s.Bytes()) != password || len(calls) != 1 || calls[0].RequestID != "attested" {
			t.Errorf("Open = %q by %+v", s.Bytes(), calls)
		}
		s.Wipe()

		k.Source = source.Header.Source()
		raw := bytes.Repeat([]byte{7}, 32)
		c.faults["kms"] = func(int) http.HandlerFunc { return attesting(t, raw, nil) }
		made, blob, _, err := client.Generate(t.Context(), k, "set")
		if err != nil {
			t.Fatal(err)
		}
		if string(made.Bytes()) != base64Text(raw) {
			t.Errorf("Generate = %q, want the text of %x", made.Bytes(), raw)
		}
		made.Wipe()
		opened, _, err := client.OpenBlob(t.Context(), k, "set", blob)
		if err != nil {
			t.Fatal(err)
		}
		if string(opened.Bytes()) != base64Text(raw) {
			t.Errorf("OpenBlob = %q, want the text of %x", opened.Bytes(), raw)
		}
		opened.Wipe()
		if m.asked != 1 {
			t.Errorf("%d documents for three calls at once, want one", m.asked)
		}
	})
}

// TestAttestedRefusals: what is amiss with an attested call ends it, and no other call is
// made in its place.
func TestAttestedRefusals(t *testing.T) {
	sealed := func(plaintext []byte) changes {
		return func(t *testing.T, _ []byte) ([]byte, []byte) {
			other := attest.New((&module{}).exchange)
			defer other.Close()
			document, err := other.Document(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			public, _ := attested.PublicKey(document)
			envelope, _ := attested.Envelope(public, plaintext)
			return nil, envelope
		}
	}
	denied := jsonError(400, "AccessDeniedException")
	for _, row := range []struct {
		name   string
		answer changes
		fault  http.HandlerFunc
		module *module
		none   bool // there is nothing that attests
		calls  int
		says   string
		hint   string
	}{
		{name: "plaintext beside", answer: func(_ *testing.T, e []byte) ([]byte, []byte) { return []byte(password), e },
			calls: 1, says: "the plaintext is in the clear", hint: "did not attest"},
		{name: "plaintext instead", answer: func(*testing.T, []byte) ([]byte, []byte) { return []byte(password), nil },
			calls: 1, says: "the plaintext is in the clear", hint: "did not attest"},
		{name: "neither", answer: func(*testing.T, []byte) ([]byte, []byte) { return nil, nil },
			calls: 1, says: "nothing is encrypted to this boot", hint: "did not attest"},
		{name: "truncated", answer: func(_ *testing.T, e []byte) ([]byte, []byte) { return nil, e[:len(e)/2] },
			calls: 1, says: "breaks off", hint: "something other than KMS"},
		// A bit of the last block but one is that bit of the last byte of padding; one of the last block would now and then pad right.
		{name: "padded wrong", answer: func(_ *testing.T, e []byte) ([]byte, []byte) { e[len(e)-1-aes.BlockSize] ^= 1; return nil, e },
			calls: 1, says: "does not open", hint: "something other than KMS"},
		{name: "for another key", answer: sealed([]byte(password)), calls: 1, says: "does not open", hint: "something other than KMS"},
		{name: "denied", fault: denied, calls: 6, says: "AccessDeniedException",
			hint: "for what this boot measured of image ami-0123456789abcdef0: PCR 4 " + strings.Repeat("04", 48) + ", PCR 7 " + strings.Repeat("07", 48) + ", PCR 12 " + strings.Repeat("0c", 48) + ", PCR 13 " + strings.Repeat("00", 48)},
		{name: "denied after the end", fault: denied, module: &module{last: 1}, calls: 6, says: "AccessDeniedException", hint: "PCR 13 is extended"},
		{name: "document refused", fault: jsonError(400, "ValidationException"), calls: 1, says: "ValidationException", hint: "does not accept this instance's attestation document"},
		{name: "another key", fault: jsonError(400, "IncorrectKeyException"), calls: 1, says: "IncorrectKeyException", hint: "under another key"},
		{name: "no TPM", module: &module{err: hint.New("there is no TPM", "launch another")}, says: "there is no TPM", hint: "launch another"},
		{name: "nothing that attests", none: true, says: "nothing here that could attest"},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCloud(t)
				c.faults["kms"] = func(int) http.HandlerFunc {
					if row.fault != nil {
						return row.fault
					}
					return attesting(t, []byte(password), row.answer)
				}
				if row.module == nil && !row.none {
					row.module = &module{}
				}
				s, _, err := attestedClient(t, c, row.module).Open(t.Context(), config.Key{Source: file(t), KMSKeys: []arn.ARN{arn.MustParse(keyARN)}, Attest: true})
				if err == nil {
					t.Fatalf("Open = %q", s.Bytes())
				}
				if !strings.Contains(err.Error(), row.says) || !strings.Contains(hintOf(err), row.hint) {
					t.Errorf("error = %v\nhint: %s\nwant %s\nhint: %s", err, hintOf(err), row.says, row.hint)
				}
				if n := c.count("kms"); n != row.calls {
					t.Errorf("%d calls, want %d", n, row.calls)
				}
			})
		})
	}
}

// TestAttestedLate shows KMS a document that is fresh at each try.
func TestAttestedLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, m := newCloud(t), &module{}
		begun, calls := time.Now(), 0
		c.faults["kms"] = func(int) http.HandlerFunc {
			calls++
			if time.Since(begun) < 5*time.Minute {
				return jsonError(400, "ThrottlingException")
			}
			return attesting(t, []byte(password), nil)
		}
		s, _, err := attestedClient(t, c, m).Open(t.Context(), config.Key{Source: file(t), KMSKeys: []arn.ARN{arn.MustParse(keyARN)}, Attest: true})
		if err != nil {
			t.Fatal(err)
		}
		s.Wipe()
		if m.asked < 4 || m.asked > 6 {
			t.Errorf("%d documents for %d calls in 5 minutes, want about one a minute", m.asked, calls)
		}
	})
}

// TestUnattested: a key that is not attested has no recipient in its calls.
func TestUnattested(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, m := newCloud(t), &module{}
		c.faults["kms"] = func(int) http.HandlerFunc {
			return func(w http.ResponseWriter, r *http.Request) {
				body, _ := io.ReadAll(r.Body)
				if bytes.Contains(body, []byte("Recipient")) {
					t.Errorf("request %s", body)
				}
				reply(w, map[string]any{"KeyId": keyARN, "Plaintext": []byte(password)})
			}
		}
		s, _, err := attestedClient(t, c, m).Open(t.Context(), config.Key{Source: file(t), KMSKeys: []arn.ARN{arn.MustParse(keyARN)}})
		if err != nil || string(s.Bytes()) != password || m.asked != 0 {
			t.Errorf("Open = %q, %v after %d documents", s.Bytes(), err, m.asked)
		}
		s.Wipe()
	})
}
