package main

import (
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strings"

	"unlock/cmd/unlockctl/internal/measure"
)

type measureCmd struct {
	Image []string `arg:"" optional:"" name:"image" help:"The programs that firmware starts, in their order, such as systemd-boot and a unified kernel image; or one disk image, EFI system partition, or the directory at which that is mounted."`
	JSON  bool     `name:"json" help:"Print JSON, for unlockctl policy --measured."`
	PK    string   `name:"pk" placeholder:"FILE" help:"Secure Boot is on, with this platform key: EFI signature lists."`
	KEK   string   `name:"kek" placeholder:"FILE" help:"Its key exchange keys."`
	DB    string   `name:"db" placeholder:"FILE" help:"Its database of what may be started."`
	DBX   string   `name:"dbx" placeholder:"FILE" help:"Its database of what may not; may be left out where there is none."`
	This  bool     `help:"Read what this machine measured in this boot, and say which event differs from what is predicted, if an image is given."`
}

// Run predicts the PCRs of a boot.
func (c *measureCmd) Run(con console) error {
	vars, err := c.variables()
	if err != nil {
		return err
	}
	if len(c.Image) == 0 && !c.This {
		return usage("no image is given", "name a unified kernel image, a disk image or an EFI system partition, or --this")
	}
	var p *measure.Prediction
	if len(c.Image) > 0 {
		images, err := measure.Open(c.Image...)
		if err == nil {
			p, err = measure.Predict(images, vars)
		}
		if errors.Is(err, measure.ErrUnpredictable) {
			return usage(err.Error(), "attestation takes a unified kernel image whose systemd-stub says its version")
		}
		if err != nil {
			return err
		}
	}
	if c.This {
		return c.this(con, p)
	}
	if c.JSON {
		return con.json(p)
	}
	for _, i := range p.Images {
		fmt.Fprintf(con.out, "%s: %s\n    Authenticode %s\n", i.File, i.What, i.Authenticode)
	}
	for _, n := range measure.Predicted() {
		value := p.PCRs[fmt.Sprint(n)]
		fmt.Fprintf(con.out, "PCR %-2d  %s  %s\n", n, value, meaning(n, p.SecureBoot, strings.Trim(value, "0") == ""))
	}
	return nil
}

// meaning says what a PCR shows.
func meaning(pcr int, secureBoot, zero bool) string {
	switch pcr {
	case 2:
		return "no driver for UEFI is started before the image, from the ESP, a variable or a card"
	case 4:
		return "kernel, initramfs, configuration, command line"
	case 7:
		if !secureBoot {
			return "Secure Boot is off: the same for every machine, proves nothing"
		}
		return "Secure Boot's keys"
	case 11:
		return "sections of the image; systemd adds to it later"
	case 12:
		if !zero {
			return "the built-in command line, which this systemd-boot passes on; no other, no credentials or add-ons from outside"
		}
		return "no command line, credentials or add-ons from outside"
	}
	return "no system extensions, and no key was released in this boot"
}

// variables reads those of Secure Boot.
func (c *measureCmd) variables() (*measure.Variables, error) {
	if c.PK == "" && c.KEK == "" && c.DB == "" && c.DBX == "" {
		return nil, nil
	}
	if c.PK == "" || c.KEK == "" || c.DB == "" {
		return nil, usage("Secure Boot has --pk, --kek and --db, and not all are given", "--dbx alone may be left out")
	}
	v := &measure.Variables{}
	for _, row := range []struct {
		file string
		to   *[]byte
	}{{c.PK, &v.PK}, {c.KEK, &v.KEK}, {c.DB, &v.DB}, {c.DBX, &v.DBX}} {
		if row.file == "" {
			continue
		}
		var err error
		if *row.to, err = os.ReadFile(row.file); err != nil {
			return nil, err
		}
	}
	return v, nil
}

// this compares with what this machine measured.
func (c *measureCmd) this(con console, p *measure.Prediction) error {
	m, err := measure.This("/")
	if err != nil {
		return fmt.Errorf("%w: is there a TPM, and securityfs mounted?", err)
	}
	if c.JSON {
		out := &measure.Prediction{PCRs: map[string]string{}, SecureBoot: m.SecureBoot(), Images: []measure.Loaded{}}
		for n, value := range m.PCRs {
			out.PCRs[fmt.Sprint(n)] = hex.EncodeToString(value)
		}
		return con.json(out)
	}
	for _, n := range measure.Predicted() {
		note := ""
		if m.Later(n) {
			note = "  extended by what runs after the loaders"
		}
		fmt.Fprintf(con.out, "PCR %-2d  %x%s\n", n, m.PCRs[n], note)
	}
	if p == nil {
		return nil
	}
	different := p.Compare(m)
	for _, d := range different {
		fmt.Fprintf(con.out, "PCR %d differs at event %d: predicted %s, measured %s\n", d.PCR, d.Number, shown(d.Want), shown(d.Got))
	}
	if different != nil {
		return errors.New("this boot is not the one predicted")
	}
	fmt.Fprintf(con.out, "this boot is the one predicted: %s\n", strings.Join(c.Image, ", "))
	return nil
}

func shown(e *measure.Event) string {
	if e == nil {
		return "nothing"
	}
	return fmt.Sprintf("%s (%x…)", e.What, e.Digest[:8])
}
