package hint_test

import (
	"errors"
	"fmt"
	"io"
	"testing"

	"unlock/internal/hint"
)

func TestOf(t *testing.T) {
	t.Parallel()
	locked := hint.New("locked", "find the key")
	for name, row := range map[string]struct {
		err  error
		want string
	}{
		"none":             {nil, ""},
		"without advice":   {io.EOF, ""},
		"sentinel":         {locked, "find the key"},
		"wrapped":          {fmt.Errorf("opening: %w", locked), "find the key"},
		"outermost first":  {hint.With(fmt.Errorf("opening: %w", locked), "ask somebody"), "ask somebody"},
		"empty falls back": {hint.With(locked, ""), "find the key"},
		"joined":           {errors.Join(io.EOF, locked), "find the key"},
		"several":          {fmt.Errorf("%w, %w", io.EOF, locked), "find the key"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := hint.Of(row.err); got != row.want {
				t.Errorf("Of(%v) = %q, want %q", row.err, got, row.want)
			}
		})
	}
}

func TestWith(t *testing.T) {
	t.Parallel()
	if err := hint.With(nil, "nothing to do"); err != nil {
		t.Errorf("With(nil) = %v, want nil", err)
	}
	err := hint.With(io.EOF, "read less")
	if err.Error() != "EOF" || !errors.Is(err, io.EOF) {
		t.Errorf("With(EOF) = %v, want EOF's text and identity", err)
	}
}
