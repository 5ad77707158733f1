package ec2sim_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http/httptrace"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4/nclient4"
	"github.com/miekg/dns"

	"unlock/test/ec2sim"
)

// The actions tell in a line what the machine sees of a Cloud.

// doS3 gets a 100-byte object: "200 100", "503 SlowDown …", "error …".
func doS3(t *testing.T, m *machine) string {
	return line(m.s3(t, admin, "GET", "https://bucket.s3.us-east-1.amazonaws.com/key", ""), func(a answer) string { return fmt.Sprint(len(a.body)) })
}

// doKMS decrypts as the administrator, doRoleKMS with the role's credentials.
func doKMS(t *testing.T, m *machine) string {
	return line(m.kms(t, admin, "Decrypt", map[string]any{"CiphertextBlob": blobOf(m)}), func(answer) string { return "plaintext" })
}

func doRoleKMS(t *testing.T, m *machine) string {
	return line(m.kms(t, m.credentials(t), "Decrypt", map[string]any{"CiphertextBlob": blobOf(m)}), func(answer) string { return "plaintext" })
}

func blobOf(m *machine) []byte { return m.cloud.Encrypt(m.key, []byte("x"), nil) }

func doSSM(t *testing.T, m *machine) string {
	return line(m.json(t, admin, "ssm", "AmazonSSM.GetParameter", map[string]any{"Name": "p"}), func(answer) string { return "parameter" })
}

// doIMDS gets a token and lists the roles with it.
func doIMDS(t *testing.T, m *machine) string {
	a := m.do(request(t, "PUT", imds+"api/token", "", ttlHeader, "60"))
	if a.status != 200 {
		return "PUT " + line(a, nil)
	}
	return line(m.do(request(t, "GET", imds+"meta-data/iam/security-credentials/", "", tokenHeader, a.body)), func(a answer) string { return a.body })
}

// doIMDSWarm tells whether a second request to IMDS found the connection of the first.
func doIMDSWarm(t *testing.T, m *machine) string {
	var reused bool
	trace := &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) { reused = i.Reused }}
	req := request(t, "GET", imds+"meta-data/mac", "", tokenHeader, m.token(t))
	a := m.do(req.WithContext(httptrace.WithClientTrace(req.Context(), trace)))
	return fmt.Sprintf("%d reused %v", a.status, reused)
}

func doIMDSv1(t *testing.T, m *machine) string {
	return line(m.do(request(t, "GET", imds+"meta-data/placement/region", "")), func(a answer) string { return a.body })
}

func line(a answer, good func(answer) string) string {
	switch {
	case a.err != nil:
		return "error " + a.err.Error()
	case a.status == 200:
		return "200 " + good(a)
	}
	return fmt.Sprintf("%d %s", a.status, a.body)
}

// doDHCP gets a lease with a client that waits 100 ms, 200 ms, 400 ms, then gives up.
func doDHCP(t *testing.T, m *machine) string {
	conn, mac, err := m.ListenDHCP()
	if err != nil {
		t.Fatal(err)
	}
	client, err := nclient4.NewWithConn(conn, mac, nclient4.WithTimeout(100*time.Millisecond), nclient4.WithRetry(3))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	lease, err := client.Request(t.Context())
	if err != nil {
		return "error " + err.Error()
	}
	ack := lease.ACK
	return fmt.Sprintf("%s router %s dns %s by %s", ack.YourIPAddr, ack.Router(), ack.DNS(), ack.ServerIdentifier())
}

// doDNS asks once over UDP and waits 500 ms.
func doDNS(t *testing.T, m *machine) string {
	conn, err := m.DialContext(t.Context(), "udp", "172.31.0.2:53")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	c := &dns.Conn{Conn: conn}
	c.SetDeadline(time.Now().Add(500 * time.Millisecond))
	if err := c.WriteMsg(new(dns.Msg).SetQuestion("kms.us-east-1.amazonaws.com.", dns.TypeA)); err != nil {
		t.Fatal(err)
	}
	msg, err := c.ReadMsg()
	switch {
	case err != nil:
		return "error " + err.Error()
	case len(msg.Answer) == 0:
		return dns.RcodeToString[msg.Rcode]
	}
	return msg.Answer[0].(*dns.A).A.String()
}

// doResolve resolves as Go's resolver does.
func doResolve(t *testing.T, m *machine) string {
	r := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return m.DialContext(ctx, network, "172.31.0.2:53")
	}}
	addrs, err := r.LookupHost(t.Context(), "kms.us-east-1.amazonaws.com.")
	if err != nil {
		return "error " + err.Error()
	}
	slices.Sort(addrs)
	return strings.Join(addrs, " ")
}

// doDial connects to IMDS within a second.
func doDial(t *testing.T, m *machine) string {
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	conn, err := m.DialContext(ctx, "tcp", "169.254.169.254:80")
	if err != nil {
		return "error " + err.Error()
	}
	conn.Close()
	return "connected"
}

func TestFaults(t *testing.T) {
	t.Parallel()
	const (
		lease  = "172.31.5.10 router [172.31.0.1] dns [172.31.0.2]"
		role   = "200 unlock-demo"
		object = "200 100"
		plain  = "200 plaintext"
		kmsIP  = "192.0.2.20"
		ms     = time.Millisecond
	)
	tests := []struct {
		fault  string // "" for none
		action func(*testing.T, *machine) string
		want   []string // what each repetition of the action begins with, or contains
		least  time.Duration
	}{
		{"", doDHCP, []string{lease}, 0},
		{"", doDNS, []string{kmsIP}, 0},
		{"", doIMDS, []string{role}, 0},
		{"", doS3, []string{object}, 0},
		{"", doRoleKMS, []string{plain}, 0},
		{"", doSSM, []string{"200 parameter"}, 0},
		{"", doDial, []string{"connected"}, 0},

		{"link-down", doDial, []string{"error"}, 1000 * ms},
		{"link-down:100ms", doDHCP, []string{lease}, 100 * ms},
		{"loss:100", doDial, []string{"error"}, 1000 * ms},
		{"loss:0", doDial, []string{"connected"}, 0},

		{"dhcp-silent", doDHCP, []string{"error"}, 700 * ms},
		{"dhcp-silent:150ms", doDHCP, []string{lease}, 150 * ms},
		{"dhcp-nak", doDHCP, []string{"error", "error"}, 0},
		{"dhcp-nak:1", doDHCP, []string{"error", lease}, 0},
		{"dhcp-two", doDHCP, []string{lease + " by 172.31.0.3"}, 0},
		{"dhcp-slow:80ms", doDHCP, []string{lease}, 160 * ms},
		{"dhcp-no-router", doDHCP, []string{"172.31.5.10 router [] dns [172.31.0.2]"}, 0},
		{"dhcp-no-dns", doDHCP, []string{"172.31.5.10 router [172.31.0.1] dns []"}, 0},

		{"dns-late", doDNS, []string{"error"}, 500 * ms},
		{"dns-late:400ms", doDNS, []string{"error", kmsIP}, 500 * ms},
		{"dns-slow:150ms", doDNS, []string{kmsIP}, 150 * ms},
		{"dns-nxdomain:1", doDNS, []string{"NXDOMAIN", kmsIP}, 0},
		{"dns-servfail:1", doDNS, []string{"SERVFAIL", kmsIP}, 0},
		{"dns-wrong", doDNS, []string{"203.0.113.1"}, 0},
		{"dns-aaaa", doResolve, []string{kmsIP + " 2001:db8::1"}, 0},
		{"dns-aaaa", doS3, []string{object}, 0},
		{"dns-truncated", doDNS, []string{"NOERROR"}, 0},
		{"dns-truncated", doResolve, []string{kmsIP}, 0},

		{"imds-off", doIMDS, []string{"PUT 403"}, 0},
		{"imds-v1-only", doIMDS, []string{"PUT 404"}, 0},
		{"imds-v1-only", doIMDSv1, []string{"200 us-east-1"}, 0},
		{"", doIMDSWarm, []string{"200 reused false"}, 0},
		{"imds-keepalive", doIMDSWarm, []string{"200 reused true"}, 0},
		{"imds-hops", func(t *testing.T, m *machine) string {
			ctx, cancel := context.WithTimeout(t.Context(), 200*ms)
			defer cancel()
			a := m.do(request(t, "PUT", imds+"api/token", "", ttlHeader, "60").WithContext(ctx))
			return fmt.Sprint("silence ", errors.Is(a.err, context.DeadlineExceeded))
		}, []string{"silence true"}, 0},
		{"imds-slow:100ms", doIMDS, []string{role}, 200 * ms},
		{"imds-500:1", doIMDS, []string{"PUT 500", role}, 0},
		{"imds-503:1", doIMDS, []string{"PUT 503", role}, 0},
		{"imds-401-once", doIMDS, []string{"401", role}, 0},
		{"imds-truncated:1", doIMDS, []string{"error unexpected EOF", role}, 0},
		{"no-role", doIMDS, []string{"404"}, 0},
		{"role-late:150ms", func(t *testing.T, m *machine) string {
			got := doIMDS(t, m)
			time.Sleep(160 * ms)
			return got
		}, []string{"404", role}, 150 * ms},
		{"role-changed:1", func(t *testing.T, m *machine) string {
			return line(m.metadata(t, "meta-data/iam/security-credentials/unlock-demo"), func(a answer) string { return a.body })
		}, []string{"404", "200 {"}, 0},
		{"creds-expired", doRoleKMS, []string{"400 {\"__type\":\"ExpiredTokenException\""}, 0},

		{"clock-skew:1h", doRoleKMS, []string{"400 {\"__type\":\"InvalidSignatureException\",\"message\":\"Signature expired: "}, 0},
		{"clock-skew:-1h", doRoleKMS, []string{"400 {\"__type\":\"InvalidSignatureException\",\"message\":\"Signature not yet current: "}, 0},
		{"clock-skew:1h", doS3, []string{"<Code>RequestTimeTooSkewed</Code>"}, 0},
		{"clock-skew:10m", doS3, []string{object}, 0},
		{"tls-expired", doS3, []string{"certificate has expired"}, 0},
		{"tls-wrong-host", doS3, []string{"certificate is valid for www.example.com, not bucket.s3."}, 0},
		{"tls-unknown-ca", doS3, []string{"certificate signed by unknown authority"}, 0},

		{"s3-404:1", doS3, []string{"<Code>NoSuchKey</Code>", object}, 0},
		{"s3-403:1", doS3, []string{"<Code>AccessDenied</Code>", object}, 0},
		{"s3-slowdown:2", doS3, []string{"<Code>SlowDown</Code>", "503", object}, 0},
		{"s3-500:1", doS3, []string{"<Code>InternalError</Code>", object}, 0},
		{"s3-redirect:eu-west-1", doS3, []string{"<Endpoint>bucket.s3.eu-west-1.amazonaws.com</Endpoint>"}, 0},
		{"s3-changed:1", doS3, []string{"error unexpected EOF", object}, 0},
		{"s3-truncated:1", doS3, []string{"error unexpected EOF", object}, 0},
		{"s3-empty:1", doS3, []string{"200 0", object}, 0},
		{"s3-oversized:1", doS3, []string{"200 16777216", object}, 0},
		{"s3-slow:150ms", doS3, []string{object}, 150 * ms},
		{"s3-slow-body:2ms", doS3, []string{object}, 200 * ms},

		{"kms-denied:1", doRoleKMS, []string{"is not authorized to perform: kms:Decrypt on resource: arn:aws:kms:us-east-1:111122223333:key/", plain}, 0},
		{"kms-throttled:2", doKMS, []string{"400 {\"__type\":\"ThrottlingException\"", "400", plain}, 0},
		{"kms-500:1", doKMS, []string{"500 {\"__type\":\"KMSInternalException\"", plain}, 0},
		{"kms-timeout:1", doKMS, []string{"500 {\"__type\":\"DependencyTimeoutException\"", plain}, 0},
		{"kms-unavailable:1", doKMS, []string{"500 {\"__type\":\"KeyUnavailableException\"", plain}, 0},
		{"kms-disabled", doKMS, []string{"400 {\"__type\":\"DisabledException\""}, 0},
		{"kms-pending-deletion", doKMS, []string{"400 {\"__type\":\"KMSInvalidStateException\""}, 0},
		{"kms-reset:1", doKMS, []string{"connection reset by peer", plain}, 0},
		{"kms-slow:150ms", doKMS, []string{plain}, 150 * ms},

		{"ssm-404:1", doSSM, []string{"400 {\"__type\":\"ParameterNotFound\"}", "200"}, 0},
		{"ssm-denied:1", doSSM, []string{"is not authorized to perform: ssm:GetParameter", "200"}, 0},
		{"ssm-throttled:1", doSSM, []string{"400 {\"__type\":\"ThrottlingException\"", "200"}, 0},
		{"ssm-500:1", doSSM, []string{"500 {\"__type\":\"InternalServerError\"", "200"}, 0},
		{"ssm-slow:150ms", doSSM, []string{"200"}, 150 * ms},
	}
	tested := map[string]bool{}
	for _, tt := range tests {
		name, _, _ := strings.Cut(tt.fault, ":")
		tested[name] = true
		t.Run(tt.fault, func(t *testing.T) {
			m := newMachine(t, ec2sim.Config{})
			m.key = m.cloud.CreateKey()
			m.cloud.PutObject("bucket", "key", make([]byte, 100))
			m.cloud.PutParameter("p", "v")
			if tt.fault != "" {
				if err := m.cloud.SetFaults(tt.fault); err != nil {
					t.Fatal(err)
				}
			}
			start := time.Now()
			for i, want := range tt.want {
				if got := tt.action(t, m); !strings.Contains(got, want) {
					t.Errorf("time %d: got %s, want %s", i+1, got, want)
				}
			}
			if name != "" && m.cloud.Struck(name) == 0 {
				t.Errorf("Struck(%s) = 0", name)
			}
			if d := time.Since(start); d < tt.least || d > tt.least+20*time.Second {
				t.Errorf("took %v, want %v and a bit", d, tt.least)
			}
		})
	}
	for _, f := range ec2sim.Faults() {
		if !tested[f.Name] {
			t.Errorf("fault %s has no test", f.Usage)
		}
	}
}

func TestSetFaultsRefuses(t *testing.T) {
	t.Parallel()
	m := newMachine(t, ec2sim.Config{Faults: []string{"imds-off"}})
	for fault, want := range map[string]string{
		"imds":            `no fault is named "imds"`,
		"":                `no fault is named ""`,
		"imds-off:1":      "takes no argument",
		"imds-slow":       "needs an argument",
		"imds-slow:soon":  "invalid duration",
		"imds-500:many":   "invalid syntax",
		"loss:some":       "invalid syntax",
		"s3-redirect":     "needs an argument",
		"dhcp-silent:abc": "invalid duration",
	} {
		if err := m.cloud.SetFaults(fault); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("SetFaults(%q) = %v, want %s", fault, err, want)
		}
	}
	if got := doIMDS(t, m); !strings.HasPrefix(got, "PUT 403") {
		t.Errorf("refused faults changed what was set: %s", got)
	}
	if _, err := ec2sim.New(ec2sim.Config{Faults: []string{"none"}}); err == nil {
		t.Error("New accepts an unknown fault")
	}
	if _, err := ec2sim.New(ec2sim.Config{Region: "xx-west-1"}); err == nil {
		t.Error("New accepts an unknown region")
	}
}

func TestUnknownAddressesAreSilent(t *testing.T) {
	t.Parallel()
	m := newMachine(t, ec2sim.Config{})
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := m.DialContext(ctx, "tcp", "198.51.100.7:443"); !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("dialing an unknown address = %v", err)
	}
	if _, err := m.DialContext(t.Context(), "tcp", "telemetry.example.com:443"); err == nil || !strings.Contains(err.Error(), "no such host") {
		t.Errorf("dialing an unknown name = %v", err)
	}
	if got, want := strings.Join(m.cloud.Hosts(), " "), "172.31.0.2 198.51.100.7 telemetry.example.com"; got != want {
		t.Errorf("Hosts() = %s, want %s", got, want)
	}
}
