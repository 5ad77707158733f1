// Package hint carries what an operator can do about an error along with the error
// itself: the package that makes the error says it, and whoever prints it asks Of.
package hint

// Adviser is an error that knows what to do about it.
type Adviser interface {
	error
	Advice() string // one line, "" if there is nothing to say
}

// New returns a sentinel with the given text and advice.
func New(text, advice string) error { return &advised{text: text, advice: advice} }

// With returns an error like err, with advice of its own; nil stays nil.
func With(err error, advice string) error {
	if err == nil {
		return nil
	}
	return &advised{text: err.Error(), advice: advice, err: err}
}

// Of returns the advice of the outermost error in err's tree that has any, or "".
func Of(err error) string {
	if a, ok := err.(Adviser); ok && a.Advice() != "" {
		return a.Advice()
	}
	switch e := err.(type) {
	case interface{ Unwrap() error }:
		return Of(e.Unwrap())
	case interface{ Unwrap() []error }:
		for _, part := range e.Unwrap() {
			if advice := Of(part); advice != "" {
				return advice
			}
		}
	}
	return ""
}

type advised struct {
	text, advice string
	err          error
}

func (a *advised) Error() string  { return a.text }
func (a *advised) Advice() string { return a.advice }
func (a *advised) Unwrap() error  { return a.err }
