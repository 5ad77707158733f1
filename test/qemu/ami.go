package main

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"unlock/test/lab"
	"unlock/test/vm"
)

// amis boot from the disk that make image makes, under UEFI firmware: nothing of
// the machine's is in the way of the image's own boot loader, kernel and initramfs.
var amis = []lab.Scenario{
	{
		Name: "ami-uefi", Config: s3Key + secretfs, Disks: blank(1), System: ami(),
		Boots: []lab.Boot{
			{Script: "ami_up\nami_open 1\nwrite_open\nami_upgrade", Want: amiWants, Check: lab.Formatted},
			{Script: "ami_up\nami_open 2\nread_open\nami_purge", Want: append(amiWants, lab.FileText), Check: lab.Formatted},
			{Script: "ami_up\nabsent /dev/mapper/secretfs /run/unlock /etc/unlock.toml", Want: amiWants, Check: lab.Formatted},
		},
	},
	{
		Name: "ami-uki", Config: s3Key + secretfs, Disks: blank(1), System: ami("UKI=1"),
		Boots: []lab.Boot{
			{Script: "ami_up\nami_open 1\nwrite_open\nami_upgrade", Want: amiWants, Check: lab.Formatted},
			{Script: "ami_up\nami_open 2\nread_open", Want: append(amiWants, lab.FileText), Check: lab.Formatted},
		},
	},
}

var amiWants = []string{"login:"}

const firmware = "/usr/share/ovmf/OVMF.fd"

// amiFiles lie over the root of the image.
//
//go:embed image
var amiFiles embed.FS

// ami makes an image as an administrator does, with our package of version 1 in it
// and version 2 in a repository; settings are those of make image.
func ami(settings ...string) lab.System {
	return func(ctx context.Context, l *lab.Lab) error {
		if os.Geteuid() != 0 {
			return errors.New("making a disk image takes root")
		}
		files, image := l.File("files"), l.File("ami.img")
		if err := amiRoot(ctx, l, files); err != nil {
			return err
		}
		start := time.Now()
		command := append([]string{"make", "-s", "image", "DEB=" + filepath.Join(files, "srv/1.deb"), "IMAGE=" + image, "FILES=" + files,
			"IMAGE_PACKAGES=binutils"}, settings...) // objcopy looks into unified kernel images
		// The root volume of an instance may be larger than the image.
		if err := lab.Command(ctx, "", command...); err != nil {
			return err
		}
		l.Note("image made in %.0f s", time.Since(start).Seconds())
		l.Base.Firmware, l.Base.Memory, l.Base.Timeout = firmware, 2048, 20*time.Minute
		l.Base.Disks = []vm.Disk{{File: image, Serial: "vol0123456789abcdef0"}}
		return os.Truncate(image, 4<<30)
	}
}

// amiRoot writes what make image is to lay over the root.
func amiRoot(ctx context.Context, l *lab.Lab, root string) error {
	embedded, err := fs.Sub(amiFiles, "image")
	if err != nil {
		return err
	}
	put := func(name string, content []byte) error {
		file := filepath.Join(root, name)
		return errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, content, 0o644))
	}
	wants := filepath.Join(root, "etc/systemd/system/multi-user.target.wants")
	if err := errors.Join(
		os.CopyFS(root, embedded),
		put("etc/unlock.toml", []byte(l.Expand(l.Config))),
		put("etc/unlock/test-ca.pem", l.Cloud.CA()),
		os.Mkdir(wants, 0o755), os.Symlink("../scenario.service", filepath.Join(wants, "scenario.service")),
		os.Mkdir(filepath.Join(root, "srv"), 0o755),
	); err != nil {
		return fmt.Errorf("writing what is laid over the image's root: %w", err)
	}
	return alone(ctx, "test/qemu/ami-repository.sh", filepath.Join(root, "srv"))
}
