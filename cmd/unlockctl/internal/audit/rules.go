package audit

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"unlock/cmd/unlockctl/internal/trail"
)

// Rules are the findings that there are, by name, and what each says. Those on files
// are of package trail.
var Rules = []struct{ Name, Text string }{
	{"not-the-role", "the key was used by somebody who is no instance with the role"},
	{"elsewhere", "the credentials of an instance were used from another place than the instance"},
	{"imdsv1", "the credentials were got without a session token of IMDSv2"},
	{"unknown-instance", "the instance is not among those of --boots"},
	{"late", "the key was used long after the instance started"},
	{"repeated", "the key was used more often in one boot than the volumes need"},
	{"other-operation", "an instance did with the key what unlock never does"},
	{"other-context", "the encryption context is none of the configuration"},
	{"other-region", "the key is that of the configuration in a Region that it does not name"},
	{"set-exists", "a data key was made for a set of disks that had one"},
	{"set-moved", "a set on instance store was opened by another instance than the one that made it"},
	{"re-encrypted", "the ciphertext was put under another key or context, without being seen"},
	{"grant", "somebody was given the use of the key beside its policy"},
	{"key-policy", "the key's policy was changed"},
	{"key-disabled", "the key was disabled"},
	{"key-deletion", "the key was scheduled for deletion"},
	{"rotation-off", "the yearly rotation of the key was turned off"},
	{"key-changed", "something else about the key was changed"},
	{"ciphertext-read", "the ciphertext was read by somebody who is no instance with the role"},
	{"ciphertext-replaced", "the ciphertext was written, replaced or removed"},
	{"bucket-changed", "settings of the ciphertext's bucket were changed, or objects removed in bulk"},
	{"denied", "the call was refused"},
	{"wrong-ciphertext", "KMS could not decrypt what it was given under this key and context"},
	{"unattested", "the call carried no attestation document"},
	{"other-pcr", "the attestation document has another value of a register"},
	{"trail-changed", "calls may be missing from here on: logging was stopped or changed"},
	{"call-without-boot", "an instance used the key, and no status file has the call"},
	{"boot-without-call", "a status file has a call, and the trail has not"},
	{"file-unreadable", "a file of the trail cannot be read to its end"},
	{"record-skipped", "records cannot be decoded"},
	{trail.FileMissing, "a file was delivered, and is not there"},
	{trail.FileChanged, "a file is not as it was delivered"},
	{trail.FileUnlisted, "a file is there that was not delivered"},
	{trail.DigestMissing, "a digest file was delivered, and is not there"},
	{trail.DigestChanged, "a digest file is not as it was delivered"},
	{trail.DigestGap, "no digest file covers a time"},
}

// use reports whether the call used the key, or tried.
func (c *Call) use() bool { return c.Service == "kms" && slices.Contains(cryptographic, c.Operation) }

// making reports whether it made a data key.
func (c *Call) making() bool { return strings.HasPrefix(c.Operation, "GenerateDataKey") }

// changes are the findings for operations on a key that have a name of their own.
var changes = map[string]string{
	"CreateGrant": "grant", "PutKeyPolicy": "key-policy", "DisableKey": "key-disabled",
	"ScheduleKeyDeletion": "key-deletion", "DeleteKey": "key-deletion", "DisableKeyRotation": "rotation-off",
}

// judge is what the rules know while they go through the calls in the order of time.
type judge struct {
	*Audit
	uses        map[string]int   // successful ones, by start and what for
	sessions    map[string]*Call // first one, by access key and service
	sets        map[string]*Call // that made the data key, or the first that opened it
	told        map[string]bool  // request ids in status files
	lost        []lost
	statusUntil time.Time // of later boots there are no status files yet
}

// judge returns the names of what is wrong with a call, and why.
func (j *judge) judge(c *Call) (found []Finding) {
	add := func(name, format string, args ...any) {
		found = append(found, Finding{Name: name, Why: fmt.Sprintf(format, args...), Time: c.Time, Event: c.EventID, Call: c})
		c.Findings = append(c.Findings, name)
	}
	if why := refusal(c.Outcome); why != "" {
		add(why, "%s: %s", c.Operation, c.Outcome)
	}
	stranger := j.stranger(c)
	instance := c.Instance != "" && stranger == ""
	switch {
	case c.use():
		if stranger != "" {
			add("not-the-role", "%s", stranger)
		}
		j.used(c, add)
	case c.Service == "kms" && c.ok():
		name, ok := changes[c.Operation]
		if !ok {
			name = "key-changed"
		}
		add(name, "%s", strings.TrimSpace(c.Operation+" by "+c.Principal+detail(c)))
	case c.Service == "cloudtrail" && c.ok():
		add("trail-changed", "%s by %s%s", c.Operation, c.Principal, detail(c))
	case strings.HasSuffix(c.Object, "/") && c.ok():
		add("bucket-changed", "%s by %s", c.Operation, c.Principal)
	case c.Object != "" && c.readOnly:
		if stranger != "" && c.ok() {
			add("ciphertext-read", "%s", stranger)
		}
	case c.Object != "" && c.ok():
		name := "ciphertext-replaced"
		if strings.HasPrefix(c.detail, "copied to ") {
			name = "ciphertext-read"
		}
		add(name, "%s by %s%s", c.Operation, c.Principal, detail(c))
	}
	if instance && (c.use() || c.Object != "") {
		if why := j.elsewhere(c); why != "" {
			add("elsewhere", "%s", why)
		}
		if c.Delivery == "1.0" {
			add("imdsv1", "ec2RoleDelivery is 1.0")
		}
		if j.listed && !j.instance(c.Instance).listed {
			add("unknown-instance", "%s", c.Instance)
		}
	}
	if instance && c.use() {
		j.inTime(c, add)
	}
	return found
}

func detail(c *Call) string {
	if c.detail == "" {
		return ""
	}
	return ": " + c.detail
}

// refusal returns the finding for an error. Throttling and faults of AWS are none, and
// neither is what does not exist.
func refusal(code string) string {
	switch {
	case strings.Contains(code, "AccessDenied"), strings.Contains(code, "Unauthorized"), strings.Contains(code, "NotAuthorized"),
		code == "DisabledException", code == "KMSInvalidStateException":
		return "denied"
	case code == "InvalidCiphertextException", code == "IncorrectKeyException":
		return "wrong-ciphertext"
	}
	return ""
}

// stranger returns why the principal is no instance with the role, or "".
func (j *judge) stranger(c *Call) string {
	switch {
	case c.Instance == "":
		return c.Principal + " is no instance"
	case c.Delivery == "":
		return c.Principal + " is named after an instance, but its credentials are not EC2's: somebody assumed the role"
	case c.account != "" && c.owner != "" && c.account != c.owner:
		return c.Principal + " is of another account"
	case len(j.q.Roles) > 0 && !slices.Contains(j.q.Roles, c.Role):
		return c.Principal + " has another role than " + strings.Join(j.q.Roles, " or ")
	}
	return ""
}

// used judges the use of a key, whoever used it.
func (j *judge) used(c *Call, add func(name, format string, args ...any)) {
	keys := j.configured(c.Key)
	switch {
	case len(keys) == 0:
		add("other-region", "%s", c.Key)
	case c.keyed && !slices.ContainsFunc(keys, func(k *keyOf) bool { return k.fits(c) }):
		add("other-context", "%s", j.instead(c, keys))
	}
	if c.ok() && c.Operation == "ReEncrypt" {
		add("re-encrypted", "by %s%s", c.Principal, detail(c))
	}
	unlocks := c.Operation == "Decrypt" || c.making()
	if c.Instance != "" && !unlocks {
		add("other-operation", "%s", c.Operation)
	}
	if !unlocks {
		return
	}
	switch {
	case j.q.Attested && c.Attested == "":
		add("unattested", "%s without a document", c.Operation)
	case c.Attested != "" && c.Instance != "" && !strings.HasPrefix(c.Attested, c.Instance+"-"):
		add("elsewhere", "the attestation document is that of %s", c.Attested)
	}
	if c.Attested != "" {
		for _, n := range slices.Sorted(maps.Keys(j.q.PCRs)) {
			if got, want := c.PCRs[fmt.Sprint("PCR", n)], j.q.PCRs[n]; !strings.EqualFold(got, want) {
				add("other-pcr", "PCR %d is %s", n, or(got, "missing"))
			}
		}
	}
	if c.ok() && c.Set != "" {
		j.set(c, keys, add)
	}
}

// set judges by what went before with a set of disks.
func (j *judge) set(c *Call, keys []*keyOf, add func(name, format string, args ...any)) {
	first := j.sets[c.Set]
	if first == nil {
		j.sets[c.Set] = c
		return
	}
	if c.making() {
		add("set-exists", "set %s: %s at %s", c.Set, first.Operation, first.Time.Format(time.RFC3339))
	}
	local := len(keys) > 0 && !slices.ContainsFunc(keys, func(k *keyOf) bool { return k.Bound && !k.Local })
	if local && c.Instance != "" && first.Instance != "" && c.Instance != first.Instance {
		add("set-moved", "set %s is that of %s", c.Set, first.Instance)
	}
}

// elsewhere returns why an instance's call came from another place, or "".
func (j *judge) elsewhere(c *Call) string {
	first := j.sessions[c.Session+" "+c.Service]
	if first == nil && c.Session != "" {
		j.sessions[c.Session+" "+c.Service] = c
	}
	if len(j.q.Endpoints) > 0 && !slices.Contains(j.q.Endpoints, c.Endpoint) {
		return "not through " + strings.Join(j.q.Endpoints, " or ") + ", but " + or(c.Endpoint, "no endpoint") + ", from " + c.Address
	}
	addr, err := netip.ParseAddr(c.Address)
	if err != nil {
		return "source " + c.Address + " is no address"
	}
	if len(j.q.Networks) > 0 {
		if !slices.ContainsFunc(j.q.Networks, func(n netip.Prefix) bool { return n.Contains(addr) }) {
			return c.Address + " is in none of the networks given"
		}
		return j.moved(c, first)
	}
	i := j.instance(c.Instance)
	if c.Endpoint != "" && len(i.private) > 0 && !slices.Contains(i.private, c.Address) {
		return c.Address + " is not the instance's " + strings.Join(i.private, ", ")
	}
	if c.Endpoint == "" && len(i.public) > 0 && !slices.Contains(i.public, c.Address) {
		return c.Address + " is not the instance's " + strings.Join(i.public, ", ")
	}
	return j.moved(c, first)
}

// moved compares a call with the first one of the same credentials.
func (j *judge) moved(c, first *Call) string {
	if first == nil || first.Address == c.Address && first.Endpoint == c.Endpoint {
		return ""
	}
	if strings.Contains(first.Address, ":") != strings.Contains(c.Address, ":") {
		return "" // IPv4 and IPv6 of one machine
	}
	return fmt.Sprintf("from %s, and %s with the same credentials from %s", place(c), first.Time.Format(time.RFC3339), place(first))
}

func place(c *Call) string {
	if c.Endpoint == "" {
		return c.Address
	}
	return c.Address + " through " + c.Endpoint
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// inTime judges when an instance used its key, and how often.
func (j *judge) inTime(c *Call, add func(name, format string, args ...any)) {
	if !c.ok() || c.Operation != "Decrypt" && !c.making() {
		return
	}
	told := j.told[c.RequestID]
	if len(j.statuses) > 0 && !told {
		if j.answerLost(c) {
			return
		}
		if c.Time.Before(j.statusUntil) {
			add("call-without-boot", "request %s of %s", c.RequestID, c.Instance)
		}
	}
	i := j.instance(c.Instance)
	n := i.start(c.Time)
	if n < 0 { // before all that are known: it started with this call
		i.starts = append([]start{{c.Time, "first call"}}, i.starts...)
		n = 0
	}
	began := i.starts[n]
	if after := c.Time.Sub(began.at); after > j.q.Window {
		if !told {
			add("late", "%v after %s started (%s)", after.Round(time.Second), c.Instance, began.source)
		}
		return
	}
	what := fmt.Sprint(c.Instance, " ", began.at, " ", c.Key, " ", c.context)
	j.uses[what]++
	if got, want := j.uses[what], j.expected(c); got > want && !told {
		add("repeated", "%s number %d since %s, of %d", c.Operation, got, began.at.Format(time.RFC3339), want)
	}
}

// lost is a call in a status file that took several attempts: AWS may have answered
// those before the last, and the answer was lost on the way.
type lost struct {
	instance, operation string
	from, to            time.Time
	left                int
}

// answerLost reports whether c is an earlier attempt of a call in a status file.
func (j *judge) answerLost(c *Call) bool {
	for i := range j.lost {
		l := &j.lost[i]
		if l.left > 0 && l.instance == c.Instance && l.operation == c.Operation && !c.Time.Before(l.from) && !c.Time.After(l.to) {
			l.left--
			return true
		}
	}
	return false
}

// expected returns how many calls a boot makes for the context of c: one for each
// distinct ciphertext that has it.
func (j *judge) expected(c *Call) int {
	n := 0
	for _, k := range j.configured(c.Key) {
		if k.Bound && k.fits(c) {
			return 1
		}
		if k.fits(c) {
			n++
		}
	}
	return max(n, 1)
}
