package plain_test

import (
	"bytes"
	"strings"
	"testing"

	"unlock/internal/hint/plain"
)

func TestText(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct{ text, want string }{
		"plain":           {"reading /dev/nvme1n1: größer", "reading /dev/nvme1n1: größer"},
		"terminal escape": {"\x1b]0;title\a\x1b[2Jall is well", `\x1b]0;title\a\x1b[2Jall is well`},
		"8-bit escape":    {"\u009b2J", `\u009b2J`},
		"two lines":       {"one\r\ntwo", `one\r\ntwo`},
		"not UTF-8":       {"\xff\x9b", `\xff\x9b`},
		"reordered":       {"\u202egnp.exe", `\u202egnp.exe`},
		"invisible":       {"a\u200bb", `a\u200bb`},
		"long":            {strings.Repeat("x", 60000), strings.Repeat("x", plain.Max-3) + "…"},
		"long, escaped":   {strings.Repeat("\x1b", 60000), strings.Repeat(`\x1b`, (plain.Max-3)/4) + "…"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := plain.Text(row.text); got != row.want || len(got) > plain.Max {
				t.Errorf("Text = %q of %d bytes, want %q", got, len(got), row.want)
			}
		})
	}
}

func TestWriter(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	const text = "first\n\x1b[1msecond\n\nlast"
	n, err := plain.Writer{W: &out, Most: plain.Max}.Write([]byte(text))
	if want := "first\n\\x1b[1msecond\n\nlast"; n != len(text) || err != nil || out.String() != want {
		t.Errorf("Write = %d, %v, %q, want %q", n, err, &out, want)
	}
}

// direct fails unless it is handed the bytes themselves.
type direct struct{ want *byte }

func (d direct) Write(b []byte) (int, error) {
	if &b[0] != d.want {
		return 0, bytes.ErrTooLarge
	}
	return len(b), nil
}

// TestWriterCopies: a secret that is shown on purpose leaves no copy behind.
func TestWriterCopies(t *testing.T) {
	t.Parallel()
	secret := []byte("cbdefghi-cbdefghi")
	w := plain.Writer{W: direct{&secret[0]}, Most: plain.Max}
	if _, err := w.Write(secret); err != nil {
		t.Error("what is plain was copied")
	}
}
