package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"unlock/internal/block"
	"unlock/internal/config"
	"unlock/internal/dm"
	"unlock/internal/keys"
	"unlock/internal/keys/source"
	"unlock/internal/luks"
	"unlock/internal/plan"
	"unlock/internal/secret"
	"unlock/internal/status"
	"unlock/internal/unlock"
)

type recoverCmd struct {
	awsFlags
	keyFlags
	Device  []string `arg:"" optional:"" placeholder:"DEVICE" help:"LUKS volume; of a stripe, all its disks; by default those of --volume."`
	Name    string   `placeholder:"NAME" help:"Map it as /dev/mapper/NAME; by default as --volume says, else recovered."`
	Sealed  string   `placeholder:"PLACE" help:"Open with the passphrase that is sealed there: ${places}."`
	KeyFile string   `placeholder:"FILE" help:"Open with the passphrase in this file, - for standard input."`
	Ask     bool     `help:"Ask for a passphrase or recovery key."`
	Test    bool     `help:"Only tell whether the key opens it."`
}

// Run opens a volume, with the data key in its header unless told otherwise. It
// never formats and never changes a header but to mend a damaged copy.
func (c *recoverCmd) Run(ctx context.Context, con console) error {
	if count(c.Sealed != "", c.KeyFile != "", c.Ask) > 1 {
		return usage("--sealed, --key-file and --ask exclude each other", "")
	}
	if err := c.defaults(); err != nil {
		return err
	}
	found, err := c.candidates()
	if err != nil {
		return err
	}
	passphrase, err := c.passphrase(ctx, con, found[0].LUKS)
	if err != nil {
		return err
	}
	defer passphrase.Wipe()
	if c.Test {
		err = c.test(ctx, con, found, passphrase)
	} else {
		err = c.open(ctx, con, found, passphrase)
	}
	if c.KeyFile != "" || c.Ask {
		return wrongKey(err, passphrase)
	}
	return err
}

// defaults takes disks and the mapping's name from the volume of the configuration.
func (c *recoverCmd) defaults() error {
	if c.Volume == "" {
		if len(c.Device) == 0 {
			return usage("no DEVICE", "name the volume's disks, or the volume in the configuration with --volume")
		}
		if c.Name == "" {
			c.Name = "recovered"
		}
		return nil
	}
	if c.Name == "" {
		c.Name = c.Volume
	}
	if len(c.Device) > 0 {
		return nil
	}
	cfg, err := config.Load(c.Config, "")
	if err != nil {
		return err
	}
	i := slices.IndexFunc(cfg.Volumes, func(v config.Volume) bool { return v.Name == c.Volume })
	if i < 0 {
		return usage(fmt.Sprintf("%s has no volume %q", c.Config, c.Volume), "")
	}
	v := &cfg.Volumes[i]
	found, err := present(cfg)
	if err != nil {
		return err
	}
	members := plan.Select(v, found)
	switch {
	case len(members) == 0:
		return usage(fmt.Sprintf("volume %q: no device %s is here", v.Name, v.Device), "name its disks; lsblk -o NAME,MODEL,SERIAL,UUID,PARTUUID shows what is there")
	case v.Layout == config.LayoutSeparate && len(members) > 1:
		return usage(fmt.Sprintf("volume %q is of separate disks", v.Name), "name one of them")
	}
	for _, m := range members {
		c.Device = append(c.Device, m.Disk.Path)
	}
	return nil
}

// candidates reads what is on the devices.
func (c *recoverCmd) candidates() ([]*plan.Candidate, error) {
	finder := &block.Finder{}
	disks, err := finder.List()
	if err != nil {
		return nil, err
	}
	var found []*plan.Candidate
	for _, name := range c.Device {
		path, err := filepath.EvalSymlinks(name)
		if err != nil {
			return nil, err
		}
		i := slices.IndexFunc(disks, func(d block.Disk) bool { return d.Path == path })
		var d block.Disk
		switch {
		case i >= 0:
			d = disks[i]
		case c.Test:
			if d, err = imageFile(path); err != nil {
				return nil, err
			}
		default:
			return nil, usage(name+" is not a block device", "make it one: losetup --find --show "+name)
		}
		candidate := unlock.Inspect(luks.Limits{}, d)
		if candidate.Err != nil {
			return nil, fmt.Errorf("%s: %w", name, candidate.Err)
		}
		if candidate.LUKS == nil {
			return nil, fmt.Errorf("%s is no LUKS volume, but %s", name, candidate.Content.What)
		}
		found = append(found, candidate)
	}
	return found, nil
}

// imageFile makes a file a disk, to look into.
func imageFile(path string) (block.Disk, error) {
	f, err := os.Open(path)
	if err != nil {
		return block.Disk{}, err
	}
	defer f.Close()
	size, err := f.Seek(0, io.SeekEnd)
	return block.Disk{Name: filepath.Base(path), Path: path, Size: size, SectorSize: 512}, err
}

// passphrase gets it from where the flags say. The caller wipes it.
func (c *recoverCmd) passphrase(ctx context.Context, con console, l *plan.LUKS) (*secret.Bytes, error) {
	if c.KeyFile != "" || c.Ask {
		return con.readSecret(ctx, c.KeyFile, "Passphrase or recovery key:")
	}
	k, cfg, err := c.key(c.Sealed)
	if err != nil {
		return nil, err
	}
	header := k.Source.Kind == source.Header
	if header && l.KMS == nil {
		return nil, usage(c.Device[0]+" has no data key in its header", "say with --sealed, --key-file or --ask what opens it")
	}
	set, claimed := l.UUID, ""
	if l.Set != nil {
		set = l.Set.UUID
	}
	if l.KMS != nil {
		claimed = l.KMS.Key
	}
	a, err := c.account(ctx, cfg)
	if err != nil {
		return nil, err
	}
	defer a.Close()
	p, err := c.pinned(ctx, con, a, k, set, claimed)
	if err != nil {
		return nil, err
	}
	if !header {
		return p.sealed(ctx, con)
	}
	done := con.working("asking KMS to decrypt")
	defer done()
	return p.passphrase(ctx, con, l.KMS.Ciphertext)
}

func (c *recoverCmd) test(ctx context.Context, con console, found []*plan.Candidate, passphrase *secret.Bytes) error {
	for i, candidate := range found {
		done := con.working("opening " + c.Device[i])
		p, err := candidate.LUKS.Header.Open(ctx, passphrase)
		done()
		if err != nil {
			return fmt.Errorf("opening %s: %w", c.Device[i], err)
		}
		p.Wipe()
		fmt.Fprintf(con.out, "%s: the key opens it\n", c.Device[i])
	}
	return nil
}

// open maps the volume as a boot would. The devices were named by hand: that they
// are all of one volume is for the plan to refuse.
func (c *recoverCmd) open(ctx context.Context, con console, found []*plan.Candidate, passphrase *secret.Bytes) error {
	for _, candidate := range found {
		candidate.Disk.Kind, candidate.Disk.Parent = block.KindInstanceStore, ""
	}
	v := config.Volume{Name: c.Name, Required: true, Device: config.Selector{Kind: config.SelectInstanceStore}, Key: config.Key{Source: source.MustParse("file:/given")}}
	active := map[string]string{}
	if d, ok, err := dm.Lookup(c.Name); err != nil {
		return err
	} else if ok {
		active[c.Name] = d.UUID
	}
	p := plan.Make(plan.Situation{Config: &config.Config{Volumes: []config.Volume{v}}, Candidates: found, Active: active, Shares: true})
	var errs []error
	for _, r := range p.Refusals {
		errs = append(errs, r)
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	given := func(context.Context, keys.Want) (keys.Got, error) {
		return keys.Got{Passphrase: passphrase.Clone()}, nil
	}
	apply := unlock.Apply{Keys: given, Rec: status.NewRecorder(), Log: con.note, Kernel: unlock.Running{}}
	for _, r := range apply.Run(ctx, p) {
		if r.Err != nil {
			return r.Err
		}
		fmt.Fprintln(con.out, r.Device.Path())
	}
	return nil
}
