package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"unlock/internal/block"
	"unlock/internal/config"
	"unlock/internal/confine"
	"unlock/internal/dm"
	"unlock/internal/hint"
	"unlock/internal/luks"
	"unlock/internal/plan"
	"unlock/internal/secret"
	"unlock/internal/status"
	"unlock/internal/unlock"
)

// boot is one run: the volumes on disks, those in files of the new root, and
// the mounts, in this order; or only a part of it where the distribution's
// initramfs does the rest.
type boot struct {
	cfg    *config.Config
	rec    *status.Recorder
	report *status.Boot
	cloud  *cloud
	reboot bool // a volume that failed says so
	stop   bool // another one says otherwise
	done   bool // an earlier part has told so
}

// begin reads the configuration; before is what an earlier part of the boot left,
// or nil. The returned context ends with the configured deadline; end must be
// called even after an error.
func begin(ctx context.Context, cmdline string, before *status.Boot) (*boot, context.Context, error) {
	s := &boot{rec: status.NewRecorder(), report: &status.Boot{Version: version, Result: status.ResultNothing}}
	if before != nil {
		s.rec, s.report = status.Continue(before), before
		s.done = before.Result == status.ResultDone
	}
	cfg, err := config.Load(config.DefaultFile, cmdline)
	if err != nil {
		return s, ctx, err
	}
	s.cfg = cfg
	s.report.BootID, s.report.ConfigSum = bootID(), cfg.Sum
	if err := secret.Harden(); err != nil {
		return s, ctx, err
	}
	s.confined(confine.Syscalls())
	ctx, cancel := context.WithTimeout(ctx, cfg.Timeout)
	s.cloud = &cloud{cfg: cfg, rec: s.rec, cancel: cancel}
	return s, ctx, nil
}

// end wipes keys, takes the network down, and leaves the status file.
func (s *boot) end(err error) {
	if s.cloud != nil {
		s.cloud.close()
	}
	if err != nil {
		s.report.Result = status.ResultFailed
		s.report.Error, s.report.Hint = err.Error(), hint.Of(err)
	}
	s.report.PeakRSS = max(s.report.PeakRSS, peakRSS())
	s.rec.Fill(s.report)
	if s.cfg != nil && s.cfg.Debug {
		for _, step := range s.report.Steps { // as warnings, to pass a quiet console
			logf(levelWarning, "step %s %s: from %.3f s, %.3f s %s", step.Name, step.Subject,
				time.Duration(step.Start).Seconds(), time.Duration(step.Duration).Seconds(), step.Error)
		}
	}
	if werr := status.Write(status.DefaultFile, s.report); werr != nil {
		complain(werr) // the volumes are what they are
	}
	_ = os.Remove(dm.Nodes) // if it was needed at all
	if s.report.Result == status.ResultDone && !s.done {
		logf(levelInfo, "done in %.3f s", time.Duration(s.report.Duration).Seconds())
	}
}

// disks does the volumes on disks.
func (s *boot) disks(ctx context.Context) error {
	if s.cfg.Skip {
		logf(levelWarning, "skipped (rd.unlock=0)")
		return nil
	}
	search := unlock.Search{Config: s.cfg, Finder: &block.Finder{}, Active: s.active(),
		Mapping: s.cloud.blockDevices, Promising: func() { s.cloud.start(ctx) }, Waiting: waiting}
	var p *plan.Plan
	err := s.rec.Step("disks", "", func() (err error) {
		p, err = search.Run(ctx)
		return err
	})
	if err != nil {
		return err
	}
	if len(p.Absent) == len(s.cfg.Volumes) && len(p.Refusals) == 0 {
		logf(levelInfo, "no disk for any volume: nothing to do")
	}
	s.confineTo(p)
	return s.apply(ctx, p)
}

// waiting tells what the boot waits for, lest it seem to hang.
func waiting(volumes []*config.Volume) {
	for _, v := range volumes {
		logf(levelWarning, "volume %q: waiting for device %s", v.Name, v.Device)
	}
}

// active returns the UUIDs of those mappings that have the names we would use.
// Where device-mapper is not there, creating them will say so.
func (s *boot) active() map[string]string {
	found := map[string]string{}
	for _, v := range s.cfg.Volumes {
		for _, name := range v.Names() {
			if d, ok, err := dm.Lookup(name); err == nil && ok {
				found[name] = d.UUID
			}
		}
	}
	return found
}

// files does the volumes that lie in files of the new root.
func (s *boot) files(ctx context.Context, newroot string) error {
	if s.cfg.Skip {
		return nil
	}
	return s.apply(ctx, unlock.Files(s.cfg, luks.Limits{}, newroot))
}

// mount mounts all volumes below the new root.
func (s *boot) mount(newroot string) error {
	if s.cfg.Skip {
		return nil
	}
	return unlock.Mount(s.cfg, s.report, newroot, func(err error) { complain(err) })
}

// apply carries out a plan, or stops at its refusals.
func (s *boot) apply(ctx context.Context, p *plan.Plan) error {
	if err := s.refused(p); err != nil || len(p.Steps) == 0 {
		return err
	}
	s.report.Result = status.ResultDone
	for _, step := range p.Steps {
		logf(levelInfo, "volume %q: %s %s", step.Name, step.Action(), step.DiskList())
	}
	a := unlock.Apply{Rec: s.rec, Ask: ask, Log: func(format string, args ...any) { logf(levelInfo, format, args...) }}
	if p.NeedsKey() {
		s.cloud.start(ctx)
		a.Keys = s.cloud.keys()
	}
	return s.reported(a.Run(ctx, p))
}

// refused tells of all refusals and returns those that stop the boot.
func (s *boot) refused(p *plan.Plan) error {
	var errs []error
	for _, r := range p.Refusals {
		s.report.Volumes = append(s.report.Volumes, status.Volume{Name: r.Volume.Name, Action: "refused", Devices: r.Devices, Error: r.Error()})
		errs = append(errs, s.failed(r.Volume, r))
	}
	return hint.All(errs...)
}

// reported puts the results into the status and returns the failures that stop
// the boot.
func (s *boot) reported(results []unlock.Result) error {
	var errs []error
	for _, r := range results {
		v := status.Volume{Name: r.Step.Name, Action: r.Step.Action(), KMSKey: r.KMSKey}
		for _, m := range r.Step.Members {
			v.Devices = append(v.Devices, m.Disk.Path)
			v.UUIDs = append(v.UUIDs, m.UUID)
		}
		if r.Err == nil {
			v.Mapping = r.Device.Path()
			logf(levelInfo, "volume %q: %s is ready", r.Step.Name, v.Mapping)
		} else {
			v.Action, v.Error = "failed", r.Err.Error()
			errs = append(errs, s.failed(r.Step.Volume, r.Err))
		}
		s.report.Volumes = append(s.report.Volumes, v)
	}
	return hint.All(errs...)
}

// failed returns the error if the volume is required; otherwise it only tells.
func (s *boot) failed(v *config.Volume, err error) error {
	if !v.Required {
		complain(err)
		s.report.Result = status.ResultDone
		return nil
	}
	if v.OnFailure == config.FailReboot {
		s.reboot = true
	} else {
		s.stop = true
	}
	return err
}

// finish tells why a run failed, and returns an errReboot if every volume that
// failed asks for it.
func (s *boot) finish(err error) error {
	if err == nil {
		return nil
	}
	complain(err)
	if s.reboot && !s.stop {
		return fmt.Errorf("%w: %w", errReboot, err)
	}
	return err
}

var errReboot = errors.New("rebooting (on_failure = \"reboot\")")

// reboot reboots the machine, after a minute or two that spare AWS a stampede. It
// returns if it cannot.
func reboot() {
	wait := time.Minute + rand.N(time.Minute)
	logf(levelError, "rebooting in %.0f s (on_failure = \"reboot\")", wait.Seconds())
	<-time.After(wait)
	unix.Sync()
	if err := unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART); err != nil {
		logf(levelError, "rebooting: %v", err)
	}
}
