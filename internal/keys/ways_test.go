package keys_test

import (
	"context"
	"crypto/x509"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"unlock/internal/config"
	"unlock/internal/ec2"
	"unlock/internal/keys"
	"unlock/internal/netup"
	"unlock/test/ec2sim"
)

// TestWays gets keys from subnets that lead to AWS in different ways.
func TestWays(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		subnet    []string
		aws       config.AWS
		four, six bool
		hosts     []string // of those asked for: of S3 and KMS
		proxied   int
	}{
		"IPv4": {four: true, hosts: []string{"an-internalstoragekeybucket.s3.us-east-1.amazonaws.com", "kms.us-east-1.amazonaws.com"}},
		"IPv6 alone": {subnet: []string{"ipv6-only"}, six: true,
			hosts: []string{"an-internalstoragekeybucket.s3.dualstack.us-east-1.amazonaws.com", "kms.us-east-1.api.aws"}},
		"IPv6 with an endpoint by name": {subnet: []string{"nat64"}, six: true,
			aws:   config.AWS{Endpoint: map[string]string{"kms": "https://kms.us-east-1.amazonaws.com"}},
			hosts: []string{"an-internalstoragekeybucket.s3.dualstack.us-east-1.amazonaws.com", "kms.us-east-1.amazonaws.com"}},
		"both": {subnet: []string{"dual-stack"}, four: true, six: true,
			hosts: []string{"an-internalstoragekeybucket.s3.us-east-1.amazonaws.com", "kms.us-east-1.amazonaws.com"}},
		"IPv4 without a way out": {subnet: []string{"dual-stack-egress"}, four: true, six: true,
			hosts: []string{"an-internalstoragekeybucket.s3.dualstack.us-east-1.amazonaws.com", "kms.us-east-1.api.aws"}},
		"proxy": {subnet: []string{"private"}, aws: config.AWS{Proxy: ec2sim.ProxyURL}, four: true,
			hosts:   []string{"an-internalstoragekeybucket.s3.us-east-1.amazonaws.com", "kms.us-east-1.amazonaws.com"},
			proxied: 2},
		"proxy and endpoint": {subnet: []string{"private"}, four: true,
			aws:     config.AWS{Proxy: ec2sim.ProxyURL, Endpoint: map[string]string{"kms": "https://vpce-0abc-xyz.kms.us-east-1.vpce.amazonaws.com"}},
			hosts:   []string{"an-internalstoragekeybucket.s3.us-east-1.amazonaws.com", "vpce-0abc-xyz.kms.us-east-1.vpce.amazonaws.com"},
			proxied: 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			i := newInstance(t, ec2sim.Config{Faults: row.subnet})
			g, err := i.BareGuest()
			if err != nil {
				t.Fatal(err)
			}
			imds := netup.IMDS4
			if row.four {
				configure(t, g.Configure, "172.31.5.11/20", "172.31.0.1") // the second guest
			} else {
				imds = netup.IMDS6
				g.SetDNS(netip.MustParseAddr("fd00:ec2::253"))
			}
			if row.six {
				configure(t, g.Configure, "2001:db8:1::5:11/64", i.Router6().String())
			}
			// The guest tries addresses one after the other.
			dial := func(ctx context.Context, network, addr string) (net.Conn, error) {
				if host, _, _ := net.SplitHostPort(addr); row.six && (strings.Contains(host, "dualstack") || strings.HasSuffix(host, "api.aws")) {
					addr = map[bool]string{true: "[2001:db8:2::a]:443", false: "[2001:db8:2::14]:443"}[strings.Contains(host, "s3")]
				}
				return g.DialContext(ctx, network, addr)
			}
			roots := x509.NewCertPool()
			roots.AppendCertsFromPEM(i.CA())
			md := ec2.New(ec2.Options{Dial: g.DialContext, Endpoint: "http://" + netip.AddrPortFrom(imds, 80).String(), Log: t.Logf})
			defer md.Close()
			client, err := keys.New(keys.Options{Identity: md.Role, Region: md.Region, Dial: dial, Roots: roots, AWS: row.aws, Log: t.Logf,
				Families: func() (bool, bool) { return row.four, row.six }})
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			k := i.config(t, "s3")
			client.Warm(ctx, k)
			pass, _, err := client.Open(ctx, k)
			if err != nil {
				t.Fatal(err)
			}
			pass.Wipe()
			var hosts []string
			proxied := 0
			for _, r := range i.Requests() {
				switch r.Service {
				case "s3", "kms":
					hosts = append(hosts, r.Host)
				case "proxy":
					proxied++
				}
			}
			if !slices.Equal(hosts, row.hosts) || proxied != row.proxied {
				t.Errorf("asked %q, %d through the proxy, want %q, %d", hosts, proxied, row.hosts, row.proxied)
			}
		})
	}
}

func configure(t *testing.T, set func(netip.Prefix, netip.Addr) error, addr, router string) {
	t.Helper()
	if err := set(netip.MustParsePrefix(addr), netip.MustParseAddr(router)); err != nil {
		t.Fatal(err)
	}
}

// TestProxyRefuses: the message names the proxy.
func TestProxyRefuses(t *testing.T) {
	t.Parallel()
	i := newInstance(t, ec2sim.Config{Faults: []string{"private", "proxy-refuses"}})
	i.boot(t, config.AWS{Proxy: ec2sim.ProxyURL})
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	_, _, err := i.keys.Open(ctx, i.config(t, "file"))
	if want := "kms.us-east-1.amazonaws.com: proxy 172.31.0.8:3128: it answers 403 Forbidden"; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("Open = %v, want %q", err, want)
	}
}
