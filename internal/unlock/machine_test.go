package unlock_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"unlock/internal/block"
	"unlock/internal/config"
	"unlock/internal/dm"
	"unlock/internal/fsys"
	"unlock/internal/keys"
	"unlock/internal/keys/source"
	"unlock/internal/luks"
	"unlock/internal/plan"
	"unlock/internal/secret"
	"unlock/internal/status"
	"unlock/internal/unlock"
)

const (
	diskSize = 40 << 20 // bytes
	dataFrom = 16 << 20 // where the payload of a volume begins
	sector   = 512      // bytes; a disk writes one as a whole or not at all
)

// memdisk is a sparse disk in memory that keeps a record of what is done to it.
type memdisk struct {
	mu      sync.Mutex
	sectors map[int64]*[sector]byte // by number, not changed any more; absent ones are zero
	chunks  map[int64]bool          // of 64 KiB in which there are any: most are empty, and quickly read
	log     []op
}

const chunk = 64 << 10

// op is a write, or a sync if data is nil.
type op struct {
	offset int64
	data   []byte
	mkfs   bool // it went through the mapping
}

func newDisk() *memdisk {
	return &memdisk{sectors: map[int64]*[sector]byte{}, chunks: map[int64]bool{}}
}

func (d *memdisk) clone() *memdisk {
	return &memdisk{sectors: maps.Clone(d.sectors), chunks: maps.Clone(d.chunks)}
}

func (d *memdisk) ReadAt(b []byte, offset int64) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := 0
	for n < len(b) && offset < diskSize {
		at, m := offset%sector, 0
		if !d.chunks[offset/chunk] {
			m = min(len(b)-n, int(chunk-offset%chunk))
			clear(b[n : n+m])
		} else if s := d.sectors[offset/sector]; s != nil {
			m = copy(b[n:], s[at:])
		} else {
			m = min(len(b)-n, int(sector-at))
			clear(b[n : n+m])
		}
		n, offset = n+m, offset+int64(m)
	}
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

func (d *memdisk) WriteAt(b []byte, offset int64) (int, error) {
	d.write(op{offset: offset, data: bytes.Clone(b)})
	return len(b), nil
}

func (d *memdisk) write(o op) {
	if o.offset%sector != 0 || len(o.data)%sector != 0 {
		panic("write of a part of a sector")
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.log = append(d.log, o)
	d.put(o)
}

func (d *memdisk) put(o op) {
	for i := 0; i < len(o.data); i += sector {
		s := [sector]byte(o.data[i:])
		d.chunks[(o.offset+int64(i))/chunk] = true
		d.sectors[(o.offset+int64(i))/sector] = &s
	}
}

func (d *memdisk) Sync() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.log = append(d.log, op{})
	return nil
}

func (d *memdisk) Close() error { return nil }

// computer is a machine with such disks. It is the kernel of its boots, too.
type computer struct {
	unlock.Kernel // what a test does not expect to be called
	disks         []*memdisk

	mu     sync.Mutex
	active map[string]dm.Device
	made   int              // mappings, ever
	over   map[string][]int // disks below a mapping, by its number
	health map[string]string
}

func newComputer(disks ...*memdisk) *computer {
	return &computer{disks: disks, active: map[string]dm.Device{}, over: map[string][]int{}, health: map[string]string{}}
}

// disk n as it is listed.
func (c *computer) disk(n int) block.Disk {
	name := fmt.Sprintf("nvme%dn1", n)
	return block.Disk{Name: name, Path: "/dev/" + name, Major: 259, Minor: uint32(n), Size: diskSize, SectorSize: sector, Kind: block.KindInstanceStore}
}

func (c *computer) open(d block.Disk, write, exclusive bool) (unlock.Disk, error) {
	if !write {
		return reading{c.disks[d.Minor]}, nil
	}
	return c.disks[d.Minor], nil
}

// reading is a disk that was opened for reading.
type reading struct{ *memdisk }

func (reading) WriteAt([]byte, int64) (int, error) { return 0, unix.EBADF }

func (c *computer) Create(name, uuid string, t dm.Target, o dm.Options) (dm.Device, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	d := dm.Device{Name: name, UUID: uuid, Major: 254, Minor: uint32(c.made), Table: table(t)}
	if _, ok := c.active[name]; ok {
		return d, dm.ErrExists
	}
	c.made++
	var below []int
	switch t := t.(type) {
	case dm.Crypt:
		var n int
		if _, err := fmt.Sscanf(t.Device, "259:%d", &n); err != nil {
			return d, err
		}
		below = append(below, n)
	case dm.Striped:
		for _, m := range t.Devices {
			below = append(below, c.over[m]...)
		}
	case dm.Raid:
		below = c.assemble(name, t)
	case dm.Linear:
		below = c.over[t.Device]
	}
	c.active[name], c.over[d.Number()] = d, below
	return d, nil
}

func (c *computer) Remove(name string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.active, name)
	return nil
}

// Lookup returns what Create made.
func (c *computer) Lookup(name string) (dm.Device, bool, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	d, ok := c.active[name]
	return d, ok, nil
}

// Read returns what is where a payload begins.
func (c *computer) Read(d dm.Device, size int) ([]byte, error) {
	b := make([]byte, size)
	for _, n := range c.over[d.Number()] {
		_, err := c.disks[n].ReadAt(b, dataFrom)
		return b, err
	}
	return nil, fmt.Errorf("%s is not mapped", d.Name)
}

// Clear writes where a payload begins.
func (c *computer) Clear(d dm.Device, _ int64) error {
	for _, n := range c.over[d.Number()] {
		c.disks[n].write(op{dataFrom, make([]byte, 4096), true})
		c.disks[n].write(op{mkfs: true})
	}
	return nil
}

// mkfsWrites are where.
var mkfsWrites = []int64{dataFrom, dataFrom + 1<<20, diskSize - 4096}

// MakeFS writes here and there, and last makes it durable.
func (c *computer) MakeFS(_ context.Context, d dm.Device, _ string, _ ...string) error {
	for _, n := range c.over[d.Number()] {
		for _, at := range mkfsWrites {
			if at == dataFrom && recorded(c.disks[n]) {
				continue
			}
			c.disks[n].write(op{at, bytes.Repeat([]byte("a file system's"+"\x00"), 2*sector/16), true})
		}
		c.disks[n].write(op{mkfs: true})
	}
	return nil
}

func (c *computer) Attach(string, string, int64, bool) (fsys.Loop, error) {
	return fsys.Loop{}, errors.New("no files here")
}

// use writes user data, everywhere.
func (c *computer) use() {
	for _, d := range c.disks {
		for at := int64(dataFrom); at < diskSize; at += 1 << 20 {
			if at == dataFrom && recorded(d) {
				continue
			}
			d.put(op{offset: at, data: bytes.Repeat([]byte("of the user's  "+"\x01"), 4096/16)})
		}
		d.put(op{offset: diskSize - 8192, data: bytes.Repeat([]byte("of the user's  "+"\x02"), 4096/16)})
		d.log = nil
	}
}

// look is what a boot finds on the disks.
func (c *computer) look() (found []*plan.Candidate) {
	for n, dev := range c.disks {
		found = append(found, unlock.Look(dev, luks.Limits{}, c.disk(n)))
	}
	return found
}

// sharesOf are the shares of volumes of that name.
var sharesOf = map[string][]config.Volume{"divided": {
	{Name: "one", Device: config.Selector{Kind: config.SelectShare, Value: "divided"}, Percent: 50, Filesystem: "ext4"},
	{Name: "two", Device: config.Selector{Kind: config.SelectShare, Value: "divided"}, Filesystem: "xfs"},
}, "partly": {
	{Name: "part", Device: config.Selector{Kind: config.SelectShare, Value: "partly"}, Size: 16 << 20, Filesystem: "ext4"},
}}

func planned(v config.Volume, found []*plan.Candidate) *plan.Plan {
	volumes := append([]config.Volume{v}, sharesOf[v.Name]...)
	return plan.Make(plan.Situation{Config: &config.Config{Volumes: volumes}, Candidates: found, NewUUID: uuid})
}

func uuid() string {
	return fmt.Sprintf("%08x-0000-4000-8000-%012x", rand.Uint32(), rand.Uint64()&0xffffffffffff)
}

// boot plans and carries out, and returns what was planned.
func (c *computer) boot(v config.Volume) (*plan.Plan, error) {
	clear(c.active)
	return c.apply(planned(v, c.look()))
}

// apply carries out a plan, or stops at its refusals.
func (c *computer) apply(p *plan.Plan) (*plan.Plan, error) {
	var errs []error
	for _, r := range p.Refusals {
		errs = append(errs, r)
	}
	if len(errs) > 0 {
		return p, errors.Join(errs...)
	}
	a := unlock.Apply{Keys: giveKey, Rec: status.NewRecorder(), Log: func(string, ...any) {}, Open: c.open, Kernel: c}
	for _, r := range a.Run(context.Background(), p) {
		errs = append(errs, r.Err)
	}
	return p, errors.Join(errs...)
}

const sealed = "a passphrase that is sealed in an object, of 52 bytes"

// giveKey is a KMS whose ciphertext is what it encrypts, after a word.
func giveKey(_ context.Context, w keys.Want) (keys.Got, error) {
	const word = "encrypted "
	switch {
	case w.Key.Source.Kind != source.Header:
		return keys.Got{Passphrase: secret.Take([]byte(sealed))}, nil
	case w.New:
		text := fmt.Sprintf("%044d", rand.Uint64())
		return keys.Got{Passphrase: secret.Take([]byte(text)), Blob: &keys.Blob{Ciphertext: []byte(word + text), KeyARN: "arn:aws:kms:eu-west-1:111122223333:key/x"}}, nil
	}
	text, ok := strings.CutPrefix(string(w.Blob.Ciphertext), word)
	if !ok {
		return keys.Got{}, fmt.Errorf("KMS did not make %q", w.Blob.Ciphertext)
	}
	return keys.Got{Passphrase: secret.Take([]byte(text))}, nil
}
