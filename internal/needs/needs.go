// Package needs says what an initramfs must contain for a configuration: files,
// programs and kernel modules. The standalone image and the hooks of the
// distributions' generators all go by it. It looks at nothing but the
// configuration; whether things exist is for its callers to find out.
package needs

import (
	"slices"
	"strings"

	"unlock/internal/config"
	"unlock/internal/fsys"
	"unlock/internal/fsys/fsopt"
	"unlock/internal/keys/source"
)

// List is what an image must contain beside the unlock program.
type List struct {
	Files    []string // absolute paths, on the system as in the image: ciphertext and certificate authorities
	Programs []Program
	Checkers []string // programs that look file systems over; an image does without, if need be
	Modules  []string // without which no volume opens
	Hardware []string // drivers of what an instance of any type may have; a kernel need not have them all
	Optional []string // ciphers, file systems; a kernel has those of its architecture
}

// Program is a program that makes a file system.
type Program struct {
	Name   string         // without a directory
	Volume *config.Volume // the first that needs it
}

// modules of List.Modules.
var modules = []string{"dm-mod", "dm-crypt", "xts"}

// hardware of List.Hardware: whatever type the image boots on; the kernel ignores
// drivers of what is not there.
var hardware = []string{
	"af_packet",
	"nvme", "xen-blkfront", "virtio_blk",
	"ena", "ixgbevf", "xen-netfront", "virtio_net", "virtio_pci",
}

// tpms are the drivers of NitroTPM, for List.Hardware where a key is attested.
var tpms = []string{"tpm_crb", "tpm_tis"}

// ciphers are the implementations of AES, and the modes of old volumes.
var ciphers = []string{"aes_generic", "aesni_intel", "aes-ce-blk", "aes-neon-blk", "cbc", "essiv", "sha256_generic"}

// Of lists what c needs.
func Of(c *config.Config) List {
	l := List{Modules: slices.Clone(modules), Hardware: slices.Clone(hardware), Optional: slices.Clone(ciphers)}
	for i := range c.Volumes {
		v := &c.Volumes[i]
		switch v.Layout { // what they need in turn, such as raid6_pq, whoever makes the image finds
		case config.LayoutMirror:
			l.Modules = add(l.Modules, "dm-raid", "raid1")
		case config.LayoutStripeMirror:
			l.Modules = add(l.Modules, "dm-raid", "raid10")
		}
		if v.Key.Source.Kind == source.File {
			l.Files = add(l.Files, v.Key.Source.Name)
		}
		if v.Format != config.FormatNever && v.Filesystem != "" {
			l.addProgram(v)
		}
		if v.Device.Kind == config.SelectFile {
			l.Optional = add(l.Optional, "loop")
		}
		if v.Mount != "" {
			l.Optional = add(l.Optional, Filesystem(v.Filesystem)...)
			if v.Filesystem == "ext4" && strings.Contains(v.MountOptions+strings.Join(v.MakeOptions, " "), "quota") {
				l.Optional = add(l.Optional, "quota_v2") // which the kernel would have modprobe load
			}
			if checker := fsys.Checker(v.Filesystem); checker != "" {
				l.Checkers = add(l.Checkers, checker)
			}
		}
	}
	if c.Attests() {
		l.Hardware = append(l.Hardware, tpms...)
	}
	if c.AWS.CABundle != "" {
		l.Files = add(l.Files, c.AWS.CABundle)
	}
	return l
}

func (l *List) addProgram(v *config.Volume) {
	name := fsopt.Tool(v.Filesystem)
	if !slices.ContainsFunc(l.Programs, func(p Program) bool { return p.Name == name }) {
		l.Programs = append(l.Programs, Program{Name: name, Volume: v})
	}
}

// Filesystem names the modules of a file system. Their checksum is asked for by
// an alias, which modprobe would resolve and a list of files cannot.
func Filesystem(name string) []string {
	return []string{"crc32c_generic", "crc32c_intel", fsopt.Driver(name)}
}

// add appends what is not in list yet.
func add(list []string, names ...string) []string {
	for _, n := range names {
		if !slices.Contains(list, n) {
			list = append(list, n)
		}
	}
	return list
}
