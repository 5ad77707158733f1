// Package boot is what one boot does, from reading the configuration to leaving its
// status: find the disks, have a plan made (package plan), get network and keys while
// they are awaited, have the plan carried out (package unlock), mount, and say what the
// failure policy asks for where a volume stays locked.
//
// It runs in parts, since an initramfs mounts the root file system in between: Disks
// before that, Files after it. Each leaves the record from which the next goes on. A
// Supervisor has them run in a process of their own and does what they ask for. In a
// system that is up, Open and Grow do one volume.
//
// What a boot touches is handed in as a Machine. It prints nothing and ends no process.
package boot

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"unlock/internal/aws"
	"unlock/internal/block"
	"unlock/internal/config"
	"unlock/internal/ec2/tpm"
	"unlock/internal/hint"
	"unlock/internal/keys"
	"unlock/internal/luks"
	"unlock/internal/plan"
	"unlock/internal/secret"
	"unlock/internal/status"
	"unlock/internal/unlock"
)

// Machine is what a boot finds around it. Fields without a comment that says what nil
// means must be set. Time is package time's: tests run in bubbles of testing/synctest.
type Machine struct {
	Version string // of this program
	Config  string // file of the configuration
	Cmdline string // the kernel's
	Status  string // file of the record
	BootID  string // the kernel's name for this boot (random(4))

	// Began is when this part was asked for, with which its steps begin; zero: now. Uptime
	// is how long the kernel had run then; 0: not known.
	Began  time.Time
	Uptime time.Duration

	Log Logger
	// Prompt asks the operator, who may take for ever; the caller wipes the answer.
	Prompt func(question string) (*secret.Bytes, error)
	// Watch lists and awaits disks as block.Finder does.
	Watch func(ctx context.Context, look func(disks []block.Disk, settled bool) (done bool)) error
	// Network brings a network up, or finds one.
	Network func(ctx context.Context, w Wanted) (Network, error)
	// TPM opens the TPM; nil: there is none.
	TPM    func(ctx context.Context) (*tpm.TPM, error)
	Kernel unlock.Kernel
	// Settled is closed once the devices that there were at first have drivers and udev
	// has dealt with them; nil: that is so. Before, nothing is decided and nothing written.
	Settled  <-chan struct{}
	Progress *Progress // nil: nobody watches over what cannot be interrupted
	// Restrict takes from the process what it has no use for, and Confine all disks but
	// these, for good; nil: nothing is taken. After Confine nothing can be mounted.
	Restrict func() error
	Confine  func(disks []string) error
}

// Wanted is what a boot wants of a network.
type Wanted struct {
	Debug bool // each step is to be told
	// Reach asks the metadata service at this address, unless another is configured,
	// by a way to try; nil says that it answers, once: the network is the one of that
	// way.
	Reach func(ctx context.Context, imds netip.Addr, dial aws.Dialer) error
	// Early is called once Dial can be tried, which may be before the network is known
	// to be the right one.
	Early func(Network)
}

// Network is a network that is up.
type Network interface {
	// Dial resolves and connects.
	Dial(ctx context.Context, network, addr string) (net.Conn, error)
	// Families tells whether there is IPv4, and IPv6.
	Families() (four, six bool)
	// Rinse has what was received last overwritten.
	Rinse(ctx context.Context)
	// Down undoes what was done to bring it up.
	Down() error
}

// Disks does the volumes on disks. It reports failures by itself.
func (m *Machine) Disks(ctx context.Context) Outcome {
	p := m.part()
	return p.run(ctx, p.disks)
}

// part returns a part that begins a record, when it was asked for.
func (m *Machine) part() *part {
	began := m.began()
	return &part{Machine: m, began: began, rec: status.RecorderFrom(began),
		report: &status.Boot{Version: m.Version, Began: status.Millis(m.Uptime), Result: status.ResultNothing}}
}

func (m *Machine) began() time.Time {
	if m.Began.IsZero() {
		return time.Now()
	}
	return m.Began
}

// goOn returns a part that goes on with the record of the one before. The clock on the
// wall may have been set since: where it is known how long the kernel had run then, that
// says how long ago the boot began.
func (m *Machine) goOn(before *status.Boot) *part {
	began := m.began()
	if before.Began > 0 && m.Uptime > 0 {
		before.Started = began.Add(time.Duration(before.Began) - m.Uptime)
	}
	p := &part{Machine: m, began: began, rec: status.Continue(before), report: before}
	what := "root"
	if before.Result == status.ResultFailed {
		what = "held up"
	}
	p.rec.Took(what, before.Started.Add(time.Duration(before.Duration)), began)
	return p
}

// Files goes on where Disks ended: it does the volumes in files of the new root, and
// mounts all below it.
func (m *Machine) Files(ctx context.Context, newroot string) Outcome {
	before, err := status.Read(m.Status)
	if err != nil {
		m.Log.Failure(err)
		return Locked
	}
	p := m.goOn(before)
	again(before)
	p.done = before.Result == status.ResultDone
	return p.run(ctx, func(ctx context.Context) error {
		if !p.cfg.Skip {
			if err := p.files(ctx, newroot); err != nil {
				return err
			}
		}
		return p.mount(ctx, newroot)
	})
}

// again takes from a record what an earlier try of the same part left there.
func again(b *status.Boot) {
	if b.Result != status.ResultFailed {
		return
	}
	b.Result, b.Error, b.Hint = status.ResultDone, "", ""
	b.Volumes = slices.DeleteFunc(b.Volumes, func(v status.Volume) bool { return v.Mapping == "" && v.Action != status.ActionAbsent })
}

// closing is for taking the network down and leaving the status.
const closing = 10 * time.Second

// part is a part of a boot.
type part struct {
	*Machine
	began   time.Time
	cfg     *config.Config  // nil until it was read
	before  []config.Volume // that it is not about; see after.go
	rec     *status.Recorder
	report  *status.Boot
	done    bool // the part before has said that the boot is done
	cloud   *cloud
	applied bool // a plan was, which takes secrets
	policy  policy
	asking  sync.Mutex // one volume at a time
	after   bool       // it is about one volume, after the boot; see after.go
	enlarge bool       // what is mapped already gets the size that its disk has now
	given   given
}

// run does a part within the deadline, and leaves the status whatever happens.
func (p *part) run(ctx context.Context, do func(context.Context) error) Outcome {
	err := p.prepare()
	p.rec.Took("starting", p.began, time.Now())
	if err == nil {
		p.watched()
		p.cloud = &cloud{Machine: p.Machine, cfg: p.cfg, rec: p.rec}
		early, stop := context.WithCancelCause(ctx)
		p.settle(early)
		settled := processorTime()
		ctx, cancel := context.WithTimeout(ctx, p.cfg.Timeout)
		late := context.AfterFunc(ctx, func() { stop(context.DeadlineExceeded) })
		if err = do(ctx); err != nil || !p.cloud.used.Load() {
			cancel() // of no use any more, if it is still coming up
		}
		p.Progress.deadline(closing) // no disk is asked for anything any more
		if p.cloud.ready != nil {
			_ = p.rec.Step("closing", "", p.cloud.close)
		}
		if p.cloud.instance != nil {
			p.report.Instance = p.cloud.instance
		}
		if m := p.cloud.attestation.measured(); m != nil {
			p.report.Attested = m
		}
		p.report.CPU += status.Millis(processorTime() - settled)
		late()
		cancel()
		stop(nil)
	}
	p.end(err)
	if err != nil {
		p.Log.Failure(err)
	}
	if p.cloud == nil || p.cloud.ready == nil && !p.applied {
		p.Progress.innocent()
	}
	return p.policy.outcome(err)
}

// settling is how much longer it may take until devices have settled than they are
// waited for.
const settling = time.Minute

// settle returns when devices have settled: only then does the deadline begin. Meanwhile
// the network comes up and connections are opened, if the disks of a volume are there; ctx
// ends that. Keys that are attested have to wait, as the TPM may have no driver yet.
func (p *part) settle(ctx context.Context) {
	if p.Settled == nil || p.cfg.Skip {
		return
	}
	p.Progress.deadline(p.cfg.Timeout + settling)
	_ = p.rec.Step("settling", "", func() error {
		glance, cancel := context.WithCancel(ctx)
		defer cancel()
		go func() {
			<-p.Settled
			p.Progress.deadline(p.cfg.Timeout) // also where a disk does not let go of who looks at it
			cancel()
		}()
		if !p.cfg.Attests() {
			p.searching(ctx).Glance(glance)
		}
		<-glance.Done()
		return nil
	})
}

// prepare reads the configuration and limits what the process can do.
func (p *part) prepare() error {
	cfg, err := config.Load(p.Config, p.Cmdline)
	if err != nil {
		return err
	}
	p.cfg = cfg
	p.report.BootID, p.report.ConfigSum = p.BootID, cfg.Sum
	if err := secret.Harden(); err != nil {
		return err
	}
	if p.Restrict != nil {
		p.confined(p.Restrict())
	}
	return nil
}

// end leaves the status.
func (p *part) end(err error) {
	if err != nil {
		p.report.Result = status.ResultFailed
		p.report.Error, p.report.Hint = err.Error(), hint.Of(err)
	}
	p.report.PeakRSS = max(p.report.PeakRSS, Resident("self", "VmHWM"))
	p.rec.Fill(p.report)
	if p.cfg != nil && p.cfg.Debug {
		for _, step := range p.report.Steps { // as warnings, to pass a quiet console
			p.Log.Warnf("step %s %s: from %.3f s, %.3f s %s", step.Name, step.Subject,
				time.Duration(step.Start).Seconds(), time.Duration(step.Duration).Seconds(), step.Error)
		}
	}
	if err == nil || !p.after { // else what was done before stays on record
		if err := status.Write(p.Status, p.report); err != nil {
			p.Log.Failure(err) // the volumes are what they are
		}
	}
	if p.report.Result == status.ResultDone && !p.done {
		p.Log.Infof("done in %.3f s", time.Duration(p.report.Duration).Seconds())
	}
}

// disks does the volumes on disks.
func (p *part) disks(ctx context.Context) error {
	if p.cfg.Skip {
		p.Log.Warnf("skipped (rd.unlock=0)")
		return nil
	}
	found, err := p.search(ctx)
	if err != nil {
		return err
	}
	if len(found.Absent) == len(p.cfg.Volumes) && len(found.Refusals) == 0 {
		p.Log.Infof("no disk for any volume: nothing to do")
	}
	for _, v := range found.Absent {
		if !v.Required || v.MayBeAbsent {
			p.report.Volumes = append(p.report.Volumes, status.Volume{Name: v.Name, Action: status.ActionAbsent})
		}
	}
	stops := slices.ContainsFunc(found.Refusals, func(r *plan.Refusal) bool { return r.Volume.Required })
	if p.cfg.Attests() && found.NeedsKey() && !stops {
		p.cloud.start(ctx)
		p.cloud.attestation.awaitTPM() // which is out of reach afterwards
	}
	p.confineTo(found)
	return p.apply(ctx, found)
}

// search finds the disks and plans for them.
func (p *part) search(ctx context.Context) (found *plan.Plan, err error) {
	search := p.searching(ctx)
	search.Waiting = p.waiting
	err = p.rec.Step("disks", "", func() (err error) {
		found, err = search.Run(ctx)
		return err
	})
	return found, err
}

// searching starts the network when disks are promising.
func (p *part) searching(ctx context.Context) *unlock.Search {
	return &unlock.Search{Config: p.cfg, Before: p.before, Rec: p.rec, Watch: p.Watch, Active: p.active(),
		Mapping: p.cloud.blockDevices, Promising: func() { p.cloud.start(ctx) }}
}

// waiting reports what the boot waits for, lest it seem to hang.
func (p *part) waiting(volumes []*config.Volume) {
	for _, v := range volumes {
		p.Log.Warnf("volume %q: waiting for device %s", v.Name, v.Device)
	}
}

// active returns the UUIDs of those mappings that have the names we would use.
// Where device-mapper is not there, creating them will say so.
func (p *part) active() map[string]string {
	found := map[string]string{}
	for _, v := range p.cfg.Volumes {
		for _, name := range v.Names() {
			if d, ok, err := p.Kernel.Lookup(name); err == nil && ok {
				found[name] = d.UUID
			}
		}
	}
	return found
}

// files does the volumes that lie in files of the new root.
func (p *part) files(ctx context.Context, newroot string) error {
	return p.apply(ctx, p.attach(p.Kernel, newroot))
}

// attach plans for the volumes that lie in files.
func (p *part) attach(k unlock.Kernel, newroot string) (found *plan.Plan) {
	_ = p.rec.Step("attach", "", func() error {
		found = unlock.Files(p.cfg, k, p.active(), luks.Limits{}, newroot)
		return nil
	})
	return found
}

// apply carries out a plan, or stops at its refusals.
func (p *part) apply(ctx context.Context, decided *plan.Plan) error {
	if err := p.refused(decided); err != nil || len(decided.Steps) == 0 {
		return err
	}
	p.report.Result = status.ResultDone
	for _, step := range decided.Steps {
		p.Log.Infof("volume %q: %s %s", step.Name, step.Action(), step.DiskList())
	}
	p.pending(decided)
	a := unlock.Apply{Rec: p.rec, Ask: p.ask, Log: p.Log.Infof, Kernel: p.Kernel, Ended: p.ended}
	if decided.NeedsKey() {
		p.cloud.start(ctx)
		a.Keys = p.cloud.keys()
	}
	if a.Enlarge = p.enlarge; p.enlarge { // then it turns out whether there is need of a key
		a.Keys = func(ctx context.Context, w keys.Want) (keys.Got, error) {
			p.cloud.start(ctx)
			return p.cloud.keys()(ctx, w)
		}
	}
	p.applied = true
	return p.results(a.Run(ctx, decided))
}

// ask says why and asks for a recovery passphrase, which the caller wipes.
func (p *part) ask(volume string, why error) (answer *secret.Bytes, err error) {
	p.asking.Lock()
	defer p.asking.Unlock()
	p.Log.Failure(why)
	p.Progress.asking()
	defer p.Progress.deadline(p.cfg.Timeout) // anew, for what comes of the answer
	err = p.rec.Step("asking", volume, func() (err error) {
		answer, err = p.Prompt(fmt.Sprintf("Recovery passphrase for volume %s:", volume))
		return err
	})
	return answer, err
}

// refused records all refusals and returns those that stop the boot.
func (p *part) refused(decided *plan.Plan) error {
	var errs []error
	for _, r := range decided.Refusals {
		p.report.Volumes = append(p.report.Volumes, status.Volume{Name: r.Volume.Name, Action: "refused", Devices: r.Devices, Error: r.Error()})
		errs = append(errs, p.failed(r.Volume, r))
	}
	return hint.All(errs...)
}

// results records them and returns the failures that stop the boot.
func (p *part) results(results []unlock.Result) error {
	var errs []error
	for _, r := range results {
		v := record(r)
		switch {
		case r.Err == nil:
			p.Log.Infof("volume %q: %s is ready", r.Name(), v.Mapping)
			if v.Missing > 0 && r.Share == nil {
				p.Log.Warnf("volume %q: %d of the %d disks of its mirror are missing or behind; unlockctl join %s adds one", r.Name(), v.Missing, r.Step.Count, r.Name())
			}
		case r.Share == nil: // else it was said of its whole
			errs = append(errs, p.failed(r.Step.Volume, r.Err))
		}
		p.report.Volumes = append(p.report.Volumes, v)
	}
	return hint.All(errs...)
}

// record is what the status says of a result.
func record(r unlock.Result) status.Volume {
	v := status.Volume{Name: r.Name(), Action: r.Step.Action(), KMSKey: r.KMSKey, Calls: r.Requests, Missing: r.Step.Missing()}
	for _, m := range r.Step.Members {
		v.Devices = append(v.Devices, m.Disk.Path)
		v.UUIDs = append(v.UUIDs, m.UUID)
	}
	if r.Err == nil {
		v.Mapping = r.Device.Path()
	} else {
		v.Action, v.Error = "failed", r.Err.Error()
	}
	return v
}

// failed returns the error if the volume is required; otherwise it only reports it.
func (p *part) failed(v *config.Volume, err error) error {
	if !v.Required {
		p.Log.Failure(err)
		p.report.Result = status.ResultDone
		return nil
	}
	p.policy.failed(v)
	return err
}
