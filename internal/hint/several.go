package hint

import "strings"

// several are failures of which each is reported by itself.
type several []error

// All returns an error for several failures of which each deserves a line and a hint
// of its own, or nil if all are nil.
func All(errs ...error) error {
	var all several
	for _, err := range errs {
		all = append(all, Each(err)...)
	}
	if len(all) == 0 {
		return nil
	}
	return all
}

// Each takes apart what All has put together; any other error is one failure.
func Each(err error) []error {
	if err == nil {
		return nil
	}
	if all, ok := err.(several); ok {
		return all
	}
	return []error{err}
}

func (s several) Error() string {
	var lines []string
	for _, err := range s {
		lines = append(lines, err.Error())
	}
	return strings.Join(lines, "\n")
}

func (s several) Unwrap() []error { return s }
