package ec2sim_test

import (
	"bufio"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"unlock/test/ec2sim"
)

// TestTrail has the AWS CLI make calls, look them up, and validate the files in which
// they were delivered.
func TestTrail(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("-short: it asks the AWS CLI throughout")
	}
	c := newCloud(t, ec2sim.Config{})
	key := c.CreateKey()
	c.CreateBucket("a-bucket", "us-east-1")
	c.StartTrail("a-trail")
	a := newAWSCLI(t, c)
	// validate-logs asks S3 by its own name, whatever endpoint it is given.
	a.env = append(a.env, "HTTPS_PROXY="+proxyTo(t, strings.TrimPrefix(a.url, "https://")), "NO_PROXY=127.0.0.1")
	a.file("secret", "correct horse battery staple\n")
	a.must("kms", "encrypt", "--key-id", key, "--plaintext", "fileb://secret", "--encryption-context", "purpose=test")
	a.must("kms", "create-grant", "--key-id", key, "--grantee-principal", "arn:aws:iam::111122223333:role/web", "--operations", "Decrypt")
	a.must("s3api", "put-object", "--bucket", "a-bucket", "--key", "a key", "--body", "secret")
	start := time.Now().Add(-2 * time.Hour).UTC().Format(time.RFC3339)
	const arn = "arn:aws:cloudtrail:us-east-1:111122223333:trail/unlock"

	var keys []string
	for range 2 { // the second time with a digest that follows the first
		list := a.must("s3api", "list-objects-v2", "--bucket", "a-trail", "--query", "Contents[].Key")
		keys = strings.Fields(list)
		a.must("kms", "disable-key-rotation", "--key-id", key)
	}
	out, err := a.run("cloudtrail", "validate-logs", "--trail-arn", arn, "--start-time", start, "--verbose")
	if err != nil || !strings.Contains(out, "2/2 digest files valid") && !strings.Contains(out, "3/3 digest files valid") || !strings.Contains(out, "log files valid") || strings.Contains(out, "INVALID") {
		t.Errorf("validate-logs: %v\n%s", err, out)
	}
	for _, k := range keys {
		if strings.Contains(k, "/CloudTrail/") {
			c.PutObject("a-trail", k, []byte("something else"))
			break
		}
	}
	if out, err := a.run("cloudtrail", "validate-logs", "--trail-arn", arn, "--start-time", start); err == nil && !strings.Contains(out, "INVALID") {
		t.Errorf("validate-logs took a file that was changed: %v\n%s", err, out)
	}

	text := a.must("cloudtrail", "lookup-events", "--lookup-attributes", "AttributeKey=ResourceName,AttributeValue="+key, "--query", "Events[?EventName=='Encrypt'].CloudTrailEvent")
	var e struct {
		EventName, ErrorCode, SourceIPAddress string
		UserIdentity                          struct{ Type, ARN string }
		RequestParameters                     struct {
			KeyID             string
			EncryptionContext map[string]string
			Plaintext         any
		}
	}
	if err := json.Unmarshal([]byte(text), &e); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	if e.UserIdentity.Type != "IAMUser" || e.RequestParameters.KeyID != key || e.RequestParameters.EncryptionContext["purpose"] != "test" || e.RequestParameters.Plaintext != nil || e.SourceIPAddress != "198.51.100.4" {
		t.Errorf("the event of Encrypt: %s", text)
	}
}

// proxyTo is an HTTP proxy that connects whoever asks to one address. It returns its URL.
func proxyTo(t *testing.T, addr string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				in := bufio.NewReader(conn)
				if r, err := http.ReadRequest(in); err != nil || r.Method != http.MethodConnect {
					return
				}
				to, err := net.Dial("tcp", addr)
				if err != nil {
					return
				}
				defer to.Close()
				io.WriteString(conn, "HTTP/1.1 200 OK\r\n\r\n")
				go io.Copy(to, in)
				io.Copy(conn, to)
			}()
		}
	}()
	return "http://" + l.Addr().String()
}
