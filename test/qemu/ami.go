package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"unlock/test/ec2sim"
	"unlock/test/vm"
)

// amis boot from the disk that make image makes, under UEFI firmware: nothing of
// the machine's is in the way of the image's own boot loader, kernel and initramfs.
var amis = []scenario{
	{name: "ami-uefi", instead: func(ctx context.Context, l *lab) error {
		return l.ami(ctx, false,
			boot{script: amiUp + amiWrite + amiUpgrade},
			boot{script: amiUp + amiRead + amiPurge, want: []string{fileText}},
			boot{script: amiUp + amiPurged},
		)
	}},
	{name: "ami-uki", instead: func(ctx context.Context, l *lab) error {
		return l.ami(ctx, true,
			boot{script: amiUp + amiWrite + amiUpgrade},
			boot{script: amiUp + amiRead, want: []string{fileText}},
		)
	}},
}

const (
	// The login target is reached, the root has grown to its disk's size.
	amiUp = `
active() { for unit in "$@"; do systemctl is-active "$unit"; done; }
active multi-user.target getty.target serial-getty@ttyS0.service
systemctl --failed
test -z "$(systemctl --failed --no-legend)"
bootctl --no-pager status
test "$(findmnt -no FSTYPE /boot/efi)" = vfat
test "$(findmnt -bno SIZE /)" -gt 3200000000
/lib/systemd/systemd-networkd-wait-online --timeout=60
# on_esp unpacks the initramfs that boots next and prints where it has unlock
on_esp() {
	rm -rf /tmp/esp && mkdir /tmp/esp
	image=$(ls /boot/efi/debian/*/initrd* 2>/dev/null || ls /boot/efi/EFI/Linux/*.efi)
	case $image in *.efi) objcopy -O binary --only-section=.initrd "$image" /tmp/initrd && image=/tmp/initrd ;; esac
	unmkinitramfs "$image" /tmp/esp
	find /tmp/esp -path '*/usr/lib/unlock/unlock'
}
`
	amiOpen = `
test "$(findmnt -no SOURCE,FSTYPE /mnt/secretfs | tr -s ' ')" = "/dev/mapper/secretfs ext4"
dmsetup table --showkeys secretfs | grep ':logon:cryptsetup:'
`
	amiWrite   = amiOpen + "grep '\"version\": \"1\"' /run/unlock/status.json; echo '" + fileText + "' >/mnt/secretfs/file\n"
	amiUpgrade = `
apt-get -q update
DEBIAN_FRONTEND=noninteractive apt-get -qy upgrade
test "$(dpkg-query -Wf '${Version}' unlock)" = 2-1
cmp "$(on_esp)" /usr/lib/unlock/unlock
`
	amiRead = amiOpen + `
grep '"version": "2"' /run/unlock/status.json
cat /mnt/secretfs/file
`
	amiPurge = `
apt-get -qy purge unlock
test -z "$(on_esp)"
test -n "$(ls /tmp/esp)"
`
	amiPurged = `
test ! -e /dev/mapper/secretfs
test ! -e /run/unlock
test ! -e /etc/unlock.toml
`

	// amiService runs the machine's script when the system is up.
	amiService = `[Unit]
Description=What the scenario looks at
[Service]
ExecStart=/usr/local/sbin/scenario
StandardOutput=tty
StandardError=tty
TTYPath=/dev/console
[Install]
WantedBy=multi-user.target
`
	amiScript = `#!/bin/sh
systemctl is-system-running --wait
echo
echo "script: begin"
tr -d '\000' </dev/vda >/run/script
sh -eux /run/script
echo "script: exit $?"
sync
systemctl poweroff -f -f
`
	// On a busy host a machine without acceleration is slower than systemd, and the
	// kernel, expect of any.
	amiCommandLine = "root=LABEL=root rw console=ttyS0 no_timer_check panic=-1 systemd.show_status=1" +
		" systemd.default_timeout_start_sec=600 systemd.default_device_timeout_sec=600\n"

	firmware = "/usr/share/ovmf/OVMF.fd"
)

// ami makes an image as an administrator does, with our package of version 1 in it
// and version 2 in a repository, and boots it.
func (l *lab) ami(ctx context.Context, uki bool, boots ...boot) (err error) {
	if os.Geteuid() != 0 {
		return errors.New("making a disk image takes root")
	}
	if l.dir, err = os.MkdirTemp("", "qemu-test-"); err != nil {
		return err
	}
	defer os.RemoveAll(l.dir)
	if l.cloud, err = ec2sim.New(ec2sim.Config{}); err != nil {
		return err
	}
	defer l.cloud.Close()
	if err := l.amiFiles(ctx); err != nil {
		return fmt.Errorf("preparing: %w", err)
	}
	start := time.Now()
	command := []string{"make", "-s", "image", "DEB=" + l.file("files/srv/1.deb"), "IMAGE=" + l.file("ami.img"), "FILES=" + l.file("files"),
		"IMAGE_PACKAGES=binutils"} // objcopy looks into unified kernel images
	if uki {
		command = append(command, "UKI=1")
	}
	if err := tool(ctx, "", command...); err != nil {
		return err
	}
	l.note("image made in %.0f s", time.Since(start).Seconds())
	// The root volume of an instance may be larger than the image.
	disk, err := makeDisk(ctx, l.file("nvme.img"), "blank")
	if err := errors.Join(err, os.Truncate(l.file("ami.img"), 4<<30)); err != nil {
		return err
	}
	disk.Serial = vm.Serial(0)
	for i, b := range boots {
		m := vm.Machine{
			Firmware: firmware, Memory: 2048, Plug: l.cloud.Plug, Script: b.script, Timeout: 20 * time.Minute,
			Disks: []vm.Disk{{File: l.file("ami.img"), Serial: "vol0123456789abcdef0"}, disk},
		}
		l.disksAt = m.Disks[1:]
		l.console, err = m.Run(ctx)
		l.consoles = append(l.consoles, l.console...)
		switch {
		case err != nil:
		case !l.console.Contains("script: exit 0"):
			err = errors.New("the script in the running system did not succeed")
		case !l.console.Contains("login:"):
			err = errors.New("the console shows no login prompt")
		default:
			err = formatted(l)
		}
		for _, want := range b.want {
			if err == nil && !l.console.Contains(want) {
				err = fmt.Errorf("the console does not show %q", want)
			}
		}
		if err != nil {
			return fmt.Errorf("boot %d: %w", i+1, err)
		}
		l.note("boot %d ended after %.0f s", i+1, l.console.Tail(1)[0].At.Seconds())
	}
	return nil
}

// amiFiles writes what make image is to lay over the root.
func (l *lab) amiFiles(ctx context.Context) error {
	key := l.cloud.CreateKey()
	l.cloud.PutObject(bucket, object, l.cloud.Encrypt(key, []byte(passphrase), map[string]string{"purpose": "secretfs"}))
	files := l.file("files")
	for name, text := range map[string]string{
		"etc/unlock.toml":                     strings.ReplaceAll(s3Key+secretfs, "$KEY", key),
		"etc/unlock/test-ca.pem":              string(l.cloud.CA()),
		"etc/kernel/cmdline":                  amiCommandLine,
		"etc/initramfs-tools/conf.d/test":     "COMPRESS=zstd\nCOMPRESSLEVEL=1\n",
		"etc/apt/sources.list":                "deb [trusted=yes] file:/srv ./\n",
		"etc/systemd/system/scenario.service": amiService,
		"usr/local/sbin/scenario":             amiScript,
	} {
		file := filepath.Join(files, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(text), 0o755)); err != nil {
			return err
		}
	}
	wants := filepath.Join(files, "etc/systemd/system/multi-user.target.wants")
	if err := errors.Join(os.Mkdir(wants, 0o755), os.Symlink("../scenario.service", filepath.Join(wants, "scenario.service"))); err != nil {
		return err
	}
	if err := os.Mkdir(filepath.Join(files, "srv"), 0o755); err != nil {
		return err
	}
	return alone(ctx, "sh", "-euc", `
for version in 1 2; do
	make -s release RELEASE_ARCHS=amd64 RELEASE_VERSION=$version >/dev/null
	cp bin/release/unlock_$version-1_amd64.deb "$1/$version.deb"
done
cd "$1"
dpkg-deb -f 2.deb >Packages
printf 'Filename: ./2.deb\nSize: %s\nSHA256: %s\n' "$(stat -c %s 2.deb)" "$(sha256sum <2.deb | cut -d' ' -f1)" >>Packages`, "sh", filepath.Join(files, "srv"))
}
