package ec2sim

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
)

// This file is as much of IAM's policy language as the policies of keys need (IAM User
// Guide, "IAM JSON policy elements reference"): what is not known here is malformed.

// policy of a key or of a role.
type policy struct {
	Version   string
	ID        string `json:"Id"`
	Statement list[statement]
}

type statement struct {
	Sid       string
	Effect    string
	Principal *principals
	Action    list[string]
	Resource  list[string]
	Condition map[string]map[string]list[string] // operator, key, values
}

// list is one value or several.
type list[T any] []T

func (l *list[T]) UnmarshalJSON(data []byte) error {
	if data[0] == '[' {
		return known(data, (*[]T)(l))
	}
	var one T
	if err := known(data, &one); err != nil {
		return err
	}
	*l = list[T]{one}
	return nil
}

// known decodes JSON that has no members but those of into.
func known(data []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	return d.Decode(into)
}

// principals are "*" or {"AWS": …}.
type principals struct {
	AWS list[string]
}

func (p *principals) UnmarshalJSON(data []byte) error {
	if string(data) == `"*"` {
		p.AWS = list[string]{"*"}
		return nil
	}
	type plain principals
	return known(data, (*plain)(p))
}

// request is what a statement may ask about.
type request struct {
	action, resource string
	who, role        string              // the role's ARN, "" if who is none's session
	keys             map[string][]string // of conditions, in lower case
}

// principal is aws:PrincipalArn.
func (q *request) principal() string {
	if q.role != "" {
		return q.role
	}
	return q.who
}

// expand replaces the variables in a condition's value.
func (q *request) expand(value string) string {
	return strings.NewReplacer("${$}", "$", "${aws:PrincipalAccount}", strings.Split(q.who, ":")[4]).Replace(value)
}

// parsePolicy reads a key policy.
func parsePolicy(document string) (*policy, error) {
	malformed := func(format string, args ...any) (*policy, error) {
		return nil, refuse("MalformedPolicyDocumentException", format, args...)
	}
	if len(document) > 32<<10 {
		return malformed("The policy is longer than 32 KiB")
	}
	p := &policy{}
	if err := known([]byte(document), p); err != nil {
		return malformed("%v", err)
	}
	if p.Version != "2012-10-17" || len(p.Statement) == 0 {
		return malformed("The version is %q, %d statements", p.Version, len(p.Statement))
	}
	for _, s := range p.Statement {
		switch {
		case s.Effect != "Allow" && s.Effect != "Deny":
			return malformed("%s: the effect is %q", s.Sid, s.Effect)
		case s.Principal == nil || len(s.Principal.AWS) == 0:
			return malformed("%s has no principal", s.Sid)
		case len(s.Action) == 0 || len(s.Resource) == 0:
			return malformed("%s has no action or no resource", s.Sid)
		}
		for operator, keys := range s.Condition {
			if _, err := parseOperator(operator); err != nil || len(keys) == 0 {
				return malformed("%s: no condition is named %s", s.Sid, operator)
			}
			for _, values := range keys {
				if slices.ContainsFunc(values, func(v string) bool { return strings.Contains(v, "${*}") || strings.Contains(v, "${?}") }) {
					return malformed("%s: the simulation has no escaped wildcards", s.Sid)
				}
			}
		}
	}
	return p, nil
}

// kinship is how a statement names who calls.
type kinship int

const (
	nobody  kinship = iota
	account         // by the account, which leaves the decision to IAM
	itself
)

func (s *statement) names(q *request) kinship {
	best := nobody
	own := strings.Split(q.who, ":")[4]
	for _, p := range s.Principal.AWS {
		switch {
		case p == "*" || p == q.who || p == q.role && p != "":
			return itself
		case p == own || strings.HasPrefix(p, "arn:") && strings.HasSuffix(p, ":iam::"+own+":root"):
			best = account
		}
	}
	return best
}

// covers reports whether a statement is about an action and its conditions hold.
func (s *statement) covers(q *request) bool {
	if !slices.ContainsFunc(s.Action, func(a string) bool { return like(strings.ToLower(a), strings.ToLower(q.action)) }) ||
		!slices.ContainsFunc(s.Resource, func(r string) bool { return r == "*" || like(r, q.resource) }) {
		return false
	}
	for name, keys := range s.Condition {
		o, err := parseOperator(name)
		if err != nil {
			return false
		}
		for key, wanted := range keys {
			wanted = slices.Clone(wanted)
			for i := range wanted {
				wanted[i] = q.expand(wanted[i])
			}
			if !o.holds(q.keys[strings.ToLower(key)], wanted) {
				return false
			}
		}
	}
	return true
}

// operator of a condition.
type operator struct {
	test       func(wanted, value string) bool
	not        bool   // negated: true of a key that is not there
	ifExists   bool   // true of a key that is not there
	null       bool   // asks whether the key is not there
	quantifier string // "ForAllValues", "ForAnyValue" or ""
}

func parseOperator(name string) (operator, error) {
	o := operator{}
	unknown := refuse("MalformedPolicyDocumentException", "no condition is named %s", name)
	if q, rest, ok := strings.Cut(name, ":"); ok {
		if q != "ForAllValues" && q != "ForAnyValue" {
			return o, unknown
		}
		o.quantifier, name = q, rest
	}
	name, o.ifExists = strings.CutSuffix(name, "IfExists")
	equal := func(wanted, value string) bool { return wanted == value }
	switch name {
	case "StringEquals":
		o.test = equal
	case "StringNotEquals":
		o.test, o.not = equal, true
	case "StringEqualsIgnoreCase":
		o.test = strings.EqualFold
	case "StringNotEqualsIgnoreCase":
		o.test, o.not = strings.EqualFold, true
	case "StringLike", "ArnLike", "ArnEquals":
		o.test = like
	case "StringNotLike", "ArnNotLike", "ArnNotEquals":
		o.test, o.not = like, true
	case "Bool":
		o.test = strings.EqualFold
	case "Null":
		o.null = true
	default:
		return o, unknown
	}
	if o.null && (o.ifExists || o.quantifier != "") {
		return o, unknown
	}
	return o, nil
}

// holds evaluates a condition: any of the wanted values, or none where it is negated.
func (o operator) holds(values, wanted []string) bool {
	if o.null {
		return slices.ContainsFunc(wanted, func(w string) bool { return strings.EqualFold(w, "true") == (values == nil) })
	}
	one := func(value string) bool {
		return slices.ContainsFunc(wanted, func(w string) bool { return o.test(w, value) }) != o.not
	}
	switch {
	case o.quantifier == "ForAllValues":
		return !slices.ContainsFunc(values, func(v string) bool { return !one(v) })
	case values == nil:
		return o.ifExists || o.not && o.quantifier == ""
	case o.quantifier == "ForAnyValue":
		return slices.ContainsFunc(values, one)
	}
	return len(values) == 1 && one(values[0])
}

// like matches a pattern with * and ?.
func like(pattern, text string) bool {
	star, mark := -1, 0
	p, t := 0, 0
	for t < len(text) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, mark = p, t
			p++
		case p < len(pattern) && (pattern[p] == '?' || pattern[p] == text[t]):
			p++
			t++
		case star >= 0:
			mark++
			p, t = star+1, mark
		default:
			return false
		}
	}
	return strings.Trim(pattern[p:], "*") == ""
}
