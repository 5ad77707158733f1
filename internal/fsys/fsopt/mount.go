package fsopt

import (
	"slices"
	"strings"
)

// Flags of mount(2), linux/mount.h.
const (
	rdonly      = 1 << 0
	nosuid      = 1 << 1
	nodev       = 1 << 2
	noexec      = 1 << 3
	synchronous = 1 << 4
	dirsync     = 1 << 7
	nosymfollow = 1 << 8
	noatime     = 1 << 10
	nodiratime  = 1 << 11
	silent      = 1 << 15
	relatime    = 1 << 21
	strictatime = 1 << 24
	lazytime    = 1 << 25
)

// flags are the options of mount(8) that every type has: what each sets and clears.
var flags = map[string]struct{ set, clear uintptr }{
	"ro": {rdonly, 0}, "rw": {0, rdonly},
	"nosuid": {nosuid, 0}, "suid": {0, nosuid},
	"nodev": {nodev, 0}, "dev": {0, nodev},
	"noexec": {noexec, 0}, "exec": {0, noexec},
	"sync": {synchronous, 0}, "async": {0, synchronous},
	"dirsync":     {dirsync, 0},
	"nosymfollow": {nosymfollow, 0}, "symfollow": {0, nosymfollow},
	"noatime": {noatime, 0}, "atime": {0, noatime},
	"nodiratime": {nodiratime, 0}, "diratime": {0, nodiratime},
	"relatime": {relatime, 0}, "norelatime": {0, relatime},
	"strictatime": {strictatime, 0}, "nostrictatime": {0, strictatime},
	"lazytime": {lazytime, 0}, "nolazytime": {0, lazytime},
	"silent": {silent, 0}, "loud": {0, silent},
	"defaults": {}, "nomand": {},
}

// fstab are options that say who mounts, when and whether, and comments: nothing of
// them reaches the kernel.
var fstab = []string{
	"auto", "noauto", "nofail", "_netdev", "comment", "user", "nouser", "users", "nousers", "owner", "noowner", "group", "nogroup",
}

func isFstab(name string) bool {
	return slices.Contains(fstab, name) || strings.HasPrefix(name, "x-") || strings.HasPrefix(name, "X-")
}

// Split takes options apart as mount(8) does: into flags of mount(2) and what is left for
// the file system's driver. What only fstab(5) has is left out.
func Split(options string) (set uintptr, data string) {
	var left []string
	for _, o := range list(options) {
		if f, ok := flags[o]; ok {
			set = set&^f.clear | f.set
		} else if name, _, _ := strings.Cut(o, "="); !isFstab(name) {
			left = append(left, o)
		}
	}
	return set, strings.Join(left, ",")
}

// list cuts options at commas, but not between double quotes. Empty ones are left out.
func list(options string) []string {
	quoted := false
	return strings.FieldsFunc(options, func(r rune) bool {
		if r == '"' {
			quoted = !quoted
		}
		return r == ',' && !quoted
	})
}

// ofExt are the options of the ext4 driver, and ofExt4 those that it has for ext4 alone.
// Not among them: what needs another file or disk, or mounts nothing that is sound, and
// what kernels from 4.14 on do not all know. Quotas are there: kernels of distributions
// have them.
var ofExt = map[string]string{
	"acl": none, "user_xattr": none,
	"barrier": maybe + onOff, "nobarrier": none,
	"bsddf": none, "minixdf": none, "debug": none, "nouid32": none,
	"grpid": none, "bsdgroups": none, "nogrpid": none, "sysvgroups": none,
	"commit": number, "data": "journal|ordered|writeback", "errors": "continue|remount-ro|panic",
	"discard": none, "nodiscard": none, "resuid": number, "resgid": number,
	"init_itable": maybe + number, "noinit_itable": none, "journal_ioprio": "0|1|2|3|4|5|6|7",
	"inode_readahead_blks": "0|1|2|4|8|16|32|64|128|256|512|1024",
	"max_dir_size_kb":      number, "stripe": number,
	"quota": none, "usrquota": none, "grpquota": none, "noquota": none,
}

var ofExt4 = map[string]string{
	"auto_da_alloc": maybe + onOff, "noauto_da_alloc": none,
	"block_validity": none, "noblock_validity": none,
	"delalloc": none, "nodelalloc": none, "dioread_lock": none, "dioread_nolock": none,
	"journal_checksum": none, "nojournal_checksum": none,
	"max_batch_time": number, "min_batch_time": number, "prjquota": none,
}

var ofXFS = map[string]string{
	"allocsize": "64k|128k|256k|512k|1m|2m|4m|8m|16m|32m|64m|128m|256m|512m|1g|1024m",
	"discard":   none, "nodiscard": none,
	"grpid": none, "bsdgroups": none, "nogrpid": none, "sysvgroups": none,
	"filestreams": none, "inode32": none, "inode64": none, "largeio": none, "nolargeio": none,
	"logbufs": "2|3|4|5|6|7|8", "logbsize": "16k|32k|64k|128k|256k|16384|32768|65536|131072|262144",
	"noalign": none, "nouuid": none, "swalloc": none, "wsync": none,
	"quota": none, "usrquota": none, "uquota": none, "uqnoenforce": none, "qnoenforce": none, "noquota": none,
	"grpquota": none, "gquota": none, "gqnoenforce": none,
	"prjquota": none, "pquota": none, "pqnoenforce": none,
}

const compressions = "zlib|zlib:1|zlib:2|zlib:3|zlib:4|zlib:5|zlib:6|zlib:7|zlib:8|zlib:9|lzo|zstd|" +
	"zstd:1|zstd:2|zstd:3|zstd:4|zstd:5|zstd:6|zstd:7|zstd:8|zstd:9|zstd:10|zstd:11|zstd:12|zstd:13|zstd:14|zstd:15|no|none"

var ofBtrfs = map[string]string{
	"acl": none, "noacl": none, "autodefrag": none, "noautodefrag": none, "barrier": none, "nobarrier": none,
	"commit": count, "compress": maybe + compressions, "compress-force": maybe + compressions,
	"datacow": none, "nodatacow": none, "datasum": none, "nodatasum": none,
	"discard": maybe + "sync|async", "nodiscard": none, "enospc_debug": none, "noenospc_debug": none,
	"fatal_errors": "bug|panic", "flushoncommit": none, "noflushoncommit": none,
	"max_inline": size, "metadata_ratio": number, "skip_balance": none, "space_cache": "v2",
	"ssd": none, "nossd": none, "ssd_spread": none, "nossd_spread": none,
	"thread_pool": count, "treelog": none, "notreelog": none, "user_subvol_rm_allowed": none,
	"subvol": path, "subvolid": number,
}

// option returns the kind of a driver's option.
func option(fstype, name string) (kind string, ok bool) {
	switch fstype {
	case "ext4":
		if kind, ok = ofExt4[name]; ok {
			return kind, ok
		}
		fallthrough
	case "ext3":
		kind, ok = ofExt[name]
	case "xfs":
		kind, ok = ofXFS[name]
	case "btrfs":
		kind, ok = ofBtrfs[name]
	}
	return kind, ok
}

// maxData is how long what the driver gets may be: less than a page, with its end.
const maxData = 2048

// Use is what else is known of a file system whose options are looked at.
type Use struct {
	Type    string
	Made    bool     // unlock may make it: what is on it is what the maker makes
	Make    []string // how, as Making returns it
	MayFail bool     // a boot may go on without it
}

// CheckMount returns an error, with advice, if the options are not such as mount a file
// system of that type, or if fstab(5) gives them a meaning that a boot would not keep.
func CheckMount(options string, u Use) error {
	if _, data := Split(options); len(data) > maxData {
		return refuse("", "mount options of %d bytes are more than the kernel takes", len(data))
	}
	seen := map[string]string{}
	for _, o := range list(options) {
		name, value, given := strings.Cut(o, "=")
		seen[name] = value
		if _, ok := flags[o]; ok {
			continue
		}
		if isFstab(name) {
			if err := checkFstab(o, name, given, u); err != nil {
				return err
			}
			continue
		}
		kind, ok := option(u.Type, name)
		if !ok {
			return unknown(u.Type, o, name)
		}
		if !valid(kind, value, given) {
			return refuse("it takes "+values(kind), "%s has no mount option %q", u.Type, o)
		}
	}
	return together(seen, u)
}

// checkFstab judges an option that is fstab's alone.
func checkFstab(o, name string, given bool, u Use) error {
	const notHere = "leave it out: it is read in /etc/fstab, and unlock mounts the volume before"
	switch {
	case name == "comment", name == "X-mount.mkdir" && !given:
		return nil
	case strings.HasPrefix(name, "x-systemd."), strings.HasPrefix(name, "x-initrd."):
		return refuse(notHere, "%s has no mount option %q, which is systemd's", u.Type, o)
	case strings.HasPrefix(name, "X-mount."):
		return refuse("owner, mode and bind say it", "%s has no mount option %q, which is mount's", u.Type, o)
	case strings.HasPrefix(name, "x-"), strings.HasPrefix(name, "X-"):
		return nil
	case given:
		return refuse("see mount(8)", "%s has no mount option %q", u.Type, o)
	case name == "nofail" && !u.MayFail:
		return refuse(`a volume that may fail has required = false; one whose disks may be missing, absent = "allow"`,
			"%s has no mount option %q, which is fstab's, and the volume is required", u.Type, o)
	case name == "noauto":
		return refuse("leave mount out, and let /etc/fstab mount /dev/mapper/NAME", "%s has no mount option %q: a volume with mount is mounted", u.Type, o)
	case slices.Contains([]string{"user", "users", "owner", "group"}, name):
		return refuse("write nosuid,nodev,noexec, which it implies; who else may mount it is for /etc/fstab to say", "%s has no mount option %q, which is fstab's", u.Type, o)
	}
	return nil
}

// reasons are the advice on options that a driver has, or mount(8), and that are refused.
var reasons = map[string]string{
	"context":       "SELinux takes it once a policy is loaded, which is later: label what is mounted instead",
	"bind":          "use [[volume.bind]]",
	"remount":       "it is mounted once",
	"loop":          `use device = "file:/PATH"`,
	"dax":           "encrypted disks have no DAX",
	"shared":        "systemd makes all mounts shared when it starts",
	"subvol":        "unlock formats this volume, and makes no subvolumes: a boot that has formatted it could not mount it",
	"norecovery":    "the volume is to be mounted as it was left; to look at it by hand, unlockctl recover opens it",
	"logdev":        "the volume is all there is",
	"usrjquota":     `use quota, with mkfs_options = "-O quota"`,
	"attr2":         "it is the default, and newer kernels have it no more",
	"nospace_cache": "new file systems have the second version of it, which cannot be left out",
}

var alike = map[string]string{
	"fscontext": "context", "defcontext": "context", "rootcontext": "context", "seclabel": "context",
	"rbind": "bind", "move": "bind", "offset": "loop", "sizelimit": "loop",
	"private": "shared", "slave": "shared", "unbindable": "shared", "rshared": "shared", "rprivate": "shared", "rslave": "shared", "runbindable": "shared",
	"noload": "norecovery", "journal_dev": "logdev", "journal_path": "logdev", "rtdev": "logdev", "device": "logdev",
	"grpjquota": "usrjquota", "jqfmt": "usrjquota", "noattr2": "attr2", "ikeep": "attr2", "noikeep": "attr2",
}

func unknown(fstype, o, name string) error {
	if other, ok := alike[name]; ok {
		name = other
	}
	if reason, ok := reasons[name]; ok {
		return refuse(reason, "%s takes no mount option %q here", fstype, o)
	}
	return refuse("unlock.toml(5) lists those that it takes; with others, leave mount out and let /etc/fstab mount /dev/mapper/NAME",
		"%s has no mount option %q", fstype, o)
}

// together judges options that the kernel takes one by one.
func together(seen map[string]string, u Use) error {
	has := func(name string) bool { _, ok := seen[name]; return ok }
	noJournal, project := false, false
	for _, arg := range u.Make {
		for _, feature := range strings.Split(arg, ",") {
			noJournal = noJournal || feature == "^has_journal"
			project = project || feature == "project"
		}
	}
	switch {
	case strings.HasPrefix(u.Type, "ext") && seen["data"] == "journal" && (has("delalloc") || has("dioread_nolock")):
		return refuse("leave one of the two out", "%s has no delayed allocation and no dioread_nolock with data=journal", u.Type)
	case noJournal && (has("data") || has("commit") || has("journal_checksum")):
		return refuse("leave them out", "data, commit and journal_checksum are of a journal, and the file system is made without")
	case u.Type == "ext4" && u.Made && has("prjquota") && !project:
		return refuse(`set mkfs_options = "-O project,quota"`, "prjquota is for file systems that are made with the feature project")
	case u.Type == "btrfs" && u.Made && (has("subvol") || has("subvolid")):
		return refuse(reasons["subvol"], "btrfs takes no subvol and subvolid here")
	}
	return nil
}

// ReadOnly reports whether what is mounted with these options cannot be written to.
func ReadOnly(options string) bool {
	set, _ := Split(options)
	return set&rdonly != 0
}

// Names lists the options of a type's driver, those with a value as NAME=.
func Names(fstype string) []string {
	var names []string
	add := func(m map[string]string) {
		for name, kind := range m {
			if kind == none || strings.HasPrefix(kind, maybe) {
				names = append(names, name)
			}
			if kind != none {
				names = append(names, name+"=")
			}
		}
	}
	switch fstype {
	case "ext4":
		add(ofExt4)
		add(ofExt)
	case "ext3":
		add(ofExt)
	case "xfs":
		add(ofXFS)
	case "btrfs":
		add(ofBtrfs)
	}
	slices.Sort(names)
	return names
}
