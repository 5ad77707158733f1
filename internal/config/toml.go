package config

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"github.com/pelletier/go-toml/v2/unstable"
)

// node is a value of the file, or a table. Of the library only the parser is used: its
// decoder, which works by reflection, is a fortieth of the whole program.
type node struct {
	name   string
	line   int
	kind   unstable.Kind // Table and ArrayTable by their headers; KeyValue: a table, by the names a.b = 1
	headed bool          // the header of a Table was there, not only one of a table below it
	text   string        // of a scalar
	below  []*node       // of a table, its settings, in the order of the file; of an array, its elements
}

// reader makes nodes of a file.
type reader struct{ unstable.Parser }

// readTOML returns the file's settings, as one table. The error has no file.
func readTOML(data []byte) (*node, *Error) {
	root := &node{kind: unstable.Table, headed: true}
	table := root
	r := &reader{}
	r.Reset(data)
	for r.NextExpression() {
		var err *Error
		if e := r.Expression(); e.Kind == unstable.KeyValue {
			err = r.set(table, e)
		} else {
			table, err = r.open(root, e)
		}
		if err != nil {
			return nil, err
		}
	}
	err := r.Error()
	if err == nil {
		return root, nil
	}
	e := &Error{Msg: err.Error()}
	var at *unstable.ParserError
	if errors.As(err, &at) {
		e.Line = r.line(r.Range(at.Highlight))
	}
	return nil, e
}

func (r *reader) line(at unstable.Range) int {
	return 1 + bytes.Count(r.Data()[:at.Offset], []byte{'\n'})
}

// find returns the setting of that name, or nil.
func (n *node) find(name []byte) *node {
	for _, b := range n.below {
		if b.name == string(name) {
			return b
		}
	}
	return nil
}

func (n *node) add(name []byte, line int, kind unstable.Kind) *node {
	b := &node{name: string(name), line: line, kind: kind}
	n.below = append(n.below, b)
	return b
}

// set takes NAME = VALUE into a table. A name of several parts makes tables, which
// others of their kind may complete.
func (r *reader) set(table *node, e *unstable.Node) *Error {
	for it := e.Key(); it.Next(); {
		part := it.Node()
		line := r.line(part.Raw)
		b := table.find(part.Data)
		switch {
		case b != nil && (it.IsLast() || b.kind != unstable.KeyValue):
			return &Error{Line: line, Msg: fmt.Sprintf("%s is set already, in line %d", b.name, b.line)}
		case it.IsLast():
			return r.value(table.add(part.Data, line, 0), e.Value())
		case b == nil:
			b = table.add(part.Data, line, unstable.KeyValue)
		}
		table = b
	}
	return nil
}

// value completes a node with what it is set to.
func (r *reader) value(n *node, v *unstable.Node) *Error {
	n.kind, n.text = v.Kind, string(v.Data)
	for it := v.Children(); it.Next(); {
		child := it.Node()
		var err *Error
		if v.Kind == unstable.InlineTable {
			err = r.set(n, child)
		} else {
			line := n.line
			if child.Raw.Length > 0 {
				line = r.line(child.Raw)
			}
			err = r.value(n.add(nil, line, 0), child)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// open returns the table to which the settings below a [header] or [[header]] belong.
func (r *reader) open(table *node, e *unstable.Node) (*node, *Error) {
	for it := e.Key(); it.Next(); {
		part, last := it.Node(), it.IsLast()
		line := r.line(part.Raw)
		b := table.find(part.Data)
		fits := false
		switch {
		case b == nil && last:
			b, fits = table.add(part.Data, line, e.Kind), true
		case b == nil:
			b, fits = table.add(part.Data, line, unstable.Table), true
		case last:
			fits = b.kind == e.Kind && !b.headed
		default:
			fits = b.kind == unstable.Table || b.kind == unstable.ArrayTable || b.kind == unstable.KeyValue
		}
		if !fits {
			return nil, &Error{Line: line, Msg: fmt.Sprintf("%s is there already, as %s in line %d", b.name, kinds[b.kind], b.line)}
		}
		if last && e.Kind == unstable.Table {
			b.headed, b.line = true, line
		}
		if b.kind == unstable.ArrayTable {
			if last {
				b.add(nil, line, unstable.Table).headed = true
			}
			b = b.below[len(b.below)-1]
		}
		table = b
	}
	return table, nil
}

// kinds of values, for messages.
var kinds = map[unstable.Kind]string{
	unstable.Table: "a table", unstable.KeyValue: "a table", unstable.InlineTable: "a table",
	unstable.ArrayTable: "an array of tables", unstable.Array: "an array",
	unstable.String: "a string", unstable.Bool: "true or false", unstable.Integer: "an integer", unstable.Float: "a floating-point number",
	unstable.LocalDate: "a date", unstable.LocalTime: "a time", unstable.LocalDateTime: "a date", unstable.DateTime: "a date",
}

func (n *node) isTable() bool {
	return n.kind == unstable.Table || n.kind == unstable.KeyValue || n.kind == unstable.InlineTable
}

func (n *node) isArray() bool {
	return n.kind == unstable.ArrayTable || n.kind == unstable.Array
}

// lines notes in which line each table and setting stands. Names are as in
// "key.source"; what is in an array is numbered: "volume[1].key.source",
// "volume[1].bind[0].path".
func (n *node) lines(at string, lines map[string]int) {
	lines[at] = n.line
	for i, b := range n.below {
		if n.isArray() {
			b.lines(fmt.Sprintf("%s[%d]", at, i), lines)
		} else {
			b.lines(strings.TrimPrefix(at+"."+b.name, "."), lines)
		}
	}
}
