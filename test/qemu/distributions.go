package main

import (
	"context"

	"unlock/test/distro"
)

// distributions are real ones, with images built by their own generators.
func distributions() []scenario {
	var all []scenario
	for _, d := range distro.Scenarios {
		all = append(all, scenario{name: d.Name, instead: func(ctx context.Context, l *lab) error {
			r, err := distro.Run(ctx, d)
			l.notes, l.console, l.consoles = []string{r.Summary}, r.Console, r.Console
			return err
		}})
	}
	return all
}
