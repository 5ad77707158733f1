package dm

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"unlock/internal/secret"
)

// TestFlagTables: every flag that is known is in a table that has it, and only there.
func TestFlagTables(t *testing.T) {
	key := secret.New(64)
	defer key.Wipe()
	table := func(flags ...string) string {
		_, _, params := Crypt{Device: "259:1", Sectors: 8, SectorSize: 512, Key: key, KeyName: "cryptsetup:u-d0", Flags: flags}.spec()
		return params
	}
	without := table()
	for _, f := range Flags {
		want := without
		if f.Kernel != "" {
			want += " 1 " + f.Kernel
		}
		if got := table(f.Name); got != want || !KnownFlag(f.Name) {
			t.Errorf("table with %s: %q, want %q", f.Name, got, want)
		}
	}
	if got := table("unheard-of"); got != without || KnownFlag("unheard-of") {
		t.Errorf("table with an unknown flag: %q", got)
	}
}

// TestFewerFlags: flags that only tune are left out, the newest first, where the
// kernel does not know them; others are not.
func TestFewerFlags(t *testing.T) {
	all := []string{"allow-discards", "no-read-workqueue", "no-write-workqueue", "high_priority"}
	for name, row := range map[string]struct {
		flags   []string
		refused []string // by the kernel
		left    string
		err     error
	}{
		"all known":                {all, nil, "", nil},
		"none asked for":           {nil, []string{"high_priority"}, "", nil},
		"kernel 6.1":               {all, []string{"high_priority"}, "high_priority", nil},
		"kernel 5.4":               {all, []string{"high_priority", "no-read-workqueue", "no-write-workqueue"}, "high_priority no-write-workqueue no-read-workqueue", nil},
		"a flag of the future":     {[]string{"unheard-of", "no-read-workqueue"}, nil, "unheard-of", nil},
		"of other targets":         {[]string{"no-journal"}, []string{"no-journal"}, "", unix.EINVAL},
		"one that must be":         {all, []string{"allow-discards"}, "", unix.EINVAL},
		"not because of the flags": {all, []string{""}, "", unix.EINVAL},
	} {
		t.Run(name, func(t *testing.T) {
			left, err := Crypt{Flags: row.flags}.fewerFlags(func(c Crypt) error {
				for _, f := range row.refused {
					if f == "" || slices.Contains(c.Flags, f) {
						return unix.EINVAL
					}
				}
				return nil
			})
			if got := strings.Join(left, " "); got != row.left || !errors.Is(err, row.err) {
				t.Errorf("left out %q, %v; want %q, %v", got, err, row.left, row.err)
			}
		})
	}
}
