package dm

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"unlock/internal/secret"
)

// Crypt maps an encrypted area.
type Crypt struct {
	Device     string // MAJOR:MINOR
	Offset     uint64 // sectors from the start of the device
	Sectors    uint64
	IVOffset   uint64 // sectors
	SectorSize int    // bytes; the length is a multiple of it
	Key        *secret.Bytes
	KeyName    string   // description of the logon key, such as cryptsetup:UUID-d0
	Flags      []string // as LUKS2 names them: allow-discards, no-read-workqueue, …
}

// cipher is the only one that is ever mapped: tables are built from constants.
const cipher = "aes-xts-plain64"

// cryptFlags are LUKS2's persistent flags as the kernel calls them, and whether
// a volume is still right without them.
var cryptFlags = map[string]struct {
	kernel   string
	optional bool
}{
	"allow-discards":         {"allow_discards", false},
	"same-cpu-crypt":         {"same_cpu_crypt", true},
	"submit-from-crypt-cpus": {"submit_from_crypt_cpus", true},
	"no-read-workqueue":      {"no_read_workqueue", true},
	"no-write-workqueue":     {"no_write_workqueue", true},
	"high-priority":          {"high_priority", true},
}

func (c Crypt) spec() (string, uint64, string) {
	var args []string
	for _, f := range c.Flags {
		args = append(args, cryptFlags[f].kernel)
	}
	if c.SectorSize > 1<<SectorShift {
		args = append(args, fmt.Sprintf("sector_size:%d", c.SectorSize))
	}
	params := fmt.Sprintf("%s :%d:logon:%s %d %s %d", cipher, c.Key.Len(), c.KeyName, c.IVOffset, c.Device, c.Offset)
	if len(args) > 0 {
		params += fmt.Sprintf(" %d %s", len(args), strings.Join(args, " "))
	}
	return "crypt", c.Sectors, params
}

// loadCrypt loads a crypt table with the key in this thread's keyring. Flags that
// only tune, and that this kernel does not know, are left out.
func (c *control) loadCrypt(name string, flags uint32, t Crypt) error {
	for _, f := range t.Flags {
		if _, ok := cryptFlags[f]; !ok {
			return fmt.Errorf("loading crypt table of mapping %s: unknown flag %q", name, f)
		}
	}
	if t.KeyName == "" || strings.ContainsAny(t.KeyName, " \x00") {
		return fmt.Errorf("loading crypt table of mapping %s: key description %q", name, t.KeyName)
	}
	// The keyring belongs to the thread: a goroutine that moved on would not find
	// the key (ENOKEY).
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	key, err := unix.AddKey("logon", t.KeyName, t.Key.Bytes(), unix.KEY_SPEC_THREAD_KEYRING)
	if err != nil {
		return fmt.Errorf("putting the volume key of %s into the kernel keyring: %w", name, err)
	}
	defer unix.KeyctlInt(unix.KEYCTL_UNLINK, key, unix.KEY_SPEC_THREAD_KEYRING, 0, 0)

	err = c.load(name, flags, t)
	if !errors.Is(err, unix.EINVAL) {
		return err
	}
	needed := slices.DeleteFunc(slices.Clone(t.Flags), func(f string) bool { return cryptFlags[f].optional })
	if len(needed) == len(t.Flags) {
		return err
	}
	t.Flags = needed
	return c.load(name, flags, t)
}
