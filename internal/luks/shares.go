package luks

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Share is a part of a volume.
type Share struct {
	Name   string
	Offset int64 // bytes, in the volume; a multiple of ShareUnit
	Size   int64 // bytes, likewise
}

// Shares are the parts of a volume, in the order in which they lie on it.
type Shares []Share

// ShareUnit is what shares begin at multiples of, in bytes. The first unit is nobody's: a
// volume that is divided does not begin like the file system on its first share.
const ShareUnit = 1 << 20

// maxShares is how many there can be: the header has room for their names.
const maxShares = 16

// String returns NAME=OFFSET+SIZE of each, with blanks between them, as SetToken has them.
func (s Shares) String() string {
	var list []string
	for _, share := range s {
		list = append(list, fmt.Sprintf("%s=%d+%d", share.Name, share.Offset, share.Size))
	}
	return strings.Join(list, " ")
}

// ParseShares reads what String wrote, and nothing else: shares that overlap, or lie
// elsewhere than they may, are an error.
func ParseShares(text string) (Shares, error) {
	var list Shares
	names, end := map[string]bool{}, int64(ShareUnit)
	for _, part := range strings.Fields(text) {
		share := Share{}
		name, place, _ := strings.Cut(part, "=")
		offset, size, _ := strings.Cut(place, "+")
		var err1, err2 error
		share.Offset, err1 = strconv.ParseInt(offset, 10, 64) // package fmt's scanner would be linked for this alone
		share.Size, err2 = strconv.ParseInt(size, 10, 64)
		if err := errors.Join(err1, err2); err != nil {
			return nil, fmt.Errorf("share %.80q: %w", part, err)
		}
		const most = 1 << 60 // bytes, so that sums are numbers
		if share.Name = name; name == "" || len(name) > 64 || names[name] || len(list) == maxShares || share.Offset < end || share.Offset > most ||
			share.Size < ShareUnit || share.Size > most || share.Offset%ShareUnit != 0 || share.Size%ShareUnit != 0 {
			return nil, fmt.Errorf("share %.80q cannot be one", part)
		}
		names[name], end = true, share.Offset+share.Size
		list = append(list, share)
	}
	if list.String() != text {
		return nil, fmt.Errorf("shares %.80q are not written as they are here", text)
	}
	return list, nil
}
