// Command unlock opens, and where allowed formats, the LUKS volumes that
// /etc/unlock.toml describes, with passphrases that AWS KMS decrypts for the
// instance's role. It runs once, in the initramfs, before the root pivot.
//
//	unlock                 the volumes on disks
//	unlock mount NEWROOT   those in files of the new root, and all mounts
//	unlock needs           lists what an initramfs must contain, for its builders
//	unlock guard           in the real system: holds up a boot whose initramfs did not open
//	                       what is required (guard.go)
//	unlock early           the volumes on disks, but devices have settled only when unlock is run
//	                       beside it, which waits for it (early.go)
//	unlock cap             before a shell in an initramfs: closes the door behind keys that were
//	                       attested (cap.go), and returns when it is closed
//	unlock hold [UNIT]     in an initramfs with systemd: has what ends a failed boot there
//	                       wait until the volumes are open (hold.go)
//
// As process 1 of the standalone image it does both, and init's part around them.
//
// What a boot does is package boot. Here are the surroundings that it runs in
// (machine.go) and the process that keeps its secrets from outliving it (worker.go).
//
// Exit status: 0 done or nothing to do; 1 a required volume stayed locked;
// 2 bad configuration.
package main

import (
	"context"
	"io"
	"log"
	"os"

	"unlock/internal/block"
	"unlock/internal/boot"
	"unlock/internal/config"
	"unlock/internal/dm"
	"unlock/internal/initd"
)

// version is set by the linker.
var version = "devel"

const help = `unlock opens LUKS volumes in the initramfs of an EC2 instance: see unlock(8).
Usage: unlock | unlock mount NEWROOT | unlock needs | unlock guard
The administrator's tool is unlockctl. Version: `

func main() {
	log.SetOutput(io.Discard) // net/http reports odd answers there, quoting them
	os.Exit(int(run(os.Args[1:])))
}

func run(args []string) boot.Outcome {
	switch {
	case os.Getpid() == 1:
		return bootMachine()
	case len(args) > 0 && args[0] == workerMark:
		p := progress()
		return handOver(p, work(context.Background(), p, args[1:]))
	case len(args) == 1 && (args[0] == "help" || args[0] == "--help" || args[0] == "-h" || args[0] == "--version" || args[0] == "-v"):
		os.Stdout.WriteString(help + version + "\n")
		return boot.Done
	case len(args) == 1 && args[0] == "needs":
		return printNeeds(os.Stdout, config.DefaultFile)
	case len(args) == 1 && args[0] == "guard":
		return guardSystem()
	case len(args) == 1 && args[0] == "hold":
		return hold("")
	case len(args) == 2 && args[0] == "hold":
		return hold(args[1])
	case len(args) == 1 && args[0] == "cap":
		return supervisor(new(parent)).Close()
	case len(args) == 0:
		if outcome, ok := handOn(); ok {
			return outcome
		}
		return supervisor(&parent{began: started(), settle: settleDevices}).Run()
	case len(args) == 1 && args[0] == "early":
		return early()
	case len(args) == 2 && args[0] == "mount":
		s := supervisor(&parent{began: started()})
		if outcome := s.Run(args...); outcome != boot.Done {
			return outcome
		}
		return s.Close()
	}
	kernelLog.Failure(&config.Error{File: "unlock", Msg: "unknown arguments", Hint: "unlock takes no arguments, or: early, or: mount NEWROOT, or: needs, or: guard, or: cap, or: hold"})
	return boot.BadConfig
}

// work is what the worker does: one part of a boot.
func work(ctx context.Context, p *boot.Progress, args []string) boot.Outcome {
	m, err := machine()
	if err != nil {
		kernelLog.Failure(err)
		return boot.Locked
	}
	m.Progress = p
	defer os.Remove(dm.Nodes) // if it was needed at all
	if len(args) == 0 {
		m.Settled = settled()
		m.Network = networkAfter(m.Settled)
		return m.Disks(ctx)
	}
	return m.Files(ctx, args[1])
}

// bootMachine is the whole boot of the standalone image. It does not return.
func bootMachine() boot.Outcome {
	p := &parent{began: uptime()}
	if err := initd.Start(); err != nil {
		kernelLog.Failure(err) // the boot may do without; if not, it fails where it cannot
	}
	if end := kernelEnd(); end > 0 {
		p.began = min(p.began, end)
	}
	p.settle = func(n *noted) {
		if err := n.note("modules", initd.LoadModules); err != nil {
			kernelLog.Failure(err) // likewise
		}
	}
	cmdline, err := kernelCommandLine()
	if err != nil {
		kernelLog.Failure(err)
	}
	s := supervisor(p)
	_, panics := config.Setting(cmdline, "panic")
	s.Hold = !panics // initd.Halt obeys it
	outcome := s.Run()
	if outcome == boot.Done {
		if err := initd.MountRoot(context.Background(), &block.Finder{}, cmdline); err != nil {
			kernelLog.Failure(err)
			outcome = boot.Locked
		}
	}
	if outcome == boot.Done {
		outcome = s.Run("mount", initd.Root)
	}
	if outcome != boot.BadConfig { // by which no key was had
		if closed := s.Close(); outcome == boot.Done {
			outcome = closed
		}
	}
	if outcome == boot.Done {
		kernelLog.Failure(initd.SwitchRoot(cmdline)) // it returns only on failure
		outcome = boot.Locked
	}
	kernelLog.Errorf("exit status %d", outcome)
	initd.Halt(cmdline)
	return outcome
}
