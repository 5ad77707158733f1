package plan

import (
	"slices"
	"sort"
	"strconv"
	"strings"

	"unlock/internal/block"
	"unlock/internal/config"
)

// Select returns the candidates that a volume's device selector names: by
// attachment number where the hardware tells it, else in the order given, which is
// that of their names.
func Select(v *config.Volume, all []*Candidate) []*Candidate {
	var found []*Candidate
	for _, c := range all {
		if matches(v.Device, c) {
			found = append(found, c)
		}
	}
	sort.SliceStable(found, func(i, j int) bool { return attachNumber(found[i].Disk) < attachNumber(found[j].Disk) })
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
		return c.Disk.Path == s.Value || slices.Contains(links(c.Disk), s.Value)
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

// links returns the names that udev would give a device beside its own: below
// /dev/disk/by-id for NVMe, /dev/mapper for device-mapper, and /dev/VG for LVM.
func links(d block.Disk) []string {
	switch {
	case d.DM != "":
		names := []string{"/dev/mapper/" + d.DM}
		// LVM doubles the hyphens of its names and joins them by a single one.
		const hyphen = "\x00"
		escaped := strings.ReplaceAll(d.DM, "--", hyphen)
		if vg, lv, ok := strings.Cut(escaped, "-"); ok {
			names = append(names, strings.ReplaceAll("/dev/"+vg+"/"+lv, hyphen, "-"))
		}
		return names
	case strings.HasPrefix(d.Name, "nvme") && d.Serial != "" && d.Parent == "":
		link := "/dev/disk/by-id/nvme-" + strings.ReplaceAll(d.Model, " ", "_") + "_" + d.Serial
		return []string{link, link + "_1", link + "-ns-1"}
	}
	return nil
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
