package luks2

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"
)

// maxDepth of nested arrays and objects: that of json-c, which cryptsetup uses.
const maxDepth = 32

// object is a JSON object whose members keep their order and, byte for byte,
// their values: what this package does not understand survives its updates.
// Names are compared exactly, unlike encoding/json's.
type object []member

type member struct {
	name  string
	value json.RawMessage
}

// checkJSON refuses what parsers disagree about: anything but one JSON object in
// UTF-8, names that occur twice in an object, and deep nesting.
func checkJSON(b []byte) error {
	if !utf8.Valid(b) {
		return errors.New("not valid UTF-8")
	}
	if len(b) == 0 || b[0] != '{' {
		return errors.New("does not start with an object")
	}
	d := json.NewDecoder(bytes.NewReader(b))
	var first json.RawMessage
	if err := d.Decode(&first); err != nil {
		return err
	}
	if _, err := d.Token(); err != io.EOF {
		return errors.New("more than one value")
	}
	return checkValue(first, 1)
}

func checkValue(b json.RawMessage, depth int) error {
	if b[0] != '{' && b[0] != '[' {
		return nil
	}
	if depth >= maxDepth {
		return errors.New("nested too deeply")
	}
	seen := map[string]bool{}
	return walk(b, func(name string, value json.RawMessage) error {
		if b[0] == '{' {
			if seen[name] {
				return fmt.Errorf("member %q occurs twice", name)
			}
			if strings.ContainsRune(name, 0) {
				return fmt.Errorf("name %q has a NUL", name)
			}
			seen[name] = true
		}
		return checkValue(value, depth+1)
	})
}

// walk calls f for each member of an object, or each element of an array, which have no
// names. b is one of them, in JSON that has been found to be valid.
func walk(b []byte, f func(name string, value json.RawMessage) error) error {
	named := b[0] == '{'
	for b = bytes.TrimLeft(b[1:], blanks); b[0] != '}' && b[0] != ']'; b = bytes.TrimLeft(b, ","+blanks) {
		name := ""
		if named {
			n := length(b)
			name = unquote(b[:n])
			b = bytes.TrimLeft(b[n:], ":"+blanks)
		}
		n := length(b)
		if err := f(name, b[:n:n]); err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

// blanks between the tokens of JSON (RFC 8259, section 2).
const blanks = " \t\r\n"

// length returns that of the value with which b begins.
func length(b []byte) int {
	depth, quoted := 0, false
	for i := 0; i < len(b); i++ {
		switch c := b[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{' || c == '[':
			depth++
			continue
		case depth == 0: // in a number or a word
			if strings.IndexByte(",:}]"+blanks, c) >= 0 {
				return i
			}
			continue
		case c == '}' || c == ']':
			depth--
		default:
			continue
		}
		if depth == 0 && !quoted {
			return i + 1
		}
	}
	return len(b)
}

// unquote returns what a valid JSON string stands for.
func unquote(b []byte) (s string) {
	if bytes.IndexByte(b, '\\') < 0 {
		return string(b[1 : len(b)-1])
	}
	if err := json.Unmarshal(b, &s); err != nil {
		panic("luks2: " + err.Error())
	}
	return s
}

// parseObject splits an object that checkJSON has passed, or a value of one. Values
// are parts of b.
func parseObject(b []byte) (object, error) {
	if len(b) == 0 || b[0] != '{' {
		return nil, errors.New("not an object")
	}
	o := object{}
	err := walk(b, func(name string, value json.RawMessage) error {
		o = append(o, member{name, value})
		return nil
	})
	return o, err
}

func (o object) get(name string) (json.RawMessage, bool) {
	for _, m := range o {
		if m.name == name {
			return m.value, true
		}
	}
	return nil, false
}

// with returns a copy of o in which name has the value v.
func (o object) with(name string, v json.RawMessage) object {
	o = slices.Clone(o)
	for i := range o {
		if o[i].name == name {
			o[i].value = v
			return o
		}
	}
	return append(o, member{name, v})
}

// without returns a copy of o that has no member name.
func (o object) without(name string) object {
	return slices.DeleteFunc(slices.Clone(o), func(m member) bool { return m.name == name })
}

// edit returns a copy of o in which the object name was changed by f.
func (o object) edit(name string, f func(object) (object, error)) (object, error) {
	v, _ := o.get(name)
	child, err := parseObject(v)
	if err == nil {
		child, err = f(child)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return o.with(name, child.encode()), nil
}

// encode returns the text of o.
func (o object) encode() json.RawMessage {
	b := []byte{'{'}
	for i, m := range o {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, encode(m.name)...)
		b = append(b, ':')
		b = append(b, m.value...)
	}
	return append(b, '}')
}

// encode returns the JSON text of a value that cannot fail to have one.
func encode(v any) json.RawMessage {
	b, err := json.Marshal(v)
	if err != nil {
		panic("luks2: " + err.Error())
	}
	return b
}
