package manual

import (
	"fmt"
	"strings"

	"unlock/cmd/unlockctl/internal/places"
	"unlock/internal/config"
	"unlock/internal/keys/source"
)

// Setting is one of unlock.toml.
type Setting struct {
	Name string // "volume.key.source" is written as key.source, which it equals
	Type string
	Text string
}

// Settings lists all settings of unlock.toml in the order of the page.
func Settings() []Setting {
	return []Setting{
		{"timeout", "duration", `For everything that waits: disks, network, AWS. Default: "10m".`},
		{"retry_every", "duration", `A boot that has failed is held up, with the reason on the console, and tries again about so often by itself, for what failed may pass: a policy is put right, KMS answers again. "0s": it does not. Default: "5m".`},
		{"emergency_shell", "boolean", `*true*: while a boot is held up, the console offers a shell to whoever knows root's password, as it was when the image was built. Default: *false*, no shell. The standalone image has none.`},

		{"key", "table", "The key of all volumes that have no *volume.key* of their own."},
		{"key.source", "string", "Where the passphrase comes from, encrypted by KMS but for *ephemeral*. " + sources()},
		{"key.version_id", "string", "Version of what is named by " + source.Forms("or", func(k *source.Kind) bool { return k.Pins }) + ". Default: the current one."},
		{"key.kms_key", "string or array", "ARN of the KMS key; ciphertext of any other is refused. An array is for multi-Region keys and for rotations: all are accepted and tried in order, the first makes new data keys. Aliases are refused, as they can be moved to another key."},
		{"key.context", "table of strings", "The KMS encryption context. In its values *${instance-id}*, *${account}* and *${region}* stand for what IMDS says of the instance, and *${volume}* for the volume's name; *$${* stands for ${ itself. With the instance's id in it, a copy of the disk in another instance does not open, nor does the disk itself once it is moved: *unlockctl recover --instance-id* opens it. The name *unlock:set* is unlock's own."},
		{"key.attest", "boolean", "*true*: KMS is shown a document that NitroTPM signs, with the machine's PCRs and a key made for this boot, and encrypts its answer to that key. A key policy with PCRs in its conditions then releases the key to the measured image alone. PCR 13 is extended before anything runs after unlock, so that nothing later can ask again; if it cannot be, the boot stops. Needs an image that was registered with --tpm-support v2.0 --boot-mode uefi, and has nohibernate on its kernel command line. An ephemeral key cannot be attested. Default: *false*."},

		{"aws", "table", "How AWS is reached. Not needed on most instances."},
		{"aws.region", "string", "Region of the ciphertext, where neither the key's ARN nor IMDS should decide."},
		{"aws.endpoint", "table of strings", "URLs by service: *" + strings.Join(config.Services(), "*, *") + "*. All but imds begin with https://."},
		{"aws.fips", "boolean", "Use the FIPS endpoints. Default: false."},
		{"aws.dualstack", "boolean", "Use the dual-stack endpoints. Default: false; they are used by themselves where the subnet has no IPv4, or where the others are not reached and it has IPv6."},
		{"aws.proxy", "string", "http://HOST:PORT of a proxy that knows CONNECT and asks for no password: for all connections but those to IMDS and to what *endpoint* names."},
		{"aws.ca_bundle", "string", "PEM file with certificate authorities beside Amazon's, an absolute path."},

		{"volume", "array of tables", "A volume. There is at least one."},
		{"volume.name", "string", "The name of the mapping, /dev/mapper/NAME; separate disks are NAME0, NAME1 and so on."},
		{"volume.device", "string", `Which disks: *instance-store*, *instance-store:N*, *ebs:/dev/sdf*, */dev/PATH*, *UUID=*, *LABEL=* (both of the LUKS header), *PARTUUID=*, *serial=*, *file:/PATH*, a file below the new root, or *share:NAME*, a part of the volume of that name, which comes before it and has the disks, the key, format and what a failure leads to. A logical volume is */dev/VG/LV*; name an array by the *UUID=* of the LUKS volume on it.`},
		{"volume.size", "string", `Size of a file-backed volume, such as "20GiB"; of a share also in percent of what the disks have, such as "30%". Shares get their sizes when the disks are formatted, the one without size what the others leave; they are not changed afterwards, and a configuration with other shares than those on the disks is refused.`},
		{"volume.count", "integer", "How many instance-store disks the volume has: fewer are waited for, more are refused. Default: those that the kernel finds."},
		{"volume.format", "string", `*never* (default): open only. *blank*: format disks that hold nothing: no signature that blkid knows, and zeros wherever the disk is read: the first and last MiB and 256 samples of 4 KiB between them. What lies between the samples is not seen. *ephemeral*: a new volume at each boot, on instance store only.`},
		{"volume.layout", "string", "Of several disks: *stripe* (default), one device over all of them; *separate*, one for each; *mirror*, one device with all data on each of 2 disks or more; *stripe+mirror*, one device striped over pairs of disks that have the same data, of 4 disks or more. A mirror opens without a disk if others have its data."},
		{"volume.filesystem", "string", "*ext4*, *ext3*, *xfs*, *btrfs* or *swap*, made once, when the volume is formatted. Default: none is made. ext3 and ext4 that are there already are looked over before they are mounted, as systemd-fsck does: by e2fsck -p, or as fsck.mode= and fsck.repair= on the kernel command line say. What it came to is in the status; errors that are not repaired without being asked for are a failure of the volume."},
		{"volume.mkfs_options", "string", "How it is made, as on the command line of its maker, such as \"-m 0 -L data\"; which options it takes is below. Discards are never sent. XFS on a stripe of 1 GiB and more gets su and sw that follow from the stripe, and a log with su=32k."},
		{"volume.mount", "string", "Where to mount it, an absolute path below the new root. Default: it is not mounted."},
		{"volume.mount_options", "string", "Options of mount(8), and those of the kernel for the file system that are listed below. Of fstab(5), defaults, auto, _netdev, comment= and x-NAME mean nothing here; nofail is for a volume that may fail or be absent; noauto, user, x-systemd.NAME and the like are refused."},
		{"volume.owner", "string", "Whose the root of the file system is when it is made, and until something is in it: USER, USER:GROUP or :GROUP, by name, as in the new root's /etc/passwd and /etc/group, or number. Default: root."},
		{"volume.mode", "string", `The permissions of the root of the file system, likewise, such as "0750". Default: those that its maker gives it.`},
		{"volume.required", "boolean", "Whether a failure stops the boot. Default: true."},
		{"volume.absent", "string", "Of a required volume: what comes of it that no disk of its is there. *stop* (default): the boot fails, as after any other failure. *allow*: the image also runs on instance types without such disks; the boot goes on, with the mount point covered by an empty read-only file system."},
		{"volume.on_failure", "string", "What the failure of a required volume leads to. *stop* (default): the boot stops. *prompt*: a recovery passphrase is asked for on the console, by systemd's agents where they run. *reboot*: the machine reboots after a minute or two."},
		{"volume.discard", "boolean", "Pass discards through to the disk, which tells it which blocks are unused. Default: false."},
		{"volume.grow", "boolean", "Let the file system become as large as the disk, once it is mounted: for EBS volumes that were enlarged. The mapping has the size of the disk in any case. What cannot be grown is a line on the console and no failure. Not for instance store and files. Default: false."},
		{"volume.key", "table", "The volume's own key: the settings of *key*."},

		{"volume.bind", "array of tables", "Directories of the system that lie on the volume, once it is mounted: bind mounts, which are there before the system starts. Where the volume is not, they are covered by an empty read-only file system."},
		{"volume.bind.path", "string", "The directory, an absolute path below the new root. It is made if it is missing."},
		{"volume.bind.from", "string", "The directory on the volume, relative to its root. It is made if it is missing, with owner, mode, times, extended attributes and the SELinux label of what it covers. Default: the last part of *path*."},
		{"volume.bind.seed", "boolean", "When it is made, copy what is in *path*, with owners, modes, times, extended attributes, hard links and holes. A copy that was interrupted is made anew. What is covered stays as it is, in the clear. Default: false."},
	}
}

// sources says what each source is.
func sources() string {
	var list []string
	for _, k := range source.Kinds {
		p, _ := places.Of(k) // a test holds the two together
		list = append(list, fmt.Sprintf("*%s*: %s.", k.Form, p.Text))
	}
	return strings.Join(list, " ")
}

// example is a whole unlock.toml.
const example = `[key]
source  = "s3://an-internalstoragekeybucket/LuksInternalStorageKey"
kms_key = "arn:aws:kms:us-east-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
[key.context]
purpose = "secretfs"

[[volume]]
name       = "secretfs"
device     = "instance-store"
format     = "blank"
filesystem = "ext4"
mount      = "/mnt/secretfs"
`
