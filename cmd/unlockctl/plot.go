package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"unlock/cmd/unlockctl/internal/plot"
	"unlock/internal/status"
)

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

func readStatus(file string) (*status.Boot, error) {
	b, err := status.Read(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, usage(err.Error(), "unlock did not run in this boot: see whether the initramfs holds it with unlockctl doctor")
	}
	return b, err
}
