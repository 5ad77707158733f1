package ec2sim_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/nclient4"
	"github.com/insomniacslk/dhcp/dhcpv6"
	"github.com/miekg/dns"
	"gvisor.dev/gvisor/pkg/tcpip/header"

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

func doSecrets(t *testing.T, m *machine) string {
	return line(m.json(t, admin, "secretsmanager", "secretsmanager.GetSecretValue", map[string]any{"SecretId": "s"}), func(answer) string { return "secret" })
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

// doDHCP gets a lease with a client that waits 400 ms, 800 ms, 1.6 s, then gives up.
func doDHCP(t *testing.T, m *machine) string {
	conn, mac, err := m.ListenDHCP()
	if err != nil {
		t.Fatal(err)
	}
	client, err := nclient4.NewWithConn(conn, mac, nclient4.WithTimeout(400*time.Millisecond), nclient4.WithRetry(3))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	lease, err := client.Request(t.Context())
	if err != nil {
		return "error " + err.Error()
	}
	ack := lease.ACK
	return fmt.Sprintf("%s router %s dns %s by %s routes %v mask %v time %v", ack.YourIPAddr, ack.Router(), ack.DNS(), ack.ServerIdentifier(),
		[]*dhcpv4.Route(ack.ClasslessStaticRoute()), ack.SubnetMask(), ack.IPAddressLeaseTime(0))
}

// doDNS asks once over UDP and waits 2 s.
func doDNS(t *testing.T, m *machine) string {
	conn, err := m.DialContext(t.Context(), "udp", "172.31.0.2:53")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	c := &dns.Conn{Conn: conn}
	c.SetDeadline(time.Now().Add(2 * time.Second))
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
	return resolve(t, m, "172.31.0.2:53", "kms.us-east-1.amazonaws.com.")
}

func resolve(t *testing.T, m *machine, server, name string) string {
	r := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return m.DialContext(ctx, network, server)
	}}
	addrs, err := r.LookupHost(t.Context(), name)
	if err != nil {
		return "error " + err.Error()
	}
	slices.Sort(addrs)
	return strings.Join(addrs, " ")
}

// doDial connects to IMDS within 2 s.
func doDial(t *testing.T, m *machine) string {
	return strings.TrimSuffix(dials("169.254.169.254:80")(t, m), " to 169.254.169.254:80")
}

// dials connects to an address within 2 s.
func dials(addr string) func(t *testing.T, m *machine) string {
	return func(t *testing.T, m *machine) string {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		conn, err := m.DialContext(ctx, "tcp", addr)
		if err != nil {
			return "error " + err.Error()
		}
		defer conn.Close()
		return "connected to " + conn.RemoteAddr().String()
	}
}

// doProxy has the proxy connect to KMS, and KMS shake hands.
func doProxy(t *testing.T, m *machine) string {
	proxy, err := url.Parse(ec2sim.ProxyURL)
	if err != nil {
		t.Fatal(err)
	}
	transport := m.http.Transport.(*http.Transport).Clone()
	transport.Proxy = http.ProxyURL(proxy)
	defer transport.CloseIdleConnections()
	m.http.Transport = transport
	switch got := doKMS(t, m); got {
	case "200 plaintext":
		return "200 OK"
	default:
		return got
	}
}

// doDHCP6 gets a lease of IPv6, asking once, and waiting 300 ms.
func doDHCP6(t *testing.T, m *machine) string {
	conn, mac, err := m.ListenDHCP6()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ask, err := dhcpv6.NewSolicit(mac)
	if err != nil {
		t.Fatal(err)
	}
	conn.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
	to := &net.UDPAddr{IP: dhcpv6.AllDHCPRelayAgentsAndServers, Port: 547}
	exchange := func(m *dhcpv6.Message) (*dhcpv6.Message, error) {
		if _, err := conn.WriteTo(m.ToBytes(), to); err != nil {
			return nil, err
		}
		b := make([]byte, 1500)
		n, _, err := conn.ReadFrom(b)
		if err != nil {
			return nil, err
		}
		return dhcpv6.MessageFromBytes(b[:n])
	}
	advertised, err := exchange(ask)
	if err != nil {
		return "error " + err.Error()
	}
	request, err := dhcpv6.NewRequestFromAdvertise(advertised)
	if err != nil {
		t.Fatal(err)
	}
	reply, err := exchange(request)
	if err != nil {
		return "error " + err.Error()
	}
	return fmt.Sprintf("%v dns %v", reply.Options.OneIANA().Options.OneAddress().IPv6Addr, reply.Options.DNS())
}

// doSolicit asks for routers and waits 300 ms.
func doSolicit(t *testing.T, m *machine) string {
	n, _ := plug(t, m.cloud)
	defer n.conn.Close()
	n.conn.SetDeadline(time.Now().Add(300 * time.Millisecond))
	self := header.LinkLocalAddr(n.mac)
	ask := header.ICMPv6{byte(header.ICMPv6RouterSolicit), 0, 0, 0, 0, 0, 0, 0}
	ask.SetChecksum(header.ICMPv6Checksum(header.ICMPv6ChecksumParams{Header: ask, Src: self, Dst: header.IPv6AllRoutersLinkLocalMulticastAddress}))
	ip := header.IPv6(make([]byte, header.IPv6MinimumSize))
	ip.Encode(&header.IPv6Fields{PayloadLength: uint16(len(ask)), TransportProtocol: header.ICMPv6ProtocolNumber, HopLimit: 255,
		SrcAddr: self, DstAddr: header.IPv6AllRoutersLinkLocalMulticastAddress})
	n.send(header.EthernetAddressFromMulticastIPv6Address(header.IPv6AllRoutersLinkLocalMulticastAddress), header.IPv6ProtocolNumber, append(ip, ask...))
	for {
		var size [4]byte
		if _, err := io.ReadFull(n.conn, size[:]); err != nil {
			return "nothing: " + err.Error()
		}
		frame := make(header.Ethernet, binary.BigEndian.Uint32(size[:]))
		if _, err := io.ReadFull(n.conn, frame); err != nil {
			return "nothing: " + err.Error()
		}
		packet := header.IPv6(frame[header.EthernetMinimumSize:])
		if frame.Type() != header.IPv6ProtocolNumber || !packet.IsValid(len(packet)) || packet.TransportProtocol() != header.ICMPv6ProtocolNumber {
			continue
		}
		if header.ICMPv6(packet.Payload()).Type() == header.ICMPv6RouterAdvert && packet.HopLimit() == 255 {
			return "router advertisement of " + packet.SourceAddress().String()
		}
	}
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

		{"link-down", doDial, []string{"error"}, 2000 * ms},
		{"link-down:100ms", doDHCP, []string{lease}, 100 * ms},
		{"loss:100", doDial, []string{"error"}, 2000 * ms},
		{"loss:0", doDial, []string{"connected"}, 0},

		{"dhcp-silent", doDHCP, []string{"error"}, 2800 * ms},
		{"dhcp-silent:150ms", doDHCP, []string{lease}, 150 * ms},
		{"dhcp-nak", doDHCP, []string{"error", "error"}, 0},
		{"dhcp-nak:1", doDHCP, []string{"error", lease}, 0},
		{"dhcp-two", doDHCP, []string{lease + " by 172.31.0.3"}, 0},
		{"dhcp-slow:80ms", doDHCP, []string{lease}, 160 * ms},
		{"dhcp-no-router", doDHCP, []string{"172.31.5.10 router [] dns [172.31.0.2]"}, 0},
		{"dhcp-no-dns", doDHCP, []string{"172.31.5.10 router [172.31.0.1] dns []"}, 0},

		{"dhcp-routes", doDHCP, []string{"172.31.5.10 router [172.31.0.66] dns [172.31.0.2] by 172.31.0.1 routes [route to 0.0.0.0/0 via 172.31.0.1]"}, 0},
		{"dhcp-routes-only", doDHCP, []string{"172.31.5.10 router [] dns [172.31.0.2] by 172.31.0.1 routes [route to 0.0.0.0/0 via 172.31.0.1]"}, 0},
		{"dhcp-host", doDHCP, []string{lease + " by 172.31.0.1 routes [] mask ffffffff"}, 0},
		{"dhcp-time:30s", doDHCP, []string{lease + " by 172.31.0.1 routes [] mask fffff000 time 30s"}, 0},
		{"dhcp-broadcast", doDHCP, []string{lease}, 0},
		{"dns-dead:2", doDHCP, []string{"172.31.5.10 router [172.31.0.1] dns [172.31.0.91 172.31.0.92 172.31.0.2]"}, 0},

		{"no-ipv4", doDial, []string{"error"}, 1000 * ms},
		{"ipv4-broken", doDial, []string{"error"}, 1000 * ms},
		{"no-imds", doDial, []string{"error"}, 1000 * ms},
		{"no-endpoints", dials("kms.us-east-1.amazonaws.com:443"), []string{"error"}, 1000 * ms},
		{"no-endpoints vpc-endpoints", dials("vpce-1-a.kms.us-east-1.vpce.amazonaws.com:443"), []string{"connected to 172.31.1.20"}, 0},
		{"private", dials("vpce-1-a.kms.us-east-1.vpce.amazonaws.com:443"), []string{"connected to 172.31.1.20"}, 0},
		{"mtu-1500", func(t *testing.T, m *machine) string {
			m.http.Timeout = time.Second
			return doS3(t, m)
		}, []string{"error"}, 1000 * ms},
		{"private", doProxy, []string{"200 OK"}, 0},
		{"proxy-refuses:1", doProxy, []string{"Forbidden", "200 OK"}, 0},

		{"ipv6", dials("[fd00:ec2::254]:80"), []string{"connected"}, 0},
		{"ipv6-only", dials("[fd00:ec2::254]:80"), []string{"connected"}, 0},
		{"ipv6-only", func(t *testing.T, m *machine) string {
			return resolve(t, m, "[fd00:ec2::253]:53", "kms.us-east-1.api.aws.") + " " + dials("[2001:db8:2::14]:443")(t, m)
		}, []string{"192.0.2.20 2001:db8:2::14 connected to [2001:db8:2::14]"}, 0},
		{"ipv6", doDHCP6, []string{"2001:db8:1::5:10 dns [fd00:ec2::253]"}, 0},
		{"ipv6", doSolicit, []string{"router advertisement of fe80::8ff:acff:fe1f:1"}, 0},
		{"ipv6 ra-silent", doSolicit, []string{"nothing"}, 0},
		{"ipv6 dhcp6-silent", doDHCP6, []string{"error"}, 300 * ms},
		{"ipv6 imds6-off", dials("[fd00:ec2::254]:80"), []string{"error"}, 1000 * ms},
		{"ipv6 dns64", func(t *testing.T, m *machine) string {
			return resolve(t, m, "[fd00:ec2::253]:53", "kms.us-east-1.amazonaws.com.")
		}, []string{"192.0.2.20 64:ff9b::c000:214"}, 0},

		{"dns-late", doDNS, []string{"error"}, 2000 * ms},
		{"dns-late:1500ms", doDNS, []string{"error", kmsIP}, 2000 * ms},
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
		{"role-late:1500ms", func(t *testing.T, m *machine) string {
			got := doIMDS(t, m)
			time.Sleep(1510 * ms)
			return got
		}, []string{"404", role}, 1500 * ms},
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
		{"kms-plaintext:1", doAttested, []string{"200 plaintext and envelope.", "200 envelope."}, 0},
		{"kms-unattested:1", doAttested, []string{"200 plaintext.", "200 envelope."}, 0},
		{"cms-other-key:1", doAttested, []string{"200 rubbish.", "200 envelope."}, 0},
		{"cms-truncated:1", doAttested, []string{"200 rubbish.", "200 envelope."}, 0},
		{"cms-padding:1", doAttested, []string{"200 rubbish.", "200 envelope."}, 0},
		{"kms-disabled", doKMS, []string{"400 {\"__type\":\"DisabledException\""}, 0},
		{"kms-pending-deletion", doKMS, []string{"400 {\"__type\":\"KMSInvalidStateException\""}, 0},
		{"kms-reset:1", doKMS, []string{"connection reset by peer", plain}, 0},
		{"kms-slow:150ms", doKMS, []string{plain}, 150 * ms},

		{"ssm-404:1", doSSM, []string{"400 {\"__type\":\"ParameterNotFound\"}", "200"}, 0},
		{"ssm-denied:1", doSSM, []string{"is not authorized to perform: ssm:GetParameter", "200"}, 0},
		{"ssm-throttled:1", doSSM, []string{"400 {\"__type\":\"ThrottlingException\"", "200"}, 0},
		{"ssm-500:1", doSSM, []string{"500 {\"__type\":\"InternalServerError\"", "200"}, 0},
		{"ssm-slow:150ms", doSSM, []string{"200"}, 150 * ms},

		{"secretsmanager-404:1", doSecrets, []string{"400 {\"__type\":\"ResourceNotFoundException\"", "200"}, 0},
		{"secretsmanager-denied:1", doSecrets, []string{"is not authorized to perform: secretsmanager:GetSecretValue", "200"}, 0},
		{"secretsmanager-throttled:1", doSecrets, []string{"400 {\"__type\":\"ThrottlingException\"", "200"}, 0},
		{"secretsmanager-500:1", doSecrets, []string{"500 {\"__type\":\"InternalServiceError\"", "200"}, 0},
		{"secretsmanager-slow:150ms", doSecrets, []string{"200"}, 150 * ms},
	}
	tested := map[string]bool{}
	for _, tt := range tests {
		var names []string
		for _, f := range strings.Fields(tt.fault) {
			name, _, _ := strings.Cut(f, ":")
			names = append(names, name)
			for _, topology := range ec2sim.Topologies() {
				if topology.Name == name {
					names = slices.Clone(topology.Faults)
				}
			}
		}
		for _, name := range names {
			tested[name] = true
		}
		t.Run(tt.fault, func(t *testing.T) {
			t.Parallel() // most of them wait
			m := newMachine(t, ec2sim.Config{})
			m.key = m.cloud.CreateKey()
			m.cloud.PutObject("bucket", "key", make([]byte, 100))
			m.cloud.PutParameter("p", "v")
			m.cloud.PutSecretText("s", "v")
			if tt.fault != "" {
				if err := m.cloud.SetFaults(strings.Fields(tt.fault)...); err != nil {
					t.Fatal(err)
				}
			}
			if err := m.Configure(netip.MustParsePrefix("2001:db8:1::5:10/64"), m.cloud.Router6()); err != nil {
				t.Fatal(err)
			}
			start := time.Now()
			for i, want := range tt.want {
				if got := tt.action(t, m); !strings.Contains(got, want) {
					t.Errorf("time %d: got %s, want %s", i+1, got, want)
				}
			}
			if len(names) == 1 && m.cloud.Struck(names[0]) == 0 {
				t.Errorf("Struck(%s) = 0", names[0])
			}
			if d := time.Since(start); d < tt.least {
				t.Errorf("took %v, want at least %v", d, tt.least)
			}
		})
	}
	for _, f := range ec2sim.Faults() {
		if !tested[f.Name] {
			t.Errorf("fault %s has no test", f.Usage)
		}
	}
}

// TestSpared: what a subnet does without does not take other things along.
func TestSpared(t *testing.T) {
	t.Parallel()
	for fault, row := range map[string]struct {
		action func(*testing.T, *machine) string
		want   string
	}{
		"ipv4-broken":  {doDHCP, "172.31.5.10 router"},
		"no-imds":      {doKMS, "200 plaintext"},
		"no-endpoints": {doDial, "connected"},
		"mtu-1500":     {doDial, "connected"},
		"ipv6":         {dials("kms.us-east-1.api.aws:443"), "connected"},
	} {
		t.Run(fault, func(t *testing.T) {
			t.Parallel()
			m := newMachine(t, ec2sim.Config{Faults: []string{fault}})
			m.key = m.cloud.CreateKey()
			if got := row.action(t, m); !strings.Contains(got, row.want) {
				t.Errorf("got %s, want %s", got, row.want)
			}
		})
	}
}

// TestCards: a card's subnet has faults of its own.
func TestCards(t *testing.T) {
	t.Parallel()
	c := newCloud(t, ec2sim.Config{})
	if _, err := c.Card("no-such-thing"); err == nil {
		t.Error("Card takes a fault that does not exist")
	}
	serve, err := c.Card("no-ipv4")
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := net.Pipe()
	go serve(theirs)
	defer ours.Close()
	good, _ := plug(t, c)
	good.send(header.EthernetBroadcastAddress, header.ARPProtocolNumber, good.arp(header.ARPRequest, "172.31.5.10", "172.31.0.1", ""))
	if got := good.receive().Type(); got != header.ARPProtocolNumber {
		t.Errorf("the good card receives a frame of type %v, want an answer of ARP", got)
	}
	lone := &card{t: t, conn: ours, mac: "\x52\x54\x00\x12\x34\x57"}
	lone.send(header.EthernetBroadcastAddress, header.ARPProtocolNumber, lone.arp(header.ARPRequest, "172.31.5.11", "172.31.0.1", ""))
	ours.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
	if n, err := ours.Read(make([]byte, 1)); err == nil {
		t.Errorf("the card without IPv4 receives %d bytes", n)
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
