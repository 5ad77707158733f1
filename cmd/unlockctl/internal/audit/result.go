package audit

import (
	"cmp"
	"encoding/hex"
	"fmt"
	"slices"
	"time"

	"unlock/cmd/unlockctl/internal/trail"
	"unlock/internal/status"
)

// Finding is something that an auditor should look at.
type Finding struct {
	Name  string    `json:"name"`
	Why   string    `json:"why"`
	Time  time.Time `json:"time,omitzero"`
	File  string    `json:"file,omitempty"`     // of the trail, or a status file
	Event string    `json:"event_id,omitempty"` // of the call
	Call  *Call     `json:"-"`
}

// Note is something about a file that needs no action.
type Note struct {
	File string `json:"file"`
	Text string `json:"text"`
}

// FileRead is a file that was read.
type FileRead struct {
	Name    string `json:"name"`
	SHA256  string `json:"sha256"` // of its content, uncompressed; "" if it was not read to its end
	Records int    `json:"records"`
}

// Result is the answer.
type Result struct {
	Findings []Finding     `json:"findings"`
	Calls    []*Call       `json:"calls"` // in the order of time
	Counts   Counts        `json:"records"`
	Files    []FileRead    `json:"files"` // of records, in the order in which they were named
	Boots    int           `json:"status_files"`
	Chains   []trail.Chain `json:"digests"`
	Notes    []Note        `json:"notes"`
}

// statusFile is what a boot left.
type statusFile struct {
	name string
	boot *status.Boot
}

// AddStatus takes what a boot left; name is that of the file.
func (a *Audit) AddStatus(name string, b *status.Boot) {
	a.statuses = append(a.statuses, statusFile{name, b})
	if b.Instance == nil {
		return
	}
	i := a.instance(b.Instance.ID)
	i.region = b.Instance.Region
	i.starts = append(i.starts, start{b.Started, "its status file"})
}

// Judge says what is found, once all records are read. read and v are what became of
// the files; v may be nil, if there are no digests.
func (a *Audit) Judge(read []trail.Read, v *trail.Validation) *Result {
	r := &Result{Findings: []Finding{}, Calls: []*Call{}, Chains: []trail.Chain{}, Notes: []Note{}, Boots: len(a.statuses)}
	r.Counts = Counts{Read: a.read.Load(), Other: a.other.Load(), Skipped: a.skipped.Load(), Ours: int64(len(a.starts)), Duplicate: a.twice}
	for _, i := range a.instances {
		i.settle()
	}
	slices.SortFunc(a.calls, func(x, y *Call) int {
		return cmp.Or(x.Time.Compare(y.Time), cmp.Compare(x.stage(), y.stage()), cmp.Compare(x.EventID, y.EventID))
	})
	j := a.newJudge()
	seen := map[string]bool{} // request ids of the calls
	var last *Call
	for _, c := range a.calls {
		if last != nil && c.EventID != "" && c.EventID == last.EventID {
			r.Counts.Duplicate++
			continue
		}
		last = c
		a.ofKeys(c)
		if len(a.statuses) > 0 {
			seen[c.RequestID] = true
		}
		found := j.judge(c)
		if !a.q.Since.IsZero() && c.Time.Before(a.q.Since) || !a.q.Until.IsZero() && !c.Time.Before(a.q.Until) {
			r.Counts.Outside++
			continue
		}
		r.Counts.Ours++
		r.Calls = append(r.Calls, c)
		r.Findings = append(r.Findings, found...)
	}
	a.unseen(r, seen)
	a.files(r, read, v)
	slices.SortStableFunc(r.Findings, func(x, y Finding) int { return cmp.Or(x.Time.Compare(y.Time), cmp.Compare(x.File, y.File)) })
	return r
}

func (a *Audit) newJudge() *judge {
	j := &judge{Audit: a, uses: map[string]int{}, sessions: map[string]*Call{}, sets: map[string]*Call{}, told: map[string]bool{}}
	for _, s := range a.statuses {
		for _, c := range s.boot.Calls {
			j.told[c.RequestID] = true
			if c.Attempts > 1 && s.boot.Instance != nil {
				end := s.boot.Started.Add(time.Duration(c.Start + c.Duration))
				j.lost = append(j.lost, lost{s.boot.Instance.ID, c.Operation, s.boot.Started.Add(-skew), end.Add(skew), c.Attempts - 1})
			}
		}
		if end := s.boot.Started.Add(time.Duration(s.boot.Duration) + skew); end.After(j.statusUntil) {
			j.statusUntil = end
		}
	}
	return j
}

// stage orders calls of the same second, which is all that CloudTrail says: a
// ciphertext is read, or a data key made, before it is decrypted.
func (c *Call) stage() int {
	switch {
	case c.Service != "kms":
		return 0
	case c.making():
		return 1
	}
	return 2
}

// unseen finds calls of status files that the trail has not, of the time that it
// covers.
func (a *Audit) unseen(r *Result, seen map[string]bool) {
	if len(a.calls) == 0 {
		return
	}
	from, to := a.calls[0].Time, a.calls[len(a.calls)-1].Time
	for _, s := range a.statuses {
		at := s.boot.Started
		if at.Before(from.Add(-skew)) || at.After(to) || !a.q.Since.IsZero() && at.Before(a.q.Since) || !a.q.Until.IsZero() && !at.Before(a.q.Until) {
			continue
		}
		for _, c := range s.boot.Calls {
			if c.Service == "s3" && !a.dataEvents() || seen[c.RequestID] {
				continue
			}
			r.Findings = append(r.Findings, Finding{Name: "boot-without-call", Time: at, File: s.name,
				Why: fmt.Sprintf("%s %s, request %s", c.Service, c.Operation, c.RequestID)})
		}
	}
}

// dataEvents reports whether the trail has reads of objects at all.
func (a *Audit) dataEvents() bool {
	return slices.ContainsFunc(a.calls, func(c *Call) bool { return c.Service == "s3" && c.readOnly })
}

// files tells what became of the files.
func (a *Audit) files(r *Result, read []trail.Read, v *trail.Validation) {
	r.Files = make([]FileRead, len(read))
	hashes := map[[32]byte]string{}
	for i, f := range read {
		r.Files[i] = FileRead{Name: f.Name, Records: f.Records}
		if f.Hash != [32]byte{} {
			r.Files[i].SHA256 = hex.EncodeToString(f.Hash[:])
		}
		_, named := trail.Delivered(f.Name)
		switch {
		case f.Err != nil && !named && (f.Records == 0 || f.Err == trail.ErrNoRecords):
			r.Notes = append(r.Notes, Note{f.Name, "not CloudTrail's: " + f.Err.Error()})
		case f.Err != nil:
			r.Findings = append(r.Findings, Finding{Name: "file-unreadable", File: f.Name, Why: fmt.Sprintf("%v, after %d records", f.Err, f.Records)})
		case f.Records == 0:
		case hashes[f.Hash] != "":
			r.Notes = append(r.Notes, Note{f.Name, "the same as " + hashes[f.Hash]})
		default:
			hashes[f.Hash] = f.Name
		}
	}
	if r.Counts.Skipped > 0 {
		r.Findings = append(r.Findings, Finding{Name: "record-skipped", Why: fmt.Sprintf("%d, one of them: %s", r.Counts.Skipped, a.problem)})
	}
	if v == nil {
		return
	}
	r.Chains = append(r.Chains, v.Chains...)
	for _, p := range v.Problems {
		r.Findings = append(r.Findings, Finding{Name: p.Kind, File: p.File, Why: p.Why})
	}
}
