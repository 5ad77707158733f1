package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"unlock/test/lab"
)

// row is a fault, and what must come of a boot that meets it: the volume is
// formatted, opened and mounted in spite of it, or the boot stops.
type row struct {
	name    string
	faults  []string      // of ec2sim
	stop    string        // the hint with which the boot stops, and disks stay as they are; "": it must not
	timeout time.Duration // rd.unlock.timeout; 0: 8 s where the boot must stop, else the default
	config  string        // "": one ext4 volume, its key from S3
	disks   []string      // nil: one blank one
	script  string        // "": write_file
	late    string        // the last disk is attached when the console shows this
	machine lab.Change
	hosts   []string // that the fault has the machine talk to
	reports string   // what the console shows of it, where ec2sim cannot tell whether it was met
}

// matrix makes a scenario of each row.
func matrix(rows ...[]row) []lab.Scenario {
	var all []lab.Scenario
	for _, r := range slices.Concat(rows...) {
		all = append(all, r.scenario())
	}
	return all
}

func (r row) scenario() lab.Scenario {
	s := lab.Scenario{Name: "fault-" + r.name, Config: r.config, Disks: r.disks, Faults: r.faults, Machine: r.machine, Hosts: r.hosts}
	if s.Config == "" {
		s.Config = s3Key + secretfs
	}
	if s.Disks == nil {
		s.Disks = blank(1)
	}
	b := lab.Boot{Script: cmp.Or(r.script, "write_file"), Check: r.outcome, Late: r.late}
	if r.stop != "" {
		b.Deadline = 8 * time.Second
		b.Script, b.Want = "", []string{"hint: " + r.stop, "exit status 1"}
	}
	if r.timeout > 0 {
		b.Deadline = r.timeout
	}
	s.Boots = []lab.Boot{b}
	return s
}

// outcome notes what came of the fault.
func (r row) outcome(l *lab.Lab) error {
	came, err := r.met(l)
	l.Note("%s", strings.Join(came, "; "))
	return err
}

// met checks that the fault was met, and says how.
func (r row) met(l *lab.Lab) (came []string, err error) {
	came = []string{"goes on"}
	if r.stop != "" {
		came[0] = "stops: " + l.Expand(r.stop)
	}
	for _, f := range r.faults {
		name, _, _ := strings.Cut(f, ":")
		n := l.Cloud.Struck(name)
		if n == 0 {
			return came, fmt.Errorf("the fault %s was never met", f)
		}
		came = append(came, fmt.Sprintf("%s struck %d times", name, n))
	}
	if r.reports != "" {
		if !l.Console.Contains(r.reports) {
			return came, fmt.Errorf("the console does not show %q", r.reports)
		}
		came = append(came, r.reports)
	}
	return came, nil
}
