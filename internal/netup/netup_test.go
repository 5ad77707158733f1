package netup

import (
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

func TestParseLease(t *testing.T) {
	addr, router, dns := net.IPv4(172, 31, 5, 10), net.IPv4(172, 31, 0, 1), net.IPv4(172, 31, 0, 2)
	mask := net.CIDRMask(20, 32)
	for name, row := range map[string]struct {
		modifiers []dhcpv4.Modifier
		want      string // address, router and DNS, or part of the error
	}{
		"whole": {[]dhcpv4.Modifier{dhcpv4.WithYourIP(addr), dhcpv4.WithNetmask(mask), dhcpv4.WithRouter(router), dhcpv4.WithDNS(dns)},
			"172.31.5.10/20 172.31.0.1 172.31.0.2"},
		"no DNS": {[]dhcpv4.Modifier{dhcpv4.WithYourIP(addr), dhcpv4.WithNetmask(mask), dhcpv4.WithRouter(router)},
			"172.31.5.10/20 172.31.0.1 169.254.169.253"},
		"no router":  {[]dhcpv4.Modifier{dhcpv4.WithYourIP(addr), dhcpv4.WithNetmask(mask)}, "without a router"},
		"no netmask": {[]dhcpv4.Modifier{dhcpv4.WithYourIP(addr), dhcpv4.WithRouter(router)}, "with netmask"},
		"no address": {[]dhcpv4.Modifier{dhcpv4.WithNetmask(mask), dhcpv4.WithRouter(router)}, "offered address 0.0.0.0"},
		"multicast": {[]dhcpv4.Modifier{dhcpv4.WithYourIP(net.IPv4(224, 0, 0, 1)), dhcpv4.WithNetmask(mask), dhcpv4.WithRouter(router)},
			"offered address 224.0.0.1"},
	} {
		t.Run(name, func(t *testing.T) {
			ack, err := dhcpv4.New(row.modifiers...)
			if err != nil {
				t.Fatal(err)
			}
			ack.OpCode = dhcpv4.OpcodeBootReply
			var l Lease
			m, ok := parseMessage(ack.ToBytes(), ack.ClientHWAddr)
			if !ok {
				t.Fatal("parseMessage refuses it")
			}
			l, err = m.lease()
			var got []string
			if err != nil {
				got = []string{err.Error()}
			} else {
				got = []string{l.Address.String(), l.Router.String(), l.DNS[0].String()}
			}
			if s := strings.Join(got, " "); !strings.Contains(s, row.want) {
				t.Errorf("parseLease = %s, want %s", s, row.want)
			}
		})
	}
}

func TestResolvConf(t *testing.T) {
	file := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(file, []byte("# made by a test\nsearch ec2.internal\nnameserver 10.0.0.2\nnameserver bad\nnameserver fd00:ec2::253\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	want := []netip.Addr{netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("fd00:ec2::253")}
	if got := resolvConf(file); !slices.Equal(got, want) {
		t.Errorf("resolvConf = %v, want %v", got, want)
	}
	if got := resolvConf(file + ".missing"); got != nil {
		t.Errorf("resolvConf of no file = %v, want none", got)
	}
}
