package keys_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"unlock/internal/aws"
	"unlock/internal/aws/arn"
	"unlock/internal/config"
	"unlock/internal/keys"
	"unlock/internal/keys/source"
)

const regionDown = "kms.us-east-1.amazonaws.com"

func down(_ int, host string) error {
	if host == regionDown {
		return syscall.ECONNREFUSED
	}
	return nil
}

// byKey answers KMS requests for one key, and leaves others to the healthy answer.
func byKey(answer http.HandlerFunc) func(int) http.HandlerFunc {
	return func(int) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if r.Host == regionDown {
				answer(w, r)
				return
			}
			w.Header().Set("X-Amzn-Requestid", "elsewhere")
			reply(w, map[string]any{"KeyId": otherARN, "Plaintext": []byte(password), "CiphertextBlob": []byte(encrypted)})
		}
	}
}

// TestSeveralKeys turns to the next key when a region is down or the ciphertext
// is under that key, and only then.
func TestSeveralKeys(t *testing.T) {
	for _, row := range []struct {
		name  string
		dial  func(int, string) error
		fault http.HandlerFunc
		first int    // requests or connections for the first key
		says  string // "" for success
	}{
		{name: "region unreachable", dial: down, first: 3},
		{name: "region broken", fault: text(503, ""), first: 3},
		{name: "region silent", fault: silent, first: 3},
		{name: "under the other key", fault: jsonError(400, "IncorrectKeyException"), first: 1},
		{name: "denied", fault: jsonError(400, "AccessDeniedException"), first: 6, says: "AccessDeniedException"},
		{name: "disabled", fault: jsonError(400, "DisabledException"), first: 1, says: "DisabledException"},
		{name: "another context", fault: jsonError(400, "InvalidCiphertextException"), first: 1, says: "InvalidCiphertextException"},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCloud(t)
				first := 0
				c.dial = func(n int, host string) error {
					if row.dial == nil {
						return nil
					}
					if err := row.dial(n, host); err != nil {
						first++
						return err
					}
					return nil
				}
				if row.fault != nil {
					c.faults["kms"] = byKey(func(w http.ResponseWriter, r *http.Request) { first++; row.fault(w, r) })
				} else {
					c.faults["kms"] = byKey(nil)
				}
				k := config.Key{Source: file(t), KMSKeys: []arn.ARN{arn.MustParse(keyARN), arn.MustParse(otherARN)}}
				s, calls, err := c.client(t, config.AWS{}, nil).Open(t.Context(), k)
				if first != row.first {
					t.Errorf("%d tries with the first key, want %d", first, row.first)
				}
				if row.says != "" {
					if err == nil || !strings.Contains(err.Error(), row.says) {
						t.Errorf("error = %v, want %s", err, row.says)
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				if last := calls[len(calls)-1]; string(s.Bytes()) != password || last.KeyARN != otherARN {
					t.Errorf("passphrase %q by %s, want %q by %s", s.Bytes(), last.KeyARN, password, otherARN)
				}
			})
		})
	}
}

// TestSeveralKeysWrong names all keys when the ciphertext is under none of them.
func TestSeveralKeysWrong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCloud(t)
		c.faults["kms"] = func(int) http.HandlerFunc { return jsonError(400, "IncorrectKeyException") }
		_, calls, err := c.client(t, config.AWS{}, nil).Open(t.Context(), config.Key{Source: file(t), KMSKeys: []arn.ARN{arn.MustParse(keyARN), arn.MustParse(otherARN)}})
		if want := "under another key than " + keyARN + " or " + otherARN; !strings.Contains(hintOf(err), want) {
			t.Errorf("hint = %q, want %q in it", hintOf(err), want)
		}
		if len(calls) != 2 {
			t.Errorf("calls = %+v, want one for each key", calls)
		}
	})
}

// TestAllRegionsDown waits for either region until the deadline.
func TestAllRegionsDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCloud(t)
		c.dial = func(int, string) error { return syscall.ENETUNREACH }
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancel()
		_, _, err := c.client(t, config.AWS{}, nil).Open(ctx, config.Key{Source: file(t), KMSKeys: []arn.ARN{arn.MustParse(keyARN), arn.MustParse(otherARN)}})
		if !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, syscall.ENETUNREACH) {
			t.Errorf("error = %v, want the deadline and why", err)
		}
		if c.dials < 20 || c.dials > 200 {
			t.Errorf("%d tries in ten minutes, want 20 to 200", c.dials)
		}
	})
}

// TestNewCredentials asks for new ones when AWS does not accept those at hand,
// and when they are about to expire.
func TestNewCredentials(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCloud(t)
		c.faults["kms"] = func(n int) http.HandlerFunc {
			if n == 1 {
				return jsonError(400, "ExpiredTokenException")
			}
			return nil
		}
		client := c.client(t, config.AWS{}, nil)
		k := config.Key{Source: source.Header.Source(), KMSKeys: []arn.ARN{arn.MustParse(keyARN)}}
		generate := func() {
			t.Helper()
			if _, _, _, err := client.Generate(t.Context(), k, "set"); err == nil || !strings.Contains(err.Error(), "a data key of") {
				t.Errorf("error = %v, want only that this KMS makes short keys", err)
			}
		}
		generate()
		if n := c.count("imds " + credsPath); n != 2 {
			t.Errorf("%d requests for credentials after a refusal, want 2", n)
		}
		generate()
		if n := c.count("imds " + credsPath); n != 2 {
			t.Errorf("%d requests for credentials, want still 2", n)
		}
		time.Sleep(59*time.Minute + 30*time.Second)
		generate()
		if n := c.count("imds " + credsPath); n != 3 {
			t.Errorf("%d requests for credentials when they are about to expire, want 3", n)
		}
	})
}

// TestOtherVersion refuses an S3 that gives another version than was asked for.
func TestOtherVersion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCloud(t)
		c.faults["s3"] = func(int) http.HandlerFunc {
			return func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("X-Amz-Version-Id", "old")
				io.WriteString(w, encrypted)
			}
		}
		k := config.Key{Source: source.MustParse("s3://bucket/key"), KMSKeys: []arn.ARN{arn.MustParse(keyARN)}}
		k.Source.Version = "pinned"
		_, _, err := c.client(t, config.AWS{}, nil).Open(t.Context(), k)
		if err == nil || !strings.Contains(err.Error(), `gave version "old"`) || !strings.Contains(hintOf(err), "another version than pinned") {
			t.Errorf("error = %v, hint = %q, want the versions", err, hintOf(err))
		}
		if c.count("kms") != 0 {
			t.Error("KMS was asked to decrypt it")
		}
	})
}

// TestMoved follows a bucket to its region once, signed for that region.
func TestMoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCloud(t)
		var signed []string
		move := func(to string) func(int) http.HandlerFunc {
			return func(n int) http.HandlerFunc {
				return func(w http.ResponseWriter, r *http.Request) {
					signed = append(signed, strings.Split(r.Header.Get("Authorization"), "/")[2])
					if r.Host == "bucket.s3.eu-west-1.amazonaws.com" && to == "eu-west-1" {
						io.WriteString(w, encrypted)
						return
					}
					xmlError(301, "PermanentRedirect", "X-Amz-Bucket-Region", fmt.Sprint(to), "Location", "https://evil.example.com/")(w, r)
				}
			}
		}
		c.faults["s3"] = move("eu-west-1")
		k := config.Key{Source: source.MustParse("s3://bucket/key"), KMSKeys: []arn.ARN{arn.MustParse(keyARN)}}
		if _, _, err := c.client(t, config.AWS{}, nil).Open(t.Context(), k); err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(signed, " "); got != "us-east-1 eu-west-1" {
			t.Errorf("signed for %s, want us-east-1 eu-west-1", got)
		}
		c.faults["s3"] = move("eu-west-2") // which sends it there again
		_, _, err := c.client(t, config.AWS{}, nil).Open(t.Context(), k)
		if err == nil || !strings.Contains(err.Error(), "PermanentRedirect") || len(signed) != 4 {
			t.Errorf("error = %v after %d requests, want PermanentRedirect after 2", err, len(signed)-2)
		}
	})
}

// TestEarlyAnswer has KMS refuse before it has read the request, and close. The
// answer must arrive whole all the same.
func TestEarlyAnswer(t *testing.T) {
	for range 50 {
		synctest.Test(t, func(t *testing.T) {
			c := newCloud(t)
			c.faults[""] = func(int) http.HandlerFunc {
				return func(w http.ResponseWriter, r *http.Request) {
					w.Header().Set("Connection", "close")
					jsonError(400, "DisabledException")(w, r)
				}
			}
			_, _, err := c.client(t, config.AWS{}, nil).Open(t.Context(), config.Key{Source: file(t), KMSKeys: []arn.ARN{arn.MustParse(keyARN)}})
			if err == nil || !strings.Contains(err.Error(), "DisabledException: said AWS") {
				t.Errorf("error = %v, want DisabledException", err)
			}
		})
	}
}

// TestWarm opens each connection once, ahead of its use, and asks nothing.
func TestWarm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCloud(t)
		c.dial = func(int, string) error { return nil }
		client := c.client(t, config.AWS{}, nil)
		k := config.Key{Source: source.MustParse("s3://bucket/key"), KMSKeys: []arn.ARN{arn.MustParse(keyARN)}}
		client.Warm(t.Context(), k, k, config.Key{Source: source.Ephemeral.Source()})
		if c.dials != 2 || len(c.seen) != 0 {
			t.Errorf("%d connections and requests %v, want 2 and none", c.dials, c.seen)
		}
		if _, _, err := client.Open(t.Context(), k); err != nil {
			t.Fatal(err)
		}
		if c.dials != 2 {
			t.Errorf("%d connections after the requests, want still 2", c.dials)
		}
	})
}

// TestWarmStale does not use a connection that could not be opened, nor one that
// AWS has probably closed.
func TestWarmStale(t *testing.T) {
	for name, failing := range map[string]bool{"failed": true, "old": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCloud(t)
				c.dial = func(n int, host string) error {
					if n == 1 && failing {
						return syscall.ECONNREFUSED
					}
					return nil
				}
				client := c.client(t, config.AWS{}, nil)
				k := config.Key{Source: file(t), KMSKeys: []arn.ARN{arn.MustParse(keyARN)}}
				client.Warm(t.Context(), k) // says nothing of a failure
				time.Sleep(time.Minute)
				if _, _, err := client.Open(t.Context(), k); err != nil {
					t.Fatal(err)
				}
				if c.dials != 2 {
					t.Errorf("%d connections, want 2", c.dials)
				}
			})
		})
	}
}

// TestTLS offers the hybrid key exchange first, nothing below TLS 1.2, and
// HTTP/1.1 alone.
func TestTLS(t *testing.T) {
	client, server := net.Pipe()
	defer server.Close()
	k, err := keys.New(keys.Options{Identity: role, Dial: func(context.Context, string, string) (net.Conn, error) { return client, nil }})
	if err != nil {
		t.Fatal(err)
	}
	hello := make(chan *tls.ClientHelloInfo, 1)
	go tls.Server(server, &tls.Config{GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		hello <- h
		return nil, errors.New("seen enough")
	}}).Handshake()
	k.Warm(t.Context(), config.Key{Source: source.Header.Source(), KMSKeys: []arn.ARN{arn.MustParse(keyARN)}})
	h := <-hello
	if h.SupportedCurves[0] != tls.X25519MLKEM768 {
		t.Errorf("first key exchange = %v, want X25519MLKEM768", h.SupportedCurves[0])
	}
	for _, v := range h.SupportedVersions {
		if v < tls.VersionTLS12 {
			t.Errorf("offers %s, want TLS 1.2 or later", tls.VersionName(v))
		}
	}
	if got := strings.Join(h.SupportedProtos, " "); got != "http/1.1" {
		t.Errorf("offers %q, want http/1.1", got)
	}
}

// TestRoots trusts Amazon's authorities by default, and nobody else.
func TestRoots(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCloud(t)
		k, err := keys.New(keys.Options{Identity: role, Dial: c.Dial})
		if err != nil {
			t.Fatal(err)
		}
		defer k.Close()
		_, _, err = k.Open(t.Context(), config.Key{Source: file(t), KMSKeys: []arn.ARN{arn.MustParse(keyARN)}})
		if err == nil || !strings.Contains(err.Error(), "unknown authority") || !strings.Contains(hintOf(err), "aws.ca_bundle") {
			t.Errorf("error = %v, hint = %q, want an unknown authority", err, hintOf(err))
		}
	})
	if _, err := keys.New(keys.Options{AWS: config.AWS{CABundle: filepath.Join(t.TempDir(), "none.pem")}}); err == nil || !strings.Contains(hintOf(err), "aws.ca_bundle") {
		t.Errorf("missing CA bundle: %v, want an error with a hint", err)
	}
}

// TestEnvironment sets what the SDK and net/http would heed elsewhere.
func TestEnvironment(t *testing.T) {
	for name, value := range map[string]string{
		"AWS_EC2_METADATA_DISABLED": "true", "AWS_EC2_METADATA_SERVICE_ENDPOINT": "http://127.0.0.1:1",
		"AWS_ENDPOINT_URL": "http://127.0.0.1:1", "AWS_ENDPOINT_URL_KMS": "http://127.0.0.1:1",
		"AWS_ACCESS_KEY_ID": "other", "AWS_SECRET_ACCESS_KEY": "other", "AWS_REGION": "eu-north-1",
		"AWS_USE_FIPS_ENDPOINT": "true", "AWS_USE_DUALSTACK_ENDPOINT": "true", "AWS_CA_BUNDLE": "/nonexistent",
		"HTTP_PROXY": "http://127.0.0.1:1", "HTTPS_PROXY": "http://127.0.0.1:1",
	} {
		t.Setenv(name, value)
	}
	synctest.Test(t, func(t *testing.T) {
		c := newCloud(t)
		if _, err := ask(t.Context(), t, c, "s3"); err != nil {
			t.Fatal(err)
		}
		if c.seen[3] != "s3 bucket.s3.us-east-1.amazonaws.com/key" {
			t.Errorf("requests = %v", c.seen)
		}
	})
}

// TestNoRegionAnywhere asks IMDS when neither ARN nor configuration tells.
func TestNoRegionAnywhere(t *testing.T) {
	c := newCloud(t)
	k, err := keys.New(keys.Options{
		Identity: role, Dial: c.Dial, Roots: c.roots(),
		Region: func(context.Context) (string, error) {
			return "", &aws.Error{Op: "asking for the region", Err: errors.New("none"), Hint: "do this"}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = k.Open(t.Context(), config.Key{Source: source.MustParse("s3://bucket/key")})
	if hintOf(err) != "do this" {
		t.Errorf("error = %v, hint = %q, want that of IMDS", err, hintOf(err))
	}
}
