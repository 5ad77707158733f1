// Qemutest boots the standalone image in QEMU against a simulated EC2, one
// scenario after the other, and judges what the console, the disks and the
// simulated cloud saw. scripts/qemu-test builds what it needs and runs it.
package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/alecthomas/kong"

	"unlock/test/distro"
	"unlock/test/vm"
)

// parallel is how many machines run at a time.
const parallel = 2

type options struct {
	Group   string   `placeholder:"NAME" help:"Only scenarios of this group: standalone, disks, faults, secrets, distributions or images."`
	List    bool     `help:"Print the names of the scenarios."`
	Systems bool     `help:"Print the directories of the distributions' systems, which are made if need be."`
	Verbose bool     `short:"v" help:"Print every console, not only those of failures."`
	Soak    int      `placeholder:"BOOTS" help:"Boot one volume so often, each time under a fault that chance chooses."`
	Seed    uint64   `placeholder:"N" help:"Of chance; by default another each time."`
	Bin     string   `default:"bin" placeholder:"DIR" help:"Where unlock and unlockctl are."`
	Names   []string `arg:"" optional:"" name:"name" help:"Scenarios to run; all by default."`
}

func main() {
	var o options
	kong.Parse(&o, kong.Name("qemu-test"), kong.Description("Boot scenarios in QEMU."))
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ok, err := run(ctx, o)
	if err != nil {
		fmt.Fprintln(os.Stderr, "qemu-test:", err)
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
		chosen = soaks(o.Soak, o.Seed)
	}
	if o.List {
		for _, s := range chosen {
			fmt.Println(s.name)
		}
		return true, nil
	}
	if o.Systems {
		dirs, err := distro.Systems(ctx)
		fmt.Println(strings.Join(dirs, "\n"))
		return err == nil, err
	}
	kernel, err := vm.Kernel(ctx)
	if err != nil {
		return false, err
	}
	root, err := vm.RealRoot(ctx)
	if err != nil {
		return false, err
	}
	queue := make(chan scenario)
	var wg sync.WaitGroup
	var mu sync.Mutex
	var quiet sync.RWMutex
	passed, failed := 0, 0
	for range parallel {
		wg.Go(func() {
			for s := range queue {
				start := time.Now()
				l := &lab{scenario: s, kernel: kernel, root: root, bin: o.Bin}
				err := l.quietly(ctx, &quiet)
				mu.Lock()
				if err != nil {
					failed++
					fmt.Printf("FAIL  %-20s %5.1f s  %v\n", s.name, time.Since(start).Seconds(), err)
				} else {
					passed++
					fmt.Printf("ok    %-20s %5.1f s  %s\n", s.name, time.Since(start).Seconds(), l.summary())
				}
				if o.Verbose {
					fmt.Print(l.consoles)
				} else if err != nil {
					fmt.Print(l.console.Tail(40))
					l.printRequests()
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
	if o.Group == "faults" {
		fmt.Printf("survived %d of %d\n", passed, passed+failed)
	}
	fmt.Printf("%d passed, %d failed\n", passed, failed)
	return failed == 0, nil
}

// quietly runs the scenario while no other runs, if it is timed. It begins again when
// QEMU itself crashes, which is no result.
func (l *lab) quietly(ctx context.Context, quiet *sync.RWMutex) error {
	if l.timed {
		quiet.Lock()
		defer quiet.Unlock()
	} else {
		quiet.RLock()
		defer quiet.RUnlock()
	}
	fresh := *l
	err := l.run(ctx)
	if errors.Is(err, vm.ErrCrashed) {
		fmt.Printf("again %-20s %v\n", l.name, err)
		*l = fresh
		err = l.run(ctx)
	}
	return err
}

// groups of scenarios, in the order in which they run.
var groups = []struct {
	name      string
	scenarios []scenario
}{
	{"standalone", standalone},
	{"disks", slices.Concat(disks, many, volumes, recovering, powercuts)},
	{"faults", matrix(networkFaults, awsFaults, machineFaults)},
	{"secrets", secrets},
	{"distributions", distributions()},
	{"images", slices.Concat(arm64, amis)},
}

// choose returns the scenarios of a group, or of all if it is "", with these
// names, or with any if there are none.
func choose(group string, names []string) ([]scenario, error) {
	var all []scenario
	for _, g := range groups {
		if group == "" || group == g.name {
			all = append(all, g.scenarios...)
		}
		if group == "" && len(names) == 1 && names[0] == g.name {
			return g.scenarios, nil
		}
	}
	if all == nil {
		return nil, fmt.Errorf("no group is named %q", group)
	}
	if len(names) == 0 {
		return all, nil
	}
	var chosen []scenario
	for _, name := range names {
		i := slices.IndexFunc(all, func(s scenario) bool { return s.name == name })
		if i < 0 {
			return nil, fmt.Errorf("no scenario is named %q; --list prints the names", name)
		}
		chosen = append(chosen, all[i])
	}
	return chosen, nil
}
