package config

import "fmt"

// Error is a mistake in the configuration, with advice (package hint).
type Error struct {
	File string
	Line int // 0 where no line can be named
	Msg  string
	Hint string // what to do; may be empty
}

// Error returns FILE:LINE: MESSAGE, without the hint.
func (e *Error) Error() string {
	if e.Line == 0 {
		return fmt.Sprintf("%s: %s", e.File, e.Msg)
	}
	return fmt.Sprintf("%s:%d: %s", e.File, e.Line, e.Msg)
}

// Advice is what to do; it may be empty.
func (e *Error) Advice() string { return e.Hint }
