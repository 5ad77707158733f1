package secret_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"testing"

	"unlock/internal/secret"
)

func TestTake(t *testing.T) {
	from := []byte("passphrase")
	s := secret.Take(from)
	defer s.Wipe()
	if string(s.Bytes()) != "passphrase" || !bytes.Equal(from, make([]byte, len(from))) {
		t.Errorf("Take = %q, and left %q", s.Bytes(), from)
	}
	c := s.Clone()
	s.Wipe()
	s.Wipe() // twice is allowed
	if string(c.Bytes()) != "passphrase" || s.Len() != 0 || len(s.Bytes()) != 0 {
		t.Errorf("clone = %q, original has %d bytes", c.Bytes(), s.Len())
	}
	c.Truncate(4)
	if string(c.Bytes()) != "pass" || cap(c.Bytes()) != 4 {
		t.Errorf("Truncate left %q of capacity %d", c.Bytes(), cap(c.Bytes()))
	}
	c.Wipe()
}

func TestEmpty(t *testing.T) {
	var none *secret.Bytes
	var zero secret.Bytes
	for _, s := range []*secret.Bytes{none, &zero, secret.New(0), secret.Take(nil)} {
		if s.Len() != 0 || len(s.Bytes()) != 0 {
			t.Errorf("%d bytes, want none", s.Len())
		}
		s.Wipe()
	}
}

func TestNeverPrinted(t *testing.T) {
	s := secret.Take([]byte("passphrase"))
	defer s.Wipe()
	holder := struct{ Key *secret.Bytes }{s}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		for _, v := range []any{s, holder} {
			if text := fmt.Sprintf(verb, v); bytes.Contains([]byte(text), []byte("pass")) || bytes.Contains([]byte(text), []byte("70617373")) {
				t.Errorf("%s prints %s", verb, text)
			}
		}
	}
	if text, err := json.Marshal(holder); err == nil {
		t.Errorf("json.Marshal = %s, want a refusal", text)
	}
}
