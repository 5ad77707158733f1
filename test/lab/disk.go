package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"unlock/test/vm"
)

// Images returns the files of all disks.
func (l *Lab) Images() []string {
	var files []string
	for _, d := range l.Drives {
		files = append(files, d.File)
	}
	return files
}

// OtherSerial is the serial number of the disk that is not instance store.
const OtherSerial = "OTHER"

// PartUUID is that of the partition on a disk described as "gpt".
const PartUUID = "7b9e6c14-2f6b-4d7e-8f0e-5a1c3b2d4e6f"

// parseDisk takes apart the description of a disk: what is on it ("blank", "ext4",
// "gpt" with one blank partition, "zapped", ext4 in a partition whose table was erased,
// "luks1", "converted", LUKS1 in an old cipher that is now LUKS2, or "luks2" with the label
// "two"), then its size in MiB, if not 64, and what is special about it:
// "virtio" instead of NVMe, "other" than instance store, "read-only", "read-errors"
// or "write-errors". A colon comes before each.
func parseDisk(text string) (content string, mib int64, d vm.Disk, err error) {
	parts := strings.Split(text, ":")
	mib = 64
	for _, p := range parts[1:] {
		switch p {
		case "virtio":
			d.Virtio = true
		case "other":
			d.Serial = OtherSerial
		case "read-only":
			d.ReadOnly = true
		case "read-errors", "write-errors":
			d.Errors = strings.TrimSuffix(p, "-errors")
		default:
			if mib, err = strconv.ParseInt(p, 10, 64); err != nil {
				return "", 0, d, fmt.Errorf("disk %q: %w", text, err)
			}
		}
	}
	return parts[0], mib, d, nil
}

// MakeDisk makes an image, as text describes it, with the system's own tools.
func MakeDisk(ctx context.Context, image, text string) (vm.Disk, error) {
	content, mib, d, err := parseDisk(text)
	if err != nil {
		return d, err
	}
	d.File = image
	f, err := os.Create(image)
	if err != nil {
		return d, err
	}
	if err := errors.Join(f.Truncate(mib<<20), f.Close()); err != nil {
		return d, err
	}
	// Key derivation is kept cheap: without hardware virtualisation it takes a
	// hundred times longer than on an instance.
	format := []string{"cryptsetup", "luksFormat", "-q", "--key-file", "-"}
	switch content {
	case "blank":
		return d, nil
	case "ext4":
		return d, Command(ctx, "", "mke2fs", "-q", "-t", "ext4", "-L", "data", d.File)
	case "gpt":
		return d, Command(ctx, "label: gpt\nstart=1MiB, uuid="+PartUUID+"\n", "sfdisk", "-q", d.File)
	case "zapped":
		return d, Command(ctx, "", "mke2fs", "-q", "-t", "ext4", "-L", "data", "-E", "offset=1048576", d.File, fmt.Sprintf("%dm", mib-2))
	case "converted":
		return d, errors.Join(
			Command(ctx, Passphrase, append(format, "--type", "luks1", "-c", "aes-cbc-essiv:sha256", "-s", "256", "--hash", "sha1", "--pbkdf-force-iterations", "20000", d.File)...),
			Command(ctx, "", "cryptsetup", "convert", "-q", "--type", "luks2", d.File))
	case "luks1":
		return d, Command(ctx, Passphrase, append(format, "--type", "luks1", "--pbkdf-force-iterations", "20000", d.File)...)
	case "luks2":
		return d, Command(ctx, Passphrase, append(format, "--type", "luks2", "--label", "two", "--pbkdf", "argon2id", "--pbkdf-memory", "8192", "--pbkdf-force-iterations", "4", d.File)...)
	}
	return d, fmt.Errorf("no disk content is named %q", content)
}
