package unlock_test

import (
	"encoding/binary"
	"fmt"
	"math"
	"strconv"
	"strings"

	"unlock/internal/dm"
)

// What the kernel's dm-raid does with its superblocks, and no more (drivers/md/dm-raid.c,
// super_sync): each member that is there gets one that says who else is not.

// recorded reports whether a superblock is where a payload begins.
func recorded(d *memdisk) bool {
	b := make([]byte, sector)
	_, err := d.ReadAt(b, dataFrom)
	return err == nil && string(b[:4]) == "DmRd"
}

// assemble is what the kernel does with a mirror's table: it returns the disks of the
// mirror, and writes their superblocks if there are none or something has changed.
func (c *computer) assemble(name string, t dm.Raid) (below []int) {
	var failed, events uint64
	health := []byte(strings.Repeat("-", len(t.Members)))
	changed := len(t.Rebuild) > 0
	for i, m := range t.Members {
		if m.Meta == "" {
			failed |= 1 << i
			continue
		}
		health[i] = 'A'
		n := c.over[m.Meta][0]
		below = append(below, n)
		old := c.superblock(n)
		if changed = changed || old == nil; old != nil {
			events = max(events, binary.LittleEndian.Uint64(old[16:]))
		}
	}
	for _, n := range below {
		old := c.superblock(n)
		changed = changed || binary.LittleEndian.Uint64(old[24:]) != failed
	}
	for i, m := range t.Members {
		if changed && m.Meta != "" {
			c.record(c.over[m.Meta][0], i, len(t.Members), events+1, failed, true)
		}
	}
	for _, i := range t.Rebuild {
		health[i] = 'a'
	}
	c.health[name] = string(health)
	return below
}

// superblock is that of a disk, nil if it has none.
func (c *computer) superblock(n int) []byte {
	if b := make([]byte, sector); recorded(c.disks[n]) {
		_, _ = c.disks[n].ReadAt(b, dataFrom)
		return b
	}
	return nil
}

// record writes one.
func (c *computer) record(n, index, count int, events, failed uint64, whole bool) {
	b, le := make([]byte, sector), binary.LittleEndian
	copy(b, "DmRd")
	le.PutUint32(b[8:], uint32(count))
	le.PutUint32(b[12:], uint32(index))
	le.PutUint64(b[16:], events)
	le.PutUint64(b[24:], failed)
	if whole {
		le.PutUint64(b[32:], math.MaxUint64)
	}
	c.disks[n].write(op{dataFrom, b, true})
	c.disks[n].write(op{mkfs: true})
}

// drop has the kernel give up a disk of an open mirror, of which each disk has all data.
func (c *computer) drop(name string, index int) {
	health := []byte(c.health[name])
	health[index] = 'D'
	c.health[name] = string(health)
	var failed uint64
	for i, letter := range health {
		if letter != 'A' {
			failed |= 1 << i
		}
	}
	for i, letter := range health {
		if letter == 'A' {
			n := c.over[c.active[fmt.Sprintf("%s_%d", name, i)].Number()][0]
			c.record(n, i, len(health), binary.LittleEndian.Uint64(c.superblock(n)[16:])+1, failed, true)
		}
	}
}

// Reload is Create of a mirror that is there.
func (c *computer) Reload(name string, t dm.Raid) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	d := c.active[name]
	d.Table = table(t)
	c.active[name], c.over[d.Number()] = d, c.assemble(name, t)
	return nil
}

// Health says once of a disk that it is being given its data, and then that it has them.
func (c *computer) Health(name string) (string, int64, int64, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.health[name]
	c.health[name] = strings.ReplaceAll(now, "a", "A")
	return now, 1, 2, nil
}

// table is how the kernel has a target.
func table(t dm.Target) dm.Table {
	switch t := t.(type) {
	case dm.Crypt:
		return dm.Table{Kind: "crypt", Sectors: t.Sectors, Params: []string{t.Cipher, "", strconv.FormatUint(t.IVOffset, 10), t.Device, strconv.FormatUint(t.Offset, 10)}}
	case dm.Linear:
		return dm.Table{Kind: "linear", Sectors: t.Sectors, Params: []string{t.Device, strconv.FormatUint(t.Offset, 10)}}
	case dm.Raid:
		kind := "raid1"
		if t.Chunk > 0 {
			kind = "raid10"
		}
		params := []string{kind, "1", strconv.FormatUint(t.Chunk, 10), strconv.Itoa(len(t.Members))}
		for _, m := range t.Members {
			params = append(params, or(m.Meta), or(m.Data))
		}
		return dm.Table{Kind: "raid", Sectors: t.Sectors, Params: params}
	}
	return dm.Table{}
}

func or(device string) string {
	if device == "" {
		return "-"
	}
	return device
}
