// Package distro boots real distributions whose initramfs was made by their own
// generator with unlock's hook: scenarios for scripts/qemu-test. It makes the
// systems with mmdebstrap from the machine's own apt sources and keeps them in
// vm's cache; images are built in a chroot, which takes root. unlock and its hooks
// get there by "make install-hooks".
package distro

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"unlock/test/ec2sim"
	"unlock/test/vm"
)

// Scenario is a system, a generator, and what they are booted with.
type Scenario struct {
	Name     string
	suite    string   // of Debian
	packages string   // that bring the generator
	config   string   // shell: sets the generator up
	rebuild  string   // the distribution's command that rebuilds all images
	unlock   string   // its configuration; "": usualConfig, and all of the build is tried out
	disks    []int64  // instance-store disks, in MiB; nil: one of 64
	files    []string // in a copy of the system: PATH=TEXT
	boots    []boot
}

// boot is one start of the machine.
type boot struct {
	append string     // to the kernel command line
	fault  string     // of ec2sim
	typed  []vm.Typed // at the console
	spare  bool       // the copy with files is /dev/vdc, instead of being booted
	script string     // runs when the system is up; "": it must not come up, and the disks must stay as they are
	want   []string   // texts on the console
}

// Names returns the names of all scenarios.
func Names() []string {
	var names []string
	for _, s := range Scenarios {
		names = append(names, s.Name)
	}
	return names
}

// lab is a scenario being run.
type lab struct {
	Scenario
	dir     string
	system  system
	cloud   *ec2sim.Cloud
	key     string
	disksAt []vm.Disk
	spare   string // the copy of the system with the scenario's files; "": none
	console vm.Console
	all     vm.Console
	notes   []string
}

// Result of a scenario.
type Result struct {
	Summary string     // a line
	Console vm.Console // of all boots
}

// Run runs a scenario with bin/unlock, from the top of the source tree. The Result
// is valid, as far as it goes, even with an error.
func Run(ctx context.Context, s Scenario) (Result, error) {
	l := &lab{Scenario: s}
	err := l.run(ctx)
	return Result{Summary: strings.Join(l.notes, ", "), Console: l.all}, err
}

func (l *lab) run(ctx context.Context) (err error) {
	if os.Geteuid() != 0 {
		return errors.New("building an initramfs in a chroot takes root")
	}
	if l.dir, err = os.MkdirTemp("", "qemu-test-"); err != nil {
		return err
	}
	defer os.RemoveAll(l.dir)
	if l.cloud, err = ec2sim.New(ec2sim.Config{}); err != nil {
		return err
	}
	defer l.cloud.Close()
	l.key = l.cloud.CreateKey()
	if l.system, err = l.system.get(ctx, l.suite, l.packages); err != nil {
		return fmt.Errorf("making %s with %s: %w", l.suite, l.packages, err)
	}
	if err := errors.Join(l.makeDisks(), l.copySystem(ctx)); err != nil {
		return err
	}
	if err := l.build(ctx); err != nil {
		return fmt.Errorf("building images: %w", err)
	}
	for i, b := range l.boots {
		if err := l.boot(ctx, b); err != nil {
			return fmt.Errorf("boot %d: %w", i+1, err)
		}
	}
	return nil
}

func (l *lab) makeDisks() error {
	if l.disks == nil {
		l.disks = []int64{64}
	}
	for i, mib := range l.disks {
		file := l.file(fmt.Sprintf("nvme%d.img", i))
		if err := errors.Join(os.WriteFile(file, nil, 0o600), os.Truncate(file, mib<<20)); err != nil {
			return err
		}
		l.disksAt = append(l.disksAt, vm.Disk{File: file, Serial: vm.Serial(i)})
	}
	return nil
}

// boot starts the machine and judges what came of it.
func (l *lab) boot(ctx context.Context, b boot) error {
	var faults []string
	if b.fault != "" {
		faults = append(faults, b.fault)
	}
	if err := l.cloud.SetFaults(faults...); err != nil {
		return err
	}
	var before string // of no use where disks may change
	if b.script == "" {
		var err error
		if before, err = vm.Sums(l.disksAt); err != nil {
			return err
		}
	}
	root, disks := cmp.Or(l.spare, l.system.root), l.disksAt
	if b.spare {
		root, disks = l.system.root, append([]vm.Disk{{File: l.spare, Serial: "spare", Virtio: true, ReadOnly: true}}, disks...)
	}
	m := vm.Machine{
		Kernel: l.system.kernel, Initrd: l.image("with"), Root: root, Plug: l.cloud.Plug, Memory: 2048,
		Disks: disks, Script: up + b.script, Type: b.typed, Timeout: 15 * time.Minute,
		// On a busy host a machine without acceleration is slower than systemd expects of any.
		Append: "root=LABEL=" + vm.RootLabel + " rw systemd.show_status=1 systemd.default_timeout_start_sec=600" +
			" systemd.default_device_timeout_sec=600 " + b.append,
	}
	var err error
	l.console, err = m.Run(ctx)
	l.all = append(l.all, l.console...)
	if err != nil {
		return err
	}
	for _, want := range b.want {
		if !l.console.Contains(want) {
			return fmt.Errorf("the console does not show %q", want)
		}
	}
	switch {
	case l.console.Contains(passphrase):
		return errors.New("the console shows the passphrase")
	case b.script == "":
		return l.refused(before)
	case !l.console.Contains("script: exit 0"):
		return errors.New("the script in the running system did not succeed")
	}
	l.notes = append(l.notes, fmt.Sprintf("up in %.0f s", l.at("script: begin").Seconds()))
	return nil
}

// refused checks that the boot stopped and left the disks alone.
func (l *lab) refused(before string) error {
	after, err := vm.Sums(l.disksAt)
	switch {
	case err != nil:
		return err
	case after != before:
		return errors.New("a disk changed, though the boot was refused")
	case l.console.Contains("script: begin") || l.console.Contains("login:"):
		return errors.New("the system was started, though the boot was refused")
	}
	return nil
}

// at returns when the console showed text.
func (l *lab) at(text string) time.Duration {
	for _, line := range l.console {
		if strings.Contains(line.Text, text) {
			return line.At
		}
	}
	return 0
}

func (l *lab) file(name string) string { return filepath.Join(l.dir, name) }

// run runs a program and returns what it printed, both outputs together.
func run(ctx context.Context, env []string, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.WaitDelay = 5 * time.Second
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		lines := strings.Split(strings.TrimSpace(out.String()), "\n")
		return out.String(), fmt.Errorf("%s: %w: %s", name, err, strings.Join(lines[max(0, len(lines)-20):], "\n"))
	}
	return out.String(), nil
}
