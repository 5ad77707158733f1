// Package initramfs builds the standalone image: a cpio archive (newc, as
// Documentation/driver-api/early-userspace/buffer-format.rst of the kernel has it)
// with unlock as /init, kernel modules in load order, the configuration with the
// files that it names, and the mkfs programs that it calls for with their
// libraries. The certificate authorities of AWS are part of unlock itself. It
// runs on the system whose kernel the image is for; for another architecture, Files
// has the programs.
package initramfs

import (
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"unlock/internal/config"
	"unlock/internal/needs"
)

// Where things lie in the image; internal/initd and internal/fsys look there.
const (
	moduleList  = "/etc/unlock/modules" // one path a line, in load order; + "." + TYPE for a root file system
	releaseFile = "/etc/unlock/release" // the version of unlock that made the image
)

// Options of Build.
type Options struct {
	Unlock  string       // the unlock binary
	Config  string       // unlock.toml
	Modules string       // /lib/modules/VERSION; empty: no modules
	Files   []string     // further files, HOST:IMAGE, executable as on the host; they come before what Build would put there itself
	Version string       // of unlock, for /etc/unlock/release
	Note    func(string) // reports what the image lacks and may do without; nil: it is not said

	machine elf.Machine // that Unlock is for; elf.EM_NONE: it does not say
}

// Build writes the image, uncompressed, to w. Equal inputs give equal bytes. A
// mistake in the configuration is a *config.Error, as at boot.
func Build(w io.Writer, o Options) error {
	cfg, err := config.Load(o.Config, "")
	if err != nil {
		return err
	}
	if o.Note == nil {
		o.Note = func(string) {}
	}
	n := needs.Of(cfg)
	t := newTree()
	for _, dir := range []string{"/dev", "/proc", "/run", "/sys", "/sysroot", "/tmp"} {
		t.directory(dir)
	}
	t.device("/dev/console", 0o600, 5, 1)
	t.device("/dev/null", 0o666, 1, 3)
	t.content(releaseFile, 0o644, []byte(o.Version+"\n"))
	if err := errors.Join(
		o.addFiles(t, n),
		o.addUnlock(t),
		t.file(o.Config, config.DefaultFile, 0o644),
		o.addMkfs(t, n),
		o.addModules(t, n),
	); err != nil {
		return err
	}
	return t.write(w)
}

// addUnlock adds unlock itself. Programs and modules come later, and are held against it.
func (o *Options) addUnlock(t *tree) error {
	data, err := os.ReadFile(o.Unlock)
	if err != nil {
		return fmt.Errorf("adding /init: %w", err)
	}
	t.content("/init", 0o755, data)
	o.machine = machine(data)
	return nil
}

// addFiles adds what the caller lists, then what the configuration names and the
// caller did not.
func (o *Options) addFiles(t *tree, n needs.List) error {
	var errs []error
	for _, f := range o.Files {
		host, image, ok := strings.Cut(f, ":")
		if !ok || !strings.HasPrefix(image, "/") {
			errs = append(errs, fmt.Errorf("%q is not HOST:IMAGE with an absolute path in the image", f))
			continue
		}
		perm := uint64(0o644)
		if info, err := os.Stat(host); err == nil && info.Mode()&0o111 != 0 {
			perm = 0o755 // programs of another architecture come this way
		}
		errs = append(errs, t.file(host, image, perm))
	}
	for _, f := range n.Files {
		if t.has(f) {
			continue
		}
		if err := t.file(f, f, 0o644); err != nil {
			errs = append(errs, fmt.Errorf("%s names a file: %w", o.Config, err))
		}
	}
	return errors.Join(errs...)
}
