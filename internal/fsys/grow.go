package fsys

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"

	"unlock/internal/fsys/fsopt"
)

// Requests by which the kernel grows a file system that is mounted: they are what
// resize2fs, xfs_growfs and btrfs send. An initramfs need not have those.
const (
	ext4Resize   = 0x40086610 // EXT4_IOC_RESIZE_FS, fs/ext4/ext4.h: a u64, the number of blocks
	xfsGeometry  = 0x80705864 // XFS_IOC_FSGEOMETRY_V1, fs/xfs/libxfs/xfs_fs.h
	xfsGrow      = 0x4010586e // XFS_IOC_FSGROWFSDATA: a u64, the number of blocks, and a u32, the share of inodes
	btrfsResize  = 0x50009403 // BTRFS_IOC_RESIZE, linux/btrfs.h: struct btrfs_ioctl_vol_args
	geometrySize = 112        // bytes
	volArgsSize  = 4096       // bytes
)

// Offsets in struct xfs_fsop_geom_v1 and struct btrfs_ioctl_vol_args.
const (
	offXFSBlock  = 0  // bytes of a block
	offXFSInodes = 28 // percentage of inodes
	offBtrfsName = 8
)

// ErrCannotGrow: file systems of that type are not grown.
var ErrCannotGrow = errors.New("not a file system that can be grown while it is mounted")

// CanGrow reports whether Grow knows file systems of that type.
func CanGrow(fstype string) bool { return slices.Contains(fsopt.MountTypes, fstype) }

// Grow grows the file system that is mounted on dir below root to size, that of its
// device in bytes, and reports whether it became larger. What has that size already
// stays as it is.
func Grow(root, dir, fstype string, size int64) (grown bool, err error) {
	fail := func(err error) (bool, error) {
		return false, fmt.Errorf("growing the file system on %s: %w", dir, err)
	}
	at, err := openDir(root, dir, false)
	if err != nil {
		return fail(err)
	}
	defer unix.Close(at)
	f, err := os.Open(fdPath(at)) // which takes requests, as O_PATH does not
	if err != nil {
		return fail(err)
	}
	defer f.Close()
	before, err := blocks(f)
	if err != nil {
		return fail(err)
	}
	switch fstype {
	case "ext4", "ext3":
		var st unix.Statfs_t
		if err := unix.Fstatfs(int(f.Fd()), &st); err != nil {
			return fail(err)
		}
		err = request(f, ext4Resize, binary.NativeEndian.AppendUint64(nil, uint64(size)/uint64(st.Bsize)))
	case "xfs":
		geometry := make([]byte, geometrySize)
		if err = request(f, xfsGeometry, geometry); err != nil {
			break
		}
		e := binary.NativeEndian
		block := e.Uint32(geometry[offXFSBlock:])
		grow := make([]byte, 16)
		e.PutUint64(grow, uint64(size)/uint64(block))
		e.PutUint32(grow[8:], e.Uint32(geometry[offXFSInodes:]))
		err = request(f, xfsGrow, grow)
	case "btrfs":
		args := make([]byte, volArgsSize)
		copy(args[offBtrfsName:], "max")
		err = request(f, btrfsResize, args)
	default:
		err = ErrCannotGrow
	}
	if err != nil {
		return fail(err)
	}
	after, err := blocks(f)
	if err != nil {
		return fail(err)
	}
	return after > before, nil
}

// blocks is how large a file system says it is.
func blocks(f *os.File) (uint64, error) {
	var st unix.Statfs_t
	err := unix.Fstatfs(int(f.Fd()), &st)
	return st.Blocks, err
}

func request(f *os.File, number uintptr, arg []byte) error {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), number, uintptr(unsafe.Pointer(&arg[0])))
	runtime.KeepAlive(arg)
	if errno != 0 {
		return errno
	}
	return nil
}
