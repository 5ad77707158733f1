package config

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/pelletier/go-toml/v2/unstable"
)

// keyLines tells in which line each table and setting stands. Names are as in
// "key.source"; the tables of an array are numbered: "volume[1].key.source",
// "volume[1].bind[0].path".
// data has been decoded without error before.
func keyLines(data []byte) map[string]int {
	lines := map[string]int{}
	count := map[string]int{}
	var table string
	p := unstable.Parser{}
	p.Reset(data)
	for p.NextExpression() {
		e := p.Expression()
		name, line := dotted(&p, e.Key())
		switch e.Kind {
		case unstable.ArrayTable:
			name = numbered(name, count)
			table = fmt.Sprintf("%s[%d]", name, count[name])
			count[name]++
			lines[table] = line
		case unstable.Table:
			table = numbered(name, count)
			lines[table] = line
		case unstable.KeyValue:
			if table != "" {
				name = table + "." + name
			}
			lines[name] = line
			inlineLines(&p, lines, name, e.Value())
		}
	}
	return lines
}

// numbered turns volume.key into volume[N].key, where N is the last volume.
func numbered(name string, count map[string]int) string {
	array, rest, nested := strings.Cut(name, ".")
	if n := count[array]; nested && n > 0 {
		return fmt.Sprintf("%s[%d].%s", array, n-1, rest)
	}
	return name
}

// inlineLines descends into { a = 1, b = 2 }.
func inlineLines(p *unstable.Parser, lines map[string]int, name string, value *unstable.Node) {
	if value.Kind != unstable.InlineTable {
		return
	}
	for it := value.Children(); it.Next(); {
		kv := it.Node()
		if kv.Kind != unstable.KeyValue {
			continue
		}
		key, line := dotted(p, kv.Key())
		lines[name+"."+key] = line
		inlineLines(p, lines, name+"."+key, kv.Value())
	}
}

func dotted(p *unstable.Parser, key unstable.Iterator) (name string, line int) {
	var parts []string
	for key.Next() {
		n := key.Node()
		if line == 0 {
			line = 1 + bytes.Count(p.Data()[:n.Raw.Offset], []byte{'\n'})
		}
		parts = append(parts, string(n.Data))
	}
	return strings.Join(parts, "."), line
}
