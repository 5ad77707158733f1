package hint_test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
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

func TestEach(t *testing.T) {
	t.Parallel()
	a, b, c := errors.New("a"), errors.New("b"), errors.New("c")
	for name, row := range map[string]struct {
		err  error
		want string
	}{
		"none":                {nil, ""},
		"none of several":     {hint.All(nil, nil), ""},
		"one":                 {a, "a"},
		"one of several":      {hint.All(nil, a), "a"},
		"several":             {hint.All(a, b), "a|b"},
		"several in several":  {hint.All(hint.All(a, b), c), "a|b|c"},
		"several in one line": {fmt.Errorf("x: %w: %w", a, b), "x: a: b"},
		"wrapped several":     {fmt.Errorf("x: %w", hint.All(a, b)), "x: a\nb"},
		"joined":              {errors.Join(a, b), "a\nb"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var got []string
			for _, e := range hint.Each(row.err) {
				got = append(got, e.Error())
			}
			if s := strings.Join(got, "|"); s != row.want {
				t.Errorf("Each = %q, want %q", s, row.want)
			}
		})
	}
	if err := hint.All(a, b); !errors.Is(err, b) || err.Error() != "a\nb" {
		t.Errorf("All = %q, want the identity and the text of its parts", err)
	}
	if err := hint.All(nil); err != nil {
		t.Errorf("All(nil) = %v, want nil", err)
	}
}

func TestDisk(t *testing.T) {
	t.Parallel()
	broken := &os.PathError{Op: "read", Path: "/dev/nvme1n1", Err: syscall.EIO}
	if got := hint.Of(fmt.Errorf("reading: %w", hint.Disk(broken))); got != hint.DiskFails {
		t.Errorf("Of(Disk(EIO)) = %q, want %q", got, hint.DiskFails)
	}
	if err := hint.Disk(io.EOF); err != io.EOF {
		t.Errorf("Disk(EOF) = %v, want it unchanged", err)
	}
	if err := hint.Disk(nil); err != nil {
		t.Errorf("Disk(nil) = %v, want nil", err)
	}
}
