package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"unlock/internal/config"
	"unlock/test/vm"
)

// harmless is a configuration that builds an image.
const harmless = "[key]\nsource = \"ephemeral\"\n[[volume]]\nname = \"secretfs\"\ndevice = \"instance-store\"\nformat = \"ephemeral\"\nfilesystem = \"ext4\"\n"

// Standalone is Debian's cloud kernel with the image of unlockctl initramfs, and a
// small Debian as the root.
func Standalone(ctx context.Context, l *Lab) error { return l.standalone(ctx) }

// StandaloneFIPS is the same with Go's FIPS 140-3 module in unlock.
func StandaloneFIPS(ctx context.Context, l *Lab) error {
	return l.standalone(ctx, "--unlock", filepath.Join(l.Bin, "fips", "unlock"))
}

// uncompressed is Standalone but for the image, which then takes a tenth of the time to build.
func uncompressed(ctx context.Context, l *Lab) error { return l.standalone(ctx, Uncompressed...) }

// Uncompressed are arguments of BootStandalone.
var Uncompressed = []string{"--compress", "none"}

func (l *Lab) standalone(ctx context.Context, args ...string) error {
	kernel, err1 := vm.Kernel(ctx)
	root, err2 := vm.RealRoot(ctx)
	l.BootStandalone(kernel, root, args...)
	return errors.Join(err1, err2)
}

// BootStandalone has the machine boot an image that is built as an administrator
// builds it; args are further ones of unlockctl initramfs.
func (l *Lab) BootStandalone(kernel vm.KernelFiles, root string, args ...string) {
	l.Base.Kernel, l.Base.Initrd, l.Base.Root = kernel.Image, l.File("initrd"), root
	l.Base.Append = "root=LABEL=" + vm.RootLabel + " rw loglevel=7"
	l.Up = "standalone_up"
	build := func(ctx context.Context, conf string, more ...string) error {
		command := []string{filepath.Join(l.Bin, "unlockctl"), "initramfs",
			"--kernel", kernel.Modules, "--config", conf, "-o", l.Base.Initrd,
			"--file", l.File("key.bin") + ":" + CipherFile, "--file", l.File("ca.pem") + ":" + CAFile}
		return Command(ctx, "", append(append(command, args...), more...)...)
	}
	built := ""
	l.Build = func(ctx context.Context, conf string) error {
		if conf == built {
			return nil
		}
		file := l.File("unlock.toml")
		if err := os.WriteFile(file, []byte(l.Expand(conf)), 0o600); err != nil {
			return err
		}
		err := build(ctx, file)
		if l.Mistake != "" {
			// The build must refuse what the boot refuses. Put it past the build to see that the boot does.
			if err == nil || !strings.Contains(err.Error(), "exit status 2") || !strings.Contains(err.Error(), l.Mistake) {
				return fmt.Errorf("%w, want exit status 2 and %q", err, l.Mistake)
			}
			good := l.File("good.toml")
			if err := os.WriteFile(good, []byte(harmless), 0o600); err != nil {
				return err
			}
			err = build(ctx, good, "--file", file+":"+config.DefaultFile)
		}
		if err == nil {
			built = conf
		}
		return err
	}
}
