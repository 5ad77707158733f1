package badinput

import (
	"bytes"
	"math/rand/v2"
)

// oddities are what parsers stumble over.
var oddities = []string{"", "\x00", "\n", "\"", "'", "{", "}", "[", "]", ":", ",", "..", "/", "\\", "%s", "-1", "0", "1e999",
	"18446744073709551616", "9223372036854775807", "4294967295", "null", "true", "\xff\xfe", "\u202e", "Transfer-Encoding: chunked\r\n", "Content-Length: 5\r\n"}

// mutator changes inputs; equal seeds make equal changes.
type mutator struct{ *rand.Rand }

func newMutator(seed uint64, n int) mutator { return mutator{rand.New(rand.NewPCG(seed, uint64(n)))} }

// mutate returns a changed copy of an input.
func (m mutator) mutate(in []byte) []byte {
	out := bytes.Clone(in)
	for changes := 1 + m.IntN(4); changes > 0; changes-- {
		out = m.change(out)
	}
	return out
}

func (m mutator) change(b []byte) []byte {
	from := m.IntN(len(b) + 1)
	to := min(len(b), from+1+m.IntN(16))
	splice := func(middle ...byte) []byte {
		return append(append(bytes.Clone(b[:from]), middle...), b[to:]...)
	}
	switch m.IntN(9) {
	case 0, 1: // one bit
		if from < len(b) {
			b[from] ^= 1 << m.IntN(8)
		}
		return b
	case 2: // one byte
		if from < len(b) {
			b[from] = byte(m.Uint32())
		}
		return b
	case 3: // the rest is missing
		return b[:from]
	case 4: // a part is missing
		return splice()
	case 5: // a part is there twice
		return splice(append(bytes.Clone(b[from:to]), b[from:to]...)...)
	case 6: // a part from elsewhere
		i := m.IntN(len(b) + 1)
		return splice(b[i:min(len(b), i+16)]...)
	case 7:
		return splice([]byte(oddities[m.IntN(len(oddities))])...)
	}
	// Something long.
	return splice(bytes.Repeat([]byte{byte('0' + m.IntN(64))}, 1<<m.IntN(18))...)
}
