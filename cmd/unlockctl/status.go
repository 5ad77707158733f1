package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"unlock/cmd/unlockctl/internal/plot"
	"unlock/internal/status"
)

type statusCmd struct {
	File string `default:"${status}" placeholder:"FILE" help:"What the boot left (${status})."`
	JSON bool   `help:"Print JSON."`
}

// volumeNow is a volume of the last boot, and what has become of it.
type volumeNow struct {
	status.Volume
	Open    bool   `json:"open"`
	Mounted string `json:"mounted,omitempty"` // where it is mounted now
}

type statusNow struct {
	*status.Boot
	Volumes []volumeNow `json:"volumes"`
}

// Run tells; exit status 1 if the boot failed or what it opened is open no more.
func (c *statusCmd) Run(con console) error {
	b, err := readStatus(c.File)
	if err != nil {
		return err
	}
	now := statusNow{Boot: b, Volumes: []volumeNow{}}
	mounts, err := mounted("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	lost := b.Result == status.ResultFailed
	for _, v := range b.Volumes {
		n := volumeNow{Volume: v}
		if v.Mapping != "" {
			_, err := os.Stat(v.Mapping)
			n.Open, n.Mounted = err == nil, mounts[v.Mapping]
			lost = lost || !n.Open
		}
		now.Volumes = append(now.Volumes, n)
	}
	if c.JSON {
		err = con.json(now)
	} else {
		err = con.status(now)
	}
	if err == nil && lost {
		err = errFound
	}
	return err
}

func readStatus(file string) (*status.Boot, error) {
	b, err := status.Read(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, usage(err.Error(), "unlock did not run in this boot: see whether the initramfs holds it with unlockctl doctor")
	}
	return b, err
}

func (c console) status(s statusNow) error {
	fmt.Fprintf(c.out, "boot of %s: %s in %.3f s, unlock %s, %.1f MB of memory\n", s.Started.Format(time.RFC3339), c.colour(s.Result),
		time.Duration(s.Duration).Seconds(), s.Version, float64(s.PeakRSS)/1e6)
	if s.Error != "" {
		fmt.Fprintf(c.out, "%s\nhint: %s\n", s.Error, s.Hint)
	}
	t := tabwriter.NewWriter(c.out, 0, 0, 2, ' ', 0)
	if len(s.Volumes) > 0 {
		fmt.Fprintln(t, "VOLUME\tACTION\tNOW\tMOUNTED\tDEVICES")
	}
	for _, v := range s.Volumes {
		now := "closed"
		if v.Open {
			now = "open"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", v.Name, v.Action, now, dash(v.Mounted), strings.Join(v.Devices, " "))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, v := range s.Volumes {
		if v.Error != "" {
			fmt.Fprintf(c.out, "%s: %s\n", v.Name, v.Error)
		}
	}
	for _, call := range s.Calls {
		fmt.Fprintf(c.out, "%s %s: request %s %s\n", call.Service, call.Operation, call.RequestID, call.KeyARN)
	}
	return nil
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// colour paints what is good or bad, on a terminal.
func (c console) colour(word string) string {
	colours := map[string]string{"done": "32", "ok": "32", "failed": "31", "FAIL": "31", "warn": "33"}
	if n := colours[word]; n != "" && terminal(c.out) && os.Getenv("NO_COLOR") == "" {
		return "\x1b[" + n + "m" + word + "\x1b[0m"
	}
	return word
}

// mounted returns where each device is mounted first (proc(5), mountinfo).
func mounted(file string) (map[string]string, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	found := map[string]string{}
	for line := range strings.Lines(string(data)) {
		before, after, _ := strings.Cut(line, " - ")
		left, right := strings.Fields(before), strings.Fields(after)
		if len(left) > 4 && len(right) > 1 && found[right[1]] == "" {
			found[right[1]] = left[4]
		}
	}
	return found, nil
}

type plotCmd struct {
	File   string `default:"${status}" placeholder:"FILE" help:"What the boot left (${status})."`
	Text   bool   `help:"Draw with characters."`
	Output string `short:"o" placeholder:"FILE" help:"SVG file to write; by default standard output."`
}

// Run draws.
func (c *plotCmd) Run(con console) error {
	b, err := readStatus(c.File)
	if err != nil {
		return err
	}
	text := b.Timeline(40)
	if !c.Text {
		text = string(plot.SVG(b))
	}
	if c.Output == "" {
		_, err := fmt.Fprint(con.out, text)
		return err
	}
	return os.WriteFile(c.Output, []byte(text), 0o644)
}
