package fsopt

import (
	"slices"
	"strconv"
	"strings"
)

// maker is the program that makes a type.
type maker struct {
	name  string
	fixed []string // its first arguments
	// flags that may be given: the kind of their value, or of the values in its list.
	flags map[string]string
	lists map[string]map[string]string
}

var extLists = map[string]map[string]string{
	"-E": {"lazy_itable_init": maybe + onOff, "lazy_journal_init": maybe + onOff, "stride": count, "stripe_width": count, "packed_meta_blocks": maybe + onOff},
	"-O": {"has_journal": none, "^has_journal": none, "metadata_csum": none, "^metadata_csum": none, "dir_index": none, "^dir_index": none,
		"quota": none, "project": none},
}

// makers are the programs and their options: quiet, over what a broken-off earlier
// run may have left (-F, -f), and without discarding, as instance store arrives
// trimmed and a discard of terabytes would hold up the boot.
var makers = map[string]maker{
	"ext4": {"mke2fs", []string{"-t", "ext4", "-q", "-F"},
		map[string]string{"-m": percent, "-L": label + "16", "-i": "1024|2048|4096|8192|16384|32768|65536|131072|262144|524288|1048576|4194304", "-b": "1024|2048|4096", "-T": "largefile|largefile4"}, extLists},
	"ext3": {"mke2fs", []string{"-t", "ext3", "-q", "-F"},
		map[string]string{"-m": percent, "-L": label + "16", "-i": "1024|2048|4096|8192|16384|32768|65536|131072|262144|524288|1048576|4194304", "-b": "1024|2048|4096", "-T": "largefile|largefile4", "-j": none},
		map[string]map[string]string{"-E": extLists["-E"], "-O": {"dir_index": none, "^dir_index": none}}},
	"xfs": {"mkfs.xfs", []string{"-q", "-f", "-K"},
		map[string]string{"-L": label + "12"},
		map[string]map[string]string{
			"-d": {"su": size, "sw": count, "agcount": count},
			"-i": {"size": "512|1024|2048", "maxpct": percent, "sparse": onOff},
			"-l": {"su": "4k|8k|16k|32k|64k|128k|256k|1b|2b|4b|8b|16b|32b|64b"},
			"-m": {"reflink": onOff, "rmapbt": onOff, "bigtime": onOff},
		}},
	"btrfs": {"mkfs.btrfs", []string{"-q", "-f", "-K"},
		map[string]string{"-L": label + "255", "-m": "single|dup", "-d": "single|dup", "-n": "4k|8k|16k|32k|64k"}, nil},
	"swap": {"mkswap", []string{"-q"}, map[string]string{"-L": label + "15"}, nil},
}

// Tool returns the program that makes a file system of that type; "": there is none.
func Tool(fstype string) string { return makers[fstype].name }

// Making reads the options with which a file system is to be made, as on the command
// line of its maker. Those that are its own anyway, such as -K, may be among them.
// Errors have advice.
func Making(fstype, text string) ([]string, error) {
	m, ok := makers[fstype]
	if !ok {
		return nil, refuse("", "no program makes %q", fstype)
	}
	var args []string
	given := map[string]bool{}
	fields := strings.Fields(text)
	for len(fields) > 0 {
		flag, value, valued := fields[0], "", false
		fields = fields[1:]
		if len(flag) > 2 && flag[0] == '-' && flag[1] != '-' {
			flag, value, valued = flag[:2], flag[2:], true
		}
		if flag != "-t" && !valued && slices.Contains(m.fixed, flag) {
			continue
		}
		kind, simple := m.flags[flag]
		names := m.lists[flag]
		if !simple && names == nil {
			return nil, refuse("it takes "+m.known(), "%s takes no %q here", m.name, flag)
		}
		if given[flag] {
			return nil, refuse("write it once", "%s is given %s twice", m.name, flag)
		}
		given[flag] = true
		if !valued && kind != none || !valued && names != nil {
			if len(fields) == 0 {
				return nil, refuse("", "%s: nothing follows %s", m.name, flag)
			}
			value, fields, valued = fields[0], fields[1:], true
		}
		if simple {
			if !valid(kind, value, valued) {
				return nil, refuse(flag+" takes "+values(kind), "%s takes no %s %q", m.name, flag, value)
			}
		} else if err := m.checkList(flag, value, names); err != nil {
			return nil, err
		}
		if args = append(args, flag); valued {
			args = append(args, value)
		}
	}
	return args, nil
}

// MakerOptions lists the options that Making takes for a type, those with a list of
// values as in -d su=.
func MakerOptions(fstype string) []string {
	var list []string
	m := makers[fstype]
	for flag := range m.flags {
		list = append(list, flag)
	}
	for flag, names := range m.lists {
		for name, kind := range names {
			if kind != none {
				name += "="
			}
			list = append(list, flag+" "+name)
		}
	}
	slices.Sort(list)
	return list
}

func (m *maker) known() string {
	var list []string
	for flag := range m.flags {
		list = append(list, flag)
	}
	for flag := range m.lists {
		list = append(list, flag)
	}
	slices.Sort(list)
	return strings.Join(list, ", ")
}

// checkList judges a list such as su=64k,sw=4.
func (m *maker) checkList(flag, value string, names map[string]string) error {
	seen := map[string]bool{}
	for _, part := range strings.Split(value, ",") {
		name, v, given := strings.Cut(part, "=")
		kind, ok := names[name]
		if !ok || seen[name] || !valid(kind, v, given) {
			var known []string
			for n := range names {
				known = append(known, n)
			}
			slices.Sort(known)
			return refuse(flag+" takes "+strings.Join(known, ", "), "%s takes no %s %q", m.name, flag, part)
		}
		seen[name] = true
	}
	switch {
	case seen["su"] != seen["sw"] && flag == "-d":
		return refuse("leave both out: they follow from the stripe", "%s takes su and sw together only", m.name)
	case seen["project"] && !seen["quota"]:
		return refuse("write -O project,quota", "%s makes quotas of projects with the feature quota only", m.name)
	}
	return nil
}

// Stripe is how the disks of a volume are joined. The zero value is one disk.
type Stripe struct {
	Chunk int64 // bytes on one disk before the next
	Disks int
	Size  int64 // bytes of the whole
}

// leastAligned is from what size on, in bytes, XFS is told of the stripe: on less,
// mkfs.xfs finds no room for a log that keeps to it.
const leastAligned = 1 << 30

// Arguments returns the arguments of the program that makes a type, but for the device;
// options are those of Making.
func Arguments(fstype string, options []string, s Stripe) []string {
	args := slices.Clone(makers[fstype].fixed)
	has := func(flag string) int { return slices.Index(options, flag) }
	switch fstype {
	case "ext4", "ext3":
		// Once only: the last -E is the one that counts.
		extended := "nodiscard"
		if i := has("-E"); i >= 0 {
			extended += "," + options[i+1]
			options = slices.Concat(options[:i], options[i+2:])
		}
		args = append(args, "-E", extended)
	case "xfs":
		if s.Disks < 2 || s.Size < leastAligned {
			break
		}
		geometry := "su=" + strconv.FormatInt(s.Chunk, 10) + ",sw=" + strconv.Itoa(s.Disks)
		if i := has("-d"); i < 0 {
			args = append(args, "-d", geometry)
		} else if !strings.Contains(options[i+1], "su=") {
			options = slices.Clone(options)
			options[i+1] = geometry + "," + options[i+1]
		}
		// A log that is padded to the whole chunk at each fsync wears the disks out.
		if has("-l") < 0 {
			args = append(args, "-l", "su=32k")
		}
	}
	return append(args, options...)
}
