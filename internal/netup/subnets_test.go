package netup

import (
	"os"
	"strings"
	"testing"
	"time"
)

// vpc makes a subnet as EC2 has it: a router at .1, DHCP, DNS at .2, IMDS, and an
// endpoint of KMS.
func (l *lab) vpc(card string, extra ...string) {
	l.t.Helper()
	l.dhcp(card, extra...)
	l.service(card)
}

// dhcp makes a subnet that leads nowhere: a router at .1, DHCP, DNS at .2.
func (l *lab) dhcp(card string, extra ...string) {
	l.t.Helper()
	l.address(card, "10.0.1.1/24", "10.0.1.2/32")
	l.dnsmasq(card, append([]string{"--interface=cable", "--interface=lo", "--bind-dynamic", "--dhcp-range=10.0.1.10,10.0.1.10,1h", "--dhcp-option=option:dns-server,10.0.1.2",
		"--address=/kms.test/192.0.2.20"}, extra...)...)
}

func (l *lab) service(card string) {
	l.t.Helper()
	l.address(card, "169.254.169.254/32", "192.0.2.20/32")
	l.imds(card, "169.254.169.254:80", "192.0.2.20:443")
}

const toKMS = "dial kms.test:443: connected to 192.0.2.20:443"

func TestSubnets(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		cards []string
		build func(*lab)
		args  []string
		wants []string
	}{
		"plain": {
			build: func(l *lab) { l.vpc("eth0") },
			wants: []string{"up eth0 10.0.1.10/24 by 10.0.1.1, DNS [10.0.1.2 169.254.169.253], found false", toKMS, "down: <nil>"},
		},
		"routes of option 121 override the router": {
			build: func(l *lab) {
				l.address("eth0", "10.0.1.9/24")
				l.vpc("eth0", "--dhcp-option=option:router,10.0.1.66", "--dhcp-option=option:classless-static-route,169.254.169.254/32,10.0.1.1,192.0.2.0/24,10.0.1.9,10.0.1.2/32,10.0.1.1")
			},
			wants: []string{"up eth0 10.0.1.10/24", toKMS},
		},
		"lease of one address": {
			build: func(l *lab) {
				l.in("eth0", "ip", "route", "add", "10.9.9.9/32", "dev", "cable")
				l.address("eth0", "10.9.9.1/32")
				l.vpc("eth0", "--dhcp-option=option:netmask,255.255.255.255", "--dhcp-option=option:router,10.9.9.1")
			},
			wants: []string{"up eth0 10.0.1.10/32 by 10.9.9.1", toKMS},
		},
		"server that broadcasts": {
			build: func(l *lab) { l.vpc("eth0", "--dhcp-broadcast") },
			wants: []string{"up eth0 10.0.1.10/24", toKMS},
		},
		"search list": {
			build: func(l *lab) {
				l.vpc("eth0", "--dhcp-option=option:domain-search,example.com", "--domain=example.com", "--address=/kms.test.example.com/192.0.2.66")
			},
			wants: []string{toKMS},
		},
		"second card has IMDS": {
			cards: []string{"eth0", "eth1"},
			build: func(l *lab) { l.dhcp("eth0"); l.vpc("eth1") },
			wants: []string{"log eth0: IMDS does not answer", "log eth0: given up: IMDS does not answer over IPv4", "up eth1 10.0.1.10/24", toKMS},
		},
		"second card leads to KMS": {
			cards: []string{"eth0", "eth1"},
			build: func(l *lab) {
				l.dhcp("eth0")
				l.address("eth0", "169.254.169.254/32")
				l.imds("eth0", "169.254.169.254:80")
				l.vpc("eth1")
			},
			wants: []string{"up eth0", "trying the other network cards, too", "reached through eth1", toKMS, "down: <nil>"},
		},
		"first card without carrier": {
			cards: []string{"eth0", "eth1"},
			build: func(l *lab) { l.cut("eth0"); l.vpc("eth1") },
			wants: []string{"log eth0: no link: nothing is at the other end of the network card; trying eth1 as well", "up eth1", toKMS},
		},
		"no carrier": {
			build: func(l *lab) { l.cut("eth0") },
			args:  []string{"3s"},
			wants: []string{"failed: eth0: no link"},
		},
		"no DHCP": {
			cards: []string{"eth0", "eth1"},
			build: func(l *lab) { l.cut("eth0") },
			args:  []string{"4s"},
			wants: []string{"failed: eth1: DHCP: no lease: no answer to DISCOVER within"},
		},
		"no IMDS": {
			build: func(l *lab) { l.dhcp("eth0") },
			args:  []string{"4s"},
			wants: []string{"failed: eth0: IMDS does not answer over IPv4: dial tcp 169.254.169.254:80: connect: network is unreachable"},
		},
		"no card": {
			cards: []string{},
			build: func(*lab) {},
			args:  []string{"1s"},
			wants: []string{"failed: no network card"},
		},
		"image's own network": {
			build: func(l *lab) {
				l.vpc("eth0")
				l.own("eth0", "10.0.1.77/24", "10.0.1.1")
				l.nameserver("10.0.1.2")
			},
			wants: []string{"up eth0 10.0.1.77/24 by 10.0.1.1, DNS [10.0.1.2 169.254.169.253], found true", toKMS},
		},
		"image's own network without IMDS": {
			cards: []string{"eth0", "eth1"},
			build: func(l *lab) {
				l.dhcp("eth0")
				l.own("eth0", "10.0.1.77/24", "10.0.1.1")
				l.vpc("eth1")
			},
			wants: []string{"up eth1 10.0.1.10/24 by 10.0.1.1", "found false", toKMS},
		},
		"image's own network without a name server": {
			cards: []string{"eth0", "eth1"},
			build: func(l *lab) {
				l.vpc("eth0")
				l.own("eth0", "10.0.1.77/24", "10.0.1.1")
				l.vpc("eth1")
			},
			wants: []string{"found true", "reached through eth1", toKMS},
		},
		"image's own network, alone and without IMDS": {
			build: func(l *lab) {
				l.dhcp("eth0")
				l.own("eth0", "10.0.1.77/24", "10.0.1.1")
			},
			args:  []string{"4s"},
			wants: []string{"failed: eth0 (configured already): IMDS does not answer over IPv4"},
		},
		"router of IPv6 is not a network": {
			build: func(l *lab) {
				l.vpc("eth0")
				l.raise("eth0")
				l.in("", "ip", "-6", "route", "add", "default", "via", "fe80::1", "dev", "eth0")
			},
			wants: []string{"up eth0 10.0.1.10/24", "found false", toKMS},
		},
		"name server of the image": {
			build: func(l *lab) {
				l.address("eth0", "10.0.1.3/32")
				l.vpc("eth0", "--dhcp-option=option:dns-server,10.0.1.99")
				l.nameserver("10.0.1.3")
			},
			wants: []string{toKMS},
		},
		"name server of EC2": {
			build: func(l *lab) {
				l.address("eth0", "169.254.169.253/32")
				l.vpc("eth0", "--dhcp-option=option:dns-server,10.0.1.99,10.0.1.98")
			},
			wants: []string{toKMS},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if row.cards == nil {
				row.cards = []string{"eth0"}
			}
			if row.args == nil {
				row.args = []string{"30s", "kms.test:443"}
			}
			l := newLab(t, row.cards...)
			row.build(l)
			l.up(row.args...).wants(t, row.wants...)
		})
	}
}

// raise sets a card up, as the image does, and waits for what the kernel does by itself.
func (l *lab) raise(card string) {
	l.t.Helper()
	l.in("", "ip", "link", "set", card, "up")
	for {
		addrs := l.in("", "ip", "addr", "show", "dev", card)
		if strings.Contains(addrs, "fe80") && !strings.Contains(addrs, "tentative") {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// own is what the image's own network configuration did.
func (l *lab) own(card, addr, router string) {
	l.t.Helper()
	l.raise(card)
	l.in("", "ip", "addr", "add", addr, "dev", card)
	l.in("", "ip", "route", "add", "default", "via", router)
}

// nameserver is what the image's resolv.conf says.
func (l *lab) nameserver(addrs ...string) {
	l.t.Helper()
	var text strings.Builder
	text.WriteString("search example.com\noptions timeout:1 attempts:1\n")
	for _, a := range addrs {
		text.WriteString("nameserver " + a + "\n")
	}
	if err := os.WriteFile(l.file("resolv"), []byte(text.String()), 0o600); err != nil {
		l.t.Fatal(err)
	}
}
