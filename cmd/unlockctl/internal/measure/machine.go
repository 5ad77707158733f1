package measure

import (
	"bytes"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Machine is what was measured in this boot.
type Machine struct {
	PCRs   map[int][]byte // SHA-384, those of a Prediction
	Events []Event        // of firmware and loaders: the TPM's event log
}

// This reads the machine's PCRs and event log; root is that of the file system, "/".
func This(root string) (*Machine, error) {
	m := &Machine{PCRs: map[int][]byte{}}
	for _, n := range predicted {
		file := filepath.Join(root, fmt.Sprintf("sys/class/tpm/tpm0/pcr-sha384/%d", n))
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("reading a PCR: %w", err)
		}
		value, err := hex.DecodeString(strings.TrimSpace(string(text)))
		if err != nil || len(value) != 48 {
			return nil, fmt.Errorf("%s is no PCR", file)
		}
		m.PCRs[n] = value
	}
	log, err := os.ReadFile(filepath.Join(root, "sys/kernel/security/tpm0/binary_bios_measurements"))
	if err != nil {
		return nil, fmt.Errorf("reading the event log: %w", err)
	}
	if m.Events, err = ReadLog(log); err != nil {
		return nil, fmt.Errorf("reading the event log: %w", err)
	}
	return m, nil
}

// algSHA384 is TPM_ALG_SHA384.
const algSHA384 = 0x000c

var errLog = errors.New("it is malformed or cut off")

// ReadLog reads an event log (PC Client Platform Firmware Profile, section 10): a first
// event in the old form, which lists the algorithms, then TCG_PCR_EVENT2.
func ReadLog(b []byte) ([]Event, error) {
	if len(b) < 32 {
		return nil, errLog
	}
	n := int(le.Uint32(b[28:]))
	if n > len(b)-32 {
		return nil, errLog
	}
	spec := b[32 : 32+n]
	if len(spec) < 28 || !bytes.HasPrefix(spec, []byte("Spec ID Event03\x00")) {
		return nil, errors.New("it is of SHA-1 only")
	}
	sizes := map[uint16]int{}
	for i := range int(le.Uint32(spec[24:])) {
		if len(spec) < 32+4*i {
			return nil, errLog
		}
		sizes[le.Uint16(spec[28+4*i:])] = int(le.Uint16(spec[30+4*i:]))
	}
	var all []Event
	for b = b[32+n:]; len(b) > 0; {
		if len(b) < 12 {
			return nil, errLog
		}
		e, kind, count := Event{PCR: int(le.Uint32(b))}, le.Uint32(b[4:]), int(le.Uint32(b[8:]))
		b = b[12:]
		for range count {
			if len(b) < 2 {
				return nil, errLog
			}
			alg := le.Uint16(b)
			size, ok := sizes[alg]
			if !ok || len(b) < 2+size {
				return nil, errLog
			}
			if alg == algSHA384 {
				e.Digest = b[2 : 2+size]
			}
			b = b[2+size:]
		}
		if len(b) < 4 || int(le.Uint32(b)) > len(b)-4 {
			return nil, errLog
		}
		data := b[4 : 4+le.Uint32(b)]
		b = b[4+len(data):]
		const noAction = 3
		if kind == noAction {
			continue
		}
		if len(e.Digest) != 48 {
			return nil, errors.New("it is without SHA-384")
		}
		e.What = describe(kind, data)
		all = append(all, e)
	}
	return all, nil
}

// kinds of events, as far as they are in PCRs that are predicted.
var kinds = map[uint32]string{
	0x4: "separator", 0xd: "measured by a loader", 0x80000001: "variable", 0x80000003: "program of UEFI", 0x80000007: "action", 0x800000e0: "authority",
	0x6: "event tag",
}

// describe says what an event is about.
func describe(kind uint32, data []byte) string {
	what := kinds[kind]
	if what == "" {
		what = fmt.Sprintf("event 0x%x", kind)
	}
	text := strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return -1
		}
		return r
	}, string(data[:min(len(data), 256)]))
	switch kind {
	case 0xd, 0x80000007:
		return what + ": " + text
	}
	return what
}

// SecureBoot reports whether Secure Boot was on.
func (m *Machine) SecureBoot() bool {
	digest := sha512.Sum384(variable(globalVariable, "SecureBoot", []byte{1}))
	some := of(m.Events, 7)
	return len(some) > 0 && bytes.Equal(some[0].Digest, digest[:])
}

// Difference is an event that is not as predicted.
type Difference struct {
	PCR       int
	Number    int // from 1 on, of this PCR's
	Want, Got *Event
}

// Compare finds the first difference of each PCR between what was predicted and the log.
// A PCR that is not what its own log says was extended since, which Later reports.
func (p *Prediction) Compare(m *Machine) (different []Difference) {
	for _, n := range predicted {
		want, got := of(p.Events, n), of(m.Events, n)
		for i := range max(len(want), len(got)) {
			d := Difference{PCR: n, Number: i + 1}
			if i < len(want) {
				d.Want = &want[i]
			}
			if i < len(got) {
				d.Got = &got[i]
			}
			if d.Want == nil || d.Got == nil || !bytes.Equal(d.Want.Digest, d.Got.Digest) {
				different = append(different, d)
				break
			}
		}
	}
	return different
}

// Later reports whether a PCR was extended by what runs after the loaders, which keep the
// log.
func (m *Machine) Later(pcr int) bool { return !bytes.Equal(Replay(m.Events, pcr), m.PCRs[pcr]) }

func of(events []Event, pcr int) []Event {
	var some []Event
	for _, e := range events {
		if e.PCR == pcr {
			some = append(some, e)
		}
	}
	return some
}
