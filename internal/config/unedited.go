package config

import (
	"bytes"
	"errors"
	"os"
)

// Unedited says whether file holds comments and nothing else, as the packages
// install it: nobody has asked for anything yet, and images are built without
// unlock. An empty file is not unedited; something has gone wrong with it. The
// error is an *Error.
func Unedited(file string) (bool, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return false, &Error{File: file, Msg: errors.Unwrap(err).Error(), Hint: missingHint}
	}
	comments := false
	for line := range bytes.Lines(data) {
		line = bytes.TrimSpace(line)
		if len(line) > 0 && line[0] != '#' {
			return false, nil
		}
		comments = comments || len(line) > 0
	}
	return comments, nil
}
