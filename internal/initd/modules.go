package initd

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"unlock/internal/hint"
)

// moduleList names the modules to load, one path a line, in load order. A file
// system that only the real root needs has a list of its own, with "." and its
// type appended. The initramfs package writes them.
const moduleList = "/etc/unlock/modules"

// loadList loads the modules of a list; without the list there are none. It
// goes on after errors and joins them. A driver that finds no hardware (ENODEV)
// and a module that is there already (EEXIST) are no errors.
func loadList(file string) error {
	data, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading the module list: %w", err)
	}
	var errs []error
	for _, module := range strings.Fields(string(data)) {
		if err := load(module); err != nil && !errors.Is(err, unix.EEXIST) && !errors.Is(err, unix.ENODEV) {
			errs = append(errs, fmt.Errorf("loading kernel module %s: %w", module, err))
		}
	}
	return hint.All(errs...)
}

func load(file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.FinitModule(int(f.Fd()), "", 0)
}
