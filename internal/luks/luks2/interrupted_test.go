package luks2_test

import (
	"errors"
	"testing"

	"unlock/internal/luks/luks2"
)

// TestInterrupted: an interrupted Format is recognised as such only while nobody
// else has written to the disk since.
func TestInterrupted(t *testing.T) {
	tests := []struct {
		name string
		at   int64 // where something else is written; -1: nothing is
		want bool
	}{
		{"nothing else", -1, true},
		{"over the marker", 100, false},
		{"where ext4 has its superblock", 1080, false},
		{"where swap has its signature", 4086, false},
		{"where another header was", 64 << 10, true}, // key material of ours
		{"behind the key material", 32<<10 + 256000, false},
		{"where another keyslot would be", 1 << 20, false},
		{"just before the data", 16<<20 - 1, false},
		{"at the end", testSize - 1, false},
		{"in the last MiB", testSize - 1<<20, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d, _ := format(t)
			cut, syncs := newDisk(), 0 // all but the headers, which come last
			for _, o := range d.log {
				if o.data == nil {
					syncs++
				} else if syncs < 2 {
					cut.WriteAt(o.data, o.offset)
				}
			}
			if tt.at >= 0 {
				cut.WriteAt([]byte{1}, tt.at)
			}
			_, err := luks2.Read(cut, testSize, luks2.Limits{})
			if !errors.Is(err, luks2.ErrNotLUKS) || errors.Is(err, luks2.ErrInterrupted) != tt.want {
				t.Errorf("Read = %v, want ErrInterrupted: %v", err, tt.want)
			}
		})
	}
}
