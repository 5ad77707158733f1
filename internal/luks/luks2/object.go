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
	d.UseNumber()
	if err := checkValue(d, 1); err != nil {
		return err
	}
	if _, err := d.Token(); err != io.EOF {
		return errors.New("more than one value")
	}
	return nil
}

func checkValue(d *json.Decoder, depth int) error {
	t, err := d.Token()
	if err != nil {
		return err
	}
	open, ok := t.(json.Delim)
	if !ok {
		return nil
	}
	if depth >= maxDepth {
		return errors.New("nested too deeply")
	}
	seen := map[string]bool{}
	for d.More() {
		if open == '{' {
			t, err := d.Token()
			if err != nil {
				return err
			}
			name, _ := t.(string)
			if seen[name] {
				return fmt.Errorf("member %q occurs twice", name)
			}
			if strings.ContainsRune(name, 0) {
				return fmt.Errorf("name %q has a NUL", name)
			}
			seen[name] = true
		}
		if err := checkValue(d, depth+1); err != nil {
			return err
		}
	}
	_, err = d.Token()
	return err
}

// parseObject splits an object that checkJSON has passed.
func parseObject(b []byte) (object, error) {
	d := json.NewDecoder(bytes.NewReader(b))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, errors.New("not an object")
	}
	o := object{}
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return nil, err
		}
		name, _ := t.(string)
		var v json.RawMessage
		if err := d.Decode(&v); err != nil {
			return nil, err
		}
		o = append(o, member{name, v})
	}
	return o, nil
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
