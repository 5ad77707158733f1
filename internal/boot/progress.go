package boot

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"unlock/internal/hint"
	"unlock/internal/hint/plain"
)

// A disk that does not answer cannot be waited for within a deadline by whoever asked it:
// the kernel lets go of nobody. So the process that does a part says what it is doing, and
// its Supervisor, which touches no disk, holds the deadline. What is said is lines of a
// word and its object:
//
//	deadline MILLISECONDS    from now on; 0: somebody is being asked, who may take for ever
//	otherwise OUTCOME        what becomes of the part if it is given up
//	begin WHAT SUBJECT       something that a disk may never answer
//	end WHAT SUBJECT
//	innocent                 it has had no secret, and will have none
//	outcome OUTCOME          the end

// grace is how much longer the deadline is for the Supervisor: what can be interrupted
// has a better answer of its own.
const grace = 2 * time.Second

// Progress says what a part is doing. Nil says nothing.
type Progress struct {
	mu sync.Mutex
	w  io.Writer
}

// NewProgress writes to w.
func NewProgress(w io.Writer) *Progress { return &Progress{w: w} }

// Outcome says how the part ended. An error: nobody listens.
func (p *Progress) Outcome(o Outcome) error { return p.say("outcome %d", o) }

func (p *Progress) deadline(d time.Duration) { _ = p.say("deadline %d", d.Milliseconds()) }
func (p *Progress) innocent()                { _ = p.say("innocent") }
func (p *Progress) asking()                  { _ = p.say("deadline 0") }
func (p *Progress) otherwise(o Outcome)      { _ = p.say("otherwise %d", o) }

// doing says that something begins and returns what says that it has ended.
func (p *Progress) doing(what, subject string) (end func()) {
	line := plain.Text(strings.TrimSpace(what + " " + subject))
	_ = p.say("begin %s", line)
	return func() { _ = p.say("end %s", line) }
}

func (p *Progress) say(format string, args ...any) error {
	if p == nil {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	_, err := fmt.Fprintf(p.w, format+"\n", args...)
	return err
}

// ErrBroke: a part ended without saying how.
var ErrBroke = errors.New("the worker broke down")

// Follow hears what a part says until it ends, or must be given up. An error comes with
// the outcome that this has. Innocent: a part that ended has had no secret. It does not
// wait for the reading of r to end.
func Follow(r io.Reader) (_ Outcome, innocent bool, _ error) {
	lines, done := make(chan string), make(chan struct{})
	defer close(done)
	go func() {
		defer close(lines)
		for s := bufio.NewScanner(r); s.Scan(); {
			select {
			case lines <- s.Text():
			case <-done:
				return
			}
		}
	}()
	otherwise := Locked
	doing := map[string]int{}
	var late <-chan time.Time
	for {
		select {
		case <-late:
			return otherwise, false, stalled(doing)
		case line, ok := <-lines:
			if !ok {
				return Locked, false, ErrBroke
			}
			word, rest, _ := strings.Cut(line, " ")
			n, _ := strconv.Atoi(rest)
			switch word {
			case "deadline":
				if late = nil; n > 0 {
					late = time.After(time.Duration(n)*time.Millisecond + grace)
				}
			case "otherwise":
				otherwise = outcomeOf(n)
			case "begin":
				doing[rest]++
			case "end":
				if doing[rest]--; doing[rest] <= 0 {
					delete(doing, rest)
				}
			case "outcome":
				return outcomeOf(n), innocent, nil
			case "innocent":
				innocent = true
			}
		}
	}
}

// outcomeOf takes what is no outcome for a failure.
func outcomeOf(n int) Outcome {
	if o := Outcome(n); o >= Done && o <= Reboot {
		return o
	}
	return Locked
}

// stalled says what was being done when a part was given up: of which disk, if that was
// said.
func stalled(doing map[string]int) error {
	var errs []error
	for _, what := range slices.Sorted(maps.Keys(doing)) {
		if op, subject, ok := strings.Cut(plain.Text(what), " "); ok {
			errs = append(errs, hint.With(fmt.Errorf("%s did not answer within the deadline: given up at %s", subject, op), hint.DiskFails))
		}
	}
	if len(errs) == 0 {
		errs = append(errs, hint.With(fmt.Errorf("a disk did not answer within the deadline: given up at %s", plain.Text(strings.Join(slices.Sorted(maps.Keys(doing)), ", "))), hint.DiskFails))
	}
	return hint.All(errs...)
}
