package dm

import (
	"cmp"
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
	Cipher     string // the kernel's name of it, not a header's; "" means aes-xts-plain64
	SectorSize int    // bytes; the length is a multiple of it
	Key        *secret.Bytes
	KeyName    string   // description of the logon key, such as cryptsetup:UUID-d0
	Flags      []string // of the header, in its spelling: allow-discards, no-read-workqueue, …; unknown ones are left out
}

// A Flag is one of LUKS2's persistent flags, and what dm-crypt makes of it.
type Flag struct {
	Name     string // LUKS2's
	Kernel   string // dm-crypt's; "" if it is about other targets
	Optional bool   // a volume is still right without it
}

// Flags are all that cryptsetup knows, those that kernels have had longest first.
var Flags = []Flag{
	{"no-journal", "", true}, // of integrity protection
	{"allow-discards", "allow_discards", false},
	{"same-cpu-crypt", "same_cpu_crypt", true},
	{"submit-from-crypt-cpus", "submit_from_crypt_cpus", true},
	{"no-read-workqueue", "no_read_workqueue", true},
	{"no-write-workqueue", "no_write_workqueue", true},
	{"high_priority", "high_priority", true},
}

// KnownFlag reports whether Flags has one of that name.
func KnownFlag(name string) bool {
	return slices.ContainsFunc(Flags, func(f Flag) bool { return f.Name == name })
}

func (c Crypt) spec() (string, uint64, string) {
	var args []string
	for _, f := range Flags {
		if f.Kernel != "" && slices.Contains(c.Flags, f.Name) {
			args = append(args, f.Kernel)
		}
	}
	if c.SectorSize > 1<<SectorShift {
		args = append(args, fmt.Sprintf("sector_size:%d", c.SectorSize))
	}
	params := fmt.Sprintf("%s :%d:logon:%s %d %s %d", cmp.Or(c.Cipher, "aes-xts-plain64"), c.Key.Len(), c.KeyName, c.IVOffset, c.Device, c.Offset)
	if len(args) > 0 {
		params += fmt.Sprintf(" %d %s", len(args), strings.Join(args, " "))
	}
	return "crypt", c.Sectors, params
}

// loadCrypt loads a crypt table with the key in this thread's keyring. Flags that
// only tune, and that this kernel does not know, are left out, and returned.
func (c *control) loadCrypt(name string, flags uint32, t Crypt) (left []string, err error) {
	if t.KeyName == "" || strings.ContainsAny(t.KeyName+t.Cipher, " \x00") {
		return nil, fmt.Errorf("loading crypt table of mapping %s: key description %q, cipher %q", name, t.KeyName, t.Cipher)
	}
	// The keyring belongs to the thread: a goroutine that moved on would not find
	// the key (ENOKEY).
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	key, err := unix.AddKey("logon", t.KeyName, t.Key.Bytes(), unix.KEY_SPEC_THREAD_KEYRING)
	if err != nil {
		return nil, fmt.Errorf("putting the volume key of %s into the kernel keyring: %w", name, err)
	}
	defer unix.KeyctlInt(unix.KEYCTL_UNLINK, key, unix.KEY_SPEC_THREAD_KEYRING, 0, 0)
	return t.fewerFlags(func(t Crypt) error { return c.load(name, flags, t) })
}

// fewerFlags calls load with fewer and fewer flags, the newest left out first, until
// the kernel does not call the table invalid. It returns those left out, also those
// that nobody knows.
func (t Crypt) fewerFlags(load func(Crypt) error) (left []string, err error) {
	known := []string{}
	for _, f := range t.Flags {
		if KnownFlag(f) {
			known = append(known, f)
		} else {
			left = append(left, f)
		}
	}
	t.Flags = known
	if err = load(t); !errors.Is(err, unix.EINVAL) {
		return left, err
	}
	for _, f := range slices.Backward(Flags) {
		if !f.Optional || f.Kernel == "" || !slices.Contains(t.Flags, f.Name) {
			continue
		}
		left = append(left, f.Name)
		t.Flags = slices.DeleteFunc(slices.Clone(t.Flags), func(n string) bool { return n == f.Name })
		if again := load(t); !errors.Is(again, unix.EINVAL) {
			return left, again
		}
	}
	return nil, err // it was not the flags
}
