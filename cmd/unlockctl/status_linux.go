package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"unlock/internal/dm"
	"unlock/internal/fsys"
	"unlock/internal/hint/plain"
	"unlock/internal/status"
	"unlock/internal/unlock"
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
	for _, v := range since(b, filepath.Join(filepath.Dir(c.File), opened)) {
		n := volumeNow{Volume: v}
		if v.Mapping != "" {
			_, err := os.Stat(v.Mapping)
			n.Open, n.Mounted = err == nil, mounts[v.Mapping]
			lost = lost || !n.Open
			if health, _, _, err := dm.Health(v.Name); n.Open && err == nil { // of a mirror, for who may ask
				n.Missing = unlock.Lacking(health)
			}
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

// since returns the volumes of a boot, those that were opened after it as they were then.
func since(b *status.Boot, dir string) []status.Volume {
	volumes := slices.Clone(b.Volumes)
	files, _ := filepath.Glob(filepath.Join(dir, "*.json"))
	for _, file := range files {
		later, err := status.Read(file)
		if err != nil {
			continue // it says nothing
		}
		for _, v := range later.Volumes {
			if i := slices.IndexFunc(volumes, func(o status.Volume) bool { return o.Name == v.Name }); i >= 0 {
				volumes[i] = v
			} else {
				volumes = append(volumes, v)
			}
		}
	}
	return volumes
}

// devicesWidth is about how wide the list of a volume's disks gets, in characters.
const devicesWidth = 56

func (c console) status(s statusNow) error {
	fmt.Fprintf(raw(c.out), "boot of %s: %s in %.3f s, unlock %s, %.1f MB of memory\n", s.Started.Format(time.RFC3339), c.colour(plain.Text(s.Result)),
		time.Duration(s.Duration).Seconds(), plain.Text(s.Version), float64(s.PeakRSS)/1e6)
	if i := s.Instance; i != nil {
		fmt.Fprintf(c.out, "instance %s of account %s in %s, image %s\n", i.ID, i.Account, i.Region, i.Image)
	}
	if a := s.Attested; a != nil {
		fmt.Fprintf(c.out, "attested by %s:\n", plain.Text(a.Module))
		for _, pcr := range []string{"2", "4", "7", "12", "13"} {
			fmt.Fprintf(c.out, "PCR %-2s %s\n", pcr, dash(plain.Text(a.PCRs[pcr])))
		}
	}
	if s.Error != "" {
		fmt.Fprintf(c.out, "%s\nhint: %s\n", plain.Text(s.Error), plain.Text(s.Hint))
	}
	var rows [][]string
	if len(s.Volumes) > 0 {
		rows = append(rows, []string{"VOLUME", "ACTION", "NOW", "MOUNTED", "DEVICES"})
	}
	for _, v := range s.Volumes {
		now := "closed"
		if v.Open {
			now = "open"
		}
		devices := wrapped(v.Devices, devicesWidth)
		rows = append(rows, []string{v.Name, v.Action, now, dash(v.Mounted), devices[0]})
		for _, more := range devices[1:] {
			rows = append(rows, []string{"", "", "", "", more})
		}
	}
	if err := c.table(rows); err != nil {
		return err
	}
	for _, v := range s.Volumes {
		if v.Check != "" && v.Check != fsys.Clean {
			fmt.Fprintf(c.out, "%s: file system: %s\n", v.Name, plain.Text(v.Check))
		}
		if v.Missing > 0 {
			fmt.Fprintf(c.out, "%s: %d disks of its mirror are missing or behind; unlockctl join %s adds one\n", v.Name, v.Missing, v.Name)
		}
		if len(v.Binds) > 0 {
			fmt.Fprintf(c.out, "%s: also on %s\n", v.Name, plain.Text(strings.Join(v.Binds, ", ")))
		}
		if v.Error != "" {
			fmt.Fprintf(c.out, "%s: %s\n", v.Name, plain.Text(v.Error))
		}
	}
	for _, call := range s.Calls {
		tries := ""
		if call.Attempts > 1 {
			tries = fmt.Sprintf(", %d attempts in %.3f s", call.Attempts, time.Duration(call.Duration).Seconds())
		}
		fmt.Fprintf(c.out, "%s %s: request %s%s%s%s\n", call.Service, call.Operation, call.RequestID, with(call.KeyARN), tries, s.served(call.RequestID))
	}
	return nil
}

// served names the volumes whose keys a request brought.
func (s *statusNow) served(request string) string {
	var names []string
	for _, v := range s.Volumes {
		if slices.Contains(v.Calls, request) {
			names = append(names, v.Name)
		}
	}
	if len(names) == 0 {
		return ""
	}
	return ", for " + strings.Join(names, ", ")
}

// with puts a space before what there is.
func with(s string) string {
	if s == "" {
		return ""
	}
	return " " + s
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
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
