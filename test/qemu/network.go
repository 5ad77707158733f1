package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"unlock/test/ec2sim"
	"unlock/test/lab"
	"unlock/test/vm"
)

// subnet is a way to AWS, and what must come of a boot there: the volume is opened
// and the network is then as if unlock had not been, or the boot stops.
type subnet struct {
	name    string
	faults  []string   // of ec2sim, for all cards
	cards   [][]string // of each card's subnet alone; nil: one card
	config  string     // "": one ext4 volume, its key from S3
	first   string     // what process 1 does before it becomes unlock's: a command a line
	up      string     // in place of standalone_up
	script  string     // "": write_file
	stop    string     // the hint with which the boot stops; "": it must not
	want    []string   // on the console
	hosts   []string   // that the machine may talk to
	machine lab.Change // of the boot that is judged
	check   lab.Judge
}

// Hosts that machines with IPv6 talk to.
var (
	hosts6 = []string{"fd00:ec2::253", "fd00:ec2::254", "fe80::8ff:acff:fe1f:1", "2001:db8:2::a", "2001:db8:2::14",
		lab.Bucket + ".s3.dualstack.us-east-1.amazonaws.com", "kms.us-east-1.api.aws"}
	translated = append(slices.Clone(hosts6), "64:ff9b::c000:20a", "64:ff9b::c000:214")
	inSubnet   = []string{"172.31.0.8", "172.31.0.91", "172.31.0.92", "172.31.0.93", "172.31.1.10", "172.31.1.20",
		"vpce-0abc-xyz.kms.us-east-1.vpce.amazonaws.com", "bucket.vpce-0abc-xyz.s3.us-east-1.vpce.amazonaws.com"}
)

// networks are what a subnet, or a machine's cards, may look like.
var networks = subnets(
	subnet{name: "ipv6-only", faults: []string{"ipv6-only"}, hosts: hosts6, want: []string{"unlock: network: eth0 2001:db8:1::5:10/128 by fe80::8ff:acff:fe1f:1"}, check: asked("kms.us-east-1.api.aws")},
	subnet{name: "nat64", faults: []string{"nat64"}, hosts: translated, check: asked("kms.us-east-1.amazonaws.com"),
		config: fileKey + "[aws.endpoint]\nkms = \"https://kms.us-east-1.amazonaws.com\"\n" + secretfs},
	subnet{name: "dual-stack", faults: []string{"dual-stack-as-launched"}, hosts: hosts6, want: []string{"unlock: network: eth0 172.31.5.10/20"}, check: asked("kms.us-east-1.amazonaws.com")},
	subnet{name: "dual-stack-ipv4-broken", faults: []string{"dual-stack-ipv4-broken"}, hosts: hosts6, want: []string{"unlock: network: eth0 2001:db8:1::5:10/128"}, check: asked("kms.us-east-1.api.aws")},
	subnet{name: "dual-stack-egress", faults: []string{"dual-stack-egress"}, hosts: hosts6, check: asked("kms.us-east-1.api.aws")},
	subnet{name: "router-before-dhcp", faults: []string{"dual-stack-as-launched", "dhcp-silent:3s"}, hosts: hosts6, want: []string{"unlock: network: eth0 172.31.5.10/20"}},

	subnet{name: "imds-behind-second-card", cards: [][]string{{"no-imds"}, nil}, want: []string{"trying eth1 as well", "eth0: given up: IMDS does not answer", "unlock: network: eth1"}},
	subnet{name: "kms-behind-second-card", cards: [][]string{{"no-endpoints"}, nil}, want: []string{"unlock: network: eth0", "reached through eth1"}},
	subnet{name: "two-cards-one-subnet", cards: [][]string{{"dhcp-silent:3s"}, nil}, want: []string{"unlock: network: eth1"}},
	subnet{name: "late-card", want: []string{"unlock: network: eth0"}, machine: func(_ *lab.Lab, m *vm.Machine) { m.Cards[0].Late = planKnown }},
	subnet{name: "renamed-card", first: renames, script: "write_file\ncard_named ens5", want: []string{"eth0: no link yet", "unlock: network: ens5"},
		machine: func(_ *lab.Lab, m *vm.Machine) {
			m.Events = []vm.Event{link("", 0, false), link(planKnown, 6*time.Second, true)}
			m.Append += " rd.unlock.debug"
		}},
	subnet{name: "own-network", cards: [][]string{{"isolated"}, nil}, first: configures, up: "own_network_up",
		want: []string{"eth0 (configured already): IMDS does not answer", "unlock: network: eth1"}, hosts: []string{"10.9.9.1"}},

	subnet{name: "dns-first-of-two-silent", faults: []string{"dns-dead:1"}, hosts: inSubnet},
	subnet{name: "dns-two-of-three-silent", faults: []string{"dns-dead:2"}, hosts: inSubnet},
	subnet{name: "routes-without-router", faults: []string{"dhcp-routes-only"}, want: []string{"unlock: network: eth0 172.31.5.10/20 by 172.31.0.1"}},
	subnet{name: "routes-before-router", faults: []string{"dhcp-routes"}, want: []string{"unlock: network: eth0 172.31.5.10/20 by 172.31.0.1"}},
	subnet{name: "lease-of-one-address", faults: []string{"dhcp-host", "dhcp-broadcast"}, want: []string{"unlock: network: eth0 172.31.5.10/32 by 172.31.0.1"}},
	subnet{name: "lease-shorter-than-boot", faults: []string{"dhcp-time:2s", "role-late:8s"}, check: leases(3)},
	subnet{name: "mtu-black-hole", faults: []string{"mtu-1500"}, check: unmet("mtu-1500")},

	subnet{name: "proxy", faults: []string{"private"}, hosts: inSubnet, config: s3Key + "proxy = \"" + ec2sim.ProxyURL + "\"\n" + secretfs, check: proxied(2)},
	subnet{name: "vpc-endpoint", faults: []string{"private"}, hosts: inSubnet, check: asked("vpce-0abc-xyz.kms.us-east-1.vpce.amazonaws.com"),
		config: fileKey + "[aws.endpoint]\nkms = \"https://vpce-0abc-xyz.kms.us-east-1.vpce.amazonaws.com\"\n" + secretfs},
	subnet{name: "private", faults: []string{"private"}, stop: "no answer from an-internalstoragekeybucket.s3.us-east-1.amazonaws.com"},
	subnet{name: "isolated", faults: []string{"isolated"}, stop: "no usable answer from the metadata service", want: []string{"bringing up the network: eth0: IMDS does not answer over IPv4"}},
	subnet{name: "proxy-refuses", faults: []string{"private", "proxy-refuses"}, hosts: inSubnet, config: s3Key + "proxy = \"" + ec2sim.ProxyURL + "\"\n" + secretfs,
		stop: "an-internalstoragekeybucket.s3.us-east-1.amazonaws.com is not reached: check aws.proxy", want: []string{"proxy 172.31.0.8:3128: it answers 403 Forbidden"}},
)

func subnets(all ...subnet) []lab.Scenario {
	var list []lab.Scenario
	for _, s := range all {
		list = append(list, s.scenario())
	}
	return list
}

func (s subnet) scenario() lab.Scenario {
	sc := lab.Scenario{Name: "net-" + s.name, System: s.system, Config: s.config, Faults: s.faults, Disks: blank(1), Hosts: s.hosts, Machine: s.cabled}
	if sc.Config == "" {
		sc.Config = s3Key + secretfs
	}
	b := lab.Boot{Script: "write_file", Want: s.want, Check: s.check, Machine: s.machine}
	if s.script != "" {
		b.Script = s.script
	}
	switch {
	case s.stop != "":
		sc.Append, b.Script, b.Want = "rd.unlock.timeout=12s", "", append([]string{"hint: " + s.stop, "exit status 1"}, s.want...)
		sc.Boots = []lab.Boot{b}
	case s.first != "":
		sc.Boots = []lab.Boot{b}
	default:
		judges := []lab.Judge{sameNetwork}
		if s.check != nil {
			judges = append(judges, s.check)
		}
		b.Script, b.Check = b.Script+"\nnetwork_state", lab.All(judges...)
		sc.Boots = []lab.Boot{{Name: "without unlock", Append: "rd.unlock=0", Script: "network_state", Check: keepNetwork}, b}
	}
	return sc
}

// cabled gives the machine its cards.
func (s subnet) cabled(l *lab.Lab, m *vm.Machine) {
	if s.cards != nil {
		m.Cards = nil
		for _, faults := range s.cards {
			serve, err := l.Cloud.Card(faults...)
			if err != nil {
				serve = func(net.Conn) error { return err }
			}
			m.Cards = append(m.Cards, vm.Card{Plug: serve, MAC: fmt.Sprintf("52:54:00:12:34:%02x", len(m.Cards))})
		}
	}
}

// system is the standalone one with iproute2, and perhaps a process 1 of its own.
func (s subnet) system(ctx context.Context, l *lab.Lab) error {
	kernel, err1 := vm.Kernel(ctx)
	root, err2 := vm.RealRoot(ctx, "iproute2")
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	args := slices.Clone(lab.Uncompressed)
	if s.first != "" {
		busybox, err := exec.LookPath("busybox")
		if err != nil {
			return err
		}
		first := l.File("first")
		if err := os.WriteFile(first, []byte("#!/bin/busybox sh\nexport PATH=/bin\n"+s.first+"\nexec /init\n"), 0o700); err != nil {
			return err
		}
		args = append(args, "--file", busybox+":/bin/busybox", "--file", first+":/first")
	}
	l.BootStandalone(kernel, root, args...)
	if s.first != "" {
		l.Base.Append += " rdinit=/first"
	}
	if s.up != "" {
		l.Up = s.up
	}
	return nil
}

// What process 1 may do first. The modules are those that unlock would load.
const (
	loads = `
while read -r module; do busybox insmod "$module"; done </etc/unlock/modules
until busybox ip link show eth0; do busybox usleep 50000; done
`
	// configures is an image's own network, which leads nowhere.
	configures = loads + `
busybox ip link set eth0 up
busybox ip addr add 10.9.9.9/24 dev eth0
busybox ip route add default via 10.9.9.1
`
	// renames is what udev does, once unlock waits for the card's carrier.
	renames = loads + `
(
	until busybox ip link show eth0 | busybox grep -q UP; do busybox usleep 50000; done
	busybox sleep 2
	busybox ip link set eth0 down
	busybox ip link set eth0 name ens5
) &
`
)

// networkState returns what network_state printed in the last boot.
func networkState(l *lab.Lab) []string {
	var state []string
	for _, line := range l.Console {
		if _, text, ok := strings.Cut(line.Text, "state: "); ok {
			state = append(state, strings.TrimSpace(text))
		}
	}
	return state
}

// keepNetwork keeps the state of a boot without unlock.
func keepNetwork(l *lab.Lab) error {
	state := networkState(l)
	if len(state) < 100 {
		return fmt.Errorf("the state of the network has %d lines", len(state))
	}
	l.Kept = state
	return lab.NoFrames(l)
}

// sameNetwork compares the state with it.
func sameNetwork(l *lab.Lab) error {
	was, is := l.Kept.([]string), networkState(l)
	for _, line := range was {
		if !slices.Contains(is, line) {
			return fmt.Errorf("the state of the network lacks %q", line)
		}
	}
	for _, line := range is {
		if !slices.Contains(was, line) {
			return fmt.Errorf("the state of the network has %q", line)
		}
	}
	l.Note("network as without unlock (%d lines)", len(is))
	return nil
}

// asked checks that KMS was asked under this name.
func asked(host string) lab.Judge {
	return func(l *lab.Lab) error {
		for _, r := range l.Requests() {
			if r.Service == "kms" && r.Host == host {
				l.Note("%s", host)
				return nil
			}
		}
		return fmt.Errorf("nobody asked %s", host)
	}
}

// leases checks that DHCP was asked for so many leases at least.
func leases(n int) lab.Judge {
	return func(l *lab.Lab) error {
		asked := 0
		for _, r := range l.Requests() {
			if r.Service == "dhcp" && r.Operation == "REQUEST" {
				asked++
			}
		}
		l.Note("%d leases", asked)
		if asked < n {
			return fmt.Errorf("%d leases, want at least %d", asked, n)
		}
		return nil
	}
}

// unmet checks that a fault never struck.
func unmet(fault string) lab.Judge {
	return func(l *lab.Lab) error {
		if n := l.Cloud.Struck(fault); n != 0 {
			return fmt.Errorf("%s struck %d times", fault, n)
		}
		return nil
	}
}

// proxied checks how many connections the proxy made.
func proxied(n int) lab.Judge {
	return func(l *lab.Lab) error {
		made := 0
		for _, r := range l.Requests() {
			if r.Service == "proxy" {
				made++
			}
		}
		if made < n {
			return fmt.Errorf("%d connections through the proxy, want %d", made, n)
		}
		l.Note("%d connections through the proxy", made)
		return nil
	}
}
