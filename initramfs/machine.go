package initramfs

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"strings"
)

var errForeign = errors.New("is for another architecture than unlock")

// suits is errForeign where a program or module is not for the machine that unlock is for.
func (o *Options) suits(name string, data []byte) error {
	if m := machine(data); m != o.machine && m != elf.EM_NONE && o.machine != elf.EM_NONE {
		return fmt.Errorf("%s %w: %s, not %s", name, errForeign, text(m), text(o.machine))
	}
	return nil
}

// machine is what a program or module is for; elf.EM_NONE where it does not say, as a script.
func machine(data []byte) elf.Machine {
	f, err := elf.NewFile(bytes.NewReader(data))
	if err != nil {
		return elf.EM_NONE
	}
	return f.Machine
}

func text(m elf.Machine) string { return strings.ToLower(strings.TrimPrefix(m.String(), "EM_")) }
