// Package audit answers who had the keys of volumes, when, and whether anybody had
// them who should not. It joins the calls that CloudTrail recorded with what the
// configuration expects, with the starts of instances, and with the status files
// that boots left.
//
// It decides on records alone and asks nobody. Reading them is package trail's.
package audit

import (
	"encoding/json"
	"maps"
	"net/netip"
	"path"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"unlock/cmd/unlockctl/internal/places"
	"unlock/cmd/unlockctl/internal/trail"
	"unlock/internal/keys/source"
)

// Question says what an audit is about. Only Keys is needed.
type Question struct {
	Keys      []Key
	Roles     []string       // names of the instances' roles; empty: any role of an instance
	Networks  []netip.Prefix // from which instances call; empty: judged by other calls of the same instance
	Endpoints []string       // ids of the VPC endpoints through which they call; empty: likewise
	Attested  bool           // calls must carry an attestation document
	PCRs      map[int]string // register → value in hexadecimal that documents must have
	Window    time.Duration  // after the start of an instance, for its calls
	Since     time.Time      // what was before is known, but not told; zero: everything
	Until     time.Time      // likewise what came after; zero: everything
}

// Key is a key of the configuration, with the volumes that share it.
type Key struct {
	Volumes []string
	ARNs    []string          // of KMS keys, as kms_key has them
	Context map[string]string // with variables, as the configuration has it
	Source  source.Source     // of the ciphertext
	Trail   *places.Trail     // how its reads are recorded, if it is neither in S3 nor on disks
	Bound   bool              // the source is header: the context also names the set
	Local   bool              // all its volumes lie on instance store
}

// Call is one call that concerns a key, or how its use is recorded.
type Call struct {
	Time      time.Time         `json:"time"`
	Service   string            `json:"service"`
	Operation string            `json:"operation"`
	Outcome   string            `json:"outcome"` // "ok", or the code of the error
	Principal string            `json:"principal"`
	Role      string            `json:"role,omitempty"`
	Instance  string            `json:"instance,omitempty"`
	Delivery  string            `json:"ec2_role_delivery,omitempty"`
	Session   string            `json:"access_key,omitempty"`
	Address   string            `json:"source_address"`
	Endpoint  string            `json:"vpc_endpoint,omitempty"`
	Region    string            `json:"region"`
	Key       string            `json:"key,omitempty"`
	Object    string            `json:"object,omitempty"` // bucket/key, or the name
	Context   map[string]string `json:"encryption_context,omitempty"`
	Set       string            `json:"set,omitempty"`
	Volumes   []string          `json:"volumes,omitempty"`
	Attested  string            `json:"attested,omitempty"` // the module id of the document
	PCRs      map[string]string `json:"pcrs,omitempty"`
	RequestID string            `json:"request_id"`
	EventID   string            `json:"event_id"`
	Findings  []string          `json:"findings,omitempty"` // their names

	detail   string // what an operation on a key, bucket or trail was about
	readOnly bool
	account  string // of the principal
	home     string // Region of the instance, if that is known
	owner    string // account of the trail
	context  string // Context as text, for comparing
	keyed    bool   // the record has an encryption context, be it empty
	others   []string
}

// ok reports whether the call did what it asked for.
func (c *Call) ok() bool { return c.Outcome == "ok" }

// Counts says what became of the records: Read is the sum of all others.
type Counts struct {
	Read      int64 `json:"read"`
	Ours      int64 `json:"concerning"` // the calls, and starts of instances
	Other     int64 `json:"other"`      // of other services, keys and objects, and reads of metadata
	Outside   int64 `json:"outside"`    // before --since or after --until
	Duplicate int64 `json:"duplicate"`  // with the event id of another
	Skipped   int64 `json:"skipped"`    // that could not be decoded
}

// Audit takes records and judges them. See may be called by several goroutines at
// once, the other methods not.
type Audit struct {
	q       Question
	keys    []keyOf
	needles needles

	read, other, skipped atomic.Int64

	mu        sync.Mutex
	names     map[string]string // one of each string
	calls     []*Call
	starts    map[string]bool // event ids of records of instances that were started
	twice     int64           // such records that were there already
	instances map[string]*instance
	listed    bool // AddBoots has named instances
	statuses  []statusFile
	problem   string // of a record that was skipped
}

// needles are texts without which a record does not concern the question, by the
// service that it must be of. Neither JSON nor CloudTrail escapes a byte of them.
type needles map[string][]string

// New returns an Audit.
func New(q Question) *Audit {
	a := &Audit{q: q, needles: needles{}, names: map[string]string{}, instances: map[string]*instance{}, starts: map[string]bool{}}
	add := func(service, text string) {
		if !slices.Contains(a.needles[service], text) {
			a.needles[service] = append(a.needles[service], text)
		}
	}
	for i, k := range q.Keys {
		a.keys = append(a.keys, newKeyOf(&q.Keys[i]))
		for _, arn := range k.ARNs {
			add("kms", keyID(arn))
		}
		if k.in("s3") {
			add("s3", k.Source.Bucket)
		} else if k.Trail != nil {
			add(k.Source.Kind.Name, path.Base(k.Source.Name))
		}
	}
	return a
}

// in reports whether the ciphertext is in that service.
func (k *Key) in(service string) bool { return k.Source.Kind != nil && k.Source.Kind.Name == service }

// keyID is the part of a key's ARN after the last slash.
func keyID(arn string) string { return arn[strings.LastIndexByte(arn, '/')+1:] }

// See takes one record. What it is given is not kept.
func (a *Audit) See(r trail.Raw) {
	a.read.Add(1)
	if !a.concerns(r) {
		a.other.Add(1)
		return
	}
	var rec record
	err := json.Unmarshal(r.JSON, &rec)
	var at time.Time
	if err == nil {
		at, err = time.Parse(time.RFC3339, rec.EventTime)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if err != nil {
		a.skipped.Add(1)
		a.problem = err.Error()
		return
	}
	if rec.EventSource == "ec2.amazonaws.com" {
		a.started(&rec, at)
	} else if c := a.call(&rec, at); c != nil {
		a.calls = append(a.calls, c)
	} else {
		a.other.Add(1)
	}
}

// intern keeps one string of those that are equal. Calls have most of theirs in
// common.
func (a *Audit) intern(s string) string {
	if s == "" {
		return ""
	}
	if known, ok := a.names[s]; ok {
		return known
	}
	s = strings.Clone(s)
	a.names[s] = s
	return s
}

// configured returns the keys of the question that have this KMS key.
func (a *Audit) configured(arn string) []*keyOf {
	var list []*keyOf
	for i := range a.keys {
		if slices.Contains(a.keys[i].ARNs, arn) {
			list = append(list, &a.keys[i])
		}
	}
	return list
}

// contextText is a context in one line, sorted by name.
func contextText(context map[string]string) string {
	var text strings.Builder
	for i, name := range slices.Sorted(maps.Keys(context)) {
		if i > 0 {
			text.WriteString(", ")
		}
		text.WriteString(name + "=" + context[name])
	}
	return text.String()
}
