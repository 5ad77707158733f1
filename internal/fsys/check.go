package fsys

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"unlock/internal/hint"
)

// Checking is how file systems are looked over before they are mounted, as the kernel
// command line has it for systemd-fsck(8). The zero value is as systemd does it by default.
type Checking struct {
	Skip   bool   // fsck.mode=skip
	Force  bool   // fsck.mode=force: also what says that it is clean
	Repair string // fsck.repair=: "yes", "no", else what is safe
	// Alive, if not nil, is called as it goes on, often.
	Alive func()
}

// Results of Check; others begin with NotChecked.
const (
	Clean      = "clean"
	Recovered  = "journal recovered"
	Repaired   = "repaired"
	NotChecked = "not checked"
)

// checker is the program that looks ext3 and ext4 over. XFS and btrfs look after
// themselves: their fsck does nothing at boot.
const checker = "e2fsck"

// Checker returns the program that looks a type over; "": none has to.
func Checker(fstype string) string {
	if fstype == "ext4" || fstype == "ext3" {
		return checker
	}
	return ""
}

// Bits of the exit status of fsck(8).
const (
	fsckRepaired = 1
	fsckReboot   = 2
	fsckLeft     = 4 // errors
)

// ErrDamaged: there are errors that are not repaired without somebody's word.
var ErrDamaged = hint.New("its file system has errors that are not repaired without being asked for",
	"boot once with fsck.repair=yes on the kernel command line, which may lose files, or with fsck.mode=skip to save what can be read")

// Check looks a file system over that is not mounted, and repairs what is safe to repair.
// What could not be looked over is mounted nonetheless, as by systemd; the result says so.
func Check(ctx context.Context, device, fstype string, c Checking) (result string, err error) {
	if Checker(fstype) == "" {
		return "", nil
	}
	if c.Skip {
		return NotChecked + ": fsck.mode=skip", nil
	}
	tool := Find(checker)
	if tool == "" {
		return fmt.Sprintf("%s: %s: %v", NotChecked, checker, ErrNoTool), nil
	}
	r, w, err := os.Pipe()
	if err != nil {
		return "", fmt.Errorf("checking %s: %w", device, err)
	}
	defer r.Close()
	mode := "-p"
	switch c.Repair {
	case "yes":
		mode = "-y"
	case "no":
		mode = "-n"
	}
	args := []string{mode, "-C", "3"} // its progress goes there
	if c.Force {
		args = append(args, "-f")
	}
	cmd := exec.CommandContext(ctx, tool, append(args, device)...)
	cmd.Env = []string{"PATH=" + searchPath}
	cmd.ExtraFiles = []*os.File{w}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err = cmd.Start()
	w.Close()
	if err != nil {
		return "", fmt.Errorf("checking %s: %w", device, err)
	}
	for s := bufio.NewScanner(r); s.Scan(); {
		if c.Alive != nil {
			c.Alive()
		}
	}
	err = cmd.Wait()
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return "", hint.With(fmt.Errorf("checking %s: it did not go on: %w", device, context.Cause(ctx)), hint.DiskFails)
	case err == nil && strings.Contains(out.String(), "recovering journal"):
		return Recovered, nil
	case err == nil:
		return Clean, nil
	case !errors.As(err, &exit):
		return "", fmt.Errorf("checking %s: %w", device, err)
	case exit.ExitCode() == fsckRepaired:
		return Repaired, nil
	case exit.ExitCode() > 0 && exit.ExitCode()&(fsckReboot|fsckLeft) != 0:
		return "", fmt.Errorf("checking %s: %w: %s", device, ErrDamaged, lastLine(out.Bytes()))
	}
	return fmt.Sprintf("%s: %v: %s", NotChecked, err, lastLine(out.Bytes())), nil
}
