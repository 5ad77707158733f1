// Package dracut_test runs dracut's module with stand-ins for the functions that
// dracut.modules(7) documents, as different versions have them. Real versions build
// images in the scenarios of scripts/qemu-test.
package dracut_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"unlock/test/program"
)

// helpers stand in for dracut's functions: they print their names and arguments.
const helpers = `
for f in inst_multiple inst_simple inst_script inst_hook instmods; do
	eval "$f() { echo $f \"\$@\"; [ \"\${@: -1}\" != broken ]; }"
done
systemctl() { echo systemctl "$@"; }
require_binaries() { for b; do case $b in /*) [ -x "$b" ] || return 1 ;; esac; done; }
dfatal() { echo "$@" >&2; }
dracut_module_included() { [[ " $modules " == *" $1 "* ]]; }
systemdsystemunitdir=/units moddir=/module
`

const needs = `[ "$*" = needs ] || exit 1
echo "file /etc/unlock.toml"; echo "program /usr/sbin/mke2fs"; echo "directory $(dirname "$0")/mnt/secretfs"; echo "shadow /etc/unlock/shadow"; echo "module dm-crypt"; echo "driver ena"
`

// module is a copy of the module, with its configuration, whose unlock runs the lines
// of script.
func module(t *testing.T, script string) string {
	t.Helper()
	dir := t.TempDir()
	text, err := os.ReadFile("50unlock/module-setup.sh")
	if err != nil {
		t.Fatal(err)
	}
	replaced := strings.NewReplacer("/usr/lib/unlock/unlock", dir+"/unlock", "/etc/unlock.toml", dir+"/unlock.toml", "/etc/shadow", dir+"/etc/shadow").Replace(string(text))
	write(t, dir+"/module-setup.sh", replaced, 0o644)
	write(t, dir+"/unlock.toml", "", 0o644)
	write(t, dir+"/etc/shadow", "daemon:*:1::::::\nroot:$y$hash:1::::::\n", 0o600)
	write(t, dir+"/unlock", "#!/bin/sh\n"+script, 0o755)
	return dir
}

func write(t *testing.T, file, text string, mode os.FileMode) {
	t.Helper()
	if err := program.Write(file, text, mode); err != nil {
		t.Fatal(err)
	}
}

// call runs one function of the module and returns what it printed; UNLOCK stands for
// the copy's program.
func call(t *testing.T, dir, set, function string) (stdout string, err error) {
	t.Helper()
	var out bytes.Buffer
	cmd := exec.Command("bash", "-c", fmt.Sprintf("%s\n%s\ninitdir='%[3]s/build'; . '%[3]s/module-setup.sh'; %[4]s", helpers, set, dir, function))
	cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
	cmd.Stdout = &out
	err = cmd.Run()
	return strings.NewReplacer(dir+"/unlock", "UNLOCK", dir+"/build", "/build").Replace(strings.TrimSpace(out.String())), err
}

func TestCheck(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name, unlock, set string
		want              int // 0: the module is taken along
	}{
		{name: "configured", unlock: needs, want: 0},
		{name: "unedited", unlock: "exit 0", want: 1},
		{name: "refused: install ends the build", unlock: "exit 2", want: 0},
		{name: "kdump", unlock: needs, set: "IN_KDUMP=1", want: 1},
		{name: "kdump by its module", unlock: needs, set: `add_dracutmodules=" kdumpbase "`, want: 1},
		{name: "rescue", unlock: needs, set: `add_dracutmodules=" rescue "`, want: 1},
		{name: "installer", unlock: needs, set: `dracutmodules="base anaconda"`, want: 1},
		{name: "another module", unlock: needs, set: `add_dracutmodules=" lvm crypt "`, want: 0},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			_, err := call(t, module(t, row.unlock), row.set, `check; exit $?`)
			got := 0
			if err != nil {
				got = err.(*exec.ExitError).ExitCode()
			}
			if got != row.want {
				t.Errorf("check returns %d, want %d", got, row.want)
			}
		})
	}
}

func TestDepends(t *testing.T) {
	t.Parallel()
	older, newer := t.TempDir(), t.TempDir()
	write(t, newer+"/modules.d/77initqueue/module-setup.sh", "", 0o644)
	for _, row := range []struct{ name, set, want string }{
		{"the queue is part of dracut", "dracutbasedir=" + older, "dm"},
		{"the queue is a module", "dracutbasedir=" + newer, "dm\ninitqueue"},
		{"systemd needs no queue", "modules=systemd dracutbasedir=" + newer, "dm"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			if got, err := call(t, module(t, needs), row.set, "depends"); err != nil || got != row.want {
				t.Errorf("depends: %q, %v; want %q", got, err, row.want)
			}
		})
	}
}

func TestInstall(t *testing.T) {
	t.Parallel()
	common := []string{"inst_multiple modprobe sleep UNLOCK", "inst_multiple UNLOCK.toml", "inst_multiple /usr/sbin/mke2fs"}
	units := []string{
		"inst_multiple udevadm", "inst_simple /usr/lib/systemd/system/unlock.service /units/unlock.service",
		"inst_simple /usr/lib/systemd/system/unlock-mount.service /units/unlock-mount.service", "inst_multiple -o /units/cryptsetup-pre.target",
		"systemctl -q --root /build enable unlock.service unlock-mount.service",
		"inst_simple /usr/lib/unlock/emergency.conf /etc/systemd/system/emergency.service.d/unlock.conf",
		"inst_simple /usr/lib/unlock/emergency.conf /etc/systemd/system/rescue.service.d/unlock.conf",
		"inst_simple /usr/lib/unlock/emergency.conf /etc/systemd/system/dracut-emergency.service.d/unlock.conf",
		"inst_hook emergency 00 /module/unlock-hold.sh",
	}
	for _, row := range []struct {
		name, unlock, set string
		want              []string
		failed            bool
	}{
		{name: "without systemd", unlock: needs, want: append(append([]string(nil), common...),
			"inst_hook initqueue/settled 00 /module/unlock.sh", "inst_hook initqueue/finished 00 /module/unlock-finished.sh", "inst_hook pre-pivot 60 /module/unlock-mount.sh",
			"inst_hook emergency 00 /module/unlock-cap.sh")},
		{name: "with systemd", unlock: needs, set: "modules=systemd SYSTEMCTL=systemctl", want: append(append([]string(nil), common...), units...)},
		{name: "before 050, which does not set SYSTEMCTL", unlock: needs, set: "modules=systemd", want: append(append([]string(nil), common...), units...)},
		{name: "network-legacy", unlock: needs, set: "modules='systemd network-legacy'", want: append(append(append([]string(nil), common...), units...),
			"inst_script /module/unlock-network.sh /usr/lib/unlock/network",
			"inst_simple /module/unlock-network.conf /etc/systemd/system/unlock.service.d/network.conf")},
		{name: "bad configuration", unlock: "exit 2", failed: true},
		{name: "a file is missing", unlock: "echo file broken", want: []string{"inst_multiple modprobe sleep UNLOCK", "inst_multiple broken"}, failed: true},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			dir := module(t, strings.ReplaceAll(row.unlock, "/etc/unlock.toml", "$0.toml"))
			got, err := call(t, dir, row.set, "install")
			if failed := err != nil; failed != row.failed {
				t.Errorf("install: %v; want it to end dracut: %v", err, row.failed)
			}
			if want := strings.Join(row.want, "\n"); got != want {
				t.Errorf("install calls\n%s\nwant\n%s", got, want)
			}
			if row.failed {
				return
			}
			if _, err := os.Stat(dir + "/mnt/secretfs"); err != nil {
				t.Errorf("the mount point was not made: %v", err)
			}
			shadow := dir + "/build/etc/unlock/shadow"
			text, err1 := os.ReadFile(shadow)
			info, err2 := os.Stat(shadow)
			if err1 != nil || err2 != nil || info.Mode().Perm() != 0o600 || string(text) != "root:$y$hash:1::::::\n" {
				t.Errorf("the image has %q of shadow, %v, %v; want root's line, for root alone", text, err1, err2)
			}
		})
	}
}

func TestInstallKernel(t *testing.T) {
	t.Parallel()
	got, err := call(t, module(t, needs), "hostonly=hostonly", "installkernel")
	if want := "instmods -c dm-crypt\ninstmods ena"; err != nil || got != want {
		t.Errorf("installkernel calls %q, %v; want %q", got, err, want)
	}
	modules := t.TempDir()
	write(t, modules+"/modules.builtin", "kernel/crypto/xts.ko\n", 0o644)
	got, err = call(t, module(t, "echo module xts; echo module dm-crypt"), "srcmods="+modules, "installkernel")
	if want := "instmods -c dm-crypt"; err != nil || got != want {
		t.Errorf("where xts is built in, installkernel calls %q, %v; want %q", got, err, want)
	}
	got, err = call(t, module(t, "echo module dm-raid; echo module raid1; echo module raid10"), "hostonly=hostonly", "installkernel")
	if want := "instmods -c dm-raid\ninstmods -c raid1\ninstmods -c raid10"; err != nil || got != want {
		t.Errorf("for mirrors installkernel calls %q, %v; want %q", got, err, want)
	}
	if _, err := call(t, module(t, "echo module broken"), "", "installkernel"); err == nil {
		t.Error("a kernel without a module that must be there does not end dracut")
	}
}

// TestNetwork: unlock waits for the card that dracut brings up, and for no other.
func TestNetwork(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("50unlock/unlock-network.sh")
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		name, rules, after, want string
	}{
		{name: "no network", want: ""},
		{name: "dracut found no card to bring up", rules: " ", want: ""},
		{name: "a card", rules: "90-net.rules", after: "3", want: "1 1 1"},
		{name: "whatever card there is", rules: "91-default-net.rules", after: "1", want: "1"},
		{name: "never", rules: "90-net.rules", want: strings.TrimSpace(strings.Repeat("1 ", 60))},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			switch row.rules {
			case "":
			case " ":
				write(t, dir+"/rules/90-net.rules", "", 0o644)
			default:
				write(t, filepath.Join(dir, "rules", row.rules), "rule\n", 0o644)
			}
			script := strings.NewReplacer("/etc/udev/rules.d", dir+"/rules", "/tmp/net", dir+"/net").Replace(string(text))
			script = strings.Replace(script, "#!/bin/sh", `sleep() { n=$((n + 1)); echo "$1"; [ "$n" != "$after" ] || : >"$dir/net.eth0.did-setup"; }`, 1)
			program.Need(t, "dash")
			cmd := exec.Command("dash", "-c", script)
			cmd.Env = append(os.Environ(), "dir="+dir, "after="+row.after)
			out, err := cmd.Output()
			if got := strings.Join(strings.Fields(string(out)), " "); err != nil || got != row.want {
				t.Errorf("it sleeps %q, %v; want %q", got, err, row.want)
			}
		})
	}
}
