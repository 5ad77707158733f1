package unlock_test

import (
	"context"
	"strings"
	"testing"

	"unlock/internal/config"
	"unlock/internal/dm"
	"unlock/internal/keys"
	"unlock/internal/keys/source"
	"unlock/internal/luks"
	"unlock/internal/plan"
	"unlock/internal/status"
	"unlock/internal/unlock"
)

// TestEnlarge: a mapping that is smaller than its disk gets its size, with the key that it
// has, for which KMS is asked as when the volume was opened; one that has its size stays
// as it is, and nobody is asked; anything else is refused.
func TestEnlarge(t *testing.T) {
	t.Parallel()
	const all = (diskSize - dataFrom) / sector
	for name, row := range map[string]struct {
		table  func(*dm.Table)
		key    source.Source
		asked  int
		err    string // "": none
		resize bool
	}{
		"smaller, data key":   {func(t *dm.Table) { t.Sectors -= 64 }, source.Header.Source(), 1, "", true},
		"smaller, passphrase": {func(t *dm.Table) { t.Sectors -= 64 }, source.MustParse("s3://bucket/object"), 1, "", true},
		"no data key":         {func(t *dm.Table) { t.Sectors -= 64 }, source.MustParse("s3://bucket/object"), 0, "holds no aws-kms token", false},
		"as large":            {func(t *dm.Table) {}, source.Header.Source(), 0, "", false},
		"larger":              {func(t *dm.Table) { t.Sectors += 64 }, source.Header.Source(), 0, "is not what this volume would be", false},
		"another disk":        {func(t *dm.Table) { t.Sectors -= 64; t.Params[3] = "259:9" }, source.Header.Source(), 0, "is not what this volume would be", false},
		"another place":       {func(t *dm.Table) { t.Sectors -= 64; t.Params[4] = "0" }, source.Header.Source(), 0, "is not what this volume would be", false},
		"another cipher":      {func(t *dm.Table) { t.Sectors -= 64; t.Params[0] = "cipher_null-ecb" }, source.Header.Source(), 0, "is not what this volume would be", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newComputer(newDisk())
			v := config.Volume{Name: "data", Device: config.Selector{Kind: config.SelectInstanceStore}, Format: config.FormatBlank, Key: config.Key{Source: row.key}}
			mustBoot(t, c, v)
			if name == "no data key" {
				v.Key.Source = source.Header.Source()
			}
			found := c.look()
			mapped := dm.Table{Kind: "crypt", Sectors: all, Params: []string{"aes-xts-plain64", "", "0", "259:0", "32768"}}
			row.table(&mapped)
			k := &enlarging{computer: c, table: mapped}
			p := plan.Make(plan.Situation{Config: &config.Config{Volumes: []config.Volume{v}}, Candidates: found, NewUUID: uuid,
				Active: map[string]string{"data": plan.CryptUUID("LUKS2", found[0].LUKS.UUID, "data")}})
			asked := 0
			key := func(ctx context.Context, w keys.Want) (keys.Got, error) {
				if asked++; w.New || row.key.Kind == source.Header && w.Set != found[0].LUKS.Set.UUID {
					t.Errorf("the key was wanted for set %q, new: %v; want %q", w.Set, w.New, found[0].LUKS.Set.UUID)
				}
				return giveKey(ctx, w)
			}
			a := unlock.Apply{Keys: key, Limits: luks.Limits{}, Rec: status.NewRecorder(), Log: func(string, ...any) {}, Open: c.open, Kernel: k, Enlarge: true}
			r := a.Run(t.Context(), p)[0]
			if row.err == "" && r.Err != nil || row.err != "" && (r.Err == nil || !strings.Contains(r.Err.Error(), row.err)) {
				t.Errorf("%v, want %q", r.Err, row.err)
			}
			if asked != row.asked || (k.loaded != nil) != row.resize {
				t.Errorf("asked %d times for a key, table loaded: %v; want %d, %v", asked, k.loaded != nil, row.asked, row.resize)
			}
			if row.resize && (k.loaded.Sectors != all || k.loaded.Device != "259:0" || k.keyLength != 64 || r.Device.Table.Sectors != all) {
				t.Errorf("loaded %d sectors of %s with a key of %d bytes", k.loaded.Sectors, k.loaded.Device, k.keyLength)
			}
		})
	}
}

// enlarging is a computer that has the mapping data.
type enlarging struct {
	*computer
	table     dm.Table
	loaded    *dm.Crypt
	keyLength int // bytes
}

func (e *enlarging) Lookup(name string) (dm.Device, bool, error) {
	return dm.Device{Name: name, Table: e.table}, name == "data", nil
}

func (e *enlarging) Resize(_ string, t dm.Crypt, _ dm.Options) error {
	e.loaded, e.keyLength, e.table.Sectors = &t, t.Key.Len(), t.Sectors
	return nil
}
