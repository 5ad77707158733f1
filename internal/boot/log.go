package boot

import (
	"fmt"
	"strings"

	"unlock/internal/hint"
	"unlock/internal/hint/plain"
)

// Level says how much a line matters, in the kernel's numbers (linux/kern_levels.h).
type Level int

const (
	LevelError   Level = 3
	LevelWarning Level = 4
	LevelInfo    Level = 6
)

// Logger writes one line, which is plain text (package plain) without a newline.
type Logger func(l Level, line string)

// Errorf writes a line on what fails.
func (log Logger) Errorf(format string, args ...any) { log.write(LevelError, format, args) }

// Warnf writes a line that passes a quiet console.
func (log Logger) Warnf(format string, args ...any) { log.write(LevelWarning, format, args) }

// Infof writes a line on what goes as it should.
func (log Logger) Infof(format string, args ...any) { log.write(LevelInfo, format, args) }

// Failure reports an error: each of several in a line of its own, with its hint.
func (log Logger) Failure(err error) {
	for _, cause := range hint.Each(err) {
		log.Errorf("%v", cause)
		if advice := hint.Of(cause); advice != "" {
			log.Errorf("hint: %s", advice)
		}
	}
}

func (log Logger) write(l Level, format string, args []any) {
	log(l, plain.Text(strings.ReplaceAll(fmt.Sprintf(format, args...), "\n", "; ")))
}
