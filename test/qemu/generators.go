package main

import (
	"fmt"
	"slices"
	"strings"

	"unlock/test/distro"
	"unlock/test/lab"
)

// A generated is a version of a generator, as a suite of Debian has it, and a kind of
// image that it makes. All are built, boot with their volumes open, and are held up
// when KMS refuses the key. In CI run the oldest and the newest, by name.
type generated struct {
	suite, kind string
	packages    string
	generator   distro.Generator
	network     bool // the image brings the network up itself, and unlock uses that
}

// generators in the order of their age: versions in docs/distributions.md.
var generators = slices.Concat(
	ofSuite("bullseye", "dracut,dracut-network,isc-dhcp-client", legacy),
	ofSuite("bookworm", "dracut,dracut-network,isc-dhcp-client,procps,iputils-arping,network-manager", legacy, manager),
	ofSuite("trixie", "dracut,dracut-network,systemd-cryptsetup,network-manager", networked, manager),
	ofSuite("sid", "dracut,dracut-network,systemd-cryptsetup,network-manager", networked, manager),
)

// kind is an image with a network of its own.
type kind struct{ name, conf string }

var (
	legacy    = kind{"network-legacy", "\nadd_dracutmodules+=\" network-legacy \""}
	networked = kind{"networkd", networkd}
	manager   = kind{"network-manager", "\nadd_dracutmodules+=\" network-manager \""}
)

func ofSuite(suite, packages string, networks ...kind) []generated {
	all := []generated{
		{suite: suite, kind: "dracut", packages: packages, generator: dracut("no", plainDisks)},
		{suite: suite, kind: "dracut-hostonly", packages: packages, generator: dracut("yes", plainDisks+hasFsckToo)},
		{suite: suite, kind: "initramfs-tools", packages: "initramfs-tools", generator: initramfsTools},
	}
	if suite != "sid" { // which brings no switch_root for images without systemd
		all = append(all, generated{suite: suite, kind: "dracut-busybox", packages: packages, generator: dracut("no", plainDisks+noSystemd+noNetwork)})
	}
	for _, n := range networks {
		all = append(all, generated{suite: suite, kind: n.name, packages: packages, generator: dracut("no", plainDisks+n.conf), network: true})
	}
	return all
}

// noNetwork: the one that the system would bring along needs systemd.
const noNetwork = "\nomit_dracutmodules+=\" network network-manager ifcfg \""

const hasFsckToo = "\n" + hasFsck

// generatorScenarios are those of the group generators.
func generatorScenarios() []lab.Scenario {
	var all []lab.Scenario
	for _, g := range generators {
		boots := []lab.Boot{{Script: "opened_here secretfs\nwrite_open"}, denied("rd.shell=0 rd.emergency=poweroff")}
		if g.network {
			boots = withNetwork(boots)
			boots[1].Want = boots[1].Want[:len(boots[1].Want)-1]
		}
		i := installed{System: distro.System{Suite: g.suite, Packages: g.packages}, Generator: g.generator}
		if strings.Contains(g.packages, "network-manager") { // is for the image; the system has networkd
			i.files = []string{"/etc/NetworkManager/conf.d/none.conf", "[keyfile]\nunmanaged-devices=*\n"}
		}
		all = append(all, lab.Scenario{
			Name: fmt.Sprintf("generator-%s-%s", g.suite, g.kind), Config: fileKey + secretfs, Disks: blank(1), Boots: boots, System: i.machine,
		})
	}
	return all
}
