// Package config reads /etc/unlock.toml and the rd.unlock settings of the kernel
// command line into a Config, and refuses everything it does not understand:
// unknown settings, wrong types, impossible combinations, each with its file and
// line. A Config that was returned without error needs no further checking.
//
// It knows nothing of disks or networks that exist; that a device is there is for
// others to find out.
package config

import (
	"maps"
	"slices"
	"strconv"
	"time"

	"unlock/internal/aws/arn"
	"unlock/internal/keys/source"
)

// DefaultFile is where the configuration lies in the initramfs and on the system
// whose image is being built.
const DefaultFile = "/etc/unlock.toml"

// Config is a whole configuration.
type Config struct {
	File    string        // the file it came from, for messages
	Sum     string        // its SHA-256, in hexadecimal
	Volumes []Volume      // in the order of the file; names are unique
	Timeout time.Duration // for everything that waits; default 10 min
	Retry   time.Duration // between tries of a boot that is held up; 0: none; default 5 min
	Shell   bool          // a boot that is held up offers a shell, for root's password
	AWS     AWS
	Skip    bool // rd.unlock=0: do nothing
	Debug   bool // rd.unlock.debug
}

// AWS says how AWS is reached. The zero value is right on EC2.
type AWS struct {
	Region    string            // only where neither the KMS ARN nor IMDS should decide
	Endpoint  map[string]string // service ("kms", "imds", "s3", …) → URL, for VPC endpoints
	FIPS      bool
	DualStack bool
	Proxy     string // http://HOST:PORT, for everything but IMDS and what Endpoint names
	CABundle  string // PEM file with further certificate authorities
}

// ContextSet is the name in the encryption context that binds a data key to its set
// of disks. unlock sets it itself; a configuration may not.
const ContextSet = "unlock:set"

// Key says how the passphrase of a volume is had. Two volumes with equal Keys, of a
// source outside their disks, share one KMS call.
type Key struct {
	Source  source.Source     // version_id is part of it
	KMSKeys []arn.ARN         // the first is used for new data keys, all are accepted, tried in order
	Context map[string]string // KMS encryption context, with variables: see Fill
	Attest  bool              // KMS is shown what was booted, and encrypts its answer to this boot
}

// Home is where the ciphertext is if nothing else is said: partition, region and
// account of the source's ARN, or of the first KMS key.
func (k Key) Home() arn.ARN {
	if k.Source.ARN != (arn.ARN{}) || len(k.KMSKeys) == 0 {
		return k.Source.ARN
	}
	return k.KMSKeys[0]
}

// Equal reports whether two keys are one: the same passphrase, had in the same way.
func (k Key) Equal(o Key) bool {
	return k.Source == o.Source && k.Attest == o.Attest && slices.Equal(k.KMSKeys, o.KMSKeys) && maps.Equal(k.Context, o.Context)
}

// Format says when a volume may be formatted. The zero value never formats.
type Format int

const (
	FormatNever     Format = iota // open only
	FormatBlank                   // format disks that are blank
	FormatEphemeral               // new at each boot; instance store only
)

// OnFailure says what a required volume that stays locked leads to.
type OnFailure int

const (
	FailStop   OnFailure = iota // the boot stops
	FailPrompt                  // a recovery passphrase is asked for on the console, then the boot stops
	FailReboot                  // the machine reboots after a while
)

// Layout says what becomes of several disks of one volume.
type Layout int

const (
	LayoutStripe       Layout = iota // one striped device NAME over a LUKS volume on each disk
	LayoutSeparate                   // NAME0, NAME1, …
	LayoutMirror                     // one device NAME, with all data on each disk
	LayoutStripeMirror               // one device NAME, striped over pairs of disks that have the same data
)

// SelectorKind is the form of a device selector.
type SelectorKind int

const (
	SelectInvalid       SelectorKind = iota
	SelectInstanceStore              // instance-store (Value "") or instance-store:N (Value "N")
	SelectEBS                        // ebs:/dev/sdf; Value is the attach name without /dev/
	SelectPath                       // /dev/…
	SelectUUID                       // UUID= of the LUKS header
	SelectLabel                      // LABEL= of the LUKS header
	SelectPartUUID                   // PARTUUID=
	SelectSerial                     // serial=
	SelectFile                       // file:PATH below the new root, through a loop device
	SelectShare                      // share:NAME, a part of another volume
)

// Selector names the disks of a volume.
type Selector struct {
	Kind  SelectorKind
	Value string
}

// Volume is one [[volume]].
type Volume struct {
	Line         int // where it begins in the file
	Name         string
	Device       Selector
	Size         int64 // bytes, of a file-backed volume or a share
	Percent      int64 // of a share; it and Size 0: what the others leave
	Count        int   // disks to wait for; 0: those found once the kernel has settled
	Format       Format
	Layout       Layout
	Filesystem   string   // made once when the volume is formatted: ext4, ext3, xfs, btrfs, swap or ""
	MakeOptions  []string // of the program that makes it, as fsopt.Making returns them
	Mount        string   // absolute, below the new root; "" is not mounted
	MountOptions string   // such as fsopt.CheckMount takes
	Owner        string   // USER, USER:GROUP or :GROUP, of the file system's root when it is made; "": root
	Mode         uint32   // its permissions, likewise; 0: those that its maker gives it
	Binds        []Bind   // directories that lie on it; no path is another's or below it
	Required     bool
	MayBeAbsent  bool      // the boot goes on where no disk of its is there; the mount point is covered
	OnFailure    OnFailure // of a required volume
	Discard      bool      // allow-discards
	Grow         bool      // its file system becomes as large as the disk
	Key          Key       // its own, else the file's [key]
}

// Attests reports whether any key is attested.
func (c *Config) Attests() bool {
	return slices.ContainsFunc(c.Volumes, func(v Volume) bool { return v.Key.Attest })
}

// Bind is one [[volume.bind]]: a directory of the system that lies on the volume.
type Bind struct {
	Line int
	Path string // absolute, below the new root
	From string // relative, below the volume's mount point
	Seed bool   // what is in Path when From is made is copied
}

// Names returns the device-mapper names that the volume may get: its own, or those
// of its separate disks as far as an instance can have any.
func (v *Volume) Names() []string {
	if v.Layout != LayoutSeparate {
		return []string{v.Name}
	}
	names := make([]string, 32)
	for i := range names {
		names[i] = v.Name + strconv.Itoa(i)
	}
	return names
}
