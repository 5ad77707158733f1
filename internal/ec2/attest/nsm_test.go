package attest_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"unlock/internal/ec2/attest"
	"unlock/internal/hint"
	"unlock/test/attested"
)

// document is a real one, of an EC2 instance (published in lockboot/vaportpm).
func document(t testing.TB) []byte {
	data, err := os.ReadFile("../../../test/ec2sim/testdata/nitrotpm-document")
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestDocument(t *testing.T) {
	t.Parallel()
	data := document(t)
	d, err := attest.Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(d.Module, "i-01cfb") || len(d.PCRs) != 24 || d.Closed() {
		t.Errorf("Parse = %s with %d PCRs, closed %v; want i-01cfb… with 24, open", d.Module, len(d.PCRs), d.Closed())
	}
	// Without Secure Boot PCR 7 is the same everywhere.
	if got := hex.EncodeToString(d.PCRs[7]); !strings.HasPrefix(got, "98441c7f") || len(got) != 96 {
		t.Errorf("PCR 7 = %s", got)
	}
	for n := range data {
		if _, err := attest.Parse(data[:n]); err == nil {
			t.Fatalf("the first %d bytes of %d are a document", n, len(data))
		}
	}
}

func TestAnswer(t *testing.T) {
	t.Parallel()
	whole := attested.Answer([]byte("document"))
	for name, row := range map[string]struct {
		answer []byte
		want   string // document
		says   string // or error
	}{
		"document":            {whole, "document", ""},
		"without padding":     {whole[:bytes.IndexByte(whole, 0xff)], "document", ""},
		"with more beside":    {[]byte("\xa2\x61x\x82\xf6\xa1\x01\x02\x6bAttestation\xa2\x61y\xc1\x18\x20\x68document\x41d"), "d", ""},
		"error":               {[]byte("\xa1\x65Error\x6fInvalidArgument"), "", `says "InvalidArgument"`},
		"error with escapes":  {[]byte("\xa1\x65Error\x63\x1b[m"), "", `says "\x1b[m"`},
		"empty document":      {attested.Answer(nil), "", "no document"},
		"nothing":             {nil, "", "breaks off"},
		"padding":             {bytes.Repeat([]byte{0xff}, 8192), "", "breaks off"},
		"zeros":               {make([]byte, 8192), "", "breaks off"},
		"request":             {attest.Request([]byte("key")), "", "no document"},
		"deep":                {append([]byte("\xa1\x61x"), bytes.Repeat([]byte{0x81}, 8000)...), "", "breaks off"},
		"huge":                {[]byte("\xa1\x6bAttestation\xa1\x68document\x5b\xff\xff\xff\xff\xff\xff\xff\xff"), "", "breaks off"},
		"map without an end":  {[]byte("\xbb\xff\xff\xff\xff\xff\xff\xff\xff\x61x"), "", "breaks off"},
		"indefinite length":   {[]byte("\xbf\x61x\x9f\xbf\x01\x02\xff\x80\xff\x6bAttestation\xbf\x68document\x41d\xff\xff\xff"), "d", ""},
		"without its end":     {[]byte("\xbf\x6bAttestation\xbf\x68document\x41d\xff"), "", "breaks off"},
		"document is no blob": {[]byte("\xa1\x6bAttestation\xa1\x68document\x61d"), "", "breaks off"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := attest.Answer(row.answer)
			if row.says == "" && (err != nil || string(got) != row.want) {
				t.Errorf("Answer = %q, %v; want %q", got, err, row.want)
			}
			if row.says != "" && (err == nil || !strings.Contains(err.Error(), row.says)) {
				t.Errorf("Answer = %q, %v; want %s", got, err, row.says)
			}
		})
	}
	end := len(whole) - len(bytes.TrimRight(whole, "\xff"))
	for n := range len(whole) - end {
		if _, err := attest.Answer(whole[:n]); err == nil {
			t.Errorf("the first %d bytes are an answer", n)
		}
	}
}

// TestRequest: the security module wants these fields, and takes no more than 1024 bytes
// in each.
func TestRequest(t *testing.T) {
	t.Parallel()
	key := bytes.Repeat([]byte{7}, 294)
	want := "\xa1\x6bAttestation\xa3\x69user_data\xf6\x65nonce\xf6\x6apublic_key\x59\x01\x26" + string(key)
	if got := attest.Request(key); string(got) != want {
		t.Errorf("Request = %q, want %q", got, want)
	}
}

// TestFresh fetches a document anew when it is a minute old, with the same key, and not
// before; after a failure at once.
func TestFresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked [][]byte
		fail := errors.New("busy")
		r := attest.New(func(_ context.Context, request []byte) ([]byte, error) {
			asked = append(asked, request)
			return attested.Answer([]byte{byte(len(asked))}), fail
		})
		defer r.Close()
		get := func(want byte, fetched int) {
			t.Helper()
			d, err := r.Document(t.Context())
			if err != nil || len(d) != 1 || d[0] != want || len(asked) != fetched {
				t.Errorf("Document = %v, %v after %d requests; want %d after %d", d, err, len(asked), want, fetched)
			}
		}
		if _, err := r.Document(t.Context()); !errors.Is(err, fail) {
			t.Errorf("Document = %v, want %v", err, fail)
		}
		fail = nil
		get(2, 2)
		time.Sleep(59 * time.Second)
		get(2, 2)
		time.Sleep(2 * time.Second)
		get(3, 3)
		if !bytes.Equal(asked[0], asked[2]) {
			t.Error("the key is another")
		}
		if r.Measured() != nil {
			t.Error("one byte describes a machine")
		}
	})
}

// TestHangs: who waits for another's document waits no longer than they may.
func TestHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		never := make(chan struct{})
		r := attest.New(func(context.Context, []byte) ([]byte, error) { <-never; return nil, errors.New("late") })
		var wg sync.WaitGroup
		wg.Go(func() { _, _ = r.Document(t.Context()) })
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := r.Document(ctx); !errors.Is(err, context.DeadlineExceeded) || hint.Of(err) == "" {
			t.Errorf("Document = %v, want the deadline and a hint", err)
		}
		close(never)
		wg.Wait()
		r.Close()
	})
}

func TestRefusedDocument(t *testing.T) {
	t.Parallel()
	r := attest.New(func(context.Context, []byte) ([]byte, error) { return []byte("\xa1\x65Error\x6dInternalError"), nil })
	defer r.Close()
	if _, err := r.Document(t.Context()); err == nil || !strings.Contains(err.Error(), "InternalError") || hint.Of(err) == "" {
		t.Errorf("Document = %v, want the module's words and a hint", err)
	}
}

// FuzzNSM: no answer and no document harms.
func FuzzNSM(f *testing.F) {
	f.Add(attested.Answer(document(f)))
	f.Add(document(f))
	f.Add([]byte("\xa1\x65Error\x6fInvalidArgument"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if d, err := attest.Answer(b); err == nil && len(d) == 0 {
			t.Errorf("Answer(%x) has no document", b)
		}
		if d, err := attest.Parse(b); err == nil && d.Module == "" {
			t.Errorf("Parse(%x) has no module", b)
		}
	})
}
