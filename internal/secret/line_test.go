package secret_test

import (
	"strings"
	"testing"

	"unlock/internal/secret"
)

func TestReadLine(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct{ typed, want, err string }{
		"a line":            {"correct horse\n", "correct horse", ""},
		"what follows it":   {"one\ntwo\n", "one", ""},
		"without a newline": {"piped", "piped", ""},
		"empty":             {"\n", "", ""},
		"nothing":           {"", "", "EOF"},
		"too long":          {strings.Repeat("x", 513), "", "longer than 512 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, err := secret.ReadLine(strings.NewReader(row.typed))
			defer s.Wipe()
			if row.err != "" {
				if err == nil || !strings.Contains(err.Error(), row.err) {
					t.Errorf("ReadLine = %v, want %q", err, row.err)
				}
				return
			}
			if err != nil || string(s.Bytes()) != row.want {
				t.Errorf("ReadLine = %q, %v, want %q", s.Bytes(), err, row.want)
			}
		})
	}
}
