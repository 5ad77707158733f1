package plan

import (
	"fmt"
	"slices"
	"strings"

	"unlock/internal/block"
	"unlock/internal/config"
)

// Awaited returns the volumes that have reason to wait for further disks; settled
// says that the kernel has shown all that it knows of. Until then, also a volume that
// has its disks waits, if a copy of one of them may yet come, or one too many.
func Awaited(c *config.Config, found []*Candidate, settled bool) []*config.Volume {
	var list []*config.Volume
	for i := range c.Volumes {
		v := &c.Volumes[i]
		members := Select(v, found)
		n := len(members)
		switch {
		case v.Device.Kind == config.SelectFile: // its turn comes with the new root
		case v.Device.Kind == config.SelectShare: // it comes with its whole
		case v.MayBeAbsent && n == 0 && settled:
		case v.Count > 0 && n < v.Count && settled && mirrored(members) != nil: // it opens without those that are missing
		case v.Count > 0 && n < v.Count:
			list = append(list, v)
		case n > 0 && v.Device.Unique():
		case !settled:
			list = append(list, v)
		case v.Count > 0:
		case n == 0 && v.Required && v.Device.Kind != config.SelectInstanceStore:
			list = append(list, v) // it was named; it may yet be attached
		}
	}
	return list
}

// Ambiguous reports whether a volume lacks disks that IMDS might find among those
// here: on Xen disks are xvd*, and say nothing of themselves. (An EBS volume may
// also be virtio's vd*, as other hypervisors with an EC2 interface have them.)
func Ambiguous(c *config.Config, disks []block.Disk, found []*Candidate) bool {
	for i := range c.Volumes {
		v := &c.Volumes[i]
		ebs := v.Device.Kind == config.SelectEBS
		if !ebs && v.Device.Kind != config.SelectInstanceStore || len(Select(v, found)) > 0 {
			continue
		}
		for _, d := range disks {
			if d.Parent == "" && d.Kind == block.KindOther && (strings.HasPrefix(d.Name, "xvd") || ebs && strings.HasPrefix(d.Name, "vd")) {
				return true
			}
		}
	}
	return false
}

// Promising reports whether the disks found so far will need a key, and none of them
// is to be refused.
func Promising(c *config.Config, found []*Candidate) bool {
	some := false
	for i := range c.Volumes {
		v := &c.Volumes[i]
		members := Select(v, found)
		if unusable(v, members) != nil {
			return false
		}
		some = some || len(members) > 0
	}
	return some
}

// RefuseAbsent refuses the required volumes of which no disk is there, once there is
// no more time for any to appear, unless they say that this is no failure: without the
// volume, services would write in the clear. Volumes in files of the new root are not
// absent: their time has not come.
func (p *Plan) RefuseAbsent() {
	p.Absent = slices.DeleteFunc(p.Absent, func(v *config.Volume) bool { return v.Device.Kind == config.SelectFile })
	for _, v := range p.Absent {
		if v.Required && !v.MayBeAbsent && v.Device.Kind != config.SelectShare {
			p.Refusals = append(p.Refusals, &Refusal{Volume: v, Reason: fmt.Sprintf("no device %s", v.Device), Hint: absentHint(v)})
		}
	}
}

func absentHint(v *config.Volume) string {
	if v.Device.Kind == config.SelectInstanceStore {
		return "this instance has no such disk: choose a type with instance store, or say absent = \"allow\" if the image is also for types without"
	}
	return "attach it, or correct the device selector; lsblk -o NAME,MODEL,SERIAL,UUID,PARTUUID shows what is there"
}
