package measure

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

const maxImage = 1 << 30

// Open returns the programs that a machine starts: the files, if they are programs, in
// this order; or what is found on one disk image, EFI system partition or the directory
// at which one is mounted.
func Open(files ...string) ([]*Image, error) {
	if len(files) == 1 {
		info, err := os.Stat(files[0])
		if err != nil {
			return nil, err
		}
		if info.IsDir() {
			return started(files[0], directory(files[0]))
		}
	}
	var images []*Image
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		head := make([]byte, 2)
		if _, err := io.ReadFull(f, head); err != nil {
			return nil, fmt.Errorf("reading %s: %w", name, err)
		}
		if string(head) != "MZ" && len(files) == 1 {
			return ofDisk(name, f)
		}
		data, err := io.ReadAll(io.MultiReader(strings.NewReader(string(head)), io.LimitReader(f, maxImage)))
		if err != nil {
			return nil, fmt.Errorf("reading %s: %w", name, err)
		}
		i, err := Read(name, data)
		if err != nil {
			return nil, err
		}
		images = append(images, i)
	}
	return images, nil
}

// ofDisk looks at a disk image, or at that of a partition.
func ofDisk(name string, r io.ReaderAt) ([]*Image, error) {
	offset, err := systemPartition(r)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	f, err := openFAT(r, offset)
	if err != nil {
		return nil, fmt.Errorf("%s is no program, disk image or EFI system partition: %w", name, err)
	}
	return started(name, f)
}

// tree is an EFI system partition.
type tree interface {
	read(path string) ([]byte, error)
	names(path string) ([]string, error) // without an error, if there is no such directory
}

// directory is one that is mounted.
type directory string

func (d directory) read(path string) ([]byte, error) {
	real, err := d.find(path)
	if err != nil {
		return nil, err
	}
	return os.ReadFile(real)
}

func (d directory) names(path string) ([]string, error) {
	real, err := d.find(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	list, err := os.ReadDir(real)
	var names []string
	for _, e := range list {
		if !e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names, err
}

// find finds a file without regard to case.
func (d directory) find(path string) (string, error) {
	here := string(d)
	for _, name := range strings.Split(path, "/") {
		list, err := os.ReadDir(here)
		if err != nil {
			return "", err
		}
		i := slices.IndexFunc(list, func(e fs.DirEntry) bool { return strings.EqualFold(e.Name(), name) })
		if i < 0 {
			return "", fmt.Errorf("%s: %w", filepath.Join(string(d), path), fs.ErrNotExist)
		}
		here = filepath.Join(here, list[i].Name())
	}
	return here, nil
}

// started returns what a new machine starts from an EFI system partition: the program at the
// place for removable media, as the firmware of a new machine knows no other, and if that
// is systemd-boot, the one unified kernel image.
func started(name string, t tree) ([]*Image, error) {
	var first *Image
	for _, path := range []string{"EFI/BOOT/BOOTX64.EFI", "EFI/BOOT/BOOTAA64.EFI"} {
		data, err := t.read(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("reading %s of %s: %w", path, name, err)
		}
		if first != nil {
			return nil, unpredictable("%s has a program for each of two architectures", name)
		}
		if first, err = Read(path, data); err != nil {
			return nil, err
		}
	}
	if first == nil {
		return nil, unpredictable("%s has no EFI/BOOT/BOOTX64.EFI or BOOTAA64.EFI, which a new machine starts", name)
	}
	if program, _, _ := first.kind(); program != "systemd-boot" {
		return []*Image{first}, nil
	}
	drivers, err := t.names("EFI/systemd/drivers")
	if err != nil {
		return nil, fmt.Errorf("reading EFI/systemd/drivers of %s: %w", name, err)
	}
	if slices.ContainsFunc(drivers, func(n string) bool { return strings.HasSuffix(strings.ToLower(n), ".efi") }) {
		return nil, unpredictable("%s has drivers in EFI/systemd/drivers, which systemd-boot starts before the image", name)
	}
	entries, err := t.names("loader/entries")
	if err != nil {
		return nil, fmt.Errorf("reading loader/entries of %s: %w", name, err)
	}
	if slices.ContainsFunc(entries, func(n string) bool { return strings.HasSuffix(strings.ToLower(n), ".conf") }) {
		return nil, unpredictable("%s has boot entries in loader/entries, whose kernels are no unified images", name)
	}
	files, err := t.names("EFI/Linux")
	if err != nil {
		return nil, fmt.Errorf("reading EFI/Linux of %s: %w", name, err)
	}
	files = slices.DeleteFunc(files, func(n string) bool { return !strings.HasSuffix(strings.ToLower(n), ".efi") })
	if len(files) != 1 {
		slices.Sort(files)
		return nil, unpredictable("%s has %d images in EFI/Linux, of which systemd-boot chooses: %s; name the programs themselves in the order in which they are started", name, len(files), strings.Join(files, ", "))
	}
	path := "EFI/Linux/" + files[0]
	data, err := t.read(path)
	if err != nil {
		return nil, fmt.Errorf("reading %s of %s: %w", path, name, err)
	}
	second, err := Read(path, data)
	if err != nil {
		return nil, err
	}
	return []*Image{first, second}, nil
}
