package main

import (
	"time"

	"unlock/test/lab"
	"unlock/test/vm"
)

// Moments of a boot on the console.
const (
	kernelUp  = "Run /init as init process"
	planKnown = "unlock: volume" // the network is being brought up
)

// networkFaults are those of the way to AWS.
var networkFaults = []row{
	{name: "dhcp-late", faults: []string{"dhcp-silent:3s"}},
	{name: "dhcp-silent", faults: []string{"dhcp-silent"}, stop: "check the subnet's DHCP options"},
	{name: "dhcp-nak-twice", faults: []string{"dhcp-nak:2"}},
	{name: "dhcp-nak", faults: []string{"dhcp-nak"}, stop: "check the subnet's DHCP options"},
	{name: "dhcp-two-servers", faults: []string{"dhcp-two"}},
	{name: "dhcp-slow", faults: []string{"dhcp-slow:20s"}},
	{name: "dhcp-no-router", faults: []string{"dhcp-no-router"}, stop: "check the subnet's DHCP options"},
	{name: "dhcp-no-dns", faults: []string{"dhcp-no-dns"}},

	{name: "frames-lost", faults: []string{"loss:10"}},
	{name: "link-late", reports: planKnown, machine: func(_ *lab.Lab, m *vm.Machine) {
		m.Events = []vm.Event{link("", 0, false), link(planKnown, 2*time.Second, true)}
	}},
	{name: "link-flapping", reports: planKnown, machine: func(_ *lab.Lab, m *vm.Machine) {
		m.Events = []vm.Event{link(kernelUp, 0, false), link(planKnown, 0, true),
			link(planKnown, 300*time.Millisecond, false), link(planKnown, 3*time.Second, true)}
	}},
	{name: "link-down", stop: "check that the network interface is attached", machine: func(_ *lab.Lab, m *vm.Machine) { m.Events = []vm.Event{link("", 0, false)} }},
	{name: "card-dead", reports: "unlock: network: eth1", machine: func(_ *lab.Lab, m *vm.Machine) { m.Cards = deadBefore(1, m.Cards) }},
	{name: "cards-dead", reports: "unlock: network: eth3", machine: func(_ *lab.Lab, m *vm.Machine) { m.Cards = deadBefore(3, m.Cards) }},
	{name: "card-missing", stop: "add the driver of the network card", machine: func(_ *lab.Lab, m *vm.Machine) { m.Cards = nil }},

	{name: "dns-late", faults: []string{"dns-late:4s"}},
	{name: "dns-slow", faults: []string{"dns-slow:1s"}},
	{name: "dns-nxdomain-twice", faults: []string{"dns-nxdomain:2"}},
	{name: "dns-nxdomain", faults: []string{"dns-nxdomain"}, stop: "an-internalstoragekeybucket.s3.us-east-1.amazonaws.com does not resolve"},
	{name: "dns-servfail-twice", faults: []string{"dns-servfail:2"}},
	{name: "dns-wrong", faults: []string{"dns-wrong"}, hosts: []string{"203.0.113.1"}, stop: "no answer from an-internalstoragekeybucket.s3.us-east-1.amazonaws.com"},
	{name: "dns-truncated", faults: []string{"dns-truncated"}},
}

// link plugs the cable in, or out.
func link(when string, after time.Duration, up bool) vm.Event {
	return vm.Event{When: when, After: after, Do: []vm.Request{vm.Link(0, up)}}
}

// deadBefore puts cards that nobody serves before the others.
func deadBefore(n int, cards []vm.Card) []vm.Card { return append(make([]vm.Card, n), cards...) }
