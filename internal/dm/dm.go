// Package dm drives the kernel's device-mapper by its ioctl interface
// (linux/dm-ioctl.h): crypt with the key in the kernel keyring, striped, linear;
// create, look up, resize, remove.
//
// Volume keys reach dm-crypt through a logon key in the thread's keyring, never
// through the table, so that `dmsetup table --showkeys` shows a description only.
// Mappings carry the names, UUIDs and udev flags that cryptsetup would give them.
//
// A mapping made before any udevd runs would be hidden by the real root's coldplug
// (55-dm.rules, formerly 10-dm.rules); Create therefore leaves the one database
// entry that those rules look for. See udev.go.
package dm

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"unlock/internal/hint"
)

const (
	// SectorShift turns bytes into device-mapper's 512-byte sectors.
	SectorShift = 9

	maxName = 127 // DM_NAME_LEN without the NUL
	maxUUID = 128 // DM_UUID_LEN without the NUL
)

// Target is what a mapping maps to: Crypt, Striped, Raid or Linear.
type Target interface {
	// spec returns the target type, the length in sectors and the parameters.
	spec() (kind string, sectors uint64, params string)
}

// Striped spreads a mapping over devices of equal size, chunk by chunk.
type Striped struct {
	Devices []string // MAJOR:MINOR, in order
	Chunk   uint64   // sectors, a power of two
	Sectors uint64   // of the whole: a multiple of len(Devices)*Chunk
}

func (s Striped) spec() (string, uint64, string) {
	var b strings.Builder
	fmt.Fprintf(&b, "%d %d", len(s.Devices), s.Chunk)
	for _, d := range s.Devices {
		fmt.Fprintf(&b, " %s 0", d)
	}
	return "striped", s.Sectors, b.String()
}

// Raid keeps the same data on several devices of equal size: on all of them, or, with a
// Chunk, on pairs of them, over which it is striped (the kernel's dm-raid, raid1 and raid10).
type Raid struct {
	Members []RaidMember // in order
	Chunk   uint64       // sectors; 0: not striped
	Sectors uint64       // of the whole
	New     bool         // the members hold nothing yet that would have to be made the same
	Rebuild []int        // members that get all data from others
}

// RaidMember is two devices, MAJOR:MINOR: the kernel's superblock and bitmap, and the data.
// The zero value is a member that is missing.
type RaidMember struct{ Meta, Data string }

func (r Raid) spec() (string, uint64, string) {
	kind, args := "raid1", []string{strconv.FormatUint(r.Chunk, 10)}
	if r.Chunk > 0 {
		kind = "raid10" // of two copies, one beside the other, by default
	}
	if r.New {
		args = append(args, "nosync")
	}
	for _, i := range r.Rebuild {
		args = append(args, "rebuild", strconv.Itoa(i))
	}
	params := fmt.Sprintf("%s %d %s %d", kind, len(args), strings.Join(args, " "), len(r.Members))
	for _, m := range r.Members {
		params += " " + cmp.Or(m.Meta, "-") + " " + cmp.Or(m.Data, "-")
	}
	return "raid", r.Sectors, params
}

// Linear is a part of a device.
type Linear struct {
	Device  string // MAJOR:MINOR
	Offset  uint64 // sectors
	Sectors uint64
}

func (l Linear) spec() (string, uint64, string) {
	return "linear", l.Sectors, fmt.Sprintf("%s %d", l.Device, l.Offset)
}

// Options of Create.
type Options struct {
	ReadOnly bool
	// Internal hides the device from udev's probing: a member of a stripe.
	Internal bool
}

// Device is an active mapping.
type Device struct {
	Name  string
	UUID  string
	Major uint32
	Minor uint32
	Left  []string // from Create: flags of a Crypt that this kernel does not know
	Table Table    // from Lookup
}

// Table is the active table of a mapping with one target; zero if it has none, or
// several.
type Table struct {
	Kind    string // "crypt", "striped", …
	Sectors uint64
	Params  []string // as the target has them, but for the key of crypt, which is empty
}

// Maps reports whether the table is what Create would make of a target, but for keys
// and flags.
func (t Table) Maps(target Target) bool {
	kind, sectors, params := target.spec()
	want := strings.Fields(params)
	if raid, ok := target.(Raid); ok && kind == t.Kind && sectors == t.Sectors { // the kernel adds arguments of its own
		n := 2*len(raid.Members) + 1
		return len(t.Params) > n && t.Params[0] == want[0] && slices.Equal(t.Params[len(t.Params)-n:], want[len(want)-n:])
	}
	if kind != t.Kind || sectors != t.Sectors || len(t.Params) < len(want) && kind != "crypt" {
		return false
	}
	if kind == "crypt" {
		want = want[:min(len(want), 5)] // cipher, key, IV offset, device, offset; flags follow
		want[1] = ""
	}
	return len(t.Params) >= len(want) && slices.Equal(t.Params[:len(want)], want)
}

// Number returns MAJOR:MINOR.
func (d Device) Number() string { return fmt.Sprintf("%d:%d", d.Major, d.Minor) }

// Node returns the kernel's own name of the device, /dev/dm-N, which exists as
// soon as the mapping does.
func (d Device) Node() string { return "/dev/dm-" + strconv.FormatUint(uint64(d.Minor), 10) }

// Path returns /dev/mapper/NAME.
func (d Device) Path() string { return "/dev/mapper/" + d.Name }

// ErrExists: a mapping of that name or UUID is there already.
var ErrExists = hint.New("a mapping of that name or UUID exists already",
	"another tool has mapped the volume: remove it from crypttab or from rd.luks")

// Create makes and activates a mapping and returns when /dev/mapper/NAME is
// there. If any step fails no mapping is left behind.
func Create(name, uuid string, t Target, o Options) (Device, error) {
	if name == "" || len(name) > maxName || strings.ContainsAny(name, "/\x00") || len(uuid) > maxUUID {
		return Device{}, fmt.Errorf("creating mapping %q: name or UUID is not one that device-mapper takes", name)
	}
	c, err := open()
	if err != nil {
		return Device{}, err
	}
	defer c.close()

	var flags uint32
	if o.ReadOnly {
		flags |= flagReadOnly
	}
	r := request{name: name, uuid: uuid, flags: flags}
	if err := c.call(cmdCreate, &r); err != nil {
		if errors.Is(err, unix.EBUSY) {
			return Device{}, fmt.Errorf("creating mapping %s: %w", name, ErrExists)
		}
		return Device{}, fmt.Errorf("creating mapping %s: %w", name, err)
	}
	d := Device{Name: name, UUID: uuid, Major: unix.Major(r.dev), Minor: unix.Minor(r.dev)}
	if d.Left, err = c.activate(name, flags, t, o); err != nil {
		return Device{}, errors.Join(err, Remove(name))
	}
	if err := announce(d); err != nil {
		return Device{}, errors.Join(err, Remove(name))
	}
	return d, nil
}

// Resize gives an active mapping, which may be in use, a table of another length. The
// rest of it must be what the mapping has: the kernel takes any. If it fails, the mapping
// goes on as it was.
func Resize(name string, t Crypt, o Options) error {
	c, err := open()
	if err != nil {
		return err
	}
	defer c.close()
	var flags uint32
	if o.ReadOnly {
		flags |= flagReadOnly
	}
	if _, err := c.activate(name, flags, t, o); err != nil {
		_ = c.call(cmdClear, &request{name: name})
		_ = c.call(cmdSuspend, &request{name: name}) // resumes, if it was suspended for the new table
		return err
	}
	return nil
}

// Reload gives a mirror that is active, and may be in use, a table with other members.
func Reload(name string, t Raid) error {
	c, err := open()
	if err != nil {
		return err
	}
	defer c.close()
	if _, err := c.activate(name, 0, t, Options{}); err != nil {
		_ = c.call(cmdClear, &request{name: name})
		_ = c.call(cmdSuspend, &request{name: name}) // resumes, if it was suspended for the new table
		return err
	}
	return nil
}

// Health returns of an active mirror a letter for each member, A if it has all data, a while
// it gets them, any other if it has failed or is missing (dm-raid.rst of the kernel), and
// how many sectors are done of how many.
func Health(name string) (members string, done, total int64, err error) {
	c, err := open()
	if err != nil {
		return "", 0, 0, err
	}
	defer c.close()
	r := request{name: name, flags: flagSecureData}
	if err := c.call(cmdTable, &r); err != nil {
		return "", 0, 0, fmt.Errorf("asking for the state of mapping %s: %w", name, err)
	}
	if r.table.Kind != "raid" || len(r.table.Params) < 4 {
		return "", 0, 0, fmt.Errorf("mapping %s is no mirror", name)
	}
	so, of, _ := strings.Cut(r.table.Params[3], "/")
	done, err1 := strconv.ParseInt(so, 10, 64)
	total, err2 := strconv.ParseInt(of, 10, 64)
	if err := errors.Join(err1, err2); err != nil {
		return "", 0, 0, fmt.Errorf("state of mapping %s: %w", name, err)
	}
	return r.table.Params[2], done, total, nil
}

// activate loads the table, leaving out the flags that it returns, and resumes the
// mapping.
func (c *control) activate(name string, flags uint32, t Target, o Options) (left []string, err error) {
	if crypt, ok := t.(Crypt); ok {
		left, err = c.loadCrypt(name, flags, crypt)
	} else {
		err = c.load(name, flags, t)
	}
	if err != nil {
		return nil, err
	}
	r := request{name: name, flags: flags, event: udevFlags(o) << 16}
	if err := c.call(cmdSuspend, &r); err != nil { // without flagSuspend it resumes
		return nil, fmt.Errorf("activating mapping %s: %w", name, err)
	}
	return left, nil
}

func (c *control) load(name string, flags uint32, t Target) error {
	kind, sectors, params := t.spec()
	r := request{name: name, flags: flags | flagSecureData, kind: kind, sectors: sectors, params: params}
	if err := c.call(cmdTableLoad, &r); err != nil {
		err = fmt.Errorf("loading %s table of mapping %s (%s): %w", kind, name, params, err)
		if errors.Is(err, unix.EBUSY) {
			err = hint.With(err, "something else has mounted or mapped the disk; lsblk shows what")
		}
		return err
	}
	return nil
}

// Lookup returns the mapping of that name, and false if there is none.
func Lookup(name string) (Device, bool, error) {
	c, err := open()
	if err != nil {
		return Device{}, false, err
	}
	defer c.close()
	r := request{name: name, flags: flagTable | flagSecureData}
	err = c.call(cmdTable, &r)
	if errors.Is(err, unix.ENXIO) {
		return Device{}, false, nil
	}
	if err != nil {
		return Device{}, false, fmt.Errorf("looking up mapping %s: %w", name, err)
	}
	return Device{Name: name, UUID: r.uuid, Major: unix.Major(r.dev), Minor: unix.Minor(r.dev), Table: r.table}, true, nil
}

// Removing a mapping that somebody has open is tried again for a while: udev looks at
// new ones, and is soon done.
const (
	removeFor   = 5 * time.Second
	removePause = 50 * time.Millisecond
)

// Remove removes a mapping and what Create left for udev.
func Remove(name string) error {
	c, err := open()
	if err != nil {
		return err
	}
	defer c.close()
	d, ok, err := Lookup(name)
	if err != nil || !ok {
		return err
	}
	err = whileBusy(removeFor, removePause, func() error { return c.call(cmdRemove, &request{name: name}) })
	if err != nil {
		return hint.With(fmt.Errorf("removing mapping %s: %w", name, err), "something uses the mapping: lsof "+d.Path()+" and dmsetup info show it")
	}
	return retract(d)
}

// whileBusy calls f again and again while it says EBUSY, for as long as given.
func whileBusy(total, pause time.Duration, f func() error) error {
	for end := time.Now().Add(total); ; <-time.After(pause) {
		if err := f(); !errors.Is(err, unix.EBUSY) || time.Now().After(end) {
			return err
		}
	}
}

// control is /dev/mapper/control.
type control struct{ f *os.File }

func open() (*control, error) {
	f, err := os.OpenFile("/dev/mapper/control", os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errors.New("device-mapper is not there (no /dev/mapper/control): the kernel module dm-mod is missing")
	}
	if err != nil {
		return nil, fmt.Errorf("opening device-mapper: %w", err)
	}
	return &control{f}, nil
}

func (c *control) close() { c.f.Close() }
