package doctor_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"unlock/cmd/unlockctl/internal/doctor"
)

// TestSystem plants what has a machine boot without unlock, or power off.
func TestSystem(t *testing.T) {
	const guard = "root/usr/lib/systemd/system/local-fs.target.requires/unlock-guard.service"
	for _, row := range []struct {
		name  string
		files map[string]string
		stale bool // an image of another kernel, with another configuration
		want  string
		state doctor.State
	}{
		{name: "nothing"},
		{name: "boots without an initramfs first", want: "without an initramfs first", state: doctor.Fail,
			files: map[string]string{"root/etc/default/grub.d/40-force-partuuid.cfg": "# Ubuntu's\nGRUB_FORCE_PARTUUID=0f6a\n"}},
		{name: "no more",
			files: map[string]string{"root/etc/default/grub.d/40-force-partuuid.cfg": "GRUB_FORCE_PARTUUID=0f6a\n", "root/etc/default/grub.d/99-unlock.cfg": "GRUB_FORCE_PARTUUID=\n"}},
		{name: "powers off", want: "powers the machine off", state: doctor.Warn,
			files: map[string]string{"root/boot/loader/entries/al2023.conf": "title x\noptions root=UUID=0 ro rd.emergency=poweroff rd.shell=0\n"}},
		{name: "skipped", want: "rd.unlock=0", state: doctor.Fail, files: map[string]string{"root/etc/kernel/cmdline": "root=LABEL=x rd.unlock=0\n"}},
		{name: "dracut without its module", want: "its images lack unlock", state: doctor.Fail, files: map[string]string{"root/usr/bin/dracut": ""}},
		{name: "dracut", files: map[string]string{"root/usr/bin/dracut": "", "root/usr/lib/dracut/modules.d/50unlock/module-setup.sh": ""}},
		{name: "mkinitcpio without the hook", want: "HOOKS in /etc/mkinitcpio.conf has no unlock", state: doctor.Fail,
			files: map[string]string{"root/usr/bin/mkinitcpio": "", "root/usr/lib/initcpio/install/unlock": "", "root/etc/mkinitcpio.conf": "#HOOKS=(unlock)\nHOOKS=(base udev block filesystems)\n"}},
		{name: "mkinitcpio",
			files: map[string]string{"root/usr/bin/mkinitcpio": "", "root/usr/lib/initcpio/install/unlock": "", "root/etc/mkinitcpio.conf": "HOOKS=(systemd block sd-unlock filesystems)\n"}},
		{name: "initramfs-tools' shell", want: "initramfs-tools opens a shell", state: doctor.Warn,
			files: map[string]string{"root/usr/sbin/mkinitramfs": "", "root/usr/share/initramfs-tools/hooks/unlock": "", "root/etc/default/grub": "GRUB_CMDLINE_LINUX=\"quiet\"\n"}},
		{name: "initramfs-tools' shell, closed",
			files: map[string]string{"root/usr/sbin/mkinitramfs": "", "root/usr/share/initramfs-tools/hooks/unlock": "", "root/etc/default/grub": "GRUB_CMDLINE_LINUX=\"panic=-1\"\n"}},
		{name: "dracut's shell", want: "dracut opens a shell", state: doctor.Warn,
			files: map[string]string{"root/usr/bin/dracut": "", "root/usr/lib/dracut/modules.d/50unlock/module-setup.sh": "", "root/etc/kernel/cmdline": "root=LABEL=x rd.shell=1\n"}},
		{name: "dracut's shell, closed",
			files: map[string]string{"root/usr/bin/dracut": "", "root/usr/lib/dracut/modules.d/50unlock/module-setup.sh": "", "root/etc/kernel/cmdline": "root=LABEL=x rd.shell=0\n"}},
		{name: "mkinitcpio's shell", want: "mkinitcpio without systemd opens a shell", state: doctor.Warn,
			files: map[string]string{"root/usr/bin/mkinitcpio": "", "root/usr/lib/initcpio/install/unlock": "", "root/etc/mkinitcpio.conf": "HOOKS=(base udev block unlock filesystems)\n"}},
		{name: "a shell asked for", want: "rd.break", state: doctor.Warn, files: map[string]string{"root/etc/kernel/cmdline": "root=LABEL=x rd.break\n"}},
		{name: "systemd by its name", files: map[string]string{"root/etc/kernel/cmdline": "root=LABEL=x init=/usr/lib/systemd/systemd\n"}},
		{name: "another process 1", want: "init=/bin/sh", state: doctor.Warn, files: map[string]string{"root/boot/loader/entries/a.conf": "options root=LABEL=x init=/bin/sh\n"}},
		{name: "no guard", want: "the guard is not installed", state: doctor.Warn, files: map[string]string{guard: "-"}},
		{name: "another kernel's image is stale", stale: true, want: "kernel 6.9 would boot another image", state: doctor.Fail, files: map[string]string{"root/lib/modules/6.9/modules.dep": ""}},
	} {
		t.Run(row.name, func(t *testing.T) {
			i := newInstance(t)
			i.write(guard, "")
			for name, text := range row.files {
				i.write(name, text)
				if text == "-" {
					if err := os.Remove(filepath.Join(i.dir, name)); err != nil {
						t.Fatal(err)
					}
				}
			}
			if row.stale {
				i.write("root/boot/initrd.img-6.9", string(archive(t, map[string]string{"usr/lib/unlock/unlock": "the program", "etc/unlock.toml": "an earlier one"})))
			}
			i.doctor.System, i.doctor.Offline = filepath.Join(i.dir, "root"), true
			var got []string
			for _, f := range i.examine() {
				if f.Check == "boot" || f.Check == "hooks" || f.Check == "console" || f.Check == "initramfs" && strings.Contains(f.Detail, "kernel 6.9") {
					got = append(got, f.Detail)
					if f.State != row.state {
						t.Errorf("%s: %s, want %s", f.Detail, f.State, row.state)
					}
					if f.Hint == "" {
						t.Errorf("%s: no hint", f.Detail)
					}
				}
			}
			if text := strings.Join(got, "; "); row.want == "" && text != "" || !strings.Contains(text, row.want) || len(got) > 1 {
				t.Errorf("found %q, want %q", got, row.want)
			}
		})
	}
}
