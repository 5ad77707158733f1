package config

import (
	"fmt"
	"strings"
)

const cmdlineName = "kernel command line"

// Settings splits a kernel command line into NAME=VALUE settings as the kernel
// does: at blanks, but not between double quotes.
func Settings(cmdline string) []string {
	quoted := false
	return strings.FieldsFunc(strings.TrimSpace(cmdline), func(r rune) bool {
		if r == '"' {
			quoted = !quoted
		}
		return !quoted && (r == ' ' || r == '\t' || r == '\n')
	})
}

// Setting returns the value of the last setting of that name on a kernel command
// line, without quotes, and whether there is one.
func Setting(cmdline, name string) (value string, ok bool) {
	for _, s := range Settings(cmdline) {
		n, v, _ := strings.Cut(s, "=")
		if n == name {
			value, ok = strings.Trim(v, `"`), true
		}
	}
	return value, ok
}

// applyCmdline takes rd.unlock, rd.unlock.debug and rd.unlock.timeout, and
// refuses to format the device that root= names.
func (c *Config) applyCmdline(cmdline string) error {
	fail := func(hint, format string, args ...any) error {
		return &Error{File: cmdlineName, Msg: fmt.Sprintf(format, args...), Hint: hint}
	}
	for _, s := range Settings(cmdline) {
		name, value, valued := strings.Cut(s, "=")
		if name != "rd.unlock" && !strings.HasPrefix(name, "rd.unlock.") {
			continue
		}
		switch value = strings.Trim(value, `"`); name {
		case "rd.unlock", "rd.unlock.debug":
			on := !valued || value == "1"
			if !on && value != "0" {
				return fail("write 0 or 1", "%s=%s is neither on nor off", name, value)
			}
			if name == "rd.unlock" {
				c.Skip = !on
			} else {
				c.Debug = on
			}
		case "rd.unlock.timeout":
			d, err := parseTimeout(value)
			if err != nil {
				return fail("", "%s: %v", name, err)
			}
			c.Timeout = d
		default:
			return fail("known are rd.unlock=0, rd.unlock.debug and rd.unlock.timeout=5m; keys and devices are set in "+c.File+" only",
				"unknown setting %q", name)
		}
	}
	root, ok := Setting(cmdline, "root")
	if !ok {
		return nil
	}
	for _, v := range c.Volumes {
		if v.Format != FormatNever && (root == "/dev/mapper/"+v.Name || root == v.Device.String()) {
			return &Error{File: c.File, Line: v.Line,
				Msg:  fmt.Sprintf("volume %q is the root device (root=%s) and must not be formatted", v.Name, root),
				Hint: `set format = "never": a root file system is made by whoever builds the image`}
		}
	}
	return nil
}
