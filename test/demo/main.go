// Demo shows the main job in a terminal: it boots a simulated EC2 instance twice
// and prints what happened. scripts/demo builds what it needs and runs it.
package main

import (
	"bytes"
	"context"
	_ "embed"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"unlock/test/lab"
	"unlock/test/vm"
)

const configuration = `[key]
source  = "s3://` + lab.Bucket + "/" + lab.Object + `"
kms_key = "$KEY"
[key.context]
purpose = "secretfs"

[aws]
ca_bundle = "` + lab.CAFile + `"

[[volume]]
name       = "secretfs"
device     = "instance-store"
format     = "blank"
filesystem = "ext4"
mount      = "/mnt/secretfs"
`

// guest are the functions of the scripts that run after the pivot.
//
//go:embed guest.sh
var guest string

var demonstration = lab.Scenario{
	Name: "demo", Config: configuration, Disks: []string{"blank"}, Prepare: introduce,
	Machine: func(_ *lab.Lab, m *vm.Machine) { m.Output = only("unlock: ") },
	Boots: []lab.Boot{
		{Before: heading("First boot: the disk is blank"), Script: "write_and_show", Check: timeline},
		{Before: heading("Second boot: the same disk"), Script: "read_and_show", Check: lab.All(timeline, showDisk)},
	},
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	l, err := lab.Bench{Bin: os.Args[1], Shell: guest}.Run(ctx, demonstration)
	if err != nil {
		fmt.Fprintf(os.Stderr, "%sdemo: %v\n", l.Console.Tail(30), err)
		os.Exit(1)
	}
}

// introduce says what is simulated.
func introduce(_ context.Context, l *lab.Lab) error {
	title("What is simulated")
	fmt.Printf(`An EC2 instance: QEMU without acceleration, Debian's cloud kernel, one blank NVMe instance-store disk.
Its initramfs is %s as /init; its network card ends in this process, which answers as
DHCP, DNS, IMDSv2 (role unlock-demo), S3 (s3://%s/%s: the
passphrase, encrypted by KMS) and KMS (%s), over TLS.
The real root is Debian 12. Its configuration, /etc/unlock.toml:

`, filepath.Join(l.Bin, "unlock"), lab.Bucket, lab.Object, l.Expand("$KEY"))
	fmt.Print(indent(l.Expand(configuration)))
	return nil
}

// heading begins a part.
func heading(text string) lab.Step {
	return func(context.Context, *lab.Lab) error { title(text); return nil }
}

func title(text string) {
	fmt.Printf("\n\x1b[1m== %s\x1b[0m  %s\n\n", text, time.Now().Format(time.TimeOnly))
}

// timeline shows the steps of the boot, and what is in the file.
func timeline(l *lab.Lab) error {
	status, err := l.BootStatus()
	if err != nil {
		return err
	}
	fmt.Printf("\n%s", status.Timeline(40))
	for _, line := range l.Console {
		if text, ok := strings.CutPrefix(line.Text, "file: "); ok {
			fmt.Printf("\n/mnt/secretfs/file: %s\n", text)
		}
	}
	return nil
}

// only is a writer that prints the lines with that mark.
type only string

func (o only) Write(b []byte) (int, error) {
	if i := bytes.Index(b, []byte(o)); i >= 0 {
		os.Stdout.Write(b[i:])
	}
	return len(b), nil
}

// showDisk shows that the raw disk holds LUKS and no plaintext.
func showDisk(l *lab.Lab) error {
	title("The raw disk")
	image := l.Images()[0]
	raw, err := os.ReadFile(image)
	if err != nil {
		return err
	}
	fmt.Printf("%q occurs %d times in it, the passphrase %d times. Its first bytes of data:\n\n",
		lab.FileText, bytes.Count(raw, []byte(lab.FileText)), bytes.Count(raw, []byte(lab.Passphrase)))
	for row := lab.PayloadOffset; row < lab.PayloadOffset+64; row += 16 {
		fmt.Printf("  %08x  % x\n", row, raw[row:row+16])
	}
	fmt.Printf("\n$ cryptsetup luksDump %s\n", filepath.Base(image))
	out, err := lab.Output(context.Background(), nil, "", "cryptsetup", "luksDump", image)
	fmt.Print(string(out))
	return err
}

func indent(s string) string {
	return "    " + strings.ReplaceAll(strings.TrimSpace(s), "\n", "\n    ") + "\n"
}
