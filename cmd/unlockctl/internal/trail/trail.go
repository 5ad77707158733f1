// Package trail reads what AWS CloudTrail delivers: files of records, and the digest
// files by which it can be shown that none of them was changed, removed or added
// (AWS CloudTrail User Guide, "CloudTrail record contents", "CloudTrail digest file
// structure" and "Custom implementations of CloudTrail log file integrity
// validation").
//
// Records are found without being decoded, a hundred thousand and more a second;
// which of them matter, and what they mean, is for others to say. Files may be
// truncated, damaged, twice there or no CloudTrail files at all: that is reported,
// and the rest is read.
package trail

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// File is one file as CloudTrail delivered it.
type File struct {
	Bucket string // of S3; "" for a copy elsewhere
	Name   string // key of the object, or path; slashes separate
	Size   int64  // bytes, compressed; 0 if unknown
	// Open returns the content, and the user-defined metadata of the object, which
	// copies in directories have lost.
	Open func(ctx context.Context) (io.ReadCloser, map[string]string, error)
}

// Dir returns all files below a directory, or the one file that dir is, sorted by
// name.
func Dir(dir string) ([]File, error) {
	var list []File
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := os.Stat(path)
		if err != nil {
			return err
		}
		if !info.Mode().IsRegular() {
			return nil
		}
		list = append(list, File{Name: filepath.ToSlash(path), Size: info.Size(), Open: func(context.Context) (io.ReadCloser, map[string]string, error) {
			f, err := os.Open(path)
			return f, nil, err
		}})
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("listing the trail: %w", err)
	}
	return list, nil
}

// Stream returns a File that is read once, such as standard input.
func Stream(name string, r io.Reader) File {
	return File{Name: name, Open: func(context.Context) (io.ReadCloser, map[string]string, error) { return io.NopCloser(r), nil, nil }}
}

var (
	logName    = regexp.MustCompile(`^\d{12}_CloudTrail_[a-z0-9-]+_(\d{8}T\d{4})Z_[A-Za-z0-9]{16}\.json(\.gz)?$`)
	digestName = regexp.MustCompile(`^\d{12}_CloudTrail-Digest_.*_(\d{8}T\d{6})Z(_backfill)?\.json(\.gz)?$`)
)

func base(name string) string { return name[strings.LastIndexByte(name, '/')+1:] }

// IsDigest reports whether a name is that of a digest file.
func IsDigest(name string) bool { return digestName.MatchString(base(name)) }

// Delivered returns when a file of records was delivered, to the minute, as its name
// has it; false for other names.
func Delivered(name string) (time.Time, bool) {
	m := logName.FindStringSubmatch(base(name))
	if m == nil {
		return time.Time{}, false
	}
	t, err := time.Parse("20060102T1504", m[1])
	return t, err == nil
}
