package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	"unlock/internal/boot"
	"unlock/internal/config"
	"unlock/internal/fsys"
	"unlock/internal/hint"
	"unlock/internal/needs"
)

// printNeeds checks the configuration as a boot does and writes to w what an
// initramfs must contain, one per line: "file PATH", "program PATH", "module NAME"
// for kernel modules and "driver NAME" for those that a kernel may lack; nothing,
// if the file is as the package installed it. It reports a mistake on standard
// error: the kernel log is the host's.
func printNeeds(w io.Writer, file string) boot.Outcome {
	lines, err := listNeeds(file)
	if err == nil {
		_, err = w.Write(lines)
	}
	standardError.Failure(err)
	return boot.OutcomeOf(err)
}

func listNeeds(file string) ([]byte, error) {
	if unedited, err := config.Unedited(file); err != nil || unedited {
		return nil, err
	}
	cfg, err := config.Load(file, "") // the command line of the host is not the image's
	if err != nil {
		return nil, err
	}
	list := needs.Of(cfg)
	var b bytes.Buffer
	for _, f := range append([]string{file}, list.Files...) {
		if _, err := os.Stat(f); err != nil {
			return nil, &config.Error{File: file, Msg: fmt.Sprintf("it names %s: %v", f, errors.Unwrap(err)), Hint: "put the file there"}
		}
		fmt.Fprintf(&b, "file %s\n", f)
	}
	for _, p := range list.Programs {
		found := fsys.Find(p.Name)
		if found == "" {
			return nil, &config.Error{File: file, Line: p.Volume.Line, Hint: "install it",
				Msg: fmt.Sprintf("volume %q needs %s to make %s, which is not on this system", p.Volume.Name, p.Name, p.Volume.Filesystem)}
		}
		fmt.Fprintf(&b, "program %s\n", found)
		if _, err := os.Stat(mke2fsConf); err == nil && p.Name == "mke2fs" {
			fmt.Fprintf(&b, "file %s\n", mke2fsConf)
		}
	}
	for _, name := range list.Checkers {
		if found := fsys.Find(name); found != "" {
			fmt.Fprintf(&b, "program %s\n", found)
		}
	}
	for i := range cfg.Volumes {
		v := &cfg.Volumes[i]
		if _, _, err := fsys.Owner("/", v.Owner); err != nil {
			return nil, &config.Error{File: file, Line: v.Line, Hint: hint.Of(err), Msg: fmt.Sprintf("owner of volume %q: %v", v.Name, err)}
		}
		if v.Mount != "" {
			fmt.Fprintf(&b, "directory %s\n", v.Mount)
		}
		for _, bind := range v.Binds {
			fmt.Fprintf(&b, "directory %s\n", bind.Path)
		}
	}
	if cfg.Shell {
		lines, err := shadowNeeds(file)
		if err != nil {
			return nil, err
		}
		b.WriteString(lines)
	}
	for _, m := range list.Modules {
		fmt.Fprintf(&b, "module %s\n", m)
	}
	for _, m := range append(list.Hardware, list.Optional...) {
		fmt.Fprintf(&b, "driver %s\n", m)
	}
	return b.Bytes(), nil
}

// mke2fsConf holds the distribution's defaults of mke2fs.
const mke2fsConf = "/etc/mke2fs.conf"
