package dm

import (
	"testing"

	"unlock/internal/secret"
)

func TestTables(t *testing.T) {
	key := secret.New(64)
	defer key.Wipe()
	for name, row := range map[string]struct {
		target  Target
		kind    string
		sectors uint64
		params  string
	}{
		"striped": {Striped{[]string{"252:0", "252:1"}, 512, 8192}, "striped", 8192,
			"2 512 252:0 0 252:1 0"},
		"crypt, 512-byte sectors": {Crypt{Device: "259:1", Offset: 32768, Sectors: 100, SectorSize: 512, Key: key, KeyName: "cryptsetup:u-d0"},
			"crypt", 100, "aes-xts-plain64 :64:logon:cryptsetup:u-d0 0 259:1 32768"},
		"crypt with flags": {Crypt{Device: "259:1", Offset: 32768, Sectors: 800, SectorSize: 4096, Key: key, KeyName: "cryptsetup:u-d0",
			Flags: []string{"allow-discards", "no-read-workqueue"}},
			"crypt", 800, "aes-xts-plain64 :64:logon:cryptsetup:u-d0 0 259:1 32768 3 allow_discards no_read_workqueue sector_size:4096"},
	} {
		t.Run(name, func(t *testing.T) {
			kind, sectors, params := row.target.spec()
			if kind != row.kind || sectors != row.sectors || params != row.params {
				t.Errorf("spec = %s %d %q, want %s %d %q", kind, sectors, params, row.kind, row.sectors, row.params)
			}
		})
	}
}
