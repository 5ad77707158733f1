// Package mkinitcpio_test runs the hooks for mkinitcpio: with stand-ins for the
// functions that mkinitcpio(8) documents, and under mkinitcpio itself where it is
// installed.
package mkinitcpio_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"unlock/test/program"
)

// tree is a copy of the hooks in which unlock is a script.
type tree struct {
	dir    string // has install and hooks, as mkinitcpio's --hookdir
	unlock string
	rules  string
}

// copyHooks makes a tree whose unlock runs the lines of script.
func copyHooks(t *testing.T, script string) tree {
	t.Helper()
	tr := tree{dir: t.TempDir()}
	tr.unlock, tr.rules = filepath.Join(tr.dir, "unlock"), filepath.Join(tr.dir, "udev/11-unlock.rules")
	write(t, tr.unlock, "#!/bin/sh\n"+script, 0o755)
	for _, name := range []string{"install/unlock", "install/sd-unlock", "hooks/unlock", "udev/11-unlock.rules"} {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		replaced := strings.NewReplacer("/usr/lib/unlock/unlock", tr.unlock, "add_file /usr/lib/initcpio", "add_file "+tr.dir).Replace(string(text))
		write(t, filepath.Join(tr.dir, name), replaced, 0o644)
	}
	return tr
}

func write(t *testing.T, file, text string, mode os.FileMode) {
	t.Helper()
	if err := program.Write(file, text, mode); err != nil {
		t.Fatal(err)
	}
}

// helpers stand in for mkinitcpio's functions of build(): they print their names
// and arguments. systemctl is not mkinitcpio's.
const helpers = `
for f in add_binary add_file add_module add_udev_rule add_runscript add_systemd_unit systemctl; do
	eval "$f() { echo $f \"\$@\"; [ \"\$1\" != broken ]; }"
done
error() { echo "$@" >&2; }
map() { local r=0; for _ in "${@:2}"; do "$1" "$_" || r=1; done; return $r; }
BUILDROOT=/build
`

const needs = `[ "$*" = needs ] || exit 1
echo "file /etc/unlock.toml"; echo "program /usr/sbin/mke2fs"; echo "module dm-crypt"; echo "driver ena"
`

func TestBuild(t *testing.T) {
	t.Parallel()
	common := []string{
		"add_binary UNLOCK", "add_file /etc/unlock.toml", "add_binary /usr/sbin/mke2fs", "add_module dm-crypt", "add_module ena?",
		"add_udev_rule 10-dm.rules", "add_udev_rule 13-dm-disk.rules", "add_udev_rule 95-dm-notify.rules",
		"add_file RULES /usr/lib/udev/rules.d/11-unlock.rules",
	}
	systemd := []string{
		"add_binary modprobe", "add_binary udevadm", "add_systemd_unit unlock.service", "add_systemd_unit unlock-mount.service",
		"add_systemd_unit cryptsetup-pre.target",
		"add_file /usr/lib/unlock/emergency.conf /etc/systemd/system/emergency.service.d/unlock.conf",
		"add_file /usr/lib/unlock/emergency.conf /etc/systemd/system/rescue.service.d/unlock.conf",
		"systemctl -q --root /build enable unlock.service unlock-mount.service",
	}
	for _, row := range []struct {
		name, hook, unlock string
		want               []string
		failed             bool
	}{
		{name: "without systemd", hook: "unlock", unlock: needs, want: append(append([]string(nil), common...), "add_runscript")},
		{name: "with systemd", hook: "sd-unlock", unlock: needs, want: append(append([]string(nil), common...), systemd...)},
		{name: "bad configuration", hook: "unlock", unlock: "exit 2", failed: true},
		{name: "bad configuration, systemd", hook: "sd-unlock", unlock: "exit 2", failed: true},
		{name: "unedited configuration", hook: "unlock", unlock: "exit 0", failed: true},
		{name: "mirror", hook: "unlock", unlock: `[ "$*" = needs ] && echo "module dm-raid" && echo "module raid1"`, want: []string{"add_binary UNLOCK", "add_module dm-raid", "add_module raid1",
			"add_udev_rule 10-dm.rules", "add_udev_rule 13-dm-disk.rules", "add_udev_rule 95-dm-notify.rules",
			"add_file RULES /usr/lib/udev/rules.d/11-unlock.rules", "add_runscript"}},
		{name: "no such module", hook: "unlock", unlock: "echo module broken", want: []string{"add_binary UNLOCK", "add_module broken"}, failed: true},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			tr := copyHooks(t, row.unlock)
			script := fmt.Sprintf("%s . '%s/install/%s'; build; echo built >&2", helpers, tr.dir, row.hook)
			var stdout, stderr bytes.Buffer
			cmd := exec.Command("bash", "-c", script)
			cmd.Stdout, cmd.Stderr = &stdout, &stderr
			err := cmd.Run()
			if failed := err != nil || !strings.Contains(stderr.String(), "built"); failed != row.failed {
				t.Errorf("build: %v, %q; want it to end mkinitcpio: %v", err, stderr.String(), row.failed)
			}
			want := strings.NewReplacer("UNLOCK", tr.unlock, "RULES", tr.rules).Replace(strings.Join(row.want, "\n"))
			if got := strings.TrimSpace(stdout.String()); got != want {
				t.Errorf("build calls\n%s\nwant\n%s", got, want)
			}
		})
	}
}

// TestRun boots as far as a shell can: unlock breaks down twice in each part of the
// boot before it succeeds: no shell is opened.
func TestRun(t *testing.T) {
	t.Parallel()
	program.Need(t, "dash")
	tr := copyHooks(t, `echo "unlock $*"
n=$(cat "$0.count" 2>/dev/null || echo 0); echo $((n + 1)) >"$0.count"
[ $((n % 3)) = 2 ]
`)
	out, err := exec.Command("dash", "-c", `
modprobe() { echo modprobe "$@"; }
udevadm() { echo udevadm "$@"; }
sleep() { echo sleep "$@"; }
. "$1"
run_hook && echo root is mounted && run_latehook && echo pivot`, "dash", filepath.Join(tr.dir, "hooks/unlock")).Output()
	if err != nil {
		t.Fatal(err)
	}
	const locked = "unlock \nsleep 10\n"
	const unmounted = "unlock mount /new_root\nsleep 10\n"
	want := "modprobe -qa dm-mod loop\n" + locked + locked + "unlock \nroot is mounted\n" +
		unmounted + unmounted + "unlock mount /new_root\nudevadm settle --timeout=30\npivot\n"
	if string(out) != want {
		t.Errorf("the hooks print\n%s\nwant\n%s", out, want)
	}
}

// TestRunEarly: what begins before devices are there holds up nothing.
func TestRunEarly(t *testing.T) {
	t.Parallel()
	program.Need(t, "dash")
	tr := copyHooks(t, `if [ "$1" = early ]; then
	echo early
	: >"$0.began"
	exec sleep 600 >/dev/null
fi
until [ -e "$0.began" ]; do :; done
echo unlock
`)
	out, err := exec.Command("dash", "-c", `
modprobe() { :; }
. "$1"
run_earlyhook && echo devices settle && run_hook && kill "$!"`, "dash", filepath.Join(tr.dir, "hooks/unlock")).Output()
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	slices.Sort(lines) // the first is printed beside the second
	if want := []string{"devices settle", "early", "unlock"}; !slices.Equal(lines, want) {
		t.Errorf("the hooks print %q, want %q", lines, want)
	}
}

// TestMkinitcpio builds with the real one, into a directory and without a kernel.
func TestMkinitcpio(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("mkinitcpio"); err != nil {
		t.Skip("mkinitcpio is not installed (it is Arch Linux's): its hooks were run with stand-ins for its functions only")
	}
	dir := t.TempDir()
	file, conf, root := filepath.Join(dir, "named"), filepath.Join(dir, "conf"), filepath.Join(dir, "root")
	write(t, file, "named", 0o644)
	tr := copyHooks(t, "echo file "+file+"; echo driver ena\n")
	write(t, conf, "MODULES=()\nBINARIES=()\nFILES=()\nHOOKS=(unlock)\n", 0o644)
	if err := os.Mkdir(root, 0o755); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("mkinitcpio", "-c", conf, "-D", tr.dir, "-d", root, "-k", "none").CombinedOutput()
	if err != nil {
		t.Fatalf("mkinitcpio: %v\n%s", err, out)
	}
	for _, name := range []string{tr.unlock, file, "hooks/unlock", "usr/lib/udev/rules.d/11-unlock.rules", "usr/lib/udev/rules.d/10-dm.rules"} {
		if _, err := os.Stat(filepath.Join(root, name)); err != nil {
			t.Errorf("the image lacks %s", name)
		}
	}
	config, err := os.ReadFile(filepath.Join(root, "config"))
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"HOOKS=", "LATEHOOKS="} {
		if !bytes.Contains(config, []byte("\n"+line+`" unlock"`)) && !bytes.Contains(config, []byte("\n"+line+`"unlock"`)) {
			t.Errorf("the image's config is\n%s\nwant unlock in %s", config, line)
		}
	}
}
