package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
)

// ownRoot gives the machine a copy of its root.
func (l *Lab) ownRoot(ctx context.Context) error {
	own := l.File("root.img")
	if l.Base.Root != own {
		l.SharedRoot = l.Base.Root
		if err := Command(ctx, "", "cp", "--sparse=always", "--reflink=auto", l.Base.Root, own); err != nil {
			return err
		}
	}
	l.Base.Root, l.Base.KeepRoot = own, l.KeepRoot
	return nil
}

// PutOnRoot gives the machine a root of its own with one more file, or another. Of its
// directories only the last may be new.
func (l *Lab) PutOnRoot(ctx context.Context, file string, content []byte) error {
	source := l.File("put")
	if err := errors.Join(l.ownRoot(ctx), os.WriteFile(source, content, 0o600)); err != nil {
		return err
	}
	defer os.Remove(source)
	// Making a directory that is there, or removing a file that is not, harms nothing.
	commands := fmt.Sprintf("mkdir %[1]s\ncd %[1]s\nrm %[2]s\nwrite %[3]s %[2]s\n", path.Dir(file), path.Base(file), source)
	return Command(ctx, commands, "debugfs", "-w", "-f", "-", l.Base.Root)
}

// ReadRoot returns a file of the root, as the last boot left it; of use with KeepRoot.
func (l *Lab) ReadRoot(ctx context.Context, file string) ([]byte, error) {
	copied := l.File("read")
	defer os.Remove(copied)
	if err := Command(ctx, "", "debugfs", "-R", "dump "+file+" "+copied, l.Base.Root); err != nil {
		return nil, err
	}
	return os.ReadFile(copied)
}
