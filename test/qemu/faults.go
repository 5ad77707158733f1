package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"unlock/test/vm"
)

// row is a fault, and what must come of a boot that meets it: the volume is
// formatted, opened and mounted in spite of it, or the boot stops.
type row struct {
	name    string
	faults  []string // of ec2sim
	stop    string   // the hint with which the boot stops, and disks stay as they are; "": it must not
	timeout string   // rd.unlock.timeout; "": 8s where the boot must stop, else the default
	config  string   // "": one ext4 volume, its key from S3
	disks   []string // nil: one blank one
	script  string   // "": writeFile
	late    string   // the last disk is attached when the console shows this
	machine func(*vm.Machine)
	hosts   []string // that the fault has the machine talk to
	reports string   // what the console shows of it, where ec2sim cannot tell whether it was met
}

// matrix makes a scenario of each row.
func matrix(rows ...[]row) []scenario {
	var all []scenario
	for _, r := range slices.Concat(rows...) {
		all = append(all, r.scenario())
	}
	return all
}

func (r row) scenario() scenario {
	s := scenario{name: "fault-" + r.name, config: r.config, disks: r.disks, faults: r.faults, machine: r.machine, hosts: r.hosts}
	if s.config == "" {
		s.config = s3Key + secretfs
	}
	if s.disks == nil {
		s.disks = blank(1)
	}
	b := boot{script: cmp.Or(r.script, writeFile), check: r.outcome, late: r.late}
	if r.stop != "" {
		s.append = "rd.unlock.timeout=8s"
		b.script, b.want = "", []string{"hint: " + r.stop, "exit status 1"}
	}
	if r.timeout != "" {
		s.append = "rd.unlock.timeout=" + r.timeout
	}
	s.boots = []boot{b}
	return s
}

// outcome checks that the fault was met and notes what came of it.
func (r row) outcome(l *lab) error {
	came := []string{"goes on"}
	if r.stop != "" {
		came[0] = "stops: " + l.expand.Replace(r.stop)
	}
	for _, f := range r.faults {
		name, _, _ := strings.Cut(f, ":")
		n := l.cloud.Struck(name)
		if n == 0 {
			return fmt.Errorf("the fault %s was never met", f)
		}
		came = append(came, fmt.Sprintf("%s struck %d times", name, n))
	}
	if r.reports != "" {
		if !l.console.Contains(r.reports) {
			return fmt.Errorf("the console does not show %q", r.reports)
		}
		came = append(came, r.reports)
	}
	l.note("%s", strings.Join(came, "; "))
	return nil
}
