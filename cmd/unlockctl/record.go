package main

import (
	"errors"
	"time"

	"unlock/cmd/unlockctl/internal/record"
)

type recordCmd struct {
	File     string `default:"${status}" placeholder:"FILE" help:"What the boot left (${status})."`
	Journal  string `default:"${journal}" placeholder:"SOCKET" help:"Socket of journald (${journal}); an empty one writes no lines."`
	Textfile string `placeholder:"DIR" help:"Also write unlock.prom for the textfile collector of Prometheus' node_exporter, which reads this directory."`
	EMF      string `name:"emf" placeholder:"HOST:PORT" help:"Also send metrics to CloudWatch's agent, which listens at 127.0.0.1:25888 (UDP) if its emf section is configured."`
}

// Run passes on what the boot left, to all who can be reached.
func (c *recordCmd) Run() error {
	b, err := readStatus(c.File)
	if err != nil {
		return err
	}
	var errs []error
	if c.Journal != "" {
		errs = append(errs, record.Volumes(c.Journal, b))
	}
	if c.Textfile != "" {
		errs = append(errs, record.Textfile(c.Textfile, b))
	}
	if c.EMF != "" {
		errs = append(errs, record.EMF(c.EMF, b, time.Now()))
	}
	return errors.Join(errs...)
}
