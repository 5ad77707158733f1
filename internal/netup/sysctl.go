package netup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// sysctl sets a setting of the card, such as ipv4/rp_filter, where the kernel has it;
// it is restored with the rest, under the name that the card has then.
func (c *card) sysctl(setting, value string) error {
	var old []byte
	err := c.setting(setting, func(file string) (err error) {
		if old, err = os.ReadFile(file); err != nil || strings.TrimSpace(string(old)) == value {
			return err
		}
		return os.WriteFile(file, []byte(value), 0)
	})
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil // there is none
	case err != nil:
		return fmt.Errorf("setting net.%s of %s: %w", setting, c.called(), err)
	}
	if strings.TrimSpace(string(old)) != value {
		c.undo = append(c.undo, func() error {
			return c.setting(setting, func(file string) error { return os.WriteFile(file, old, 0) })
		})
	}
	return nil
}

// setting calls do with the file of a setting, until that is there: while the card gets
// another name, it has no settings for a moment. The error wraps os.ErrNotExist if the
// kernel has no such setting.
func (c *card) setting(setting string, do func(file string) error) error {
	const moment = time.Second
	proto, name, _ := strings.Cut(setting, "/")
	dir := filepath.Join("/proc/sys/net", proto, "conf")
	for end := time.Now().Add(moment); ; time.Sleep(10 * time.Millisecond) {
		l, err := linkOf(c.index)
		if err != nil {
			return fmt.Errorf("looking it up: %w", err)
		}
		if err = do(filepath.Join(dir, l.name, name)); !errors.Is(err, os.ErrNotExist) || time.Now().After(end) {
			return err
		}
		if _, none := os.Stat(filepath.Join(dir, "all", name)); none != nil {
			return err
		}
	}
}
