package audit_test

import (
	"encoding/json"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"unlock/cmd/unlockctl/internal/audit"
	"unlock/test/cloudtrail"
)

const deployed = "../../../../deploy/terraform/audit/"

// rules are the patterns of deploy/'s EventBridge rules, by the finding that each reports.
func rules(t *testing.T, words map[string]string) map[string]map[string]any {
	t.Helper()
	data, err := os.ReadFile(deployed + "findings.json.tftpl")
	if err != nil {
		t.Fatal(err)
	}
	text := string(data)
	for word, value := range words {
		text = strings.ReplaceAll(text, "${"+word+"}", value)
	}
	if strings.Contains(text, "${") {
		t.Fatal("findings.json.tftpl has a word that nobody fills in")
	}
	var list map[string]map[string]any
	if err := json.Unmarshal([]byte(text), &list); err != nil {
		t.Fatal(err)
	}
	return list
}

var ruleWords = map[string]map[string]string{
	"s3": {"key": sealedKey, "key_id": sealedKey[strings.LastIndexByte(sealedKey, '/')+1:], "role_arn": "arn:aws:iam::" + account + ":role/unlock",
		"purpose": "secretfs", "bucket": bucket, "object": object, "endpoint": kmsDoor, "sealed": "true"},
	"header": {"key": headerKey, "key_id": headerKey[strings.LastIndexByte(headerKey, '/')+1:], "role_arn": "arn:aws:iam::" + account + ":role/unlock",
		"purpose": "scratch", "bucket": "-", "object": object, "endpoint": kmsDoor, "sealed": "false"},
}

// TestRules: each rule sees the calls on which the command finds what it reports, and no
// other call: not one of a thousand honest boots.
func TestRules(t *testing.T) {
	t.Parallel()
	w := newWorld()
	machines := fleet(w, 1000)
	boots := map[string]bool{}
	for _, e := range w.events {
		boots[e.EventID] = true
	}
	plantAll(w, machines)
	twins(w)
	// Another configuration uses the key as well.
	w.events = slices.DeleteFunc(w.events, func(e *cloudtrail.Event) bool {
		context, _ := e.Request["encryptionContext"].(map[string]string)
		return maps.Equal(context, purposeData)
	})
	files, public := w.files()
	for name, keys := range map[string][]audit.Key{"s3": question.Keys[:1], "header": question.Keys[1:2]} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			q := question
			q.Keys = keys
			want := map[string][]string{}
			for _, c := range judge(t, audit.New(q), files, public).Calls {
				want[c.EventID] = c.Findings
			}
			list := rules(t, ruleWords[name])
			delete(list, "elsewhere") // which knows one endpoint, and not what went before
			seen := map[string]int{}
			for _, e := range w.events {
				event := envelope(t, e)
				for finding, pattern := range list {
					got := matches(pattern, event)
					if want := slices.Contains(want[e.EventID], finding); got != want {
						t.Errorf("%s sees: %v, the command finds: %v: %s", finding, got, want, e.JSON())
					}
					if got {
						seen[finding]++
					}
					if got && boots[e.EventID] {
						t.Errorf("%s sees an honest boot: %s", finding, e.JSON())
					}
				}
			}
			if name == "s3" && len(seen) != len(list) {
				t.Errorf("seen were %v, of %d rules", seen, len(list))
			}
			t.Logf("%d events, seen: %v", len(w.events), seen)
		})
	}
}

// twins does to the key of headers what was done to that of the sealed passphrase.
func twins(w *world) {
	for _, e := range w.events[:len(w.events):len(w.events)] {
		if w.planted[e.EventID] == "" || e.Service != "kms" {
			continue
		}
		twin := *e
		twin.EventID, twin.RequestID, twin.Message = w.uuid(), w.uuid(), strings.ReplaceAll(e.Message, sealedKey, headerKey)
		twin.Resources = slices.Clone(e.Resources)
		for i := range twin.Resources {
			twin.Resources[i].ARN = strings.ReplaceAll(twin.Resources[i].ARN, sealedKey, headerKey)
		}
		twin.Request = maps.Clone(e.Request)
		for name, value := range twin.Request {
			if context, ok := value.(map[string]string); ok && maps.Equal(context, purposeSecret) {
				twin.Request[name] = bound(w.uuid())
			} else if value == sealedKey {
				twin.Request[name] = headerKey
			}
		}
		w.events = append(w.events, &twin)
	}
}

// TestElsewhereRule: where there is an endpoint, calls that did not come through it are seen.
func TestElsewhereRule(t *testing.T) {
	t.Parallel()
	w := newWorld()
	m := w.machine()
	m.kmsVia, m.s3Via, m.public = kmsDoor, s3Door, ""
	w.boot(m, begin, true)
	pattern := rules(t, ruleWords["s3"])["elsewhere"]
	for _, e := range w.events {
		if matches(pattern, envelope(t, e)) {
			t.Errorf("the rule sees an honest boot: %s", e.JSON())
		}
	}
	for _, door := range []string{"", "vpce-0aaaaaaaaaaaaaaaa"} {
		e := w.kms(m, begin, "Decrypt", sealedKey, purposeSecret)
		e.Endpoint, e.Address = door, "192.0.2.66"
		if !matches(pattern, envelope(t, e)) {
			t.Errorf("the rule does not see %s", e.JSON())
		}
	}
}

// envelope is the event that EventBridge makes of a record.
func envelope(t *testing.T, e *cloudtrail.Event) map[string]any {
	t.Helper()
	var detail any
	if err := json.Unmarshal(e.JSON(), &detail); err != nil {
		t.Fatal(err)
	}
	return map[string]any{"source": "aws." + e.Service, "detail-type": "AWS API Call via CloudTrail", "detail": detail}
}

// matches reports whether an event pattern of EventBridge matches (EventBridge User Guide,
// "Creating event patterns"): all members, one of $or, one value of each list.
func matches(pattern map[string]any, event any) bool {
	for name, want := range pattern {
		var ok bool
		switch want := want.(type) {
		case []any:
			if name == "$or" {
				ok = slices.ContainsFunc(want, func(p any) bool { return matches(p.(map[string]any), event) })
				break
			}
			value, there := member(event, name)
			ok = slices.ContainsFunc(want, func(m any) bool { return one(m, value, there) })
		case map[string]any:
			value, _ := member(event, name)
			list, many := value.([]any)
			if !many {
				list = []any{value}
			}
			ok = slices.ContainsFunc(list, func(v any) bool { return matches(want, v) })
		}
		if !ok {
			return false
		}
	}
	return true
}

func member(event any, name string) (any, bool) {
	m, _ := event.(map[string]any)
	v, ok := m[name]
	return v, ok
}

// one reports whether one matcher of a list fits a value, if it is there.
func one(matcher, value any, there bool) bool {
	m, ok := matcher.(map[string]any)
	if !ok {
		return there && value == matcher
	}
	text, _ := value.(string)
	for kind, arg := range m {
		switch kind {
		case "exists":
			return there == arg
		case "anything-but":
			return there && !slices.Contains(arg.([]any), value)
		case "prefix":
			return there && strings.HasPrefix(text, arg.(string))
		case "wildcard":
			parts := strings.Split(arg.(string), "*")
			for i := range parts {
				parts[i] = regexp.QuoteMeta(parts[i])
			}
			return there && regexp.MustCompile("^"+strings.Join(parts, ".*")+"$").MatchString(text)
		}
	}
	panic("a matcher that this test does not know")
}
