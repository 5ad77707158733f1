package secret

import (
	"errors"
	"fmt"
	"io"
)

// maxLine is the longest passphrase that is read as a line, in bytes, as cryptsetup
// has it (DEFAULT_PASSPHRASE_SIZE_MAX).
const maxLine = 512

// ReadLine reads up to a newline, which it drops, or the end of input; byte by byte,
// so that nothing is buffered elsewhere. The caller wipes the line.
func ReadLine(r io.Reader) (*Bytes, error) {
	s := New(maxLine)
	for n := range maxLine {
		_, err := io.ReadFull(r, s.Bytes()[n:n+1])
		if err == nil && s.Bytes()[n] != '\n' {
			continue
		}
		if err != nil && (n == 0 || !errors.Is(err, io.EOF)) {
			s.Wipe()
			return nil, err
		}
		s.Truncate(n)
		return s, nil
	}
	s.Wipe()
	return nil, fmt.Errorf("longer than %d bytes", maxLine)
}
