package main

import (
	"fmt"
	"math/rand/v2"
	"slices"
)

// soak is a volume that is formatted once and then booted many times, each time with
// a fault of the matrix that chance chooses. No boot may lose what is on it.
func soak(boots int, seed uint64) scenario {
	r := rand.New(rand.NewPCG(seed, 0))
	s := scenario{name: fmt.Sprintf("soak-%d", seed), config: s3Key + secretfs, disks: blank(1)}
	s.boots = append(s.boots, boot{script: writeFile, check: formatted})
	rows := slices.DeleteFunc(slices.Concat(networkFaults, awsFaults), func(r row) bool { return r.config != "" || r.disks != nil })
	for range boots {
		row := rows[r.IntN(len(rows))]
		s.boots, s.hosts = append(s.boots, row.soaking()), append(s.hosts, row.hosts...)
	}
	s.boots = append(s.boots, boot{script: readFile, want: []string{fileText}, faults: []string{}, check: func(l *lab) error {
		l.notes = []string{fmt.Sprintf("data intact after %d boots, each under one of %d faults", boots, len(rows))}
		return nil
	}})
	return s
}

// soaking is a boot of the row that reads what was written, or stops.
func (r row) soaking() boot {
	s := r.scenario()
	b := s.boots[0]
	b.name, b.append, b.faults, b.machine = r.name, s.append, append([]string{}, s.faults...), s.machine
	if r.stop == "" {
		b.script, b.want = readFile, append(b.want, fileText)
	}
	return b
}

// soaks divides boots among scenarios that run side by side.
func soaks(boots int, seed uint64) []scenario {
	var all []scenario
	for i := range parallel {
		all = append(all, soak((boots+i)/parallel, seed+uint64(i)))
	}
	return all
}
