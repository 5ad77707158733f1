package main

import (
	"context"
	"errors"
	"os"
	"strconv"
	"strings"
	"time"

	"unlock/internal/block"
	"unlock/internal/config"
	"unlock/internal/secret"
	"unlock/internal/status"
	"unlock/internal/unlock"
)

// unlockVolumes finds the disks, gets the keys, and maps the volumes; whatever
// the end, it leaves a status file.
func unlockVolumes(ctx context.Context, cmdline string) error {
	rec := status.NewRecorder()
	report := &status.Boot{Version: version}
	err := unlockAll(ctx, cmdline, rec, report)
	if err != nil {
		report.Result = status.ResultFailed
		report.Error, report.Hint = err.Error(), unlock.Hint(err)
	}
	report.PeakRSS = peakRSS()
	rec.Fill(report)
	if werr := status.Write(status.DefaultFile, report); werr != nil {
		complain(werr) // the volumes are what they are
	}
	if report.Result == status.ResultDone && err == nil {
		logf(levelInfo, "done in %.3f s", time.Duration(report.Duration).Seconds())
	}
	return err
}

func unlockAll(ctx context.Context, cmdline string, rec *status.Recorder, report *status.Boot) error {
	cfg, err := config.Load(config.DefaultFile, cmdline)
	if err != nil {
		return err
	}
	report.Result = status.ResultNothing
	if cfg.Skip {
		logf(levelWarning, "skipped (rd.unlock=0)")
		return nil
	}
	if err := secret.Harden(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, cfg.Timeout)
	defer cancel()
	cloud := &cloud{cfg: cfg, rec: rec}
	defer cloud.close()

	search := unlock.Search{Config: cfg, Finder: &block.Finder{}, Promising: func() { cloud.start(ctx) }}
	var plan *unlock.Plan
	err = rec.Step("disks", "", func() error {
		plan, err = search.Run(ctx)
		return err
	})
	if err != nil {
		return err
	}
	if err := refused(plan, report); err != nil {
		return err
	}
	if len(plan.Steps) == 0 {
		logf(levelInfo, "no disk for any volume: nothing to do")
		return nil
	}
	for _, s := range plan.Steps {
		logf(levelInfo, "volume %q: %s %s", s.Name, s.Action(), s.DiskList())
	}
	results, err := apply(ctx, cloud, plan, rec)
	report.Result = status.ResultDone
	return errors.Join(err, reported(results, report))
}

// apply gets the network going if any step needs a key from AWS.
func apply(ctx context.Context, c *cloud, plan *unlock.Plan, rec *status.Recorder) ([]unlock.Result, error) {
	a := unlock.Apply{Rec: rec, Log: func(format string, args ...any) { logf(levelInfo, format, args...) }}
	if needsCloud(plan) {
		c.start(ctx)
		client, err := c.wait()
		if err != nil {
			return nil, err
		}
		a.Keys = client
	}
	return a.Run(ctx, plan), nil
}

func needsCloud(p *unlock.Plan) bool {
	for _, s := range p.Steps {
		if !s.Active && s.Volume.Key.Source != config.SourceEphemeral {
			return true
		}
	}
	return false
}

// refused tells of all refusals and returns those that stop the boot.
func refused(plan *unlock.Plan, report *status.Boot) error {
	var errs []error
	for _, r := range plan.Refusals {
		report.Volumes = append(report.Volumes, status.Volume{Name: r.Volume.Name, Action: "refused", Devices: r.Devices, Error: r.Error()})
		if r.Volume.Required {
			errs = append(errs, r)
		} else {
			complain(r)
		}
	}
	return errors.Join(errs...)
}

// reported puts the results into the status and returns the failures that stop
// the boot.
func reported(results []unlock.Result, report *status.Boot) error {
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
			if r.Step.Volume.Required {
				errs = append(errs, r.Err)
			} else {
				complain(r.Err)
			}
		}
		report.Volumes = append(report.Volumes, v)
	}
	return errors.Join(errs...)
}

// peakRSS is the largest resident set of this process so far, in bytes
// (proc(5), VmHWM); 0 if unknown.
func peakRSS() int64 {
	data, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(data)) {
		if value, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kib, _ := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(value), "kB")), 10, 64)
			return kib << 10
		}
	}
	return 0
}
