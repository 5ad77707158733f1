// Qemu-test boots scenarios: tables of declarations over package lab, whose
// documentation says how to write one. scripts/qemu-test builds what it needs and
// runs it.
package main

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/alecthomas/kong"

	"unlock/test/lab"
	"unlock/test/vm"
)

// parallel is how many machines run at a time: each computes on one processor and often
// waits, so that two left a third of two processors idle. What --soak draws depends on it.
const parallel = 3

// roundTrip is that within a VPC, where a scenario looks at times.
const roundTrip = 500 * time.Microsecond

type options struct {
	Group   []string      `placeholder:"NAME" help:"Only scenarios of this group: standalone, disks, volumes, network, trail, faults, secrets, attest, distributions, images-real, generators or images."`
	List    bool          `help:"Print the names of the scenarios."`
	Systems bool          `help:"Print the directories of the distributions' systems, which are made if need be."`
	Verbose bool          `short:"v" help:"Print every console, not only those of failures."`
	Soak    int           `placeholder:"BOOTS" help:"Boot one volume so often, each time under a fault that chance chooses, after the scenarios that are named."`
	Seed    uint64        `placeholder:"N" help:"Of chance; by default another each time."`
	Bench   int           `placeholder:"ROUNDS" help:"Boot one distribution plain, with unlock and with others, so often each, and compare them."`
	RTT     time.Duration `default:"500us" placeholder:"DURATION" help:"Round-trip time of the benchmark's network (0.5 ms)."`
	Table   string        `default:"bin/bench-boot.md" placeholder:"FILE" help:"Where the benchmark's table goes (${default})."`
	Bin     string        `default:"bin" placeholder:"DIR" help:"Where unlock and unlockctl are."`
	Names   []string      `arg:"" optional:"" name:"name" help:"Scenarios to run; all by default."`
}

func main() {
	var o options
	kong.Parse(&o, kong.Name("qemu-test"), kong.Description("Boot scenarios in QEMU."))
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ok, err := run(ctx, o)
	if err != nil {
		fmt.Fprintln(os.Stderr, "qemu-test:", err)
		ok = false
	}
	if !ok {
		os.Exit(1)
	}
}

// run reports whether every scenario passed; an error means that none could run.
func run(ctx context.Context, o options) (bool, error) {
	chosen, err := choose(o.Group, o.Names)
	if err != nil {
		return false, err
	}
	if o.Soak > 0 {
		if o.Seed == 0 {
			o.Seed = rand.Uint64()
		}
		fmt.Printf("--soak %d --seed %d\n", o.Soak, o.Seed)
		if len(o.Group)+len(o.Names) == 0 {
			chosen = nil
		}
		chosen = append(chosen, soaks(o.Soak, o.Seed)...)
	}
	if o.List {
		for _, s := range chosen {
			fmt.Println(s.Name)
		}
		return true, nil
	}
	if o.Systems {
		for _, s := range systems {
			made, err := s.Get(ctx)
			if err != nil {
				return false, err
			}
			fmt.Println(filepath.Dir(made.Root))
		}
		return true, nil
	}
	// What most need is fetched once, before two of them look for it.
	if _, err := vm.Kernel(ctx); err != nil {
		return false, err
	}
	if _, err := vm.RealRoot(ctx); err != nil {
		return false, err
	}
	bench, err := newBench(o.Bin)
	if err != nil {
		return false, err
	}
	if o.Bench > 0 {
		b := &benchmark{rtt: o.RTT, file: o.Table, results: map[string]map[string][]float64{}}
		return true, b.run(ctx, bench, o.Bench)
	}
	start := time.Now()
	queue := make(chan lab.Scenario)
	var wg sync.WaitGroup
	var mu sync.Mutex
	passed, failed := 0, 0
	for range parallel {
		wg.Go(func() {
			for s := range queue {
				start := time.Now()
				l, err := runOne(ctx, bench, s)
				mu.Lock()
				if err != nil {
					failed++
					fmt.Printf("FAIL  %-24s %5.1f s  %v\n", s.Name, time.Since(start).Seconds(), err)
				} else {
					passed++
					fmt.Printf("ok    %-24s %5.1f s  %s\n", s.Name, time.Since(start).Seconds(), l.Summary())
				}
				if o.Verbose {
					fmt.Print(l.Consoles)
				} else if err != nil {
					fmt.Print(l.Console.Tail(40))
					l.PrintRequests()
				}
				mu.Unlock()
			}
		})
	}
	for _, s := range chosen {
		queue <- s
	}
	close(queue)
	wg.Wait()
	if slices.Contains(o.Group, "faults") {
		fmt.Printf("survived %d of %d\n", passed, passed+failed)
	}
	fmt.Printf("%d passed, %d failed in %.0f s\n", passed, failed, time.Since(start).Seconds())
	return failed == 0, nil
}

// guestFiles hold functions for the scripts of scenarios.
//
//go:embed guest/*.sh
var guestFiles embed.FS

// newBench returns what all scenarios share; bin is where unlock and unlockctl are.
func newBench(bin string) (lab.Bench, error) {
	files, err := fs.Glob(guestFiles, "guest/*.sh")
	b := lab.Bench{Bin: bin}
	for _, name := range files {
		text, err := guestFiles.ReadFile(name)
		if err != nil {
			return b, err
		}
		b.Shell += string(text)
	}
	return b, err
}

// runOne runs the scenario, and begins again when QEMU itself crashes, which is no result.
func runOne(ctx context.Context, bench lab.Bench, s lab.Scenario) (*lab.Lab, error) {
	l, err := bench.Run(ctx, s)
	if errors.Is(err, vm.ErrCrashed) {
		fmt.Printf("again %-24s %v\n", s.Name, err)
		l, err = bench.Run(ctx, s)
	}
	return l, err
}

type group struct {
	name      string
	scenarios []lab.Scenario
}

// groups of scenarios, in the order in which they run.
var groups = []group{
	{"standalone", standalone},
	{"disks", slices.Concat(disks, swapped, many, elsewhere, recovering, powercuts)},
	{"volumes", slices.Concat(volumes, mirrors)},
	{"network", networks},
	{"trail", auditing},
	{"faults", slices.Concat(matrix(networkFaults, awsFaults, machineFaults), stalls)},
	{"secrets", secrets},
	{"attest", slices.Concat(attested, attestFaultScenarios(), measuring)},
	{"distributions", distributions},
	{"images-real", realImages()},
	{"generators", generatorScenarios()},
	{"images", slices.Concat(arm64, amis)},
}

// choose returns the scenarios of some groups, one group after the other, or of all if
// there are none, with these names, or with any if there are none.
func choose(of []string, names []string) ([]lab.Scenario, error) {
	var all []lab.Scenario
	if of == nil && len(names) == 1 && slices.ContainsFunc(groups, func(g group) bool { return g.name == names[0] }) {
		of, names = names, nil
	}
	if of == nil {
		for _, g := range groups {
			all = append(all, g.scenarios...)
		}
	}
	for _, name := range of {
		i := slices.IndexFunc(groups, func(g group) bool { return g.name == name })
		if i < 0 {
			return nil, fmt.Errorf("no group is named %q", name)
		}
		all = append(all, groups[i].scenarios...)
	}
	if len(names) == 0 {
		return all, nil
	}
	var chosen []lab.Scenario
	for _, name := range names {
		i := slices.IndexFunc(all, func(s lab.Scenario) bool { return s.Name == name })
		if i < 0 {
			return nil, fmt.Errorf("no scenario is named %q; --list prints the names", name)
		}
		chosen = append(chosen, all[i])
	}
	return chosen, nil
}
