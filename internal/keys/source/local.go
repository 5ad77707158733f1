package source

import "path"

// File is a ciphertext as `aws kms encrypt` makes it, raw bytes, in the image.
var File = &Kind{
	Name: "file", Form: "file:/PATH", rule: " with an absolute path",
	Parse: func(s *Source, location string) bool {
		s.Name = location
		return path.IsAbs(location)
	},
}

// Header is an encrypted data key in the volume's own LUKS2 token.
var Header = &Kind{Name: "header", Form: "header"}

// Ephemeral is a random key, never stored.
var Ephemeral = &Kind{Name: "ephemeral", Form: "ephemeral"}
