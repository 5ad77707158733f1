package luks

import (
	"fmt"
	"strconv"
	"strings"
)

// Left are the members of a mirror that the others have gone on without, by their index.
type Left map[int]Parting

// Parting is how a member was left.
type Parting struct {
	Epoch string // that it had then
	With  uint64 // a bit for each member that went on, never 0
}

// String returns INDEX=EPOCH:WITH of each, with blanks between them, as SetToken has them;
// WITH is hexadecimal.
func (l Left) String() string {
	var list []string
	for i := range 64 { // as many as With has bits
		if p, ok := l[i]; ok {
			list = append(list, fmt.Sprintf("%d=%s:%x", i, p.Epoch, p.With))
		}
	}
	return strings.Join(list, " ")
}

// ParseLeft reads what String wrote, and nothing else.
func ParseLeft(text string) (Left, error) {
	l := Left{}
	for _, part := range strings.Fields(text) {
		index, how, _ := strings.Cut(part, "=")
		epoch, mask, _ := strings.Cut(how, ":")
		i, err1 := strconv.Atoi(index)
		with, err2 := strconv.ParseUint(mask, 16, 64)
		if err1 != nil || err2 != nil || i < 0 || epoch == "" || len(epoch) > 64 || with == 0 || with>>i&1 == 1 {
			return nil, fmt.Errorf("member %.80q cannot be one that was left", part)
		}
		l[i] = Parting{epoch, with}
	}
	if l.String() != text {
		return nil, fmt.Errorf("members %.80q are not written as they are here", text)
	}
	return l, nil
}
