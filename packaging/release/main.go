// Command release makes what goes into the packages beside the programs, from the
// build information that Go leaves in them:
//
//	release sbom VERSION BINARY...   a bill of materials, CycloneDX 1.6 in JSON
//	release licenses BINARY...       the licenses of all that is linked in
//
// The same binaries give the same bytes; the time of the bill of materials is
// $SOURCE_DATE_EPOCH. It is run by packaging/release.mk from the top of the tree.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
)

func main() {
	if err := run(os.Stdout, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "release:", err)
		os.Exit(1)
	}
}

func run(w io.Writer, args []string) error {
	switch {
	case len(args) > 2 && args[0] == "sbom":
		return writeSBOM(w, args[1], args[2:])
	case len(args) > 1 && args[0] == "licenses":
		return writeLicenses(w, args[1:])
	}
	return errors.New("usage: release sbom VERSION BINARY... | release licenses BINARY...")
}
