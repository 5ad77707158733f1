// Package packaging_test runs what packages run on the systems that they are installed on.
package packaging_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"unlock/test/program"
)

// TestRebuild: every kind of image is built anew, unified ones too.
func TestRebuild(t *testing.T) {
	t.Parallel()
	script, err := os.ReadFile("rebuild")
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		name, tools string
		files       map[string]string
		want        string // the commands; "" fails
	}{
		{name: "Debian", tools: "update-initramfs dracut", want: "update-initramfs -u -k all"},
		{name: "Arch", tools: "mkinitcpio kernel-install", files: map[string]string{"etc/kernel/install.conf": "layout=uki\n"}, want: "mkinitcpio -P"},
		{name: "Fedora", tools: "dracut kernel-install", want: "dracut -q -f --regenerate-all"},
		{name: "unified", tools: "dracut kernel-install", files: map[string]string{"etc/kernel/install.conf": "layout=uki\n"},
			want: "kernel-install add 6.12 DIR/usr/lib/modules/6.12/vmlinuz\nkernel-install add 6.13 DIR/usr/lib/modules/6.13/vmlinuz"},
		{name: "unified by the vendor, not by the administrator", tools: "dracut kernel-install",
			files: map[string]string{"usr/lib/kernel/install.conf": "layout=uki\n", "etc/kernel/install.conf": "layout=bls\n"}, want: "dracut -q -f --regenerate-all"},
		{name: "bootc", tools: "dracut", files: map[string]string{"usr/lib/modules/6.12/initramfs.img": ""},
			want: "dracut -q -f DIR/usr/lib/modules/6.12/initramfs.img 6.12\ndracut -q -f DIR/usr/lib/modules/6.13/initramfs.img 6.13"},
		{name: "no generator"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			write := func(name, text string) {
				if err := program.Write(filepath.Join(dir, name), text, 0o755); err != nil {
					t.Fatal(err)
				}
			}
			for name, text := range row.files {
				write(name, text)
			}
			for _, version := range []string{"6.12", "6.13"} {
				write("usr/lib/modules/"+version+"/modules.dep", "")
			}
			write("usr/lib/modules/of-a-kernel-that-is-gone/extra.ko", "")
			for _, tool := range strings.Fields(row.tools) {
				write("bin/"+tool, "#!/bin/sh\necho "+tool+" \"$@\"\n")
			}
			for _, tool := range []string{"grep", "find"} {
				path, err := exec.LookPath(tool)
				if err == nil {
					err = os.MkdirAll(filepath.Join(dir, "bin"), 0o755)
				}
				if err == nil {
					err = os.Symlink(path, filepath.Join(dir, "bin", tool))
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			text := strings.NewReplacer("/etc/kernel", dir+"/etc/kernel", "/usr/lib/kernel", dir+"/usr/lib/kernel", "/usr/lib/modules", dir+"/usr/lib/modules").Replace(string(script))
			cmd := exec.Command("/bin/sh", "-c", text)
			cmd.Env = []string{"PATH=" + filepath.Join(dir, "bin")}
			out, err := cmd.Output()
			got := strings.ReplaceAll(strings.TrimSpace(string(out)), dir, "DIR")
			if got != row.want || (err != nil) != (row.want == "") {
				t.Errorf("rebuild runs %q, %v; want %q", got, err, row.want)
			}
		})
	}
}
