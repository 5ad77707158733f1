package main

import (
	"context"
	"net"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"unlock/cmd/unlockctl/internal/account"
	"unlock/cmd/unlockctl/internal/doctor"
	"unlock/internal/block"
	"unlock/internal/config"
	"unlock/internal/dm"
	"unlock/internal/ec2/tpm"
	"unlock/internal/unlock"
)

type doctorCmd struct {
	awsFlags
	Config  string `default:"${config}" placeholder:"FILE" help:"Configuration (${config})."`
	Kernel  string `placeholder:"VERSION" help:"Kernel that will boot, by default the running one; or the path of its /lib/modules/VERSION."`
	Image   string `placeholder:"FILE" help:"Initramfs; by default that of the kernel in /boot."`
	Unlock  string `placeholder:"FILE" help:"The unlock binary that the image should hold; by default the one beside unlockctl, else /usr/lib/unlock/unlock."`
	ESP     string `name:"esp" placeholder:"FILE" help:"EFI system partition that boots, where keys are attested: a directory, a partition or a disk image; by default /boot/efi, /efi or /boot."`
	Policy  string `placeholder:"FILE" help:"Key policy that attested keys will have, instead of the one that KMS has; with --offline, for images."`
	Offline bool   `help:"Ask neither IMDS nor AWS, for the building of images."`
	JSON    bool   `help:"Print JSON."`
}

// Run prints a table; exit status 1 if a boot would fail.
func (c *doctorCmd) Run(ctx context.Context, con console) error {
	system := ""
	if c.Image == "" && c.Config == config.DefaultFile { // else another system may be meant
		system = "/"
	}
	if err := c.defaults(); err != nil {
		return err
	}
	d := doctor.Doctor{
		Config: c.Config, Unlock: c.Unlock, Image: c.Image, Modules: c.Kernel, System: system, ESP: c.ESP, Policy: c.Policy, Offline: c.Offline,
		TPM:   func(ctx context.Context) (*tpm.TPM, error) { return tpm.Open(ctx, tpm.Device) },
		Disks: (&block.Finder{}).List,
		Active: func(name string) (string, error) {
			m, _, err := dm.Lookup(name)
			return m.UUID, err
		},
		Lacking: func(name string) (int, error) {
			health, _, _, err := dm.Health(name)
			return unlock.Lacking(health), err
		},
		Account: func(ctx context.Context, cfg *config.Config) (*account.Account, error) { return c.account(ctx, cfg) },
		Resolve: func(ctx context.Context, host string) error {
			_, err := net.DefaultResolver.LookupHost(ctx, host)
			return err
		},
	}
	done := con.working("looking")
	found := d.Examine(ctx)
	done()
	var err error
	if c.JSON {
		err = con.json(found)
	} else {
		err = con.findings(found)
	}
	if err == nil && doctor.Failed(found) {
		err = errFound
	}
	return err
}

// defaults finds the program, the kernel and its image.
func (c *doctorCmd) defaults() error {
	if c.ESP == "" && c.Config == config.DefaultFile {
		for _, dir := range []string{"/boot/efi", "/efi", "/boot"} {
			if _, err := os.Stat(filepath.Join(dir, "EFI")); err == nil {
				c.ESP = dir
				break
			}
		}
	}
	if c.Unlock == "" {
		var err error
		if c.Unlock, err = findUnlock(); err != nil {
			return err
		}
	}
	if c.Kernel == "" {
		var u unix.Utsname
		if err := unix.Uname(&u); err != nil {
			return err
		}
		c.Kernel = unix.ByteSliceToString(u.Release[:])
	}
	version := filepath.Base(c.Kernel)
	if filepath.Base(c.Kernel) == c.Kernel {
		c.Kernel = filepath.Join("/lib/modules", c.Kernel)
	}
	if c.Image != "" {
		return nil
	}
	for _, name := range []string{"unlock.img", "initramfs-" + version + ".img", "initrd.img-" + version, "initramfs-linux.img"} {
		if _, err := os.Stat(filepath.Join("/boot", name)); err == nil {
			c.Image = filepath.Join("/boot", name)
			return nil
		}
	}
	return nil
}

func (c console) findings(found []doctor.Finding) error {
	var rows [][]string
	for _, f := range found {
		rows = append(rows, []string{string(f.State), f.Check, f.Detail})
		if f.Hint != "" {
			rows = append(rows, []string{"", "", "hint: " + f.Hint})
		}
	}
	return c.table(rows)
}
