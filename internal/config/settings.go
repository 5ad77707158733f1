package config

import (
	"fmt"
	"slices"
	"sort"
	"strconv"
	"strings"

	"github.com/pelletier/go-toml/v2/unstable"
)

// The file as it was written. Pointers tell "absent" from "zero".
type fileTOML struct {
	Timeout string
	Retry   string
	Shell   bool
	Key     *keyTOML
	AWS     AWS
	Volume  []volumeTOML
}

type keyTOML struct {
	Source    string
	VersionID string
	KMSKey    *node // a string or an array of strings
	Context   map[string]string
	Attest    bool
}

type volumeTOML struct {
	Name         string
	Device       string
	Size         string
	Count        int
	Format       string
	Layout       string
	Filesystem   string
	Mount        string
	MountOptions string
	MkfsOptions  string
	Owner        string
	Mode         string
	Bind         []bindTOML
	Required     *bool
	Absent       string
	OnFailure    string
	Discard      bool
	Grow         bool
	Key          *keyTOML
}

type bindTOML struct {
	Path string
	From string
	Seed bool
}

// settings says where the settings of a table belong, by their names: *string, *bool,
// **bool, *int and *map[string]string are values, **node any; a table or each of an array.
type settings map[string]any

type table func() settings // is called where there is one

type each func() settings // is called for each element, in order

func fileSettings(f *fileTOML) settings {
	return settings{
		"timeout":         &f.Timeout,
		"retry_every":     &f.Retry,
		"emergency_shell": &f.Shell,
		"key":             table(func() settings { return keySettings(&f.Key) }),
		"aws":             table(func() settings { return awsSettings(&f.AWS) }),
		"volume":          each(func() settings { return volumeSettings(grown(&f.Volume)) }),
	}
}

func keySettings(p **keyTOML) settings {
	k := new(keyTOML)
	*p = k
	return settings{
		"source":     &k.Source,
		"version_id": &k.VersionID,
		"kms_key":    &k.KMSKey,
		"context":    &k.Context,
		"attest":     &k.Attest,
	}
}

func awsSettings(a *AWS) settings {
	return settings{
		"region":    &a.Region,
		"endpoint":  &a.Endpoint,
		"fips":      &a.FIPS,
		"dualstack": &a.DualStack,
		"proxy":     &a.Proxy,
		"ca_bundle": &a.CABundle,
	}
}

func volumeSettings(v *volumeTOML) settings {
	return settings{
		"name":          &v.Name,
		"device":        &v.Device,
		"size":          &v.Size,
		"count":         &v.Count,
		"format":        &v.Format,
		"layout":        &v.Layout,
		"filesystem":    &v.Filesystem,
		"mount":         &v.Mount,
		"mount_options": &v.MountOptions,
		"mkfs_options":  &v.MkfsOptions,
		"owner":         &v.Owner,
		"mode":          &v.Mode,
		"bind":          each(func() settings { return bindSettings(grown(&v.Bind)) }),
		"required":      &v.Required,
		"absent":        &v.Absent,
		"on_failure":    &v.OnFailure,
		"discard":       &v.Discard,
		"grow":          &v.Grow,
		"key":           table(func() settings { return keySettings(&v.Key) }),
	}
}

func bindSettings(b *bindTOML) settings {
	return settings{
		"path": &b.Path,
		"from": &b.From,
		"seed": &b.Seed,
	}
}

// grown returns a further element of a list.
func grown[T any](list *[]T) *T {
	*list = append(*list, *new(T))
	return &(*list)[len(*list)-1]
}

// filler puts the settings of a file where they belong.
type filler struct {
	unknown []*Error // settings
	wrong   []*Error // values of the wrong type
}

// mistakes are those of both kinds, by line.
func (f *filler) mistakes() []*Error {
	all := slices.Concat(f.unknown, f.wrong)
	byLine(all)
	return all
}

func byLine(all []*Error) {
	sort.SliceStable(all, func(i, j int) bool { return all[i].Line < all[j].Line })
}

// fill takes the settings of a table, at which names begin.
func (f *filler) fill(n *node, at string, s settings) {
	for _, b := range n.below {
		name := strings.TrimPrefix(at+"."+b.name, ".")
		if to, known := s[b.name]; known {
			f.take(b, name, to)
		} else {
			f.unknown = append(f.unknown, &Error{Line: b.line, Msg: fmt.Sprintf("unknown setting %q", name), Hint: "unlock.toml(5) lists all settings"})
		}
	}
}

// take puts one setting where it belongs.
func (f *filler) take(n *node, name string, to any) {
	wants := unstable.String
	switch to := to.(type) {
	case *string:
		if n.kind == wants {
			*to = n.text
			return
		}
	case *bool:
		if wants = unstable.Bool; n.kind == wants {
			*to = n.text == "true"
			return
		}
	case **bool:
		*to = new(bool)
		f.take(n, name, *to)
		return
	case *int:
		if wants = unstable.Integer; n.kind == wants {
			i, err := strconv.Atoi(strings.ReplaceAll(n.text, "_", ""))
			if err != nil {
				f.wrong = append(f.wrong, &Error{Line: n.line, Msg: fmt.Sprintf("%s cannot be %s", name, n.text)})
			}
			*to = i
			return
		}
	case *map[string]string:
		if wants = unstable.Table; n.isTable() {
			*to = map[string]string{}
			for _, b := range n.below {
				var text string
				f.take(b, name+"."+b.name, &text)
				(*to)[b.name] = text
			}
			return
		}
	case **node:
		*to = n
		return
	case table:
		if wants = unstable.Table; n.isTable() {
			f.fill(n, name, to())
			return
		}
	case each:
		if wants = unstable.ArrayTable; n.isArray() && !slices.ContainsFunc(n.below, func(b *node) bool { return !b.isTable() }) {
			for _, b := range n.below {
				f.fill(b, name, to())
			}
			return
		}
	}
	f.wrong = append(f.wrong, &Error{Line: n.line, Msg: fmt.Sprintf("%s cannot be %s, only %s", name, kinds[n.kind], kinds[wants])})
}
