package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"unlock/cmd/unlockctl/internal/enrollment"
	"unlock/internal/block"
	"unlock/internal/config"
	"unlock/internal/luks"
	"unlock/internal/plan"
	"unlock/internal/unlock"
)

type listCmd struct {
	Device []string `arg:"" optional:"" placeholder:"DEVICE" help:"LUKS volume; by default those of the configuration."`
	Config string   `default:"${config}" placeholder:"FILE" help:"Configuration (${config})."`
	Volume string   `placeholder:"NAME" help:"Only this volume of the configuration."`
	Name   bool     `help:"Print nothing but the name of the volume of the configuration that DEVICE is a disk of."`
	JSON   bool     `help:"Print JSON."`
}

// listed is a volume of the configuration, or a device that was named.
type listed struct {
	Volume  string                 `json:"volume,omitempty"`
	Key     string                 `json:"key,omitempty"` // the source, as configured
	Devices []enrollment.Inventory `json:"devices"`
	Errors  []string               `json:"errors,omitempty"`
}

// Run says which keys open volumes, as far as headers tell. Exit status 1 if a header
// cannot be read.
func (c *listCmd) Run(con console) error {
	var list []listed
	var err error
	if c.Name {
		return c.name(con)
	}
	if len(c.Device) > 0 {
		if c.Volume != "" {
			return usage("DEVICE and --volume exclude each other", "")
		}
		list, err = c.devices()
	} else {
		list, err = c.configured()
	}
	if err != nil {
		return err
	}
	if c.JSON {
		err = con.json(list)
	} else {
		err = con.list(list)
	}
	for _, l := range list {
		if err == nil && len(l.Errors) > 0 {
			err = errFound
		}
	}
	return err
}

// name is for udev's rules: exit status 1 if there is no such volume.
func (c *listCmd) name(con console) error {
	if len(c.Device) != 1 || c.Volume != "" || c.JSON {
		return usage("--name is for one DEVICE, and excludes --volume and --json", "")
	}
	cfg, err := config.Load(c.Config, "")
	if err != nil {
		return err
	}
	path, err := filepath.EvalSymlinks(c.Device[0])
	if err != nil {
		return err
	}
	found, err := present(cfg)
	if err != nil {
		return err
	}
	for i := range cfg.Volumes {
		v := &cfg.Volumes[i]
		if slices.ContainsFunc(plan.Select(v, found), func(m *plan.Candidate) bool { return m.Disk.Path == path }) {
			_, err := fmt.Fprintln(con.out, v.Name)
			return err
		}
	}
	return errFound
}

func (c *listCmd) devices() ([]listed, error) {
	var list []listed
	for _, name := range c.Device {
		i, err := examine(name)
		if err != nil {
			return nil, err
		}
		list = append(list, listed{Devices: []enrollment.Inventory{i}})
	}
	return list, nil
}

// examine reads the header on a device or in a file.
func examine(path string) (enrollment.Inventory, error) {
	f, err := os.Open(path)
	if err != nil {
		return enrollment.Inventory{}, err
	}
	defer f.Close()
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return enrollment.Inventory{}, fmt.Errorf("finding the size of %s: %w", path, err)
	}
	h, err := luks.Read(f, size, luks.Limits{})
	if err != nil {
		return enrollment.Inventory{}, fmt.Errorf("reading LUKS header of %s: %w", path, err)
	}
	return enrollment.Examine(path, h)
}

// configured looks for the disks of the configuration's volumes as a boot does.
func (c *listCmd) configured() ([]listed, error) {
	cfg, err := config.Load(c.Config, "")
	if err != nil {
		return nil, err
	}
	candidates, err := present(cfg)
	if err != nil {
		return nil, err
	}
	var list []listed
	for i := range cfg.Volumes {
		v := &cfg.Volumes[i]
		if c.Volume != "" && v.Name != c.Volume || v.Device.Kind == config.SelectShare { // which is listed with its whole
			continue
		}
		l := listed{Volume: v.Name, Key: v.Key.Source.String(), Devices: []enrollment.Inventory{}}
		found := plan.Select(v, candidates)
		if len(found) == 0 {
			l.Errors = append(l.Errors, fmt.Sprintf("no device %s", v.Device))
		}
		for _, m := range found {
			if m.LUKS == nil {
				l.Errors = append(l.Errors, notLUKS(m))
				continue
			}
			i, err := enrollment.Examine(m.Disk.Path, m.LUKS.Header)
			if err != nil {
				return nil, err
			}
			l.Devices = append(l.Devices, i)
		}
		list = append(list, l)
	}
	if c.Volume != "" && len(list) == 0 {
		return nil, usage(fmt.Sprintf("%s has no volume %q", c.Config, c.Volume), "")
	}
	return list, nil
}

// present inspects the disks of this machine that a configuration may mean.
func present(cfg *config.Config) ([]*plan.Candidate, error) {
	finder := &block.Finder{}
	disks, err := finder.List()
	if err != nil {
		return nil, err
	}
	var found []*plan.Candidate
	for _, d := range disks {
		if plan.Relevant(cfg, d) {
			found = append(found, unlock.Inspect(luks.Limits{}, d))
		}
	}
	return found, nil
}

func notLUKS(c *plan.Candidate) string {
	switch {
	case errors.Is(c.Err, os.ErrPermission):
		return c.Disk.Path + " cannot be read: run it as root"
	case c.Err != nil:
		return fmt.Sprintf("%s: %v", c.Disk.Path, c.Err)
	case c.Content.Kind == block.Blank:
		return c.Disk.Path + " is blank"
	}
	return c.Disk.Path + " holds " + c.Content.What
}

func (c console) list(list []listed) error {
	for n, l := range list {
		if n > 0 {
			fmt.Fprintln(c.out)
		}
		if l.Volume != "" {
			fmt.Fprintf(c.out, "volume %s, key %s\n", l.Volume, l.Key)
		}
		for _, e := range l.Errors {
			fmt.Fprintln(c.out, e)
		}
		for _, d := range l.Devices {
			if err := c.inventory(d); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c console) inventory(d enrollment.Inventory) error {
	line := fmt.Sprintf("%s: LUKS%d %s", d.Device, d.Version, d.UUID)
	if d.Label != "" {
		line += fmt.Sprintf(" %q", d.Label)
	}
	if s := d.Set; s != nil {
		kind := "separate"
		switch {
		case s.Copies > 0 && s.Striped:
			kind = "striped over mirrors"
		case s.Copies > 0:
			kind = "mirrored"
		case s.Striped:
			kind = "striped"
		}
		if s.Of > 1 {
			line += fmt.Sprintf(", disk %d of %d, %s", s.Disk, s.Of, kind)
		}
		line += ", " + s.State
		if s.Ephemeral {
			line += ", ephemeral"
		}
	}
	fmt.Fprintln(c.out, line)
	rows := [][]string{{"  SLOT", "PRIORITY", "KEY DERIVATION", "WHAT"}}
	for _, k := range d.Keyslots {
		rows = append(rows, []string{fmt.Sprintf("  %d", k.ID), k.Priority, k.KDF, k.What()})
	}
	if err := c.table(rows); err != nil {
		return err
	}
	for _, t := range d.Tokens {
		what := "token %d of type %s has no keyslot\n"
		if t.Type == enrollment.TypePending {
			what = "token %d (%s): a rotation was interrupted, the same command again finishes it\n"
		}
		fmt.Fprintf(c.out, what, t.Token, t.Type)
	}
	for _, n := range d.Notes {
		fmt.Fprintln(c.out, "note:", strings.TrimSuffix(n, "\n"))
	}
	return nil
}
