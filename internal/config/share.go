package config

import (
	"fmt"
	"slices"
)

// A share is a volume on a part of another, its whole, which has the disks, the key and
// the failure policy. What it is for the whole to say, the share takes from there.

// share looks at the settings of one, and completes it.
func (p *parser) share(v *Volume, t *volumeTOML, fail func(setting, hint, format string, args ...any)) {
	for _, set := range []struct {
		name  string
		given bool
	}{
		{"format", t.Format != ""}, {"count", t.Count != 0}, {"layout", t.Layout != ""}, {"required", t.Required != nil}, {"absent", t.Absent != ""},
		{"on_failure", t.OnFailure != ""}, {"discard", t.Discard}, {"grow", t.Grow}, {"key", t.Key != nil},
	} {
		if set.given {
			fail(set.name, "set it for the volume that is shared", "%s is not for a share, as volume %q is", set.name, v.Name)
		}
	}
	i := slices.IndexFunc(p.before, func(w Volume) bool { return w.Name == v.Device.Value && w.Device.Kind != SelectShare })
	if i < 0 {
		fail("device", "name a volume that comes before it", "volume %q is a share of %q, and there is none that could be shared", v.Name, v.Device.Value)
		return
	}
	w := &p.before[i]
	v.Format, v.Required, v.MayBeAbsent, v.OnFailure, v.Key = w.Format, w.Required, w.MayBeAbsent, w.OnFailure, w.Key
}

// LeastShare is the smallest share, in bytes.
const LeastShare = 16 << 20

// divided looks at what the i-th volume is divided into.
func (p *parser) divided(volumes []Volume, i int, at string) {
	v := &volumes[i]
	var shares []*Volume
	percent, rest := int64(0), 0
	for j := range volumes {
		if w := &volumes[j]; w.Device.Kind == SelectShare && w.Device.Value == v.Name {
			shares = append(shares, w)
			if percent += w.Percent; w.Percent == 0 && w.Size == 0 {
				rest++
			}
		}
	}
	if len(shares) == 0 {
		return
	}
	switch {
	case v.Filesystem != "" || v.Mount != "":
		p.mistake("remove filesystem and mount", fmt.Sprintf("volume %q is divided into shares, which have the file systems", v.Name), at+".filesystem", at+".mount", at)
	case v.Layout == LayoutSeparate || v.Device.Kind == SelectFile:
		p.mistake("", fmt.Sprintf("volume %q cannot be divided into shares: it is in a file, or several", v.Name), at+".layout", at+".device")
	case len(shares) > 16:
		p.mistake("", fmt.Sprintf("volume %q is divided into more than 16 shares", v.Name), at)
	case percent > 100 || percent == 100 && rest > 0:
		p.mistake("make a share smaller", fmt.Sprintf("the shares of volume %q are more than all of it", v.Name), at)
	case rest > 1:
		p.mistake("set size for all but one", fmt.Sprintf("%d shares of volume %q have no size", rest, v.Name), at)
	}
}
