package netup

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// TestTwoCardsInOneSubnet: answers come back to the card that asked, although the other
// has the same routes, and rp_filter is strict.
func TestTwoCardsInOneSubnet(t *testing.T) {
	t.Parallel()
	l := newLab(t, "eth0")
	l.in("", "sysctl", "-qw", "net.ipv4.conf.all.rp_filter=1", "net.ipv4.conf.default.rp_filter=1")
	l.plug(1, "eth1", "eth0")
	l.cards = append(l.cards, "eth1")
	// Only the second card's address is let through to KMS.
	l.vpc("eth0", "--dhcp-range=10.0.1.10,10.0.1.11,1h", "--dhcp-host="+mac(0)+",10.0.1.10", "--dhcp-host="+mac(1)+",10.0.1.11")
	l.in("eth0", "ip", "rule", "add", "from", "192.0.2.20", "to", "10.0.1.10", "blackhole", "pref", "10")
	l.up("30s", "kms.test:443", "kms.test:443").wants(t, "up eth0 10.0.1.10/24", "trying the other network cards, too", "reached through eth1", toKMS, toKMS, "down: <nil>")
}

// TestRenamed: somebody renames the card while its carrier is waited for.
func TestRenamed(t *testing.T) {
	t.Parallel()
	for name, shut := range map[string]bool{"up": false, "down": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t, "eth0")
			l.vpc("eth0")
			l.cut("eth0")
			before := l.state()
			done := make(chan struct{})
			go func() {
				defer close(done)
				for !strings.Contains(l.in("", "ip", "link", "show", "eth0"), ",UP") {
					time.Sleep(20 * time.Millisecond)
				}
				if shut {
					l.in("", "ip", "link", "set", "eth0", "down")
				}
				l.in("", "ip", "link", "set", "eth0", "name", "ens5")
				time.Sleep(300 * time.Millisecond)
				l.in("eth0", "ip", "link", "set", "plug-eth0", "up")
			}()
			out := l.run("30s", "kms.test:443")
			<-done
			out.wants(t, "up ens5 10.0.1.10/24", toKMS, "down: <nil>")
			l.cut("eth0")
			l.in("", "ip", "link", "set", "ens5", "name", "eth0")
			if after := l.state(); after != before {
				t.Errorf("the network was left in another state:\n%s", difference(before, after))
			}
		})
	}
}

// TestSettingsWhileRenamed: for a moment, a card that gets another name has no settings.
func TestSettingsWhileRenamed(t *testing.T) {
	t.Parallel()
	l := newLab(t, "eth0")
	before := l.state()
	l.in("", "env", role+"=settings", os.Args[0])
	if after := l.state(); after != before {
		t.Errorf("the settings were left in another state:\n%s", difference(before, after))
	}
}

// beSettings changes and restores settings of eth0, which gets other names all the time.
func beSettings() error {
	eth0, err := net.InterfaceByName("eth0")
	if err != nil {
		return err
	}
	rename := func(name string) {
		info := nl.NewIfInfomsg(unix.AF_UNSPEC)
		info.Index = int32(eth0.Index)
		_, rerr := ask(unix.RTM_SETLINK, unix.NLM_F_ACK, info, nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(name)))
		err = errors.Join(err, rerr)
	}
	done, renamed := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(renamed)
		for {
			rename("ens5")
			rename("eth0")
			select {
			case <-done:
				return
			default:
			}
		}
	}()
	c := &card{index: eth0.Index, name: eth0.Name}
	var failed error
	for range 300 {
		for _, setting := range []string{"ipv4/rp_filter", "ipv6/accept_ra"} {
			failed = errors.Join(failed, c.sysctl(setting, "2"))
		}
		if len(c.undo) != 2 {
			failed = errors.Join(failed, fmt.Errorf("%d settings were changed", len(c.undo)))
		}
		for _, undo := range c.undo {
			failed = errors.Join(failed, undo())
		}
		c.undo = nil
	}
	close(done)
	<-renamed
	return errors.Join(failed, err)
}

// TestRaisedLater: the card cannot be raised at first, as one of its settings cannot be written.
func TestRaisedLater(t *testing.T) {
	t.Parallel()
	l := newLab(t, "eth0")
	l.vpc("eth0")
	l.write("accept_ra", "1\n")
	file := "/proc/sys/net/ipv6/conf/eth0/accept_ra"
	l.udev = "mount --bind " + l.file("accept_ra") + " " + file + " && mount -o remount,bind,ro " + file +
		" && : >/run/udev/data/n$(ip -o link show eth0 | cut -d: -f1); sleep 3; umount " + file
	out := l.run("30s", "kms.test:443")
	out.wants(t, "read-only file system; trying again", "up eth0 10.0.1.10/24", toKMS, "down: <nil>")
	if n := strings.Count(strings.Join(out, "\n"), "trying again"); n != 1 {
		t.Errorf("the machine tells %d times that it tries again, want once", n)
	}
}

// TestNamedByUdev: udev names the card late, and can do so while it is down alone.
func TestNamedByUdev(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct{ udev, card, settles string }{
		"late, while devices settle": {"sleep 4; ip link show eth0 | grep -q ,UP || ip link set eth0 name ens5 && : >/run/udev/data/n$(ip -o link show ens5 | cut -d: -f1)", "ens5", "8s"},
		"settled, and not by it":     {"sleep 0", "eth0", "1s"},
		"named":                      {"sleep 0.7; ip link show eth0 | grep -q ,UP || ip link set eth0 name ens5 && : >/run/udev/data/n$(ip -o link show ens5 | cut -d: -f1)", "ens5", ""},
		"not by it":                  {"sleep 0", "eth0", ""},
		"seen to it":                 {": >/run/udev/data/n$(ip -o link show eth0 | cut -d: -f1)", "eth0", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t, "eth0")
			l.vpc("eth0")
			l.udev, l.settles, l.cards = row.udev, row.settles, []string{"eth0", "ens5"}
			l.run("30s", "kms.test:443").wants(t, "up "+row.card+" 10.0.1.10/24", toKMS, "down: <nil>")
		})
	}
}

// TestLateCard: the card comes while Up waits, and is taken away and put back.
func TestLateCard(t *testing.T) {
	t.Parallel()
	l := newLab(t, "eth0")
	l.vpc("eth0")
	l.in("", "ip", "link", "del", "eth0")
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 2 {
			time.Sleep(700 * time.Millisecond)
			l.insert(0, "eth0", "eth0") // with a carrier it has a lease before it goes
			time.Sleep(700 * time.Millisecond)
			l.in("", "ip", "link", "del", "eth0")
		}
		l.plug(0, "eth0", "eth0")
	}()
	out := l.run("30s", "kms.test:443")
	<-done
	out.wants(t, "up eth0 10.0.1.10/24", toKMS, "down: <nil>")
}

// kea4 serves DHCP.
func (l *lab) kea4(card string) {
	l.t.Helper()
	l.write("kea4.json", `{"Dhcp4": {"interfaces-config": {"interfaces": ["cable"]}, "lease-database": {"type": "memfile", "persist": false}, "valid-lifetime": 3600,
		"subnet4": [{"id": 1, "subnet": "10.0.1.0/24", "pools": [{"pool": "10.0.1.10-10.0.1.10"}], "option-data": [
			{"name": "routers", "data": "10.0.1.1"}, {"name": "domain-name-servers", "data": "10.0.1.2"}]}],
		"loggers": [{"name": "kea-dhcp4", "severity": "INFO", "output_options": [{"output": "stdout"}]}]}}`)
	l.daemonEnv(card, "DHCP4_STARTED", []string{"KEA_LOCKFILE_DIR=none", "KEA_PIDFILE_DIR=" + l.dir}, "kea-dhcp4", "-c", l.file("kea4.json"))
}

// dhcpd serves DHCP.
func (l *lab) dhcpd(card, options string) {
	l.t.Helper()
	l.write("dhcpd.conf", "option rfc3442 code 121 = array of unsigned integer 8; authoritative; ping-check false; default-lease-time 3600;\nsubnet 10.0.1.0 netmask 255.255.255.0 { "+options+" }\n")
	l.write("dhcpd.leases", "")
	l.daemon(card, "Sending on", "dhcpd", "-f", "-d", "-4", "-user", "root", "-group", "root", "-cf", l.file("dhcpd.conf"), "-lf", l.file("dhcpd.leases"), "-pf", l.file("dhcpd.pid"), "cable")
}

// names resolves, without DHCP.
func (l *lab) names(card string) {
	l.t.Helper()
	l.daemon(card, "started", "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--user=root", "--log-facility=-", "--pid-file=",
		"--interface=lo", "--interface=cable", "--bind-dynamic", "--address=/kms.test/192.0.2.20")
}

func TestServers(t *testing.T) {
	t.Parallel()
	const pool = "range 10.0.1.10 10.0.1.10; option routers 10.0.1.1; option domain-name-servers 10.0.1.2;"
	for name, row := range map[string]struct {
		serve func(*lab)
		args  []string
		wants []string
	}{
		"Kea":         {serve: func(l *lab) { l.kea4("eth0") }},
		"ISC's dhcpd": {serve: func(l *lab) { l.dhcpd("eth0", pool) }},
		"ISC's dhcpd with routes": {serve: func(l *lab) {
			l.dhcpd("eth0", pool+" option rfc3442 0, 10, 0, 1, 1;")
		}},
		"lease that ends": {serve: func(l *lab) {
			l.dhcpd("eth0", pool+" max-lease-time 2; default-lease-time 2;")
		}, args: []string{"30s", "5s", "kms.test:443"}, wants: []string{"lease of 2s", "lease of 2s", "lease of 2s", toKMS}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t, "eth0")
			l.address("eth0", "10.0.1.1/24", "10.0.1.2/32")
			l.names("eth0")
			l.service("eth0")
			row.serve(l)
			if row.args == nil {
				row.args = []string{"30s", "kms.test:443"}
			}
			out := l.up(row.args...)
			out.wants(t, "up eth0 10.0.1.10/24 by 10.0.1.1", toKMS, "down: <nil>")
			out.wants(t, row.wants...)
		})
	}
}

// TestBlackHole: the path carries 1,500 bytes, the card 9,000, and nobody says so.
func TestBlackHole(t *testing.T) {
	t.Parallel()
	l := newLab(t, "eth0")
	l.vpc("eth0")
	l.in("", "ip", "link", "set", "eth0", "mtu", "9000")
	l.in("eth0", "ip", "link", "set", "plug-eth0", "mtu", "9000")
	out := l.up("30s", "kms.test:443")
	out.wants(t, toKMS, fmt.Sprintf("segments of %d bytes", maxSegment))
}
