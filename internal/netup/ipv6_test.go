package netup

import (
	"fmt"
	"os"
	"testing"
)

// radvd advertises the router at the other end of a card's cable.
func (l *lab) radvd(card, options string) {
	l.t.Helper()
	l.write("radvd.conf", "interface cable { AdvSendAdvert on; MinRtrAdvInterval 3; MaxRtrAdvInterval 4; "+options+" };\n")
	l.daemon(card, "", "radvd", "--nodaemon", "--logmethod=stderr", "--config="+l.file("radvd.conf"), "--pidfile="+l.file("radvd.pid"))
}

func (l *lab) write(name, text string) {
	l.t.Helper()
	if err := os.WriteFile(l.file(name), []byte(text), 0o600); err != nil {
		l.t.Fatal(err)
	}
}

// kea6 serves DHCPv6, with EC2's flavour: one address for each card.
func (l *lab) kea6(card string, rapid bool) {
	l.t.Helper()
	l.write("kea6.json", fmt.Sprintf(`{"Dhcp6": {"interfaces-config": {"interfaces": ["cable"]}, "lease-database": {"type": "memfile", "persist": false},
		"valid-lifetime": 450, "server-id": {"type": "LL", "persist": false}, "option-data": [{"name": "dns-servers", "data": "fd00:ec2::253"}],
		"subnet6": [{"subnet": "2001:db8:1::/64", "interface": "cable", "rapid-commit": %v, "pools": [{"pool": "2001:db8:1::77-2001:db8:1::77"}]}],
		"loggers": [{"name": "kea-dhcp6", "severity": "INFO", "output_options": [{"output": "stdout"}]}]}}`, rapid))
	l.daemonEnv(card, "DHCP6_STARTED", []string{"KEA_LOCKFILE_DIR=none", "KEA_PIDFILE_DIR=" + l.dir}, "kea-dhcp6", "-c", l.file("kea6.json"))
}

// unbound resolves the names of endpoints that IPv6 reaches; with dns64 also those that
// have IPv4 addresses alone.
func (l *lab) unbound(card string, dns64 bool) {
	l.t.Helper()
	modules, data := "iterator", "local-zone: \"test.\" static\n local-data: \"kms.test. AAAA 2001:db8:2::20\""
	if dns64 { // which is not made of local data
		modules, data = "dns64 iterator", "local-zone: \"test.\" nodefault\n do-not-query-localhost: no\nforward-zone:\n name: \"test.\"\n forward-addr: 127.0.0.1@5300"
		l.daemon(card, "started", "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--user=root", "--log-facility=-", "--pid-file=",
			"--port=5300", "--interface=lo", "--bind-interfaces", "--address=/kms.test/192.0.2.20")
	}
	l.write("unbound.conf", fmt.Sprintf("server:\n chroot: \"\"\n username: \"\"\n directory: %q\n pidfile: \"\"\n use-syslog: no\n logfile: \"\"\n verbosity: 2\n interface: fd00:ec2::253\n access-control: ::/0 allow\n do-daemonize: no\n module-config: %q\n %s\n",
		l.dir, modules, data))
	l.daemon(card, "start of service", "unbound", "-d", "-c", l.file("unbound.conf"))
}

// What the router advertises: as EC2's does, or that hosts make up their addresses.
const (
	managed    = "AdvManagedFlag on; prefix 2001:db8:1::/64 { AdvAutonomous off; };"
	autonomous = "prefix 2001:db8:1::/64 { AdvAutonomous on; };"
)

func TestIPv6(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		build func(*lab)
		wants []string
	}{
		"as EC2 has it": {
			build: func(l *lab) {
				l.router6("eth0")
				l.kea6("eth0", false)
				l.unbound("eth0", false)
			},
			wants: []string{"up eth0 2001:db8:1::77/128 by fe80::", "DNS [fd00:ec2::253]", "dial kms.test:443: connected to [2001:db8:2::20]:443"},
		},
		"rapid commit": {
			build: func(l *lab) {
				l.router6("eth0")
				l.kea6("eth0", true)
				l.unbound("eth0", false)
			},
			wants: []string{"up eth0 2001:db8:1::77/128 by fe80::", "dial kms.test:443: connected to [2001:db8:2::20]:443"},
		},
		"DNS64": {
			build: func(l *lab) {
				l.router6("eth0")
				l.kea6("eth0", false)
				l.address("eth0", "64:ff9b::c000:214/128")
				l.imds("eth0", "[64:ff9b::c000:214]:443")
				l.unbound("eth0", true)
			},
			wants: []string{"up eth0 2001:db8:1::77/128", "dial kms.test:443: connected to [64:ff9b::c000:214]:443"},
		},
		"addresses that hosts make up": {
			build: func(l *lab) {
				l.router6("eth0")
				l.unbound("eth0", false)
			},
			wants: []string{"up eth0 2001:db8:1::ff:fe00:100/128", "dial kms.test:443: connected to [2001:db8:2::20]:443"},
		},
		"both, and IPv4 leads nowhere": {
			build: func(l *lab) {
				l.dhcp("eth0", "--address=/kms.test/2001:db8:2::20")
				l.router6("eth0")
				l.kea6("eth0", false)
			},
			wants: []string{"up eth0 2001:db8:1::77/128 by fe80::", "dial kms.test:443: connected to [2001:db8:2::20]:443"},
		},
		"both": {
			build: func(l *lab) {
				l.vpc("eth0", "--address=/kms.test/2001:db8:2::20")
				l.router6("eth0")
				l.kea6("eth0", false)
			},
			wants: []string{"up eth0", "dial kms.test:443: connected to", "down: <nil>"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t, "eth0")
			l.autonomous = name == "addresses that hosts make up"
			row.build(l)
			l.up("30s", "kms.test:443").wants(t, row.wants...)
		})
	}
}

// router6 makes a subnet of IPv6 as EC2 has it, but for DHCPv6.
func (l *lab) router6(card string) {
	l.t.Helper()
	l.address(card, "2001:db8:1::1/64", "fd00:ec2::254/128", "fd00:ec2::253/128", "2001:db8:2::20/128")
	l.imds(card, "[fd00:ec2::254]:80", "[2001:db8:2::20]:443")
	if l.autonomous {
		l.radvd(card, autonomous)
	} else {
		l.radvd(card, managed)
	}
}
