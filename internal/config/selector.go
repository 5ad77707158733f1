package config

import (
	"fmt"
	"path"
	"strconv"
	"strings"
)

// Forms of a device selector, for messages.
const selectorForms = "instance-store, instance-store:N, ebs:/dev/sdf, /dev/…, UUID=…, LABEL=…, PARTUUID=…, serial=…, file:/PATH, share:NAME"

// String returns the selector as it stands in the configuration.
func (s Selector) String() string {
	switch s.Kind {
	case SelectInstanceStore:
		if s.Value == "" {
			return "instance-store"
		}
		return "instance-store:" + s.Value
	case SelectEBS:
		return "ebs:/dev/" + s.Value
	case SelectPath:
		return s.Value
	case SelectUUID:
		return "UUID=" + s.Value
	case SelectLabel:
		return "LABEL=" + s.Value
	case SelectPartUUID:
		return "PARTUUID=" + s.Value
	case SelectSerial:
		return "serial=" + s.Value
	case SelectFile:
		return "file:" + s.Value
	case SelectShare:
		return "share:" + s.Value
	}
	return "invalid selector"
}

// Single reports whether the selector is for no more than one device.
func (s Selector) Single() bool {
	return s.Kind != SelectInstanceStore || s.Value != ""
}

// Unique reports whether the selector can match only one device that is attached: it
// names a place, not what may be copied, nor a number among others.
func (s Selector) Unique() bool {
	switch s.Kind {
	case SelectPath, SelectEBS, SelectSerial, SelectFile:
		return true
	}
	return false
}

func parseSelector(text string) (Selector, error) {
	if text == "instance-store" {
		return Selector{Kind: SelectInstanceStore}, nil
	}
	if strings.HasPrefix(text, "/") {
		if !strings.HasPrefix(text, "/dev/") || path.Clean(text) != text {
			return Selector{}, fmt.Errorf("device %q is not a path below /dev", text)
		}
		if strings.HasPrefix(text, "/dev/disk/") && !strings.HasPrefix(text, "/dev/disk/by-id/nvme-") {
			return Selector{}, fmt.Errorf("device %q is a link of udev's that unlock does not follow: use UUID=, LABEL=, PARTUUID= or serial=", text)
		}
		return Selector{SelectPath, text}, nil
	}
	i := strings.IndexAny(text, ":=")
	if i < 0 {
		return Selector{}, fmt.Errorf("unknown device selector %q", text)
	}
	form, value := text[:i+1], text[i+1:]
	if value == "" {
		return Selector{}, fmt.Errorf("device selector %q names nothing", text)
	}
	switch form {
	case "instance-store:":
		n, err := strconv.ParseUint(value, 10, 8)
		if err != nil || strconv.FormatUint(n, 10) != value {
			return Selector{}, fmt.Errorf("instance-store:%s: not a disk number", value)
		}
		return Selector{SelectInstanceStore, value}, nil
	case "ebs:":
		name := strings.TrimPrefix(value, "/dev/")
		if name == "" || strings.Contains(name, "/") {
			return Selector{}, fmt.Errorf("%s: not an attachment name such as /dev/sdf", text)
		}
		return Selector{SelectEBS, name}, nil
	case "UUID=":
		return Selector{SelectUUID, strings.ToLower(value)}, nil
	case "LABEL=":
		return Selector{SelectLabel, value}, nil
	case "PARTUUID=":
		return Selector{SelectPartUUID, strings.ToLower(value)}, nil
	case "serial=":
		return Selector{SelectSerial, value}, nil
	case "share:":
		if err := checkName(value); err != nil {
			return Selector{}, fmt.Errorf("%s: %w", text, err)
		}
		return Selector{SelectShare, value}, nil
	case "file:":
		if !path.IsAbs(value) || path.Clean(value) != value || value == "/" {
			return Selector{}, fmt.Errorf("%s: not an absolute path", text)
		}
		return Selector{SelectFile, value}, nil
	}
	return Selector{}, fmt.Errorf("unknown device selector %q", text)
}
