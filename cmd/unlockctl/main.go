// Unlockctl is the administrator's tool of unlock. It is never part of an initramfs.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/alecthomas/kong"

	"unlock/internal/config"
)

// version is set by the linker.
var version = "devel"

type commands struct {
	Initramfs initramfsCmd `cmd:"" help:"Build the standalone initramfs."`
	Version   versionCmd   `cmd:"" help:"Print the version."`
}

// console is where commands print.
type console struct{ out, err io.Writer }

type versionCmd struct{}

func (versionCmd) Run(c console) error {
	_, err := fmt.Fprintln(c.out, "unlockctl", version)
	return err
}

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

// run returns the exit status: 0, 1 for a failure, 2 for a mistake in the
// configuration or on the command line.
func run(args []string, stdout, stderr io.Writer) int {
	parser := kong.Must(&commands{}, kong.Name("unlockctl"), kong.Description("Administer volumes that unlock opens at boot."),
		kong.Writers(stdout, stderr), kong.UsageOnError(), kong.Vars{"config": config.DefaultFile},
		kong.Bind(console{stdout, stderr}))
	ctx, err := parser.Parse(args)
	if err != nil {
		fmt.Fprintln(stderr, "unlockctl:", err)
		return exitUsage
	}
	if err := ctx.Run(); err != nil {
		return report(err, stderr)
	}
	return 0
}

const (
	exitFailed = 1
	exitUsage  = 2
)

// report prints err, with its hint, and returns the exit status for it.
func report(err error, stderr io.Writer) int {
	fmt.Fprintln(stderr, "unlockctl:", err)
	var bad *config.Error
	if !errors.As(err, &bad) {
		return exitFailed
	}
	if bad.Hint != "" {
		fmt.Fprintln(stderr, "hint:", bad.Hint)
	}
	return exitUsage
}
