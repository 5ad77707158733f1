package ec2sim_test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/insomniacslk/dhcp/dhcpv4/nclient4"

	"unlock/test/ec2sim"
)

func newCloud(t *testing.T, cfg ec2sim.Config) *ec2sim.Cloud {
	t.Helper()
	c, err := ec2sim.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// machine is a Guest with an HTTP client.
type machine struct {
	*ec2sim.Guest
	cloud *ec2sim.Cloud
	http  *http.Client
	key   string
}

func newMachine(t *testing.T, cfg ec2sim.Config) *machine {
	t.Helper()
	c := newCloud(t, cfg)
	g, err := c.Guest()
	if err != nil {
		t.Fatal(err)
	}
	return &machine{Guest: g, cloud: c, http: newHTTPClient(t, c, g)}
}

func newHTTPClient(t *testing.T, c *ec2sim.Cloud, g *ec2sim.Guest) *http.Client {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(c.CA())
	transport := &http.Transport{DialContext: g.DialContext, TLSClientConfig: &tls.Config{RootCAs: roots}}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// answer is a response that was read to its end.
type answer struct {
	status int
	header http.Header
	body   string
	err    error
}

func (m *machine) do(req *http.Request) answer {
	resp, err := m.http.Do(req)
	if err != nil {
		return answer{err: err}
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.Header, string(body), err}
}

func request(t *testing.T, method, url, body string, header ...string) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	return req
}

const (
	imds        = "http://169.254.169.254/latest/"
	ttlHeader   = "X-aws-ec2-metadata-token-ttl-seconds"
	tokenHeader = "X-aws-ec2-metadata-token"
)

func (m *machine) token(t *testing.T) string {
	t.Helper()
	a := m.do(request(t, "PUT", imds+"api/token", "", ttlHeader, "60"))
	if a.status != 200 {
		t.Fatalf("PUT api/token = %+v", a)
	}
	return a.body
}

func (m *machine) metadata(t *testing.T, path string) answer {
	t.Helper()
	return m.do(request(t, "GET", imds+path, "", tokenHeader, m.token(t)))
}

// credentials are the role's, from IMDS.
func (m *machine) credentials(t *testing.T) aws.Credentials {
	t.Helper()
	a := m.metadata(t, "meta-data/iam/security-credentials/unlock-demo")
	var c struct {
		Code, Type, AccessKeyId, SecretAccessKey, Token string
		Expiration                                      time.Time
	}
	if err := json.Unmarshal([]byte(a.body), &c); err != nil || c.Code != "Success" || c.Type != "AWS-HMAC" {
		t.Fatalf("role credentials = %+v: %v", a, err)
	}
	return aws.Credentials{AccessKeyID: c.AccessKeyId, SecretAccessKey: c.SecretAccessKey, SessionToken: c.Token, Expires: c.Expiration}
}

func TestHealthyPath(t *testing.T) {
	t.Parallel()
	m := newMachine(t, ec2sim.Config{})
	key := m.cloud.CreateKey()
	blob := m.cloud.Encrypt(key, []byte("passphrase"), map[string]string{"purpose": "test"})
	m.cloud.PutObject("a-bucket", "a key/with+signs", blob)

	if a := m.metadata(t, "meta-data/placement/region"); a.body != "us-east-1" {
		t.Errorf("region = %+v", a)
	}
	creds := m.credentials(t)
	a := m.s3(t, creds, "GET", "https://a-bucket.s3.us-east-1.amazonaws.com/a%20key/with%2Bsigns", "")
	if a.body != string(blob) {
		t.Fatalf("object = %+v", a)
	}
	var plain struct {
		KeyId     string
		Plaintext []byte
	}
	a = m.kms(t, creds, "Decrypt", map[string]any{"CiphertextBlob": blob, "EncryptionContext": map[string]string{"purpose": "test"}, "KeyId": key})
	if err := json.Unmarshal([]byte(a.body), &plain); err != nil || string(plain.Plaintext) != "passphrase" || plain.KeyId != key {
		t.Errorf("Decrypt = %+v: %v", a, err)
	}
	var seen []string
	for _, r := range m.cloud.Requests() {
		if r.Service != "dns" && r.Service != "imds" {
			seen = append(seen, fmt.Sprintf("%s %s %s %d", r.Service, r.Operation, r.Resource, r.Status))
		}
	}
	want := []string{"s3 GetObject a-bucket/a key/with+signs 200", "kms Decrypt " + key + " 200"}
	if strings.Join(seen, "\n") != strings.Join(want, "\n") {
		t.Errorf("requests = %q, want %q", seen, want)
	}
	hosts := strings.Join(m.cloud.Hosts(), " ")
	if hosts != "169.254.169.254 172.31.0.2 192.0.2.10 192.0.2.20 a-bucket.s3.us-east-1.amazonaws.com kms.us-east-1.amazonaws.com" {
		t.Errorf("hosts = %s", hosts)
	}
}

// TestRoundTrips counts by the clock. A machine may be too busy for that, which can
// only add to the count: the round trip then takes twice as long the next time.
func TestRoundTrips(t *testing.T) {
	var wrong []string
	for rtt := 300 * time.Millisecond; rtt <= 5*time.Second; rtt *= 2 {
		if wrong = roundTrips(t, rtt); wrong == nil {
			return
		}
		t.Logf("with a round trip of %v: %q", rtt, wrong)
	}
	t.Errorf("%q", wrong)
}

// roundTrips says what took another number of them than it has to.
func roundTrips(t *testing.T, rtt time.Duration) (wrong []string) {
	c := newCloud(t, ec2sim.Config{RTT: rtt, Faults: []string{"imds-keepalive"}})
	g, err := c.BareGuest()
	if err != nil {
		t.Fatal(err)
	}
	m := &machine{Guest: g, cloud: c, http: newHTTPClient(t, c, g)}
	c.PutObject("bucket", "small", []byte("x"))
	c.PutObject("bucket", "large", make([]byte, 5000))

	step := func(name string, want int, f func()) {
		t.Helper()
		start := time.Now()
		f()
		// The delay is long against the time that the work takes.
		if got := float64(time.Since(start)) / float64(rtt); got < float64(want) || got > float64(want)+0.5 {
			wrong = append(wrong, fmt.Sprintf("%s took %.2f round trips, want %d", name, got, want))
		}
	}
	var lease *nclient4.Lease
	conn, mac, err := g.ListenDHCP()
	if err != nil {
		t.Fatal(err)
	}
	client, err := nclient4.NewWithConn(conn, mac)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	step("DHCP", 2, func() {
		if lease, err = client.Request(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
	ones, _ := lease.ACK.SubnetMask().Size()
	addr, _ := netip.AddrFromSlice(lease.ACK.YourIPAddr.To4())
	router, _ := netip.AddrFromSlice(lease.ACK.Router()[0].To4())
	if err := g.Configure(netip.PrefixFrom(addr, ones), router); err != nil {
		t.Fatal(err)
	}
	var token string
	step("IMDS token on a fresh connection", 2, func() { token = m.token(t) })
	step("IMDS on a warm connection", 1, func() {
		if a := m.do(request(t, "GET", imds+"meta-data/mac", "", tokenHeader, token)); a.body != mac.String() {
			t.Errorf("mac = %+v", a)
		}
	})
	creds := m.credentials(t)
	var sock net.Conn
	step("DNS and TCP", 2, func() {
		if sock, err = g.DialContext(t.Context(), "tcp", "s3.us-east-1.amazonaws.com:443"); err != nil {
			t.Fatal(err)
		}
	})
	step("TLS 1.3", 1, func() {
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(c.CA())
		if err := tls.Client(sock, &tls.Config{RootCAs: roots, ServerName: "s3.us-east-1.amazonaws.com"}).HandshakeContext(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
	get := func(key string) func() {
		return func() {
			if a := m.s3(t, creds, "GET", "https://bucket.s3.us-east-1.amazonaws.com/"+key, ""); a.status != 200 {
				t.Errorf("GET %s = %+v", key, a)
			}
		}
	}
	step("S3 from nothing: DNS, TCP, TLS, GET", 4, get("small"))
	step("S3 on a warm connection", 1, get("large"))
	return wrong
}

func TestThroughputIsNotLimitedByDelay(t *testing.T) {
	t.Parallel()
	const rtt = 200 * time.Millisecond
	m := newMachine(t, ec2sim.Config{RTT: rtt})
	m.cloud.PutObject("bucket", "key", make([]byte, 20<<20))
	creds := m.credentials(t)
	start := time.Now()
	if a := m.s3(t, creds, "GET", "https://bucket.s3.us-east-1.amazonaws.com/key", ""); len(a.body) != 20<<20 {
		t.Fatalf("got %d bytes: %v", len(a.body), a.err)
	}
	// One frame of 9001 bytes for each delay would be 2,330 of them.
	if n := time.Since(start) / rtt; n > 300 {
		t.Errorf("20 MiB took %d round trips of %v", n, rtt)
	}
}
