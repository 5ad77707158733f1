// Package initramfstools_test runs the build hook for initramfs-tools with stand-ins
// for its functions. Real versions build images in the scenarios of scripts/qemu-test.
package initramfstools_test

import (
	"bytes"
	"os"
	"os/exec"
	"strings"
	"testing"

	"unlock/test/program"
)

const needs = `[ "$*" = needs ] || exit 1
echo "file /etc/some.pem"; echo "program /usr/sbin/mke2fs"; echo "module dm-crypt"; echo "driver ena"
`

// functions stand in for hook-functions; modprobe knows every module but "broken".
const functions = `
for f in copy_exec copy_file manual_add_modules; do
	eval "$f() { echo $f \"\$@\"; }"
done
modprobe() { eval "last=\${$#}"; [ "$last" != broken ]; }
`

func TestHook(t *testing.T) {
	t.Parallel()
	hook, err := os.ReadFile("hooks/unlock")
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		name, unlock, conf string
		want               []string
		says               string // what ends the build; "": nothing does
	}{
		{name: "configured", unlock: needs, conf: "/etc/initramfs-tools", want: []string{
			"copy_exec UNLOCK", "copy_file file /etc/some.pem", "copy_exec /usr/sbin/mke2fs", "manual_add_modules dm-crypt", "manual_add_modules ena"}},
		{name: "mirror", unlock: "echo module dm-raid; echo module raid1", want: []string{"copy_exec UNLOCK", "manual_add_modules dm-raid", "manual_add_modules raid1"}},
		{name: "mirror, and the kernel has none", unlock: "echo module broken; echo module raid1", want: []string{"copy_exec UNLOCK"}, says: "kernel 6.1 has no broken"},
		{name: "unedited", unlock: "exit 0"},
		{name: "kdump-tools", unlock: needs, conf: "/var/lib/kdump/initramfs-tools"},
		{name: "bad configuration", unlock: "echo 'not so' >&2; exit 2", says: "not so"},
		{name: "a module is missing", unlock: "echo module broken", want: []string{"copy_exec UNLOCK"}, says: "kernel 6.1 has no broken"},
		{name: "a driver is missing", unlock: "echo driver broken", want: []string{"copy_exec UNLOCK", "manual_add_modules broken"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			script := strings.NewReplacer("/usr/lib/unlock/unlock", dir+"/unlock", "/etc/unlock.toml", dir+"/unlock.toml",
				"/usr/share/initramfs-tools/hook-functions", dir+"/functions").Replace(string(hook))
			for name, text := range map[string]string{"/unlock": "#!/bin/sh\n" + row.unlock, "/unlock.toml": "", "/functions": functions, "/hook": script, "/image/sbin/dmsetup": ""} {
				if err := program.Write(dir+name, text, 0o755); err != nil {
					t.Fatal(err)
				}
			}
			var stdout, stderr bytes.Buffer
			cmd := exec.Command("sh", dir+"/hook")
			cmd.Env = append(os.Environ(), "DESTDIR="+dir+"/image", "version=6.1", "CONFDIR="+row.conf)
			cmd.Stdout, cmd.Stderr = &stdout, &stderr
			err := cmd.Run()
			if failed := err != nil; failed != (row.says != "") || !strings.Contains(stderr.String(), row.says) {
				t.Errorf("the hook: %v, %q; want the build to end: %q", err, stderr.String(), row.says)
			}
			got := strings.ReplaceAll(strings.TrimSpace(stdout.String()), dir+"/unlock", "UNLOCK")
			if want := strings.Join(row.want, "\n"); got != want {
				t.Errorf("the hook calls\n%s\nwant\n%s", got, want)
			}
		})
	}
}
