package luks2

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math"
	"strconv"

	"unlock/internal/hint"
)

// scope reads the members of one object. The first fault among all scopes of a
// document is kept in err, with the path to it; after that everything reads as
// zero, so that callers check once, at the end.
type scope struct {
	object
	path string
	err  *error
}

func (s scope) fail(format string, a ...any) {
	if *s.err == nil {
		*s.err = fmt.Errorf("%s: %s", s.path, fmt.Sprintf(format, a...))
	}
}

// refuse is fail with advice of its own: nothing is damaged, it is only not supported.
func (s scope) refuse(advice, format string, a ...any) {
	if *s.err == nil {
		s.fail(format, a...)
		*s.err = hint.With(*s.err, advice)
	}
}

func (s scope) has(name string) bool {
	_, ok := s.get(name)
	return ok
}

// into decodes the member name, which must be there and be of v's JSON type.
func (s scope) into(name string, v any, kind string) bool {
	raw, ok := s.get(name)
	if !ok {
		s.fail("%q is missing", name)
		return false
	}
	// null decodes into anything.
	if string(raw) == "null" || json.Unmarshal(raw, v) != nil {
		s.fail("%q is not %s", name, kind)
		return false
	}
	return true
}

func (s scope) str(name string) (v string) {
	if raw, ok := s.get(name); ok && raw[0] == '"' {
		return unquote(raw)
	}
	s.into(name, &v, "a string")
	return v
}

// sub returns the scope of the object name.
func (s scope) sub(name string) scope {
	child := scope{path: s.path + "." + name, err: s.err}
	raw, ok := s.get(name)
	if !ok {
		s.fail("%q is missing", name)
		return child
	}
	var err error
	if child.object, err = parseObject(raw); err != nil {
		s.fail("%q is not an object", name)
	}
	return child
}

// each calls f for the members of the object name, whose names must be ids below
// limit and whose values must be objects.
func (s scope) each(name string, limit int, f func(id int, s scope)) {
	child := s.sub(name)
	for _, m := range child.object {
		id, err := parseID(m.name, limit)
		if err != nil {
			child.fail("%v", err)
			return // there may be very many
		}
		if e := child.sub(m.name); *s.err == nil {
			f(id, e)
		}
	}
}

// parseID reads a decimal id below limit, in its only spelling.
func parseID(s string, limit int) (int, error) {
	id, err := strconv.Atoi(s)
	if err != nil || id < 0 || id >= limit || strconv.Itoa(id) != s {
		return 0, fmt.Errorf("%.20q is not an id from 0 to %d", s, limit-1)
	}
	return id, nil
}

// ids reads an array of ids below limit, each at most once.
func (s scope) ids(name string, limit int) []int {
	var texts []string
	var raw []json.RawMessage
	if !s.into(name, &raw, "an array") || !s.into(name, &texts, "an array of strings") {
		return nil
	}
	var ids []int
	seen := map[int]bool{}
	for i, t := range texts {
		id, err := parseID(t, limit)
		if err != nil || raw[i][0] != '"' {
			s.fail("%q: %.20s is not the id of anything", name, raw[i])
			return nil
		}
		if seen[id] {
			s.fail("%q names %d twice", name, id)
		}
		seen[id] = true
		ids = append(ids, id)
	}
	return ids
}

// uint reads a number that fits into 31 bits, as cryptsetup's int does.
func (s scope) uint(name string) uint32 {
	var n json.Number
	raw, _ := s.get(name)
	if !s.into(name, &n, "a number") {
		return 0
	}
	v, err := strconv.ParseUint(string(raw), 10, 31)
	if err != nil {
		s.fail("%q is not a whole number from 0 to %d", name, math.MaxInt32)
	}
	return uint32(v)
}

// u64 reads a 64-bit number, which is a decimal string.
func (s scope) u64(name string) uint64 {
	text := s.str(name)
	v, err := strconv.ParseUint(text, 10, 64)
	if err != nil || strconv.FormatUint(v, 10) != text {
		s.fail("%q is not a 64-bit number in a string", name)
		return 0
	}
	return v
}

// bytes reads a 64-bit number that a file offset can hold.
func (s scope) bytes(name string) int64 {
	v := s.u64(name)
	if v > math.MaxInt64 {
		s.fail("%q is beyond any device", name)
		return 0
	}
	return int64(v)
}

// base64 reads strict base64.
func (s scope) base64(name string) []byte {
	b, err := base64.StdEncoding.Strict().DecodeString(s.str(name))
	if err != nil {
		s.fail("%q is not base64", name)
	}
	return b
}
