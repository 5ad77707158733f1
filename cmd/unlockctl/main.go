// Unlockctl is the administrator's tool of unlock. It is never part of an initramfs.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/alecthomas/kong"

	"unlock/cmd/unlockctl/internal/account"
	"unlock/cmd/unlockctl/internal/record"
	"unlock/internal/config"
	"unlock/internal/hint"
	"unlock/internal/hint/plain"
	"unlock/internal/keys/source"
	"unlock/internal/secret"
	"unlock/internal/status"
)

// version is set by the linker.
var version = "devel"

type commands struct {
	Seal       sealCmd   `cmd:"" help:"Encrypt a passphrase under a KMS key and put it where boots find it."`
	Rotate     rotateCmd `cmd:"" help:"Replace the KMS key of a ciphertext, or the passphrase of a volume."`
	machine    `embed:""`
	Check      checkCmd      `cmd:"" aliases:"validate" help:"Look for mistakes in a configuration, all at once."`
	Policy     policyCmd     `cmd:"" help:"Print the AWS policies that a configuration needs."`
	Measure    measureCmd    `cmd:"" help:"Predict what a TPM measures of a boot, for policies that ask for it."`
	Audit      auditCmd      `cmd:"" help:"Tell from CloudTrail's records who had the keys, and what an auditor should look at."`
	Record     recordCmd     `cmd:"" help:"Pass on what the last boot did: to the journal, to Prometheus, to CloudWatch."`
	Plot       plotCmd       `cmd:"" help:"Draw the last boot's steps."`
	Completion completionCmd `cmd:"" help:"Print a completion script for a shell."`
	Man        manCmd        `cmd:"" help:"Print a manual page."`
	Version    versionCmd    `cmd:"" help:"Print the version."`
}

// console is where commands read and print.
type console struct {
	in       io.Reader
	out, err io.Writer
}

// maxLine of standard output, in bytes: what is generated has long lines.
const maxLine = 64 << 10

// plain returns a console that shows nothing but text: much of what commands print
// was written by others.
func (c console) plain() console {
	return console{c.in, plain.Writer{W: c.out, Most: maxLine}, plain.Writer{W: c.err, Most: plain.Max}}
}

// raw is what is behind a plain writer, for what is drawn on a terminal.
func raw(w io.Writer) io.Writer {
	if p, ok := w.(plain.Writer); ok {
		return p.W
	}
	return w
}

// terminal reports whether w is one.
func terminal(w io.Writer) bool {
	f, ok := raw(w).(*os.File)
	if !ok {
		return false
	}
	return isTerminal(f)
}

type versionCmd struct{}

func (versionCmd) Run(c console) error {
	_, err := fmt.Fprintln(c.out, "unlockctl", version)
	return err
}

func main() {
	// No core dumps, no ptrace: passphrases pass through here.
	if err := secret.Harden(); err != nil {
		fmt.Fprintln(os.Stderr, "unlockctl:", err)
		os.Exit(exitFailed)
	}
	if err := overwritesGarbage(); err != nil { // no reason to leave a volume locked
		fmt.Fprintln(os.Stderr, "unlockctl: copies of secrets stay in memory until it is used again:", err)
	}
	status := interruptible(func(ctx context.Context) int {
		return run(ctx, os.Args[1:], console{os.Stdin, os.Stdout, os.Stderr})
	})
	overwriteGarbage()
	os.Exit(status)
}

// newParser returns the parser of the command line, which is also the model of its
// manual page and of the completion scripts.
func newParser(ctx context.Context, con console) *kong.Kong {
	return kong.Must(&commands{}, kong.Name("unlockctl"), kong.Description("Administer volumes that unlock opens at boot. Print the version with --version."),
		kong.Writers(con.out, con.err), kong.Exit(func(status int) { panic(ended(status)) }), kong.ConfigureHelp(kong.HelpOptions{Compact: true}),
		kong.Vars{"config": config.DefaultFile, "status": status.DefaultFile, "journal": record.Journal,
			"places":   source.Forms("or", (*source.Kind).Sealed),
			"services": source.List("and", append([]string{"KMS"}, source.Services()...))},
		kong.BindTo(ctx, (*context.Context)(nil)), kong.Bind(con))
}

// ended is what the parser panics with where it would end the program: it has printed
// help.
type ended int

// run returns the exit status: 0, 1 for a failure, 2 for a mistake in the
// configuration or on the command line.
func run(ctx context.Context, args []string, con console) (exit int) {
	con = con.plain()
	defer func() {
		switch p := recover().(type) {
		case nil:
		case ended:
			exit += int(p)
		default:
			panic(p)
		}
	}()
	switch {
	case len(args) == 0: // a mistake, but one of who wants help
		con.out, exit = con.err, exitUsage
		args = []string{"--help"}
	case args[0] == "help":
		args = append(args[1:], "--help")
	case args[0] == "--version", args[0] == "-v":
		args = []string{"version"}
	}
	parsed, err := newParser(ctx, con).Parse(args)
	if err != nil {
		fmt.Fprintln(con.err, "unlockctl:", strings.Replace(err.Error(), `one of "",`, "one of ", 1))
		fmt.Fprintln(con.err, "hint: unlockctl help COMMAND shows what it takes")
		return exitUsage
	}
	if err := parsed.Run(); err != nil {
		var end *interruption
		if errors.As(context.Cause(ctx), &end) {
			fmt.Fprintln(con.err, "unlockctl:", end)
			return end.status()
		}
		return report(err, con.err)
	}
	return 0
}

const (
	exitFailed = 1
	exitUsage  = 2
)

// usageError is a mistake on the command line that the parser cannot see.
type usageError struct{ msg, hint string }

func (e *usageError) Error() string { return e.msg }

func usage(msg, hint string) error { return &usageError{msg, hint} }

// errFound ends a command whose output has told all: exit status 1, no message.
var errFound = errors.New("")

// report prints err, with its hint, and returns the exit status for it.
func report(err error, stderr io.Writer) int {
	if errors.Is(err, errFound) { // the parser wraps it
		return exitFailed
	}
	if errors.Is(err, errMistaken) {
		return exitUsage
	}
	fmt.Fprintln(stderr, "unlockctl:", err)
	if h := advice(err); h != "" {
		fmt.Fprintln(stderr, "hint:", h)
	}
	var (
		bad   *config.Error
		wrong *usageError
	)
	if errors.As(err, &bad) || errors.As(err, &wrong) {
		return exitUsage
	}
	return exitFailed
}

// advice returns what to do about an error, or "".
func advice(err error) string {
	var wrong *usageError
	switch {
	case errors.As(err, &wrong):
		return wrong.hint
	case errors.Is(err, account.ErrExists):
		return "--force replaces it and keeps the old one; volumes made with the old one do not open with the new one"
	case errors.Is(err, os.ErrPermission):
		return "run it as root"
	}
	return hint.Of(err)
}
