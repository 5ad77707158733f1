package unlock

import (
	"cmp"
	"slices"
	"strconv"
	"strings"

	"unlock/internal/block"
	"unlock/internal/config"
)

// Select returns the candidates that a volume's device selector names, in their
// natural order: by attachment number where the hardware tells it, else by name.
func Select(v *config.Volume, all []*Candidate) []*Candidate {
	var found []*Candidate
	for _, c := range all {
		if matches(v.Device, c) {
			found = append(found, c)
		}
	}
	slices.SortFunc(found, func(a, b *Candidate) int {
		return cmp.Or(cmp.Compare(attachNumber(a.Disk), attachNumber(b.Disk)), naturalCompare(a.Disk.Name, b.Disk.Name))
	})
	if v.Device.Kind == config.SelectInstanceStore && v.Device.Value != "" {
		return nth(found, v.Device.Value)
	}
	return found
}

// Relevant reports whether the content of a disk matters to any volume.
func Relevant(c *config.Config, d block.Disk) bool {
	for _, v := range c.Volumes {
		switch v.Device.Kind {
		case config.SelectUUID, config.SelectLabel:
			return true // only the content tells
		}
		if matches(v.Device, &Candidate{Disk: d}) {
			return true
		}
	}
	return false
}

// matches ignores the number of instance-store:N, which only shows among all.
func matches(s config.Selector, c *Candidate) bool {
	switch s.Kind {
	case config.SelectInstanceStore:
		return c.Disk.Kind == block.KindInstanceStore && c.Disk.Parent == ""
	case config.SelectEBS:
		return c.Disk.Attach != "" && c.Disk.Kind == block.KindEBS && c.Disk.Parent == "" && attachName(c.Disk.Attach) == attachName(s.Value)
	case config.SelectPath:
		return c.Disk.Path == s.Value || slices.Contains(byID(c.Disk), s.Value)
	case config.SelectUUID:
		return c.Content.Kind == block.LUKS && strings.EqualFold(c.Content.UUID, s.Value)
	case config.SelectLabel:
		return c.Content.Kind == block.LUKS && c.Content.Label == s.Value
	case config.SelectPartUUID:
		return strings.EqualFold(c.Disk.PartUUID, s.Value)
	case config.SelectSerial:
		return c.Disk.Serial == s.Value && c.Disk.Parent == ""
	case config.SelectFile:
		return c.File == s.Value
	}
	return false
}

// attachName makes sdf and xvdf one name: EC2's console says the first, Xen's
// kernel the second.
func attachName(name string) string {
	if rest, ok := strings.CutPrefix(name, "xvd"); ok {
		return "sd" + rest
	}
	return name
}

// byID returns the links that udev would make below /dev/disk/by-id.
func byID(d block.Disk) []string {
	if !strings.HasPrefix(d.Name, "nvme") || d.Serial == "" || d.Parent != "" {
		return nil
	}
	link := "/dev/disk/by-id/nvme-" + strings.ReplaceAll(d.Model, " ", "_") + "_" + d.Serial
	return []string{link, link + "_1", link + "-ns-1"}
}

// attachNumber is N of ephemeralN, or a number above all of them.
func attachNumber(d block.Disk) int {
	if n, err := strconv.Atoi(strings.TrimPrefix(d.Attach, "ephemeral")); err == nil {
		return n
	}
	return 1 << 30
}

// nth picks instance-store:N by attachment number, or, where the hardware tells
// none, by order.
func nth(found []*Candidate, number string) []*Candidate {
	n, _ := strconv.Atoi(number) // config has checked it
	for _, c := range found {
		if attachNumber(c.Disk) == n {
			return []*Candidate{c}
		}
	}
	if n < len(found) && attachNumber(found[n].Disk) == 1<<30 {
		return found[n : n+1]
	}
	return nil
}

// naturalCompare puts nvme2n1 before nvme10n1.
func naturalCompare(a, b string) int {
	for a != "" && b != "" {
		na, ra := leadingNumber(a)
		nb, rb := leadingNumber(b)
		if ra != a && rb != b { // both begin with digits
			if c := cmp.Compare(na, nb); c != 0 {
				return c
			}
			a, b = ra, rb
			continue
		}
		if a[0] != b[0] {
			return cmp.Compare(a[0], b[0])
		}
		a, b = a[1:], b[1:]
	}
	return cmp.Compare(len(a), len(b))
}

func leadingNumber(s string) (n uint64, rest string) {
	rest = strings.TrimLeft(s, "0123456789")
	n, _ = strconv.ParseUint(s[:len(s)-len(rest)], 10, 64)
	return n, rest
}
