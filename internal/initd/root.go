package initd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"unlock/internal/block"
	"unlock/internal/config"
	"unlock/internal/fsys"
	"unlock/internal/hint"
)

// rootPatience is how long a root device may take to appear where rootwait does
// not ask for more. EBS volumes take a few seconds; a mistyped root= should be
// known before the operator gives up.
const rootPatience = 30 * time.Second

// MountRoot waits for the device that root= on the kernel command line names and
// mounts it on Root as rootfstype=, rootflags=, ro and rw say.
func MountRoot(ctx context.Context, f *block.Finder, cmdline string) error {
	spec, _ := config.Setting(cmdline, "root")
	match, err := parseRoot(spec)
	if err != nil {
		return err
	}
	if _, wait := config.Setting(cmdline, "rootwait"); !wait {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, rootPatience)
		defer cancel()
	}
	var device string
	var seen []string
	err = f.Watch(ctx, func(disks []block.Disk, _ bool) bool {
		seen = seen[:0]
		for _, d := range disks {
			seen = append(seen, d.Name)
		}
		device = match(disks)
		return device != ""
	})
	if err != nil {
		return fmt.Errorf("waiting for root=%s, having seen %s: %w", spec, strings.Join(seen, " "), err)
	}
	return mountRoot(device, cmdline)
}

// parseRoot returns a function that finds the root device among disks, as a path, or "".
func parseRoot(spec string) (func([]block.Disk) string, error) {
	for _, alias := range []struct{ dir, tag string }{
		{"/dev/disk/by-uuid/", "UUID="}, {"/dev/disk/by-label/", "LABEL="}, {"/dev/disk/by-partuuid/", "PARTUUID="},
	} {
		if rest, ok := strings.CutPrefix(spec, alias.dir); ok {
			spec = alias.tag + rest // udev makes these links, and there is none here
		}
	}
	tag, value, _ := strings.Cut(spec, "=")
	value = strings.Trim(value, `"`)
	switch {
	case spec == "":
		return nil, errors.New("the kernel command line has no root=")
	case value == "" && tag != spec: // would match what has no label
	case strings.HasPrefix(spec, "/dev/"):
		return func([]block.Disk) string {
			if st, err := os.Stat(spec); err == nil && st.Mode().Type() == os.ModeDevice {
				return spec
			}
			return ""
		}, nil
	case tag == "PARTUUID":
		return first(func(d block.Disk) bool { return strings.EqualFold(d.PartUUID, value) }), nil
	case tag == "UUID":
		return first(contents(func(c block.Content) bool { return strings.EqualFold(c.UUID, value) })), nil
	case tag == "LABEL":
		return first(contents(func(c block.Content) bool { return c.Label == value })), nil
	}
	return nil, fmt.Errorf("root=%s is not understood; it may be /dev/NAME, UUID=, LABEL= or PARTUUID=", spec)
}

func first(match func(block.Disk) bool) func([]block.Disk) string {
	return func(disks []block.Disk) string {
		if i := slices.IndexFunc(disks, match); i >= 0 {
			return disks[i].Path
		}
		return ""
	}
}

// contents matches a device by its file system, which is read once.
func contents(match func(block.Content) bool) func(block.Disk) bool {
	known := map[string]block.Content{}
	return func(d block.Disk) bool {
		c, ok := known[d.Name]
		if !ok {
			f, err := os.Open(d.Path)
			if err != nil {
				return false // not there yet; the next change asks again
			}
			defer f.Close()
			c = block.Probe(f, d.Size)
			known[d.Name] = c
		}
		return c.Kind == block.Foreign && match(c)
	}
}

func mountRoot(device, cmdline string) error {
	fstype, _ := config.Setting(cmdline, "rootfstype")
	options, _ := config.Setting(cmdline, "rootflags")
	mode := "ro" // unless rw comes last, as the kernel has it
	for _, s := range config.Settings(cmdline) {
		if s == "ro" || s == "rw" {
			mode = s
		}
	}
	types := strings.FieldsFunc(fstype, func(r rune) bool { return r == ',' })
	if len(types) == 0 {
		types = append([]string{"ext4", "xfs", "btrfs"}, registeredTypes()...)
	}
	var errs []error
	for i, t := range types {
		if slices.Contains(types[:i], t) {
			continue
		}
		if err := loadList(moduleList + "." + t); err != nil {
			errs = append(errs, err)
		}
		err := fsys.Mount(device, "/", Root, t, mode+","+options)
		if err == nil {
			return nil
		}
		// These mean "another type"; what else goes wrong would go wrong with each.
		if len(types) == 1 || !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENODEV) {
			return hint.All(append(errs, fmt.Errorf("root as %s: %w", t, err))...)
		}
	}
	return hint.All(append(errs, fmt.Errorf("mounting root %s: it is none of %s", device, strings.Join(types, ", ")))...)
}

// registeredTypes returns the file systems of disks that the kernel knows.
func registeredTypes() []string {
	data, err := os.ReadFile("/proc/filesystems")
	if err != nil {
		return nil
	}
	var types []string
	for line := range strings.Lines(string(data)) {
		nodev, t, _ := strings.Cut(strings.TrimSpace(line), "\t")
		if t == "" && nodev != "" {
			types = append(types, nodev)
		}
	}
	return types
}
