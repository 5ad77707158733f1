package main

import (
	"fmt"

	"github.com/alecthomas/kong"

	"unlock/cmd/unlockctl/internal/completion"
	"unlock/cmd/unlockctl/internal/manual"
)

type manCmd struct {
	Page string `arg:"" enum:"unlock.8,unlockctl.8,unlock.toml.5,unlock,unlockctl,unlock.toml" help:"unlock.8, unlockctl.8 or unlock.toml.5; the section may be left out."`
}

// Run prints a page for man -l.
func (c *manCmd) Run(con console, k *kong.Kong) error {
	page, _ := manual.Page(c.Page, k.Model)
	_, err := fmt.Fprint(con.out, page)
	return err
}

type completionCmd struct {
	Shell string `arg:"" enum:"bash,zsh,fish" help:"bash, zsh or fish."`
}

// Run prints a script.
func (c *completionCmd) Run(con console, k *kong.Kong) error {
	script, _ := completion.Script(c.Shell, k.Model)
	_, err := fmt.Fprint(con.out, script)
	return err
}
