package places

import "io/fs"

// SetFiles replaces the files of all kinds of source, and returns those before.
func SetFiles(with fs.FS) fs.FS {
	before := files
	files = with
	return before
}
