package luks

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Left are the members of a mirror that the others have gone on without, by their index,
// each with the epoch that it had then.
type Left map[int]string

// String returns INDEX=EPOCH of each, with blanks between them, as SetToken has them.
func (l Left) String() string {
	var list []string
	for _, i := range slices.Sorted(maps.Keys(l)) {
		list = append(list, fmt.Sprintf("%d=%s", i, l[i]))
	}
	return strings.Join(list, " ")
}

// ParseLeft reads what String wrote, and nothing else.
func ParseLeft(text string) (Left, error) {
	l := Left{}
	for _, part := range strings.Fields(text) {
		index, epoch, _ := strings.Cut(part, "=")
		var i int
		if _, err := fmt.Sscanf(index, "%d", &i); err != nil || i < 0 || epoch == "" || len(epoch) > 64 {
			return nil, fmt.Errorf("member %.80q cannot be one that was left", part)
		}
		l[i] = epoch
	}
	if l.String() != text {
		return nil, fmt.Errorf("members %.80q are not written as they are here", text)
	}
	return l, nil
}
