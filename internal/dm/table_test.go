package dm

import (
	"encoding/binary"
	"slices"
	"testing"
)

// TestTable: a mapping's table is compared without key and flags, and a key in it goes
// nowhere.
func TestTable(t *testing.T) {
	spec := func(kind string, sectors uint64, params string) []byte {
		b := make([]byte, specSize+len(params)+1)
		binary.NativeEndian.PutUint64(b[8:], sectors)
		copy(b[24:], kind)
		copy(b[specSize:], params)
		return b
	}
	crypt := Crypt{Device: "259:1", Offset: 32768, Sectors: 800, SectorSize: 4096, KeyName: "cryptsetup:u-d0"}
	striped := Striped{Devices: []string{"254:0", "254:1"}, Chunk: 512, Sectors: 4096}
	raid1 := Raid{Members: []RaidMember{{"254:1", "254:2"}, {"254:4", "254:5"}}, Sectors: 4096}
	alone := Raid{Members: []RaidMember{{}, {"254:4", "254:5"}}, Sectors: 4096}
	raid10 := Raid{Members: []RaidMember{{"254:1", "254:2"}, {"254:4", "254:5"}}, Chunk: 512, Sectors: 4096, New: true}
	for name, row := range map[string]struct {
		spec   []byte
		target Target
		want   bool
	}{
		"key in the keyring":   {spec("crypt", 800, "aes-xts-plain64 :64:logon:cryptsetup:u-d0 0 259:1 32768 1 sector_size:4096"), crypt, true},
		"key in the table":     {spec("crypt", 800, "aes-xts-plain64 00112233 0 259:1 32768"), crypt, true},
		"another disk":         {spec("crypt", 800, "aes-xts-plain64 :64:logon:x 0 259:2 32768"), crypt, false},
		"another place":        {spec("crypt", 800, "aes-xts-plain64 :64:logon:x 0 259:1 0"), crypt, false},
		"another size":         {spec("crypt", 808, "aes-xts-plain64 :64:logon:x 0 259:1 32768"), crypt, false},
		"another cipher":       {spec("crypt", 800, "cipher_null-ecb - 0 259:1 32768"), crypt, false},
		"another target":       {spec("linear", 800, "259:1 32768"), crypt, false},
		"cut off":              {spec("crypt", 800, "aes-xts-plain64 :64:logon:x"), crypt, false},
		"stripe":               {spec("striped", 4096, "2 512 254:0 0 254:1 0"), striped, true},
		"stripe, other order":  {spec("striped", 4096, "2 512 254:1 0 254:0 0"), striped, false},
		"stripe, one more":     {spec("striped", 4096, "3 512 254:0 0 254:1 0 254:2 0"), striped, false},
		"mirror":               {spec("raid", 4096, "raid1 3 0 region_size 1024 2 254:1 254:2 254:4 254:5"), raid1, true},
		"mirror, one missing":  {spec("raid", 4096, "raid1 1 0 2 - - 254:4 254:5"), alone, true},
		"mirror, one more":     {spec("raid", 4096, "raid1 1 0 2 254:1 254:2 254:4 254:5"), alone, false},
		"mirror, other order":  {spec("raid", 4096, "raid1 1 0 2 254:4 254:5 254:1 254:2"), raid1, false},
		"mirrors, striped":     {spec("raid", 4096, "raid10 6 512 raid10_copies 2 raid10_format near nosync 2 254:1 254:2 254:4 254:5"), raid10, true},
		"mirror, not striped":  {spec("raid", 4096, "raid1 1 0 2 254:1 254:2 254:4 254:5"), raid10, false},
		"stripe, larger chunk": {spec("striped", 4096, "2 1024 254:0 0 254:1 0"), striped, false},
	} {
		t.Run(name, func(t *testing.T) {
			table := parseTable(row.spec)
			if got := table.Maps(row.target); got != row.want {
				t.Errorf("Maps = %v, want %v: %+v", got, row.want, table)
			}
			if slices.Contains(table.Params, "00112233") {
				t.Error("the key is in the table")
			}
		})
	}
	if (Table{}).Maps(crypt) {
		t.Error("no table maps something")
	}
}
