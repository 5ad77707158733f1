package unlock

import (
	"context"
	"io"
	"os"

	"unlock/internal/config"
	"unlock/internal/dm"
	"unlock/internal/fsys"
)

// Kernel is what a boot asks of the running kernel.
type Kernel interface {
	// Create, Resize, Lookup and Remove are those of package dm.
	Create(name, uuid string, t dm.Target, o dm.Options) (dm.Device, error)
	Resize(name string, t dm.Crypt, o dm.Options) error
	// Reload and Health are dm's, of mirrors.
	Reload(name string, t dm.Raid) error
	Health(name string) (members string, done, total int64, err error)
	Lookup(name string) (d dm.Device, ok bool, err error)
	Remove(name string) error
	// MakeFS makes a file system on a mapping, with the arguments of fsys.Make.
	MakeFS(ctx context.Context, d dm.Device, fstype string, arguments ...string) error
	// Read returns the first bytes of a mapping that nobody has written to since it was made.
	Read(d dm.Device, size int) ([]byte, error)
	// Clear writes zeros to the first bytes of a mapping, durably.
	Clear(d dm.Device, size int64) error
	// Attach, Check, Mount, Own, Bind, Cover and Grow are those of package fsys, and so is Mounts.
	Attach(root, file string, size int64, create bool) (fsys.Loop, error)
	Mount(device, root, dir, fstype, options string) error
	Check(ctx context.Context, device, fstype string, how fsys.Checking) (result string, err error)
	Own(root, mount, owner string, mode uint32) error
	Bind(root, mount string, b config.Bind, alive func()) error
	Cover(root, dir string) error
	Mounts(d dm.Device) ([]fsys.MountPoint, error)
	Grow(root, dir, fstype string, size int64) (grown bool, err error)
}

// Running is the kernel that runs.
type Running struct{}

func (Running) Create(name, uuid string, t dm.Target, o dm.Options) (dm.Device, error) {
	return dm.Create(name, uuid, t, o)
}

func (Running) Resize(name string, t dm.Crypt, o dm.Options) error { return dm.Resize(name, t, o) }

func (Running) Reload(name string, t dm.Raid) error { return dm.Reload(name, t) }

func (Running) Health(name string) (string, int64, int64, error) { return dm.Health(name) }

func (Running) Mounts(d dm.Device) ([]fsys.MountPoint, error) { return fsys.Mounts(d.Major, d.Minor) }

func (Running) Lookup(name string) (dm.Device, bool, error) { return dm.Lookup(name) }

func (Running) Remove(name string) error { return dm.Remove(name) }

func (Running) MakeFS(ctx context.Context, d dm.Device, fstype string, arguments ...string) error {
	return d.WithNode(func(node string) error { return fsys.Make(ctx, node, fstype, arguments...) })
}

func (Running) Read(d dm.Device, size int) (b []byte, err error) {
	b = make([]byte, size)
	err = d.WithNode(func(node string) error {
		f, err := os.Open(node)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = io.ReadFull(f, b)
		return err
	})
	return b, err
}

func (Running) Clear(d dm.Device, size int64) error {
	return d.WithNode(func(node string) error {
		f, err := os.OpenFile(node, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		if _, err := f.Write(make([]byte, size)); err != nil {
			return err
		}
		return f.Sync()
	})
}

func (Running) Attach(root, file string, size int64, create bool) (fsys.Loop, error) {
	return fsys.Attach(root, file, size, create)
}

func (Running) Mount(device, root, dir, fstype, options string) error {
	return fsys.Mount(device, root, dir, fstype, options)
}

func (Running) Check(ctx context.Context, device, fstype string, how fsys.Checking) (string, error) {
	return fsys.Check(ctx, device, fstype, how)
}

func (Running) Own(root, mount, owner string, mode uint32) error {
	return fsys.Own(root, mount, owner, mode)
}

func (Running) Bind(root, mount string, b config.Bind, alive func()) error {
	return fsys.Bind(root, mount, b, alive)
}

func (Running) Cover(root, dir string) error { return fsys.Cover(root, dir) }

func (Running) Grow(root, dir, fstype string, size int64) (grown bool, err error) {
	return fsys.Grow(root, dir, fstype, size)
}
