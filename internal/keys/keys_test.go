package keys_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/aws"

	"unlock/internal/aws"
	"unlock/internal/aws/arn"
	"unlock/internal/config"
	"unlock/internal/keys"
	"unlock/internal/keys/source"
)

func role(context.Context) (aws.Role, error) {
	return aws.Role{Name: "demo", Credentials: sdk.Credentials{
		AccessKeyID: "AKIAIOSFODNN7EXAMPLE", SecretAccessKey: "secret", SessionToken: "token",
		CanExpire: true, Expires: time.Now().Add(time.Hour),
	}}, nil
}

func TestHealthy(t *testing.T) {
	t.Parallel()
	key := bytes.Repeat([]byte{7}, 32)
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Amzn-Requestid", "req-1")
		if r.Method == "GET" {
			w.Write([]byte("ciphertext"))
			return
		}
		var in struct {
			KeyId             string
			CiphertextBlob    []byte
			EncryptionContext map[string]string
		}
		json.NewDecoder(r.Body).Decode(&in)
		out := map[string]any{"KeyId": in.KeyId}
		switch op := strings.TrimPrefix(r.Header.Get("X-Amz-Target"), "TrentService."); {
		case op == "GenerateDataKey":
			out["Plaintext"], out["CiphertextBlob"] = key, []byte("blob")
		case string(in.CiphertextBlob) == "blob" && in.EncryptionContext[config.ContextSet] == "set-1":
			out["Plaintext"] = key
		case string(in.CiphertextBlob) == "ciphertext":
			out["Plaintext"] = []byte("correct horse\n")
		}
		json.NewEncoder(w).Encode(out)
	}))
	defer srv.Close()
	roots := x509.NewCertPool()
	roots.AddCert(srv.Certificate())
	c, err := keys.New(keys.Options{
		Identity: role, Roots: roots,
		Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "tcp", srv.Listener.Addr().String())
		},
		AWS: config.AWS{Endpoint: map[string]string{"kms": "https://example.com", "s3": "https://example.com"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	k := config.Key{Source: source.MustParse("s3://bucket/key"), KMSKeys: []arn.ARN{arn.MustParse(keyARN)}, Context: map[string]string{"purpose": "secretfs"}}
	c.Warm(t.Context(), k)
	s, calls, err := c.Open(t.Context(), k)
	if err != nil {
		t.Fatal(err)
	}
	if got := string(s.Bytes()); got != "correct horse" {
		t.Errorf("passphrase = %q, want %q", got, "correct horse")
	}
	if len(calls) != 2 || calls[0].RequestID != "req-1" || calls[1].KeyARN != keyARN {
		t.Errorf("calls = %+v", calls)
	}
	for _, call := range calls {
		if call.Attempts != 1 || call.Start.IsZero() || call.Duration <= 0 {
			t.Errorf("call = %+v, want one attempt, and when and how long it was", call)
		}
	}
	k.Source = source.Header.Source()
	s, b, _, err := c.Generate(t.Context(), k, "set-1")
	if err != nil {
		t.Fatal(err)
	}
	want := base64.StdEncoding.EncodeToString(key)
	if got := string(s.Bytes()); got != want {
		t.Errorf("generated passphrase = %q, want %q", got, want)
	}
	s, _, err = c.OpenBlob(t.Context(), k, "set-1", b)
	if err != nil {
		t.Fatal(err)
	}
	if got := string(s.Bytes()); got != want {
		t.Errorf("opened passphrase = %q, want %q", got, want)
	}
}

// file returns a source whose ciphertext is in a file.
func file(t *testing.T) source.Source {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ciphertext")
	if err := os.WriteFile(path, []byte(encrypted), 0o600); err != nil {
		t.Fatal(err)
	}
	return source.MustParse("file:" + path)
}

func base64Text(b []byte) string { return base64.StdEncoding.EncodeToString(b) }
