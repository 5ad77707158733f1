package luks2_test

import (
	"errors"
	"testing"

	"unlock/internal/luks/luks2"
)

// TestDeriver: volumes that were formatted with one Deriver are opened by one
// derivation, which a passphrase that is gone shows; other volumes need their own.
func TestDeriver(t *testing.T) {
	together := luks2.NewDeriver(pass(t, "first"))
	defer together.Wipe()
	var disks []*disk
	for _, d := range []*luks2.Deriver{together, together, luks2.NewDeriver(pass(t, "first"))} {
		defer d.Wipe()
		disks = append(disks, newDisk())
		if _, err := luks2.FormatWith(disks[len(disks)-1], testSize, d, formatOptions); err != nil {
			t.Fatal(err)
		}
	}
	p := pass(t, "first")
	d := luks2.NewDeriver(p)
	defer d.Wipe()
	for i, want := range []error{nil, nil, luks2.ErrPassphrase} {
		payload, err := read(t, disks[i]).OpenWith(t.Context(), d)
		if !errors.Is(err, want) {
			t.Errorf("OpenWith(volume %d) = %v, want %v", i, err, want)
		}
		if err == nil {
			payload.Wipe()
		}
		p.Wipe()
	}
	for i, disk := range disks {
		mustCryptsetup(t, "first", "open", "--test-passphrase", "--key-file=-", disk.save(t))
		if !opens(t, disk, "first") || opens(t, disk, "other") {
			t.Errorf("volume %d does not open as it should", i)
		}
	}
	if opens(t, disks[0], "") {
		t.Error("the empty passphrase opens")
	}
}
