// Package initramfs builds the standalone image: a cpio archive with unlock as
// /init, kernel modules in load order, certificate authorities, the
// configuration with the files that it names, and mke2fs with its libraries.
package initramfs

import "io"

// Options of Build.
type Options struct {
	Unlock  string   // the unlock binary
	Config  string   // unlock.toml
	Modules string   // /lib/modules/VERSION; empty: no modules
	Mkfs    bool     // whether the configuration formats with a file system
	Files   []string // further files, HOST:IMAGE
}

// Build writes the image, uncompressed, to w. Equal inputs give equal bytes.
func Build(w io.Writer, o Options) error { panic("stub") }
