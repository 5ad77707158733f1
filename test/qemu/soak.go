package main

import (
	"fmt"
	"math/rand/v2"
	"slices"

	"unlock/test/lab"
)

// soak is a volume that is lab.Formatted once and then booted many times, each time with
// a fault of the matrix that chance chooses. No boot may lose what is on it.
func soak(boots int, seed uint64) lab.Scenario {
	r := rand.New(rand.NewPCG(seed, 0))
	s := lab.Scenario{Name: fmt.Sprintf("soak-%d", seed), Config: s3Key + secretfs, Disks: blank(1)}
	s.Boots = append(s.Boots, lab.Boot{Script: "write_file", Check: lab.Formatted})
	rows := slices.DeleteFunc(slices.Concat(networkFaults, awsFaults), func(r row) bool { return r.config != "" || r.disks != nil })
	for range boots {
		row := rows[r.IntN(len(rows))]
		s.Boots, s.Hosts = append(s.Boots, row.soaking()), append(s.Hosts, row.hosts...)
	}
	s.Boots = append(s.Boots, lab.Boot{Script: "read_file", Want: []string{lab.FileText}, Faults: []string{}, Check: func(l *lab.Lab) error {
		l.Note("data intact after %d boots, each under one of %d faults", boots, len(rows))
		return nil
	}})
	return s
}

// soaking is a boot of the row that reads what was written, or stops.
func (r row) soaking() lab.Boot {
	s := r.scenario()
	b := s.Boots[0]
	b.Name, b.Faults, b.Machine, b.Check = r.name, append([]string{}, s.Faults...), s.Machine, func(l *lab.Lab) error { _, err := r.met(l); return err }
	if r.stop == "" {
		b.Script, b.Want = "read_file", append(b.Want, lab.FileText)
	}
	return b
}

// soaks divides boots among scenarios that run side by side.
func soaks(boots int, seed uint64) []lab.Scenario {
	var all []lab.Scenario
	for i := range parallel {
		all = append(all, soak((boots+i)/parallel, seed+uint64(i)))
	}
	return all
}
