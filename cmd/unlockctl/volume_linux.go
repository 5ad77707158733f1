package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"unlock/internal/block"
	"unlock/internal/boot"
	"unlock/internal/config"
	"unlock/internal/dm"
	"unlock/internal/ec2/tpm"
	"unlock/internal/netup"
	"unlock/internal/secret"
	"unlock/internal/status"
	"unlock/internal/unlock"
)

// What is done about a volume of the configuration in a system that is up: open, close,
// grow. What a boot does is package boot; here are the surroundings that it has after it.

// volumeFlags name the volume.
type volumeFlags struct {
	Volume string `arg:"" placeholder:"NAME" help:"Volume of the configuration."`
	Config string `default:"${config}" placeholder:"FILE" help:"Configuration (${config})."`
}

// openFlags are for what may have to wait.
type openFlags struct {
	volumeFlags
	Timeout time.Duration `default:"1m" placeholder:"DURATION" help:"For everything that waits: disks, IMDS, AWS (1m)."`
	Debug   bool          `help:"Print each step and how long it took."`
}

type openCmd struct {
	openFlags
	Format bool `help:"Format it, if its disks are blank and the configuration says that a boot would."`
}

// Run opens and mounts a volume as a boot does.
func (c *openCmd) Run(ctx context.Context, con console) error {
	return c.run(ctx, con, func(ctx context.Context, m *boot.Machine) boot.Outcome { return m.Open(ctx, c.Volume, c.Format) })
}

type growCmd struct{ openFlags }

// Run has a volume take the room that its disk has got.
func (c *growCmd) Run(ctx context.Context, con console) error {
	return c.run(ctx, con, func(ctx context.Context, m *boot.Machine) boot.Outcome { return m.Grow(ctx, c.Volume) })
}

type joinCmd struct {
	openFlags
	Device string `arg:"" optional:"" placeholder:"DEVICE" help:"The disk; by default the only one of the volume's that may be meant."`
}

// Run has a disk take part in a mirror.
func (c *joinCmd) Run(ctx context.Context, con console) error {
	return c.run(ctx, con, func(ctx context.Context, m *boot.Machine) boot.Outcome { return m.Join(ctx, c.Volume, c.Device) })
}

func (c *openFlags) run(ctx context.Context, con console, do func(context.Context, *boot.Machine) boot.Outcome) error {
	if _, _, err := c.find(); err != nil {
		return err
	}
	release, err := lockVolumes(ctx, con)
	if err != nil {
		return err
	}
	defer release()
	m, err := c.machine(ctx, con)
	if err != nil {
		return err
	}
	defer os.Remove(dm.Nodes) // if it was needed at all
	switch do(ctx, m) {
	case boot.Done:
		return nil
	case boot.BadConfig:
		return errMistaken // of which all is said
	}
	return errFound
}

// find returns the volume and the configuration that it is in.
func (f *volumeFlags) find() (*config.Volume, *config.Config, error) {
	cfg, err := config.Load(f.Config, "")
	if err != nil {
		return nil, nil, err
	}
	var names []string
	for i := range cfg.Volumes {
		if cfg.Volumes[i].Name == f.Volume {
			return &cfg.Volumes[i], cfg, nil
		}
		names = append(names, cfg.Volumes[i].Name)
	}
	return nil, nil, usage(fmt.Sprintf("%s has no volume %q", f.Config, f.Volume), "it has "+strings.Join(names, ", "))
}

// lockVolumes keeps others from opening or closing volumes until release: two that
// format at once would get into each other's way. It goes with the process.
func lockVolumes(ctx context.Context, con console) (release func(), err error) {
	if os.Geteuid() != 0 {
		return nil, fmt.Errorf("mapping volumes: %w", os.ErrPermission)
	}
	file := filepath.Join(filepath.Dir(status.DefaultFile), "lock")
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(file, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	for told := false; ; told = true {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			f.Close()
			return nil, fmt.Errorf("locking %s: %w", file, err)
		}
		if !told {
			con.note("waiting for another unlockctl to end")
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			f.Close()
			return nil, context.Cause(ctx)
		}
	}
}

// opened is the directory, beside a boot's record, of those of what was done about single
// volumes after it.
const opened = "opened"

func openedFile(volume string) string {
	return filepath.Join(filepath.Dir(status.DefaultFile), opened, volume+".json")
}

// machine is this machine, after its boot.
func (c *openFlags) machine(ctx context.Context, con console) (*boot.Machine, error) {
	kernel, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return nil, err
	}
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return nil, err
	}
	cmdline := "rd.unlock.timeout=" + c.Timeout.String()
	if root, ok := config.Setting(string(kernel), "root"); ok { // which is not formatted
		cmdline += fmt.Sprintf(" root=%q", root)
	}
	if c.Debug {
		cmdline += " rd.unlock.debug"
	}
	return &boot.Machine{
		Version: version, Config: c.Config, Cmdline: cmdline, Status: openedFile(c.Volume), BootID: strings.TrimSpace(string(id)),
		Log:    con.log(ctx),
		Prompt: func(question string) (*secret.Bytes, error) { return con.ask(ctx, question) },
		Watch:  (&block.Finder{}).Watch, Network: usual, Kernel: unlock.Running{},
		TPM: func(ctx context.Context) (*tpm.TPM, error) { return tpm.Open(ctx, tpm.Device) },
	}, nil
}

// log says what a boot would say on the console. Of who interrupts it, nothing more is
// said than that.
func (c console) log(ctx context.Context) boot.Logger {
	return func(l boot.Level, line string) {
		switch {
		case l == boot.LevelError && ctx.Err() != nil:
		case l == boot.LevelError && !strings.HasPrefix(line, "hint: "):
			fmt.Fprintln(c.err, "unlockctl:", line)
		case l == boot.LevelInfo:
			fmt.Fprintln(c.out, line)
		default:
			fmt.Fprintln(c.err, line)
		}
	}
}

// usualNetwork is that of the system, which is left as it is.
type usualNetwork struct{ net.Dialer }

func (n *usualNetwork) Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	return n.DialContext(ctx, network, addr)
}

// Families tells by the addresses that reach beyond their link.
func (n *usualNetwork) Families() (four, six bool) {
	addrs, _ := net.InterfaceAddrs()
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().IsGlobalUnicast() {
			four, six = four || p.Addr().Is4(), six || p.Addr().Is6()
		}
	}
	return four, six
}

func (n *usualNetwork) Rinse(context.Context) {}

func (n *usualNetwork) Down() error { return nil }

// again is how long an IMDS that does not answer is left alone.
const again = time.Second

// usual returns the network of the system once IMDS is reached through it: over IPv4 and
// IPv6 in turn, until ctx ends.
func usual(ctx context.Context, w boot.Wanted) (boot.Network, error) {
	n := &usualNetwork{}
	w.Early(n)
	var errs error
	for i := 0; ; i++ {
		at := []netip.Addr{netup.IMDS4, netup.IMDS6}[i%2]
		patience, cancel := context.WithTimeout(ctx, 2*again)
		err := w.Reach(patience, at, nil) // nil: marked as who may ask it, where only those may
		cancel()
		if err == nil {
			return n, nil
		}
		if i < 2 {
			errs = errors.Join(errs, fmt.Errorf("asking %v: %w", at, err))
		}
		select {
		case <-time.After(again):
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: %w", netup.ErrNoIMDS, errs)
		}
	}
}

// names of the mappings that a volume may have, its own first: also those of the members
// of a stripe, and of a mirror their parts.
func mappingNames(v *config.Volume) []string {
	names := v.Names()
	if v.Layout != config.LayoutSeparate && !v.Device.Single() {
		for i := range 32 {
			name := fmt.Sprintf("%s_%d", v.Name, i)
			if v.Layout != config.LayoutStripe {
				names = append(names, name+"_meta", name+"_data")
			}
			names = append(names, name)
		}
	}
	return names
}
