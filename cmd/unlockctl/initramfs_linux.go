package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"unlock/initramfs"
)

type initramfsCmd struct {
	Kernel   string   `required:"" placeholder:"VERSION" help:"Kernel version, or the path of its /lib/modules/VERSION."`
	Config   string   `default:"${config}" placeholder:"FILE" help:"Configuration to put into the image (${config})."`
	Output   string   `short:"o" required:"" placeholder:"FILE" help:"Image to write."`
	Unlock   string   `placeholder:"FILE" help:"The unlock binary; by default the one beside unlockctl, else /usr/lib/unlock/unlock."`
	Compress string   `enum:"zstd,none" default:"zstd" help:"zstd or none (zstd)."`
	File     []string `sep:"none" placeholder:"HOST:IMAGE" help:"Further file to put into the image; may be repeated. An image for another architecture gets /sbin/mke2fs, /sbin/e2fsck or what else it calls, and their libraries, this way."`
}

// Run writes the image beside Output and renames it, so that a failed build
// leaves the old image whole.
func (c *initramfsCmd) Run(con console) error {
	var notes []string
	o := initramfs.Options{
		Unlock:  c.Unlock,
		Config:  c.Config,
		Modules: c.Kernel,
		Files:   c.File,
		Version: version,
		Note:    func(s string) { notes = append(notes, s) },
	}
	if !strings.Contains(c.Kernel, "/") {
		o.Modules = filepath.Join("/lib/modules", c.Kernel)
	}
	if o.Unlock == "" {
		var err error
		if o.Unlock, err = findUnlock(); err != nil {
			return err
		}
	}
	f, err := os.CreateTemp(filepath.Dir(c.Output), ".initramfs-")
	if err != nil {
		return fmt.Errorf("writing %s: %w", c.Output, err)
	}
	defer os.Remove(f.Name())
	defer f.Close()
	done := con.working("building " + c.Output)
	err = c.build(f, o)
	done()
	for _, note := range notes {
		fmt.Fprintln(con.err, "unlockctl: note:", note)
	}
	if err != nil {
		return err
	}
	if err := f.Chmod(0o600); err != nil {
		return fmt.Errorf("writing %s: %w", c.Output, err)
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("writing %s: %w", c.Output, err)
	}
	if err := os.Rename(f.Name(), c.Output); err != nil {
		return fmt.Errorf("writing %s: %w", c.Output, err)
	}
	return nil
}

func (c *initramfsCmd) build(w io.Writer, o initramfs.Options) error {
	if c.Compress == "none" {
		return initramfs.Build(w, o)
	}
	zw, err := initramfs.Zstd(w)
	if err != nil {
		return err
	}
	if err := initramfs.Build(zw, o); err != nil {
		return err
	}
	if err := zw.Close(); err != nil {
		return fmt.Errorf("compressing %s: %w", c.Output, err)
	}
	return nil
}

// findUnlock returns the unlock binary beside this program, as a build leaves it,
// or else where packages put it.
func findUnlock() (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("finding the unlock binary: %w", err)
	}
	beside := filepath.Join(filepath.Dir(self), "unlock")
	if _, err := os.Stat(beside); err != nil {
		return "/usr/lib/unlock/unlock", nil
	}
	return beside, nil
}
