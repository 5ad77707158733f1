package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"unlock/internal/boot"
)

func TestListNeeds(t *testing.T) {
	dir := t.TempDir()
	key, file := filepath.Join(dir, "key.bin"), filepath.Join(dir, "unlock.toml")
	good := `
[key]
source  = "file:` + key + `"
kms_key = "arn:aws:kms:us-east-1:111122223333:key/11111111-2222-3333-4444-555555555555"
[[volume]]
name       = "secretfs"
device     = "instance-store"
format     = "blank"
filesystem = "ext4"
mount      = "/mnt/secretfs"
`
	for _, row := range []struct {
		name, config string
		noKey        bool
		want         []string // lines
		err          string
	}{
		{
			name: "all", config: good,
			want: []string{"file " + file, "file " + key, "program /usr/sbin/mke2fs", "program /usr/sbin/e2fsck", "directory /mnt/secretfs", "module dm-crypt", "driver ena", "driver ext4"},
		},
		{
			name: "mirror", config: good + "layout = \"mirror\"\n",
			want: []string{"module dm-crypt", "module dm-raid", "module raid1"},
		},
		{
			name: "stripe over mirrors", config: good + "layout = \"stripe+mirror\"\n",
			want: []string{"module dm-crypt", "module dm-raid", "module raid10"},
		},
		{name: "ciphertext that is not there", config: good, noKey: true, err: "it names " + key + ": no such file"},
		{name: "bad setting", config: good + "colour = \"red\"\n", err: `unlock.toml:11: unknown setting "volume.colour"`},
		{
			name: "binds", config: good + "owner = \"daemon:0\"\n[[volume.bind]]\npath = \"/var/lib/containerd\"\n",
			want: []string{"directory /mnt/secretfs", "directory /var/lib/containerd"},
		},
		{name: "owner that is not there", config: good + "owner = \"nobody-here\"\n", err: `unlock.toml:5: owner of volume "secretfs": "nobody-here" is not in /etc/passwd`},
		{name: "empty", config: "\n", err: "no [[volume]]"},
		{name: "no configuration", err: "unlock.toml: no such file"},
	} {
		t.Run(row.name, func(t *testing.T) {
			for f, text := range map[string]string{key: "ciphertext", file: row.config} {
				if err := os.WriteFile(f, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if row.noKey {
				os.Remove(key)
			}
			if row.config == "" {
				os.Remove(file)
			}
			got, err := listNeeds(file)
			if row.err != "" {
				if err == nil || !strings.Contains(err.Error(), row.err) || boot.OutcomeOf(err) != boot.BadConfig {
					t.Errorf("listNeeds = %v, want exit status 2 and %q", err, row.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			for _, line := range row.want {
				if !strings.Contains("\n"+string(got), "\n"+line+"\n") {
					t.Errorf("listNeeds = %q, want the line %q", got, line)
				}
			}
		})
	}
}

// An initramfs holds nothing of unlock until somebody edits what the package installed.
func TestNeedsOfPackagedFile(t *testing.T) {
	lines, err := listNeeds("../../packaging/unlock.toml")
	if err != nil || len(lines) > 0 {
		t.Errorf("listNeeds = %q, %v, want nothing", lines, err)
	}
}
