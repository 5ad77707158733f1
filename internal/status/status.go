// Package status is what one boot leaves behind for people and scripts:
// /run/unlock/status.json, with the volumes, the steps and their times, and the
// AWS request ids that lead to CloudTrail. It never holds secrets.
package status

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// DefaultFile is where a boot leaves its Boot.
const DefaultFile = "/run/unlock/status.json"

// Results of a boot.
const (
	ResultDone    = "done"    // all volumes are there, or those missing were optional
	ResultNothing = "nothing" // no disk matched, or rd.unlock=0
	ResultFailed  = "failed"
)

// ActionAbsent: no disk of the volume is there, and none has to be.
const ActionAbsent = "absent"

// Boot is one run of unlock.
type Boot struct {
	Version   string       `json:"version"`
	BootID    string       `json:"boot_id"`               // of the kernel (random(4)), which tells one boot from another
	ConfigSum string       `json:"config_sha256"`         // of unlock.toml in the initramfs, in hexadecimal
	Instance  *Instance    `json:"instance,omitempty"`    // nil: IMDS was not asked
	Attested  *Attestation `json:"attestation,omitempty"` // nil: there was no document
	Started   time.Time    `json:"started"`
	Kernel    Millis       `json:"kernel_ms,omitempty"` // from the kernel's start until it started the first process; 0: not known
	Began     Millis       `json:"began_ms,omitempty"`  // from the kernel's start until Started; 0: not known
	Duration  Millis       `json:"duration_ms"`
	Result    string       `json:"result"`
	Error     string       `json:"error,omitempty"`
	Hint      string       `json:"hint,omitempty"`
	CPU       Millis       `json:"cpu_ms"`         // processor time of the worker, and of programs that it ran, from when devices had settled
	PeakRSS   int64        `json:"peak_rss_bytes"` // of worker and parent together until the worker ends, pages of the program's file once
	Volumes   []Volume     `json:"volumes"`
	Steps     []Step       `json:"steps"`
	Calls     []Call       `json:"aws_calls"`
}

// Volume is one configured volume and what became of it.
type Volume struct {
	Name    string   `json:"name"`
	Action  string   `json:"action"` // "open", "format", "finish formatting", "already open", "refused", "failed", ActionAbsent
	Devices []string `json:"devices"`
	Mapping string   `json:"mapping,omitempty"` // /dev/mapper/NAME
	UUIDs   []string `json:"luks_uuids"`
	KMSKey  string   `json:"kms_key,omitempty"` // ARN that AWS says it used
	Mount   string   `json:"mount,omitempty"`
	Check   string   `json:"check,omitempty"`   // what came of looking its file system over: "clean", "journal recovered", "repaired", "not checked: …"
	Binds   []string `json:"binds,omitempty"`   // directories of the system that lie on it
	Missing int      `json:"missing,omitempty"` // disks that its mirror lacks
	Error   string   `json:"error,omitempty"`
	Calls   []string `json:"requests,omitempty"` // request ids of the calls by which it got its key
}

// Instance is what IMDS said of the instance while its credentials were had.
type Instance struct {
	ID      string `json:"id"`
	Account string `json:"account"`
	Region  string `json:"region"`
	Image   string `json:"image"`
}

// Attestation is what NitroTPM's newest document said. The calls that it was shown in are
// among Calls.
type Attestation struct {
	Module string            `json:"module_id"`
	PCRs   map[string]string `json:"pcrs"` // SHA-384 by number, in hexadecimal
}

// Step is something that took time; steps overlap. All time of a boot belongs to one:
//
//	starting      of the program and its worker
//	modules       drivers are loaded
//	udev          it deals with what the kernel has found
//	settling      devices are waited for until they have; meanwhile the network may come up
//	disks         those of the volumes are awaited and read
//	network, credentials, connections, attestation
//	confining     the worker is, to the disks of the plan
//	key           of a source
//	asking        for the passphrase of a volume
//	compare       a disk is held against the plan
//	format, open, mark   a disk
//	mkfs, fsck, mount, own, cover, grow   a volume
//	attach        volumes in files
//	bind          a directory
//	closing       the network is taken down
//	overwriting   of memory that held secrets
//	root          the root file system is awaited, by others
//	held up       the boot is, after a failure
//	capping       of a PCR
type Step struct {
	Name     string `json:"name"`
	Subject  string `json:"subject"` // the source, disk, volume or directory; else empty
	Start    Millis `json:"start_ms"`
	Duration Millis `json:"duration_ms"`
	Error    string `json:"error,omitempty"`
}

// Call is one request that AWS answered.
type Call struct {
	Service   string `json:"service"`
	Operation string `json:"operation"`
	KeyARN    string `json:"key,omitempty"`
	RequestID string `json:"request_id"`
	Attempts  int    `json:"attempts"`
	Start     Millis `json:"start_ms"`    // of the first attempt
	Duration  Millis `json:"duration_ms"` // of all attempts
}

// Millis is a duration that is written as milliseconds with three decimals.
type Millis time.Duration

// MarshalJSON writes milliseconds.
func (m Millis) MarshalJSON() ([]byte, error) {
	return fmt.Appendf(nil, "%.3f", float64(m)/float64(time.Millisecond)), nil
}

// UnmarshalJSON reads milliseconds.
func (m *Millis) UnmarshalJSON(b []byte) error {
	var ms float64
	if err := json.Unmarshal(b, &ms); err != nil {
		return err
	}
	*m = Millis(ms * float64(time.Millisecond))
	return nil
}

// Recorder collects the steps of a running boot. Safe for concurrent use.
type Recorder struct {
	// Doing, if not nil, is called where something begins that a disk may never answer,
	// and returns what is called at its end.
	Doing func(what, subject string) (end func())

	mu    sync.Mutex
	start time.Time
	steps []Step
	calls []Call
}

// NewRecorder starts the clock.
func NewRecorder() *Recorder { return RecorderFrom(time.Now()) }

// RecorderFrom returns a Recorder whose clock was started then.
func RecorderFrom(start time.Time) *Recorder { return &Recorder{start: start} }

// Continue returns a recorder that goes on where the run that left b ended.
func Continue(b *Boot) *Recorder {
	return &Recorder{start: b.Started, steps: b.Steps, calls: b.Calls}
}

// Step runs f and records how long it took and how it ended.
func (r *Recorder) Step(name, subject string, f func() error) error {
	begin := time.Now()
	err := r.Do(name, subject, f)
	r.took(name, subject, begin, time.Now(), err)
	return err
}

// Took records what somebody else did from one time to another, if that is any time.
func (r *Recorder) Took(name string, from, to time.Time) {
	if from.Before(to) {
		r.took(name, "", from, to, nil)
	}
}

func (r *Recorder) took(name, subject string, from, to time.Time, err error) {
	s := Step{Name: name, Subject: subject, Start: r.Since(from), Duration: Millis(to.Sub(from))}
	if err != nil {
		s.Error = err.Error()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.steps = append(r.steps, s)
}

// Do runs f, of which Doing is to know, without recording it. A nil Recorder just runs it.
func (r *Recorder) Do(what, subject string, f func() error) error {
	if r != nil && r.Doing != nil {
		defer r.Doing(what, subject)()
	}
	return f()
}

// Called records a request that AWS answered.
func (r *Recorder) Called(c Call) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.calls = append(r.calls, c)
}

// Since returns how long after the beginning of the boot t is.
func (r *Recorder) Since(t time.Time) Millis { return Millis(t.Sub(r.start)) }

// Fill puts what was recorded so far into b.
func (r *Recorder) Fill(b *Boot) {
	r.mu.Lock()
	defer r.mu.Unlock()
	b.Started, b.Duration = r.start, Millis(time.Since(r.start))
	b.Steps = append([]Step(nil), r.steps...)
	b.Calls = append([]Call(nil), r.calls...)
}

// Write writes b to file, mode 0644, making its directory.
func Write(file string, b *Boot) error {
	// Scripts find lists, even if there is nothing in them.
	b.Volumes, b.Steps, b.Calls = append([]Volume{}, b.Volumes...), append([]Step{}, b.Steps...), append([]Call{}, b.Calls...)
	data, err := json.MarshalIndent(b, "", "  ")
	if err != nil {
		return fmt.Errorf("encoding status: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return fmt.Errorf("writing status: %w", err)
	}
	if err := os.WriteFile(file, append(data, '\n'), 0o644); err != nil {
		return fmt.Errorf("writing status: %w", err)
	}
	return nil
}

// Read reads what Write wrote.
func Read(file string) (*Boot, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("reading status: %w", err)
	}
	b := new(Boot)
	if err := json.Unmarshal(data, b); err != nil {
		return nil, fmt.Errorf("reading status %s: %w", file, err)
	}
	return b, nil
}
