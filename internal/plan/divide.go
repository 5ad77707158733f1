package plan

import (
	"fmt"
	"slices"
	"strings"

	"unlock/internal/config"
	"unlock/internal/luks"
)

// divide settles which shares the device of a step has: those of the configuration, if it
// is formatted, else those that its tokens have, which must be the same by name. What the
// configuration says of sizes counts only at first.
func divide(s Situation, step *Step) *Refusal {
	refuse := func(hint, format string, args ...any) *Refusal {
		return &Refusal{step.Volume, step.paths(), fmt.Sprintf(format, args...), hint}
	}
	wanted := map[string]*config.Volume{}
	var names []string
	for i := range s.Config.Volumes {
		if v := &s.Config.Volumes[i]; v.Device.Kind == config.SelectShare && v.Device.Value == step.Volume.Name {
			wanted[v.Name] = v
			names = append(names, v.Name)
		}
	}
	var shares luks.Shares
	if step.Format {
		var reason string
		if shares, reason = measure(step, wanted, names); reason != "" {
			return refuse("correct size, or use larger disks", "%s", reason)
		}
	} else if set := step.Members[0].set(); set != nil {
		shares, _ = luks.ParseShares(set.Shares) // which was checked when it was read
	}
	if s.Shares {
		for _, share := range shares {
			share.Name = step.Name + "-" + share.Name
			step.Shares = append(step.Shares, Share{&config.Volume{Name: share.Name}, share})
		}
		return nil
	}
	var have []string
	for _, share := range shares {
		have = append(have, share.Name)
		step.Shares = append(step.Shares, Share{wanted[share.Name], share})
	}
	slices.Sort(names)
	slices.Sort(have)
	if !slices.Equal(names, have) {
		return refuse("configure the shares that are there; to divide the disks anew, with all data on them lost, erase them",
			"it was divided into the shares %s, and the configuration has %s", list(have), list(names))
	}
	for _, share := range step.Shares {
		step.Mkfs = step.Mkfs || step.Unready && !step.Active && share.Volume.Filesystem != ""
	}
	return nil
}

func list(names []string) string {
	if len(names) == 0 {
		return "(none)"
	}
	return strings.Join(names, ", ")
}

// measure lays the shares out on disks that are to be formatted, in the order of the
// configuration. The reason says why they do not fit.
func measure(step *Step, wanted map[string]*config.Volume, names []string) (shares luks.Shares, reason string) {
	if len(names) == 0 {
		return nil, ""
	}
	total := int64(1<<62 - 1)
	for _, m := range step.Members {
		total = min(total, m.Disk.Size-luks.DataOffset)
	}
	switch {
	case step.Copies > 0:
		total = step.Size * int64(step.Count/step.Copies)
	case step.Joined():
		total = total / Chunk * Chunk * int64(len(step.Members))
	}
	total = (total - luks.ShareUnit) / luks.ShareUnit * luks.ShareUnit
	sizes, left := map[string]int64{}, total
	for _, name := range names {
		v := wanted[name]
		sizes[name] = (v.Size + total/100*v.Percent) / luks.ShareUnit * luks.ShareUnit
		left -= sizes[name]
	}
	at := int64(luks.ShareUnit)
	for _, name := range names {
		size := sizes[name]
		if size == 0 {
			size = left
		}
		if left < 0 || size < config.LeastShare {
			return nil, fmt.Sprintf("the disks have %d bytes, which are too few for share %q beside the others", total, name)
		}
		shares = append(shares, luks.Share{Name: name, Offset: at, Size: size})
		at += size
	}
	return shares, ""
}

// ShareUUID is the device-mapper UUID of a share.
func ShareUUID(set, name string) string {
	return "UNLOCK-SHARE-" + strings.ReplaceAll(set, "-", "") + "-" + name
}
