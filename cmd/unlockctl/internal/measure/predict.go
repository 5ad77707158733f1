package measure

import (
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf16"
)

// Event is one measurement.
type Event struct {
	PCR    int
	What   string // for people
	Digest []byte // SHA-384
}

// Prediction is what a boot will measure.
type Prediction struct {
	PCRs       map[string]string `json:"pcrs"` // "4" → lower-case hex of SHA-384
	SecureBoot bool              `json:"secure_boot"`
	Images     []Loaded          `json:"images"` // in the order in which they are started
	Events     []Event           `json:"-"`
}

// Loaded is a program that is started.
type Loaded struct {
	File         string `json:"file"`
	What         string `json:"what"`
	Authenticode string `json:"authenticode_sha384"`
}

// predicted are the PCRs of a Prediction.
var predicted = []int{2, 4, 7, 11, 12, 13}

// Predicted lists the PCRs of a Prediction in their order.
func Predicted() []int { return slices.Clone(predicted) }

// Predict returns what is measured when firmware starts the first image, that the second,
// and so on. Secure Boot is on with these variables, off if they are nil.
func Predict(images []*Image, vars *Variables) (*Prediction, error) {
	p := &Prediction{PCRs: map[string]string{}, SecureBoot: vars != nil}
	if err := chain(images); err != nil {
		return nil, err
	}
	p.add(2, "separator", make([]byte, 4))
	p.add(4, "calling a boot option", []byte("Calling EFI Application from Boot Option"))
	p.add(4, "separator", make([]byte, 4))
	for _, i := range images {
		digest := i.Authenticode(sha512.New384())
		p.Images = append(p.Images, Loaded{i.Name, i.What(), hex.EncodeToString(digest)})
		p.Events = append(p.Events, Event{4, i.Name, digest})
	}
	if err := p.stub(images[len(images)-1]); err != nil {
		return nil, err
	}
	p.options(images)
	if err := p.secureBoot(images, vars); err != nil {
		return nil, err
	}
	p.sum()
	return p, nil
}

// add measures data.
func (p *Prediction) add(pcr int, what string, data []byte) {
	digest := sha512.Sum384(data)
	p.Events = append(p.Events, Event{pcr, what, digest[:]})
}

// sum works the PCRs out.
func (p *Prediction) sum() {
	for _, n := range predicted {
		p.PCRs[fmt.Sprint(n)] = hex.EncodeToString(Replay(p.Events, n))
	}
}

// Replay returns a PCR after some events.
func Replay(events []Event, pcr int) []byte {
	value := make([]byte, sha512.Size384)
	for _, e := range events {
		if e.PCR == pcr {
			sum := sha512.Sum384(append(value, e.Digest...))
			value = sum[:]
		}
	}
	return value
}

// ErrUnpredictable is why a boot cannot be predicted.
var ErrUnpredictable = errors.New("cannot be predicted")

func unpredictable(format string, args ...any) error {
	return fmt.Errorf("what is measured %w: "+format, append([]any{ErrUnpredictable}, args...)...)
}

// chain checks that each image but the last starts the next, as far as one can tell.
func chain(images []*Image) error {
	if len(images) == 0 {
		return unpredictable("there is no program")
	}
	for n, i := range images {
		program, _, _ := i.kind()
		_, unified := i.section(".linux")
		last := n == len(images)-1
		switch {
		case i.What() == "GRUB":
			return unpredictable("%s is GRUB, whose measurements depend on what it does", i.Name)
		case last && !unified:
			return unpredictable("the last program, %s (%s), is no unified kernel image, which holds kernel, initramfs and command line", i.Name, i.What())
		case last && program != "systemd-stub":
			return unpredictable("%s has a stub without version: whether firmware measures the kernel within depends on it", i.Name)
		case !last && program != "systemd-boot":
			return unpredictable("%s (%s), which starts another, is not systemd-boot", i.Name, i.What())
		}
	}
	return nil
}

// measured are the sections of a unified kernel image that systemd-stub measures, in its
// order, and the versions from which on it knows them.
var measured = []struct {
	name string
	from int
}{
	{".linux", 0}, {".osrel", 0}, {".cmdline", 0}, {".initrd", 0}, {".ucode", 256}, {".splash", 0}, {".dtb", 0},
	{".uname", 253}, {".sbat", 253}, {".pcrpkey", 0}, {".hwids", 257},
}

// options adds the command line that older versions of systemd-boot take from a unified
// image and pass to it again: they measure it, and so does the stub, which ignores it
// under Secure Boot.
func (p *Prediction) options(images []*Image) {
	const knowsBetter = 255
	last := images[len(images)-1]
	content, ok := last.section(".cmdline")
	if len(images) < 2 || !ok {
		return
	}
	if _, _, version := images[len(images)-2].kind(); version >= knowsBetter {
		return
	}
	text := strings.TrimRight(strings.Map(func(r rune) rune {
		if r < ' ' {
			return ' '
		}
		return r
	}, strings.TrimRight(string(content), "\x00")), " ")
	if text == "" {
		return
	}
	var b []byte
	for _, c := range append(utf16.Encode([]rune(text)), 0) {
		b = le.AppendUint16(b, c)
	}
	p.add(12, "command line, by systemd-boot", b)
	if !p.SecureBoot {
		p.add(12, "command line, by systemd-stub", b)
	}
}

// choosing are sections of which systemd-stub chooses by the machine, or by what is chosen
// in a menu.
var choosing = []string{".profile", ".dtbauto", ".efifw"}

// stub adds what a unified kernel image measures, and what firmware measures of the
// kernel within, which older stubs have it load.
func (p *Prediction) stub(i *Image) error {
	_, _, version := i.kind()
	const oldest = 252
	if version < oldest {
		return unpredictable("%s has systemd-stub %d, and %d is the oldest one known here", i.Name, version, oldest)
	}
	for _, name := range choosing {
		if i.count(name) > 0 {
			return unpredictable("%s has a section %s, of which it chooses when it boots", i.Name, name)
		}
	}
	kernel, _ := i.section(".linux")
	const loadsItself, bypassesSecureBoot = 258, 252
	if version < loadsItself && (!p.SecureBoot || version < bypassesSecureBoot) {
		inner, err := Read(i.Name+", section .linux", kernel)
		if err != nil {
			return err
		}
		p.Events = append(p.Events, Event{4, inner.Name, inner.Authenticode(sha512.New384())})
	}
	for _, s := range measured {
		content, ok := i.section(s.name)
		if !ok || len(content) == 0 || version < s.from {
			continue
		}
		if i.count(s.name) > 1 {
			return unpredictable("%s has %d sections %s", i.Name, i.count(s.name), s.name)
		}
		p.add(11, i.Name+", name of section "+s.name, append([]byte(s.name), 0))
		p.add(11, i.Name+", section "+s.name, content)
	}
	return nil
}
