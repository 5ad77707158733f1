package luks2

import (
	"bytes"
	"encoding/json"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"

	"unlock/internal/secret"
)

// memory is a device whose first bytes are given and whose rest is zero.
type memory struct {
	head []byte
	size int64
}

func (m *memory) ReadAt(b []byte, offset int64) (int, error) {
	n := int(max(0, min(int64(len(b)), m.size-offset)))
	clear(b[:n])
	if offset < int64(len(m.head)) {
		copy(b[:n], m.head[offset:])
	}
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

func (m *memory) WriteAt(b []byte, offset int64) (int, error) {
	return copy(m.head[offset:], b), nil
}

func (m *memory) Sync() error { return nil }

// mutator reads decisions from fuzz data; when they are used up, all are 0.
type mutator struct{ data []byte }

func (m *mutator) n(limit int) int {
	if len(m.data) < 2 || limit < 1 {
		m.data = nil
		return 0
	}
	v := int(m.data[0])<<8 | int(m.data[1])
	m.data = m.data[2:]
	return v % limit
}

func (m *mutator) bytes(limit int) []byte {
	n := min(m.n(limit), len(m.data))
	b := m.data[:n]
	m.data = m.data[n:]
	return b
}

// values are those at which programs that read LUKS2 have failed.
var values = []any{
	nil, true, "", "0", "1", "2", "32", "-1", "4096", "32768", "258048", "290816", "294912", "16777216", "9223372036854771712",
	"9223372036854775807", "18446744073709551615", "18446744073709551616", "1e3", "dynamic", "crypt", "linear", "luks2", "reencrypt",
	"luks1", "raw", "none", "pbkdf2", "argon2i", "argon2id", "sha1", "sha256", "sha512", "md5", cipherName, "cipher_null-ecb",
	"aes-xts-plain64 0 /dev/null 0", "aws-kms", "luks2-keyring", "AAAA", "\x00", []any{}, []any{"0"}, []any{"1", "1"}, []any{nil}, map[string]any{},
	json.Number("0"), json.Number("1"), json.Number("-1"), json.Number("31"), json.Number("32"), json.Number("64"), json.Number("128"), json.Number("512"), json.Number("4000"), json.Number("4096"),
	json.Number("1000"), json.Number("2147483647"), json.Number("2147483648"), json.Number("4294967296"), json.Number("1e2"), json.Number("0.5"), json.Number("18446744073709551616"),
}

var names = []string{"0", "1", "2", "31", "32", "00", "-1", "x", "priority", "flags", "integrity", "requirements", "mandatory",
	"time", "memory", "cpus", "hash", "iterations", "salt", "type", "keyslots", "segments", "key_description"}

// place is a member of an object or array in a tree of JSON values.
type place struct {
	object map[string]any
	name   string
	array  []any
	index  int
}

func (p place) get() any {
	if p.object != nil {
		return p.object[p.name]
	}
	return p.array[p.index]
}

func (p place) set(v any) {
	if p.object != nil {
		p.object[p.name] = v
	} else {
		p.array[p.index] = v
	}
}

func places(v any) (found []place) {
	switch v := v.(type) {
	case map[string]any:
		for _, n := range slices.Sorted(maps.Keys(v)) {
			found = append(found, place{object: v, name: n})
			found = append(found, places(v[n])...)
		}
	case []any:
		for i := range v {
			found = append(found, place{array: v, index: i})
			found = append(found, places(v[i])...)
		}
	}
	return found
}

func parse(s []byte) (v any) {
	d := json.NewDecoder(bytes.NewReader(s))
	d.UseNumber()
	_ = d.Decode(&v)
	return v
}

// fresh returns a copy: a value that stood at two places, or within itself, would
// change at both.
func fresh(v any) any { return parse(encode(v)) }

// mutateJSON changes members of the tree, and at times the text.
func (m *mutator) mutateJSON(text []byte) []byte {
	tree := parse(text)
	for range 1 + m.n(3) {
		all := places(tree)
		if len(all) == 0 {
			break
		}
		p := all[m.n(len(all))]
		switch m.n(6) {
		case 0, 1:
			p.set(fresh(values[m.n(len(values))]))
		case 2:
			if p.object != nil {
				delete(p.object, p.name)
			}
		case 3:
			p.set(fresh(all[m.n(len(all))].get()))
		case 4:
			if o, ok := p.get().(map[string]any); ok {
				o[names[m.n(len(names))]] = fresh(values[m.n(len(values))])
			}
		case 5:
			p.set(string(m.bytes(80)))
		}
	}
	text = encode(tree)
	switch m.n(8) {
	case 1: // twice
		text = append([]byte(`{"config":{},`), text[1:]...)
	case 2: // another spelling
		text = bytes.Replace(text, []byte(names[m.n(len(names))]), []byte(strings.ToUpper(names[m.n(len(names))])), 1)
	case 3:
		at := m.n(len(text))
		text = slices.Concat(text[:at], m.bytes(40), text[at:])
	case 4:
		text = text[:m.n(len(text))]
	}
	return text
}

// mutate returns a copy of a device with changed headers whose checksums are right,
// mostly.
func (m *mutator) mutate(base *memory) *memory {
	d := &memory{bytes.Clone(base.head), base.size}
	copies := [][]byte{d.head[:16<<10], d.head[16<<10 : 32<<10]}
	which := [][]int{{0, 1}, {0}, {1}}[m.n(3)]
	for range 1 + m.n(2) {
		switch m.n(5) {
		case 0, 1, 2:
			text, _, _ := bytes.Cut(copies[which[0]][binSize:], []byte{0})
			text = m.mutateJSON(text)
			for _, i := range which {
				clear(copies[i][binSize:])
				copy(copies[i][binSize:], text)
			}
		case 3:
			at := []int{0, offVersion, offSize, offSeqid, offLabel, offAlgorithm, offSalt, offUUID, offSubsystem, offOffset, offChecksum}[m.n(11)]
			b := m.bytes(64)
			for _, i := range which {
				copy(copies[i][at:], b)
			}
		case 4:
			d.size = []int64{0, 4096, 16 << 10, 32 << 10, 1 << 20, 16 << 20, 16<<20 + 512, 16<<20 + 4096, 17 << 20, 1 << 50}[m.n(10)]
		}
	}
	if m.n(8) != 1 {
		for _, b := range copies {
			sum := checksum(b)
			clear(b[offChecksum:endChecksum])
			copy(b[offChecksum:], sum[:])
		}
	}
	return d
}

// work reports whether opening h would take long; that is allowed, but not wanted
// here.
func (h *Header) work() bool {
	return h.meta.digest.kdf.iterations > 2000 || slices.ContainsFunc(h.meta.keyslots, func(k keyslot) bool {
		return k.kdf.iterations > 2000 || int64(k.kdf.memory)*int64(k.kdf.time) > 16<<10
	})
}

// FuzzRead: whatever is in a header, reading it neither panics nor opens with
// another passphrase or to another place, and what was read can be written.
func FuzzRead(f *testing.F) {
	first, second, wrong := secret.Take([]byte("first")), secret.Take([]byte("second")), secret.Take([]byte("wrong"))
	base := &memory{make([]byte, 1<<20), 17 << 20}
	h, err := Format(base, base.size, first, FormatOptions{UUID: "0d5bd3a4-9d41-4f9c-8c6e-3f2a1b7c9e55", SectorSize: 4096,
		Tokens: []json.RawMessage{json.RawMessage(`{"type":"x","keyslots":["0"],"y":{"z":[1,null]}}`)}})
	if err != nil {
		f.Fatal(err)
	}
	if _, err := h.AddKeyslot(f.Context(), base, first, second, false); err != nil {
		f.Fatal(err)
	}
	// Tried by nobody, so that most of the time goes into reading.
	if err := h.update(base, func(now *Header) (object, error) {
		return now.doc.edit("keyslots", func(o object) (object, error) {
			return o.edit("1", func(o object) (object, error) { return o.with("priority", encode(priorityIgnore)), nil })
		})
	}); err != nil {
		f.Fatal(err)
	}
	want, err := h.Open(f.Context(), first)
	if err != nil {
		f.Fatal(err)
	}
	for i := range 64 {
		f.Add(bytes.Repeat([]byte{0, byte(i), byte(i * 7), byte(i * 31)}, 8))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		d := (&mutator{data}).mutate(base)
		lim := Limits{Memory: 1 << 20, Iterations: 10_000}
		h, err := Read(d, d.size, lim)
		if err != nil || h.work() {
			return
		}
		if p, err := h.Open(t.Context(), wrong); err == nil {
			t.Fatalf("opens with a wrong passphrase: %+v", p)
		}
		if p, err := h.Open(t.Context(), first); err == nil {
			end := 2*h.size + h.meta.keyslotsSize
			if !bytes.Equal(p.Key.Bytes(), want.Key.Bytes()) || p.Offset < end || p.Size <= 0 || p.Size > d.size-p.Offset ||
				p.Offset%int64(p.SectorSize) != 0 || p.Size%int64(p.SectorSize) != 0 || p.Cipher != cipherName || p.UUID != h.uuid {
				t.Fatalf("payload %+v of a device of %d bytes", p, d.size)
			}
			p.Wipe()
		}
		before := h.doc.encode()
		if err := h.update(d, func(now *Header) (object, error) { return now.doc, nil }); err != nil {
			return // no room, or a sequence id that cannot grow
		}
		again, err := Read(d, d.size, lim)
		if err != nil || again.Damaged() || !bytes.Equal(again.doc.encode(), before) {
			t.Fatalf("after an update: %v\n%s\n%s", err, before, again.doc.encode())
		}
	})
}
