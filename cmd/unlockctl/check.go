package main

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"unlock/cmd/unlockctl/internal/manual"
	"unlock/internal/config"
	"unlock/internal/hint"
	"unlock/internal/hint/plain"
)

type checkCmd struct {
	File   string `arg:"" optional:"" default:"${config}" placeholder:"FILE" help:"Configuration (${config})."`
	Schema bool   `help:"Print the JSON schema of configurations, for editors."`
	JSON   bool   `help:"Print JSON."`
}

// mistake is one of a configuration.
type mistake struct {
	Line    int    `json:"line,omitempty"`
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"`
}

// Run looks at the configuration alone, wherever that is: neither at the machine nor at
// AWS. All mistakes are told; exit status 2 if there are any.
func (c *checkCmd) Run(con console) error {
	if c.Schema {
		return con.json(manual.Schema())
	}
	data, err := os.ReadFile(c.File)
	if err != nil {
		return hint.With(fmt.Errorf("reading the configuration: %w", err), "unlock.toml(5) says what belongs into it")
	}
	found := []mistake{}
	cfg, mistakes := config.Review(c.File, data)
	for _, e := range mistakes {
		found = append(found, mistake{e.Line, e.Msg, e.Hint})
	}
	found = append(found, dubious(cfg)...)
	slices.SortStableFunc(found, func(a, b mistake) int { return cmp.Compare(a.Line, b.Line) })
	if c.JSON {
		err = con.json(found)
	} else {
		err = con.mistakes(c.File, found)
	}
	if err == nil && len(found) > 0 {
		err = errMistaken
	}
	return err
}

// errMistaken ends a command whose output has told all, with the status of a wrong
// configuration.
var errMistaken = errors.New("the configuration is wrong")

func (c console) mistakes(file string, found []mistake) error {
	if len(found) == 0 {
		_, err := fmt.Fprintf(c.out, "%s: no mistakes\n", file)
		return err
	}
	for _, m := range found {
		at := file
		if m.Line > 0 {
			at += fmt.Sprintf(":%d", m.Line)
		}
		fmt.Fprintf(c.out, "%s: %s\n", at, plain.Text(m.Message))
		if m.Hint != "" {
			fmt.Fprintf(c.out, "    hint: %s\n", plain.Text(m.Hint))
		}
	}
	return nil
}

// dubious finds what a boot takes, but what cannot be meant.
func dubious(cfg *config.Config) []mistake {
	var found []mistake
	if cfg == nil {
		return nil
	}
	for _, v := range cfg.Volumes {
		if name, ok := strings.CutPrefix(v.Device.Value, "/dev/sd"); ok && v.Device.Kind == config.SelectPath && len(name) > 0 {
			found = append(found, mistake{v.Line, fmt.Sprintf("volume %q: no EC2 instance has a device %s: that is the name of the attachment", v.Name, v.Device), "write ebs:" + v.Device.Value})
		}
	}
	return found
}
