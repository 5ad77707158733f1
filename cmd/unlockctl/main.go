// Unlockctl is the administrator's tool of unlock. It is never part of an initramfs.
package main

import (
	"errors"
	"fmt"
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

type versionCmd struct{}

func (versionCmd) Run() error {
	fmt.Println("unlockctl", version)
	return nil
}

func main() {
	var c commands
	ctx := kong.Parse(&c, kong.Name("unlockctl"), kong.Description("Administer volumes that unlock opens at boot."), kong.UsageOnError(), kong.Vars{"config": config.DefaultFile})
	if err := ctx.Run(); err != nil {
		os.Exit(report(err))
	}
}

// report prints err, with its hint, and returns the exit status: 2 for a mistake
// in the configuration, else 1.
func report(err error) int {
	fmt.Fprintln(os.Stderr, "unlockctl:", err)
	var bad *config.Error
	if !errors.As(err, &bad) {
		return 1
	}
	if bad.Hint != "" {
		fmt.Fprintln(os.Stderr, "hint:", bad.Hint)
	}
	return 2
}
