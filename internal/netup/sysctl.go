package netup

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// sysctl sets a setting of the card, such as ipv4/rp_filter, where the kernel has it;
// it is restored with the rest, under the name that the card has then.
func (c *card) sysctl(setting, value string) error {
	proto, name, _ := strings.Cut(setting, "/")
	file := func() string { return filepath.Join("/proc/sys/net", proto, "conf", c.called(), name) }
	old, err := os.ReadFile(file())
	if err != nil || strings.TrimSpace(string(old)) == value {
		return nil // there is none, or no need
	}
	if err := os.WriteFile(file(), []byte(value), 0); err != nil {
		return fmt.Errorf("setting net.%s of %s: %w", setting, c.called(), err)
	}
	c.undo = append(c.undo, func() error { return os.WriteFile(file(), old, 0) })
	return nil
}
