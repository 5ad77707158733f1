// Demo shows the main job in a terminal: it boots a simulated EC2 instance twice
// and prints what happened. scripts/demo builds what it needs and runs it.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"unlock/initramfs"
	"unlock/internal/status"
	"unlock/test/ec2sim"
	"unlock/test/vm"
)

const (
	bucket     = "an-internalstoragekeybucket"
	object     = "LuksInternalStorageKey"
	passphrase = "demonstration passphrase, made by nobody"
	text       = "written on the first boot"
	diskSize   = 64 << 20
	caFile     = "/etc/unlock/simulated-ca.pem"

	configuration = `[key]
source  = "s3://an-internalstoragekeybucket/LuksInternalStorageKey"
kms_key = "%s"
[key.context]
purpose = "secretfs"

[aws]
ca_bundle = "/etc/unlock/simulated-ca.pem"

[[volume]]
name       = "secretfs"
device     = "instance-store"
format     = "blank"
filesystem = "ext4"
mount      = "/mnt/secretfs"
`

	// What runs after the pivot. Each line of the status file gets a mark, as the
	// kernel may print in between.
	showStatus = "sed 's/^/status: /' /run/unlock/status.json\n"
	writeFile  = "echo '" + text + "' >/mnt/secretfs/file\nsync\n" + showStatus
	readFile   = "sed 's/^/file: /' /mnt/secretfs/file\n" + showStatus
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// run is the demonstration; unlock is the binary to show.
func run(ctx context.Context, unlock string) error {
	kernel, err := vm.Kernel(ctx)
	if err != nil {
		return err
	}
	root, err := vm.RealRoot(ctx)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "unlock-demo-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	cloud, err := ec2sim.New(ec2sim.Config{})
	if err != nil {
		return err
	}
	defer cloud.Close()
	key := cloud.CreateKey()
	cloud.PutObject(bucket, object, cloud.Encrypt(key, []byte(passphrase), map[string]string{"purpose": "secretfs"}))
	initrd, err := image(dir, unlock, fmt.Sprintf(configuration, key), kernel, cloud.CA())
	if err != nil {
		return err
	}
	disk := filepath.Join(dir, "nvme0.img")
	if err := errors.Join(os.WriteFile(disk, nil, 0o600), os.Truncate(disk, diskSize)); err != nil {
		return err
	}

	heading("What is simulated")
	fmt.Printf(`An EC2 instance: QEMU without acceleration, Debian's cloud kernel, one blank NVMe instance-store disk.
Its initramfs is %s as /init; its network card ends in this process, which answers as
DHCP, DNS, IMDSv2 (role unlock-demo), S3 (s3://%s/%s: the
passphrase, encrypted by KMS) and KMS (%s), over TLS.
The real root is Debian 12. Its configuration, /etc/unlock.toml:

`, unlock, bucket, object, key)
	fmt.Print(indent(fmt.Sprintf(configuration, key)))
	m := vm.Machine{Kernel: kernel.Image, Initrd: initrd, Root: root, Plug: cloud.Plug,
		Append: "loglevel=7 rw root=LABEL=" + vm.RootLabel, Disks: []vm.Disk{{File: disk, Serial: vm.Serial(0)}}}

	heading("First boot: the disk is blank")
	if err := boot(ctx, &m, writeFile); err != nil {
		return err
	}
	heading("Second boot: the same disk")
	if err := boot(ctx, &m, readFile); err != nil {
		return err
	}
	heading("The raw disk")
	return showDisk(ctx, disk)
}

func image(dir, unlock, config string, kernel vm.KernelFiles, ca []byte) (string, error) {
	at := func(name string) string { return filepath.Join(dir, name) }
	if err := errors.Join(os.WriteFile(at("unlock.toml"), []byte(config), 0o600), os.WriteFile(at("ca.pem"), ca, 0o600)); err != nil {
		return "", err
	}
	f, err := os.Create(at("initrd"))
	if err != nil {
		return "", err
	}
	defer f.Close()
	return f.Name(), initramfs.Build(f, initramfs.Options{Unlock: unlock, Config: at("unlock.toml"), Modules: kernel.Modules,
		Version: "demo", Files: []string{at("ca.pem") + ":" + caFile}})
}

// boot runs the machine once and shows unlock's lines as they come, then the
// timeline of its steps.
func boot(ctx context.Context, m *vm.Machine, script string) error {
	m.Script = script
	m.Output = only("unlock: ")
	console, err := m.Run(ctx)
	if err != nil {
		return fmt.Errorf("%w\n%s", err, console.Tail(30))
	}
	if !console.Contains("script: exit 0") {
		return fmt.Errorf("the real system did not do its part:\n%s", console.Tail(30))
	}
	var report status.Boot
	if err := json.Unmarshal([]byte(marked(console, "status: ")), &report); err != nil {
		return fmt.Errorf("reading the status from the console: %w", err)
	}
	fmt.Printf("\n%s", report.Timeline(40))
	if file := marked(console, "file: "); file != "" {
		fmt.Printf("\n/mnt/secretfs/file: %s", file)
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

// marked returns what follows mark in the lines that begin with it.
func marked(c vm.Console, mark string) string {
	var b strings.Builder
	for _, l := range c {
		if rest, ok := strings.CutPrefix(l.Text, mark); ok {
			b.WriteString(rest + "\n")
		}
	}
	return b.String()
}

func showDisk(ctx context.Context, disk string) error {
	raw, err := os.ReadFile(disk)
	if err != nil {
		return err
	}
	const data = 16 << 20 // where the encrypted area begins
	fmt.Printf("%q occurs %d times in it, the passphrase %d times. Its first bytes of data:\n\n",
		text, bytes.Count(raw, []byte(text)), bytes.Count(raw, []byte(passphrase)))
	for row := data; row < data+64; row += 16 {
		fmt.Printf("  %08x  % x\n", row, raw[row:row+16])
	}
	fmt.Print("\n$ cryptsetup luksDump nvme0.img\n")
	cmd := exec.CommandContext(ctx, "/sbin/cryptsetup", "luksDump", disk)
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("cryptsetup luksDump: %w", err)
	}
	fmt.Print(string(out))
	return nil
}

func heading(title string) {
	fmt.Printf("\n\x1b[1m== %s\x1b[0m  %s\n\n", title, time.Now().Format(time.TimeOnly))
}

func indent(s string) string {
	return "    " + strings.ReplaceAll(strings.TrimSpace(s), "\n", "\n    ") + "\n"
}
