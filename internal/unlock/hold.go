package unlock

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"unlock/internal/block"
	"unlock/internal/hint"
	"unlock/internal/luks"
	"unlock/internal/plan"
)

// Between the plan and its doing anything can happen to a disk, and its device number
// may come to mean another one. So each disk is opened and compared with what was
// planned for, and stays open until its volume is up: meanwhile the number cannot be
// given to another device.

// Disk is an open disk.
type Disk interface {
	luks.Device
	io.Closer
}

// held is a member of a step that is open and was compared.
type held struct {
	*plan.Member
	dev    Disk
	header *luks.Header
}

// hold opens the members of a step and compares them with the plan; release closes
// them.
func (a *Apply) hold(s *plan.Step) (members []*held, release func(), err error) {
	members = make([]*held, len(s.Members))
	release = func() {
		for _, m := range members {
			if m != nil {
				m.dev.Close()
			}
		}
	}
	err = parallel(len(s.Members), func(i int) error {
		m := &s.Members[i]
		return a.Rec.Step("compare", m.Disk.Name, func() error {
			dev, err := a.openFor(s, m)
			if err != nil {
				return err
			}
			members[i] = &held{Member: m, dev: dev}
			if s.Format {
				return nil // compared when nobody else can have it
			}
			if members[i].header = m.LUKS.Header; members[i].header == nil {
				return errors.New("the plan has no header to open")
			}
			return a.unchanged(dev, m)
		})
	})
	if err != nil {
		release()
		return nil, func() {}, err
	}
	return members, release, nil
}

// openFor opens a member for what the step will do with it. A header that is damaged
// is repaired only if the disk can be written to.
func (a *Apply) openFor(s *plan.Step, m *plan.Member) (Disk, error) {
	write := s.Format || s.Mark || s.Copies > 0 // a mirror's tokens may have to say who is missing
	if !write && m.LUKS.Header.Damaged() && !m.Disk.ReadOnly {
		if dev, err := a.openMember(m, true, false); err == nil {
			return dev, nil
		}
	}
	return a.openMember(m, write, false)
}

func (a *Apply) openMember(m *plan.Member, write, exclusive bool) (Disk, error) {
	open := a.Open
	if open == nil {
		open = openDisk
	}
	dev, err := open(m.Disk, write, exclusive)
	switch {
	case errors.Is(err, unix.EBUSY):
		err = hint.With(err, "something else has mounted or mapped the disk; lsblk shows what")
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENXIO), errors.Is(err, unix.ENODEV), errors.Is(err, unix.EACCES):
		err = hint.With(err, "the disk was detached or replaced since it was looked at; start again")
	}
	return dev, hint.Disk(err)
}

// openDisk opens the device that was listed as d; exclusive has the kernel refuse one
// that is mounted or mapped.
func openDisk(d block.Disk, write, exclusive bool) (Disk, error) {
	flags := os.O_RDONLY
	if write {
		flags = os.O_RDWR
	}
	if exclusive {
		flags |= os.O_EXCL
	}
	f, err := os.OpenFile(d.Path, flags, 0)
	if err != nil {
		return nil, err
	}
	if err := same(f, d); err != nil {
		f.Close()
		return nil, fmt.Errorf("%s: %w", d.Path, err)
	}
	return f, nil
}

// same returns errOther if f is not of the number and size that d has.
func same(f *os.File, d block.Disk) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return err
	}
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	device := st.Mode&unix.S_IFMT == unix.S_IFBLK
	if size != d.Size || device && (unix.Major(st.Rdev) != d.Major || unix.Minor(st.Rdev) != d.Minor) {
		return errOther
	}
	return nil
}

// unchanged compares what is on a member with what was planned for.
func (a *Apply) unchanged(dev Disk, m *plan.Member) error {
	var err error
	if m.LUKS != nil {
		if err = m.LUKS.Header.Unchanged(dev); errors.Is(err, luks.ErrChanged) {
			err = errOther
		}
	} else if now := block.Probe(dev, m.Disk.Size); now != m.Content {
		err = fmt.Errorf("%w: it was %s, now it is %s", errOther, m.Content.What, now.What)
	}
	if err != nil {
		return fmt.Errorf("comparing %s: %w", m.Disk.Path, err)
	}
	return nil
}

// errOther: between planning and doing somebody has written to the disk, or it was
// replaced.
var errOther = hint.New("what is on it has changed since it was looked at",
	"something else writes to this disk, or it was replaced; nothing was written to it")
