package main

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"unlock/internal/aws"
	"unlock/internal/block"
	"unlock/internal/boot"
	"unlock/internal/config"
	"unlock/internal/confine"
	"unlock/internal/dm"
	"unlock/internal/ec2/tpm"
	"unlock/internal/hint"
	"unlock/internal/initd"
	"unlock/internal/netup"
	"unlock/internal/status"
	"unlock/internal/unlock"
)

// machine is this machine, for a part of the boot.
func machine() (*boot.Machine, error) {
	cmdline, err := kernelCommandLine()
	if err != nil {
		return nil, err
	}
	m := &boot.Machine{
		Version: version, Config: config.DefaultFile, Cmdline: cmdline, Status: status.DefaultFile, BootID: bootID(),
		Log: kernelLog, Prompt: prompt,
		Watch: (&block.Finder{}).Watch, Network: network, Kernel: unlock.Running{},
		TPM: func(ctx context.Context) (*tpm.TPM, error) {
			if err := resumes("/sys/power/disk"); err != nil {
				return nil, err
			}
			return tpm.Open(ctx, tpm.Device)
		},
		Restrict: confine.Syscalls, Confine: confineTo,
	}
	if began, err := strconv.ParseInt(os.Getenv(beganVariable), 10, 64); err == nil {
		m.Uptime = time.Duration(began)
		m.Began = time.Now().Add(m.Uptime - uptime())
	}
	return m, nil
}

// resumes returns an error if this kernel would go on with a system that hibernated, or
// with what root had on a disk that looks like one, before the image has done anything.
// The TPM would say of it that it is the image. An image that allows this gets no key in
// its first boot, so that it gets none ever. The file is the kernel's, which has none if
// it cannot hibernate.
func resumes(file string) error {
	state, err := os.ReadFile(file)
	if err != nil || strings.HasPrefix(string(state), "[disabled]") {
		return nil
	}
	return hint.New("this image would resume a system that hibernated, which could then ask for keys as if it were the image",
		"build the image with nohibernate on its kernel command line")
}

// supervisor has parts of the boot done by workers, and holds up a boot that fails, as
// the configuration says.
func supervisor(p *parent) *boot.Supervisor {
	s := &boot.Supervisor{Log: kernelLog, Work: p.work, Restart: initd.Restart, Hold: true, Every: config.DefaultRetry, Cap: p.close, Why: why}
	if cfg, err := config.Load(config.DefaultFile, ""); err == nil {
		s.Every = cfg.Retry
		if cfg.Shell {
			s.Shell = emergencyShell
		}
	}
	return s
}

// why says again what the last try failed in.
func why() {
	if b, err := status.Read(status.DefaultFile); err == nil && b.Error != "" {
		kernelLog.Failure(hint.With(errors.New(b.Error), b.Hint))
	}
}

// kernelCommandLine returns the kernel's, with unlock skipped where the kernel was
// started to write a crash dump: nothing must come before that.
func kernelCommandLine() (string, error) {
	data, err := os.ReadFile("/proc/cmdline")
	cmdline := string(data)
	if _, serr := os.Stat("/proc/vmcore"); serr == nil {
		kernelLog.Warnf("a crash dump is to be written: nothing is opened")
		cmdline += " rd.unlock=0"
	}
	return cmdline, err
}

// network brings the network up and says how.
func network(ctx context.Context, w boot.Wanted) (boot.Network, error) {
	return networkAfter(nil)(ctx, w)
}

// networkAfter is network while devices settle. Process 1, and so its worker, has no udev
// to wait for.
func networkAfter(settled <-chan struct{}) func(context.Context, boot.Wanted) (boot.Network, error) {
	if os.Getppid() == 1 {
		settled = nil
	}
	return func(ctx context.Context, w boot.Wanted) (boot.Network, error) { return bringUp(ctx, w, settled) }
}

func bringUp(ctx context.Context, w boot.Wanted, settled <-chan struct{}) (boot.Network, error) {
	o := netup.Options{
		Log: kernelLog.Warnf, Settled: settled,
		Reach: func(ctx context.Context, imds netip.Addr, dial netup.DialFunc) error {
			return w.Reach(ctx, imds, aws.Dialer(dial))
		},
		Early: func(n *netup.Network) { w.Early(n) },
	}
	if w.Debug {
		o.Debug = kernelLog.Warnf // to pass a quiet console
	}
	n, err := netup.Up(ctx, o)
	if err != nil {
		return nil, err
	}
	if n.Found {
		kernelLog.Infof("network: %s, configured already, by %s", n.Interface, n.Router)
	} else {
		kernelLog.Infof("network: %s %s by %s, DNS %v", n.Interface, n.Address, n.Router, n.DNS)
	}
	return n, nil
}

// confineTo leaves only these disks open to the process, and a directory for nodes of
// what is mapped from them.
func confineTo(disks []string) error {
	if err := os.MkdirAll(dm.Nodes, 0o700); err != nil {
		return err
	}
	return confine.Devices(disks, dm.Nodes)
}
