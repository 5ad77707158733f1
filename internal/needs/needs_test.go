package needs_test

import (
	"slices"
	"strings"
	"testing"

	"unlock/internal/config"
	"unlock/internal/needs"
)

const key = `
[key]
source  = "file:/etc/unlock/key.bin"
kms_key = "arn:aws:kms:us-east-1:111122223333:key/11111111-2222-3333-4444-555555555555"
`

func TestOf(t *testing.T) {
	for _, row := range []struct {
		name, config      string
		files, programs   string
		optional, without string
		hardware          string // beside that of all
		checkers          string
		modules           string // beside those of all
	}{
		{
			name:   "opened only",
			config: key + "[[volume]]\nname = \"a\"\ndevice = \"/dev/sdb\"\nfilesystem = \"ext4\"\nmount = \"/mnt\"\n",
			files:  "/etc/unlock/key.bin", optional: "ext4", without: "loop", checkers: "e2fsck",
		},
		{
			name: "formatted, twice the same",
			config: key + "[aws]\nca_bundle = \"/etc/ca.pem\"\n" +
				"[[volume]]\nname = \"a\"\ndevice = \"/dev/sdb\"\nfilesystem = \"xfs\"\nformat = \"blank\"\n" +
				"[[volume]]\nname = \"b\"\ndevice = \"/dev/sdc\"\nfilesystem = \"xfs\"\nformat = \"blank\"\n",
			files: "/etc/unlock/key.bin /etc/ca.pem", programs: "mkfs.xfs", without: "xfs", // nothing is mounted
		},
		{
			name:   "ext3, by the driver of ext4",
			config: key + "[[volume]]\nname = \"a\"\ndevice = \"/dev/sdb\"\nfilesystem = \"ext3\"\nmount = \"/mnt\"\nformat = \"blank\"\n",
			files:  "/etc/unlock/key.bin", programs: "mke2fs", optional: "ext4", without: "ext3", checkers: "e2fsck",
		},
		{
			name:   "ext4 with quotas, whose format is a module of its own",
			config: key + "[[volume]]\nname = \"a\"\ndevice = \"/dev/sdb\"\nfilesystem = \"ext4\"\nmount = \"/mnt\"\nformat = \"blank\"\nmkfs_options = \"-O project,quota\"\n",
			files:  "/etc/unlock/key.bin", programs: "mke2fs", optional: "quota_v2", without: "ext3", checkers: "e2fsck",
		},
		{
			name:   "ext4 without",
			config: key + "[[volume]]\nname = \"a\"\ndevice = \"/dev/sdb\"\nfilesystem = \"ext4\"\nmount = \"/mnt\"\n",
			files:  "/etc/unlock/key.bin", optional: "ext4", without: "quota_v2", checkers: "e2fsck",
		},
		{
			name:   "in a file",
			config: key + "[[volume]]\nname = \"a\"\ndevice = \"file:/var/a\"\nsize = \"1GiB\"\n",
			files:  "/etc/unlock/key.bin", optional: "loop", without: "ext4",
		},
		{
			name:   "attested",
			config: key + "attest = true\n[[volume]]\nname = \"a\"\ndevice = \"/dev/sdb\"\n",
			files:  "/etc/unlock/key.bin", hardware: "tpm_crb tpm_tis",
		},
		{
			name:   "mirror",
			config: key + "[[volume]]\nname = \"a\"\ndevice = \"instance-store\"\nlayout = \"mirror\"\n",
			files:  "/etc/unlock/key.bin", modules: "dm-raid raid1",
		},
		{
			name:   "mirrors, and a stripe over mirrors",
			config: key + "[[volume]]\nname = \"a\"\ndevice = \"instance-store\"\nlayout = \"stripe+mirror\"\n" + "[[volume]]\nname = \"b\"\ndevice = \"serial=vol1\"\n",
			files:  "/etc/unlock/key.bin", modules: "dm-raid raid10",
		},
	} {
		t.Run(row.name, func(t *testing.T) {
			c, err := config.Parse("unlock.toml", []byte(row.config))
			if err != nil {
				t.Fatal(err)
			}
			l := needs.Of(c)
			var programs []string
			for _, p := range l.Programs {
				programs = append(programs, p.Name)
			}
			if got := strings.Join(l.Files, " "); got != row.files {
				t.Errorf("files are %q, want %q", got, row.files)
			}
			if got := strings.Join(programs, " "); got != row.programs {
				t.Errorf("programs are %q, want %q", got, row.programs)
			}
			if got := strings.Join(l.Checkers, " "); got != row.checkers {
				t.Errorf("checkers are %q, want %q", got, row.checkers)
			}
			if row.optional != "" && !slices.Contains(l.Optional, row.optional) {
				t.Errorf("optional modules are %q, want %s among them", l.Optional, row.optional)
			}
			if slices.Contains(l.Optional, row.without) {
				t.Errorf("optional modules are %q, want no %s", l.Optional, row.without)
			}
			for _, m := range []string{"tpm_crb", "tpm_tis"} {
				if got, want := slices.Contains(l.Hardware, m), strings.Contains(row.hardware, m); got != want {
					t.Errorf("hardware is %q: %s is there %v, want %v", l.Hardware, m, got, want)
				}
			}
			if got, want := l.Modules, append([]string{"dm-mod", "dm-crypt", "xts"}, strings.Fields(row.modules)...); !slices.Equal(got, want) {
				t.Errorf("modules are %q, want %q", got, want)
			}
			for _, m := range []string{"dm-mod", "dm-crypt", "xts"} {
				if !slices.Contains(l.Modules, m) {
					t.Errorf("modules are %q, want %s among them", l.Modules, m)
				}
			}
		})
	}
}
