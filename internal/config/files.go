package config

import (
	"cmp"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"unlock/internal/fsys/fsopt"
	"unlock/internal/hint"
)

// files settles what becomes of the file system: how it is made, mounted, whose it is,
// and which directories lie on it.
func (p *parser) files(v *Volume, t *volumeTOML, at string, fail func(setting, hint, format string, args ...any)) {
	mountable := slices.Contains(fsopt.MountTypes, v.Filesystem)
	if t.MkfsOptions != "" {
		var err error
		switch {
		case v.Filesystem == "":
			fail("mkfs_options", "", "mkfs_options without filesystem")
		case v.Format == FormatNever:
			fail("mkfs_options", "", "mkfs_options is for what unlock makes, and format is \"never\"")
		case fsopt.Tool(v.Filesystem) == "": // a mistake that is known
		default:
			if v.MakeOptions, err = fsopt.Making(v.Filesystem, t.MkfsOptions); err != nil {
				fail("mkfs_options", hint.Of(err), "%v", err)
			}
		}
	}
	if v.Mount != "" && mountable {
		if err := fsopt.CheckMount(v.MountOptions, fsopt.Use{Type: v.Filesystem, Made: v.Format != FormatNever,
			Make: v.MakeOptions, MayFail: !v.Required || v.MayBeAbsent}); err != nil {
			fail("mount_options", hint.Of(err), "%v", err)
		}
	}
	for _, set := range [][2]string{{"owner", t.Owner}, {"mode", t.Mode}} {
		setting := set[0]
		switch {
		case set[1] == "":
		case v.Mount == "":
			fail(setting, "set mount", "%s is for the root of a file system, and volume %q has no mount point", setting, v.Name)
		case v.Format == FormatNever:
			fail(setting, "remove it, and change what is there by hand", "%s is for what unlock makes, and format is \"never\"", setting)
		}
	}
	if v.Owner = t.Owner; v.Owner != "" && !validOwner(v.Owner) {
		fail("owner", "write USER, USER:GROUP or :GROUP, by name or number", "owner %q is none", v.Owner)
	}
	if t.Mode != "" {
		mode, err := strconv.ParseUint(t.Mode, 8, 32)
		if err != nil || mode == 0 || mode > 0o7777 || len(t.Mode) < 3 {
			fail("mode", `write it as "0750"`, "mode %q is not an octal number of permissions", t.Mode)
		}
		v.Mode = uint32(mode)
	}
	for i := range t.Bind {
		v.Binds = append(v.Binds, p.bind(v, &t.Bind[i], fmt.Sprintf("%s.bind[%d]", at, i), at))
	}
	if fsopt.ReadOnly(v.MountOptions) && (v.Owner != "" || v.Mode != 0 || len(v.Binds) > 0) {
		fail("mount_options", "remove ro, or owner, mode and bind", "what is mounted ro gets no owner and no mode, and no directory can be made there")
	}
}

// validOwner reports whether a text is USER, USER:GROUP or :GROUP, by names as
// useradd(8) takes them, or numbers.
func validOwner(text string) bool {
	user, group, both := strings.Cut(text, ":")
	return (validName(user) || user == "" && both) && (validName(group) || !both)
}

func validName(name string) bool {
	if name == "" || len(name) > 32 {
		return false
	}
	if name[0] >= '0' && name[0] <= '9' {
		n, err := strconv.ParseUint(name, 10, 32)
		return err == nil && n < 1<<32-1
	}
	return name[0] != '-' && strings.Trim(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-") == ""
}

// bind reads one directory of a volume.
func (p *parser) bind(v *Volume, t *bindTOML, at, volume string) Bind {
	b := Bind{Line: cmp.Or(p.lines[at], p.lines[volume+".bind"], p.lines[volume]), Path: t.Path, From: cmp.Or(t.From, path.Base(t.Path)), Seed: t.Seed}
	fail := func(setting, hint, format string, args ...any) {
		p.mistake(hint, fmt.Sprintf(format, args...), at+"."+setting, at, volume+".bind", volume)
	}
	switch {
	case t.Path == "":
		fail("path", `path is a directory of the system, such as "/var/lib/containerd"`, "a bind of volume %q has no path", v.Name)
	case !path.IsAbs(t.Path) || path.Clean(t.Path) != t.Path || t.Path == "/":
		fail("path", "", "path %q is not an absolute path below /", t.Path)
	case slices.ContainsFunc([]string{"/dev", "/proc", "/sys", "/run"}, func(dir string) bool { return within(t.Path, dir) }):
		fail("path", "", "path %q would not be seen: the system mounts its own there", t.Path)
	}
	first, _, _ := strings.Cut(b.From, "/")
	if t.From != "" && (path.IsAbs(b.From) || path.Clean(b.From) != b.From || first == ".." || first == "." || first == "lost+found") || strings.HasPrefix(path.Base(b.From), Unfinished) {
		fail("from", "from is a directory on the volume, relative to its root", "from %q is none that a volume can have", b.From)
	}
	if v.Mount == "" {
		fail("path", "set mount", "bind is for what is mounted, and volume %q has no mount point", v.Name)
	} else if within(t.Path, v.Mount) {
		fail("path", "what is below mount lies on the volume anyway", "path %q is not outside of the volume's mount point %s", t.Path, v.Mount)
	}
	return b
}

// Unfinished begins the names of directories on a volume that are being made.
const Unfinished = ".unlock-new-"

// within reports whether a path is a directory or below it.
func within(name, dir string) bool { return name == dir || strings.HasPrefix(name, dir+"/") }

// apart looks for what the directories of the last volume would cover, or share, with
// those before it and among themselves.
func (p *parser) apart(volumes []Volume, at string) {
	last := &volumes[len(volumes)-1]
	for i := range volumes {
		v := &volumes[i]
		for n, b := range last.Binds {
			where := fmt.Sprintf("%s.bind[%d]", at, n)
			if v != last && v.Mount != "" && within(v.Mount, b.Path) {
				p.mistake("bind what is below it", fmt.Sprintf("path %q would cover the mount point of the volume in line %d", b.Path, v.Line), where+".path", where, at)
			}
			for m, o := range v.Binds {
				if v == last && m >= n {
					break
				}
				if o.Path == b.Path {
					p.mistake("", fmt.Sprintf("path %q is bound in line %d already", b.Path, o.Line), where+".path", where, at)
				}
				if v == last && (within(b.From, o.From) || within(o.From, b.From)) {
					p.mistake("set from to another directory", fmt.Sprintf("%q and %q lie in one directory of the volume, %q", o.Path, b.Path, b.From), where+".from", where+".path", where, at)
				}
			}
		}
		if v != last && last.Mount != "" {
			for _, o := range v.Binds {
				if within(last.Mount, o.Path) {
					p.mistake("bind what is below it", fmt.Sprintf("mount point %s would be covered by path %q in line %d", last.Mount, o.Path, o.Line), at+".mount")
				}
			}
		}
	}
}
