package dm

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Commands of linux/dm-ioctl.h: _IOWR(0xfd, number, struct dm_ioctl).
const (
	cmdCreate    = 0xc138fd03 // DM_DEV_CREATE
	cmdRemove    = 0xc138fd04 // DM_DEV_REMOVE
	cmdSuspend   = 0xc138fd06 // DM_DEV_SUSPEND, which also resumes
	cmdTableLoad = 0xc138fd09 // DM_TABLE_LOAD
	cmdClear     = 0xc138fd0a // DM_TABLE_CLEAR: what was loaded and is not active
	cmdTable     = 0xc138fd0c // DM_TABLE_STATUS
)

const (
	flagReadOnly   = 1 << 0  // DM_READONLY_FLAG
	flagTable      = 1 << 4  // DM_STATUS_TABLE_FLAG: the table, not the status
	flagBufferFull = 1 << 8  // DM_BUFFER_FULL_FLAG, in answers
	flagSecureData = 1 << 15 // DM_SECURE_DATA_FLAG: the kernel wipes its copy of the buffer
)

// Layout of struct dm_ioctl (312 bytes) and struct dm_target_spec (40 bytes), in
// the machine's byte order.
const (
	headerSize = 312
	specSize   = 40

	offVersion   = 0
	offDataSize  = 12
	offDataStart = 16
	offCount     = 20
	offFlags     = 28
	offEvent     = 32
	offDev       = 40
	offName      = 48
	offUUID      = 176
)

// request is one ioctl; uuid and dev are filled in from the answer.
type request struct {
	name, uuid string
	flags      uint32
	event      uint32 // udev flags on resume
	dev        uint64

	// One target, for cmdTableLoad.
	kind    string
	sectors uint64
	params  string

	table Table // answer to cmdTable
}

// tableRoom is enough for the table of a stripe of some hundred disks, in bytes.
const tableRoom = 16 << 10

func (c *control) call(cmd uintptr, r *request) error {
	size := headerSize
	if r.kind != "" {
		size += (specSize + len(r.params) + 1 + 7) &^ 7
	}
	if cmd == cmdTable {
		size += tableRoom
	}
	buf := make([]byte, size)
	defer clear(buf) // tables may hold keys
	e := binary.NativeEndian
	e.PutUint32(buf[offVersion:], 4) // interface 4.0.0, which every kernel since 2.6 speaks
	e.PutUint32(buf[offDataSize:], uint32(size))
	e.PutUint32(buf[offDataStart:], headerSize)
	e.PutUint32(buf[offFlags:], r.flags)
	e.PutUint32(buf[offEvent:], r.event)
	copy(buf[offName:offUUID-1], r.name)
	if cmd == cmdCreate { // elsewhere name or UUID may be given, not both
		copy(buf[offUUID:], r.uuid)
	}
	if r.kind != "" {
		e.PutUint32(buf[offCount:], 1)
		spec := buf[headerSize:]
		e.PutUint64(spec[8:], r.sectors)
		e.PutUint32(spec[20:], uint32(len(spec)))
		copy(spec[24:40], r.kind)
		copy(spec[specSize:], r.params)
	}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, c.f.Fd(), cmd, uintptr(unsafe.Pointer(&buf[0])))
	runtime.KeepAlive(c.f)
	if errno != 0 {
		return errno
	}
	if v := e.Uint32(buf[offVersion:]); v != 4 {
		return fmt.Errorf("device-mapper answers in interface version %d, want 4", v)
	}
	r.dev = e.Uint64(buf[offDev:])
	uuid, _, _ := bytes.Cut(buf[offUUID:headerSize], []byte{0})
	r.uuid = string(uuid)
	if cmd == cmdTable && e.Uint32(buf[offFlags:])&flagBufferFull == 0 && e.Uint32(buf[offCount:]) == 1 {
		r.table = parseTable(buf[headerSize:])
	}
	return nil
}

// parseTable reads the specification of a single target. A key of dm-crypt is left out.
func parseTable(spec []byte) Table {
	kind, _, _ := bytes.Cut(spec[24:specSize], []byte{0})
	text, _, _ := bytes.Cut(spec[specSize:], []byte{0})
	t := Table{Kind: string(kind), Sectors: binary.NativeEndian.Uint64(spec[8:])}
	for i, field := range bytes.Fields(text) {
		if t.Kind == "crypt" && i == 1 {
			field = nil
		}
		t.Params = append(t.Params, string(field))
	}
	return t
}
