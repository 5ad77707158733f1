package plan_test

import (
	"encoding/binary"
	"math"
	"slices"
	"testing"

	"unlock/internal/plan"
)

// TestParseRecord: a superblock is read as the kernel writes it, and one that is not there, or
// another member's, is an error.
func TestParseRecord(t *testing.T) {
	t.Parallel()
	le := binary.LittleEndian
	// As the kernel wrote it for the second of two disks, whose other had been given up.
	superblock := func(change func(b []byte)) []byte {
		b := make([]byte, plan.RecordSize)
		copy(b, "DmRd")
		le.PutUint32(b[4:], 1)
		le.PutUint32(b[8:], 2)
		le.PutUint32(b[12:], 1)
		le.PutUint64(b[16:], 7)
		le.PutUint64(b[24:], 1)
		le.PutUint64(b[32:], math.MaxUint64)
		le.PutUint64(b[40:], math.MaxUint64)
		le.PutUint32(b[48:], 1)
		change(b)
		return b
	}
	for name, row := range map[string]struct {
		b    []byte
		want plan.Record
		err  string
	}{
		"as written":      {superblock(func([]byte) {}), plan.Record{Events: 7, Failed: 1, Whole: true}, ""},
		"being rebuilt":   {superblock(func(b []byte) { le.PutUint64(b[32:], 8192) }), plan.Record{Events: 7, Failed: 1}, ""},
		"zeros":           {make([]byte, plan.RecordSize), plan.Record{}, "the kernel's superblock of the mirror is not there"},
		"cut short":       {superblock(func([]byte) {})[:100], plan.Record{}, "the kernel's superblock of the mirror is not there"},
		"of another disk": {superblock(func(b []byte) { le.PutUint32(b[12:], 0) }), plan.Record{}, "the kernel's superblock is that of disk 1 of 2, the header that of disk 2 of 2"},
		"of a larger set": {superblock(func(b []byte) { le.PutUint32(b[8:], 4) }), plan.Record{}, "the kernel's superblock is that of disk 2 of 4, the header that of disk 2 of 2"},
		"of no place":     {superblock(func(b []byte) { le.PutUint32(b[12:], math.MaxUint32) }), plan.Record{}, "the kernel's superblock is that of disk 4294967296 of 2, the header that of disk 2 of 2"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := plan.ParseRecord(row.b, 1, 2)
			text := ""
			if err != nil {
				text = err.Error()
			}
			if got != row.want || text != row.err {
				t.Errorf("ParseRecord = %+v, %q, want %+v, %q", got, text, row.want, row.err)
			}
		})
	}
}

// TestDropped: who is not in step after all, by what the kernel wrote on each.
func TestDropped(t *testing.T) {
	t.Parallel()
	whole := func(events, failed uint64) plan.Record {
		return plan.Record{Events: events, Failed: failed, Whole: true}
	}
	part := func(events, failed uint64) plan.Record { return plan.Record{Events: events, Failed: failed} }
	for name, row := range map[string]struct {
		records []plan.Record
		dropped []int
		apart   bool
	}{
		"all there":                            {[]plan.Record{whole(5, 0), whole(5, 0)}, nil, false},
		"power failed between the two":         {[]plan.Record{whole(6, 0), whole(5, 0)}, nil, false},
		"dropped":                              {[]plan.Record{whole(6, 0b10), whole(5, 0)}, []int{1}, false},
		"dropped, and the count had gone back": {[]plan.Record{whole(5, 0b10), whole(5, 0)}, []int{1}, false},
		"dropped by an older one":              {[]plan.Record{whole(5, 0b10), whole(6, 0)}, nil, true},
		"each dropped the other":               {[]plan.Record{whole(6, 0b10), whole(7, 0b01)}, nil, true},
		"one after the other":                  {[]plan.Record{whole(5, 0), whole(6, 0b001), whole(7, 0b011)}, []int{0, 1}, false},
		"being given its data":                 {[]plan.Record{whole(6, 0), part(6, 0)}, []int{1}, false},
		"being given its data, others untold":  {[]plan.Record{whole(5, 0b10), part(6, 0)}, []int{1}, false},
		"neither has all":                      {[]plan.Record{part(6, 0), part(6, 0)}, []int{0, 1}, false},
		"of pairs, one of each":                {[]plan.Record{whole(8, 0b0110), whole(7, 0b0100), whole(6, 0), whole(8, 0b0110)}, []int{1, 2}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			records := map[int]plan.Record{}
			for i, r := range row.records {
				records[i] = r
			}
			got, ok := plan.Dropped(records)
			var list []int
			for i := range row.records {
				if got[i] {
					list = append(list, i)
				}
			}
			if !slices.Equal(list, row.dropped) || ok == row.apart {
				t.Errorf("Dropped = %v, %v, want %v, %v", list, ok, row.dropped, !row.apart)
			}
		})
	}
}
