package doctor_test

import (
	"os"
	"testing"

	"unlock/cmd/unlockctl/internal/doctor"
	"unlock/internal/block"
	"unlock/internal/luks"
	"unlock/internal/plan"
	"unlock/internal/secret"
)

// TestMirror: a mirror that lacks a disk opens, but somebody should know.
func TestMirror(t *testing.T) {
	for name, row := range map[string]struct {
		open bool
		want plantedFault
	}{
		"a disk is missing":         {false, plantedFault{nil, "disks", doctor.Warn, `volume "sealed": 1 of the 2 disks of its mirror are missing or behind`}},
		"it is open, and lacks one": {true, plantedFault{nil, "disks", doctor.Warn, `volume "sealed": 1 of the 2 disks of its mirror are missing or behind`}},
		"the kernel has no dm-raid": {false, plantedFault{nil, "modules", doctor.Fail, "no dm-raid"}},
	} {
		t.Run(name, func(t *testing.T) {
			i := newInstance(t)
			i.replace(`"serial=SEALED"`, "\"instance-store\"\nlayout = \"mirror\"")
			const size, set = 40 << 20, "5e7f0000-0000-4000-8000-000000000000"
			f, err := os.OpenFile(i.disk.Path, os.O_RDWR, 0)
			i.must(err)
			defer f.Close()
			i.must(f.Truncate(0))
			i.must(f.Truncate(size))
			_, err = luks.Format(f, size, secret.Take([]byte("correct horse battery staple")), luks.FormatOptions{UUID: setUUID, SectorSize: 512,
				Set: &luks.SetToken{Version: luks.VersionMirror, UUID: set, Count: 2, Copies: 2, Size: 16 << 20, State: luks.StateReady, Epoch: "e0"}})
			i.must(err)
			for n := range i.disks {
				if i.disks[n].Path == i.disk.Path {
					i.disks[n].Size, i.disks[n].Kind = size, block.KindInstanceStore
				}
			}
			if row.open {
				i.doctor.Active = func(name string) (string, error) {
					if name == "sealed" {
						return plan.MirrorUUID(set), nil
					}
					return "", nil
				}
				i.doctor.Lacking = func(string) (int, error) { return 1, nil }
			}
			row.want.among(t, i.examine())
		})
	}
}
