package main

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"unlock/internal/config"
	"unlock/internal/ec2sim"
	"unlock/internal/vm"
)

// scenario is a simulated cloud, a machine's disks and configuration, and what
// must come of booting it. In config, scripts and texts, $KEY stands for the ARN
// of a KMS key, $OTHER for that of another, $PASSPHRASE for the passphrase.
type scenario struct {
	name    string
	config  string
	faults  []string // of ec2sim
	plain   bool     // the ciphertext is made by the AWS CLI, without an encryption context
	disks   []string // what is on each NVMe disk: "blank", "ext4", "luks1", "luks2"; with its size in MiB after a colon, if not 64
	append  string   // to the kernel command line
	mistake string   // in the configuration, as the build and the boot tell of it; "": none
	boots   []boot
}

// boot is one start of the machine. The zero value must stop before the pivot
// and leave the disks as they are.
type boot struct {
	config string        // in place of the scenario's
	append string        // to the kernel command line, after the scenario's
	attach []int         // which disks are there, in this order; nil: all
	late   string        // the last of them is attached when the console shows this; "": from the beginning
	script string        // runs after the pivot; "": there must be none
	cut    string        // power fails when the console shows this; "": it does not
	after  time.Duration // and that much time has passed
	want   []string      // texts on the console
	check  judge         // may be nil
}

// The S3 object with the ciphertext, and where the image has it in file scenarios.
const (
	bucket     = "an-internalstoragekeybucket"
	object     = "LuksInternalStorageKey"
	cipherFile = "/etc/unlock/key.bin"
	caFile     = "/etc/unlock/test-ca.pem"
	fileText   = "kept across boots" // what scripts write to the volume
	passphrase = "correct horse battery staple 0123456789"
)

// lab is one scenario being run.
type lab struct {
	scenario
	kernel vm.KernelFiles
	root   string // image
	bin    string // directory of unlock and unlockctl

	dir      string
	cloud    *ec2sim.Cloud
	expand   *strings.Replacer
	console  vm.Console // of the last boot
	consoles vm.Console // of all
	images   []string
	notes    []string // for the line that reports success
}

func (l *lab) summary() string { return strings.Join(l.notes, ", ") }

func (l *lab) note(format string, args ...any) {
	l.notes = append(l.notes, fmt.Sprintf(format, args...))
}

func (l *lab) run(ctx context.Context) error {
	var err error
	if l.dir, err = os.MkdirTemp("", "qemu-test-"); err != nil {
		return err
	}
	defer os.RemoveAll(l.dir)
	if l.cloud, err = ec2sim.New(ec2sim.Config{Faults: l.faults}); err != nil {
		return err
	}
	defer l.cloud.Close()
	if err := l.prepare(ctx); err != nil {
		return fmt.Errorf("preparing: %w", err)
	}
	for i, b := range l.boots {
		if err := l.boot(ctx, b); err != nil {
			return fmt.Errorf("boot %d: %w", i+1, err)
		}
	}
	return nil
}

// prepare makes keys, ciphertext and disks.
func (l *lab) prepare(ctx context.Context) error {
	key, other := l.cloud.CreateKey(), l.cloud.CreateKey()
	l.expand = strings.NewReplacer("$KEY", key, "$OTHER", other, "$PASSPHRASE", passphrase)
	ciphertext := l.cloud.Encrypt(key, []byte(passphrase), map[string]string{"purpose": "secretfs"})
	if l.plain {
		var err error
		if ciphertext, err = l.awsEncrypt(ctx, key); err != nil {
			return err
		}
	}
	l.cloud.PutObject(bucket, object, ciphertext)
	for i, content := range l.disks {
		image := filepath.Join(l.dir, fmt.Sprintf("nvme%d.img", i))
		if err := makeDisk(ctx, image, content); err != nil {
			return fmt.Errorf("making a disk with %s: %w", content, err)
		}
		l.images = append(l.images, image)
	}
	return errors.Join(
		os.WriteFile(l.file("key.bin"), ciphertext, 0o600),
		os.WriteFile(l.file("ca.pem"), l.cloud.CA(), 0o600),
		os.WriteFile(l.file("good.toml"), []byte(l.expand.Replace(s3Key+secretfs)), 0o600),
	)
}

func (l *lab) file(name string) string { return filepath.Join(l.dir, name) }

// image builds the initramfs as an administrator does.
func (l *lab) image(ctx context.Context, conf string) error {
	if err := os.WriteFile(l.file("unlock.toml"), []byte(l.expand.Replace(conf)), 0o600); err != nil {
		return err
	}
	build := func(conf string, more ...string) error {
		return tool(ctx, "", append([]string{filepath.Join(l.bin, "unlockctl"), "initramfs",
			"--kernel", l.kernel.Modules, "--config", l.file(conf), "-o", l.file("initrd"),
			"--file", l.file("key.bin") + ":" + cipherFile, "--file", l.file("ca.pem") + ":" + caFile}, more...)...)
	}
	err := build("unlock.toml")
	if l.mistake == "" {
		return err
	}
	// The build must refuse what the boot refuses. Put it past the build to see that the boot does.
	if err == nil || !strings.Contains(err.Error(), "exit status 2") || !strings.Contains(err.Error(), l.mistake) {
		return fmt.Errorf("building the image: %w, want exit status 2 and %q", err, l.mistake)
	}
	return build("good.toml", "--file", l.file("unlock.toml")+":"+config.DefaultFile)
}

// attached returns the disks that a boot has. A disk keeps its serial number wherever it is.
func (l *lab) attached(b boot) []vm.Disk {
	var all, chosen []vm.Disk
	for i, image := range l.images {
		all = append(all, vm.Disk{File: image, Serial: vm.Serial(i)})
	}
	if b.attach == nil {
		chosen = all
	}
	for _, i := range b.attach {
		chosen = append(chosen, all[i])
	}
	if b.late != "" {
		chosen[len(chosen)-1].Late = b.late
	}
	return chosen
}

func (l *lab) boot(ctx context.Context, b boot) error {
	if err := l.image(ctx, cmp.Or(b.config, l.config)); err != nil {
		return err
	}
	before, err := l.sums()
	if err != nil {
		return err
	}
	m := vm.Machine{
		Kernel: l.kernel.Image, Initrd: l.file("initrd"), Root: l.root, Plug: l.cloud.Plug, Disks: l.attached(b),
		Append: strings.Join([]string{"root=LABEL=" + vm.RootLabel, "rw loglevel=7", l.append, b.append}, " "),
		Script: prelude + l.expand.Replace(b.script), Cut: b.cut, CutWait: b.after,
	}
	l.console, err = m.Run(ctx)
	l.consoles = append(l.consoles, l.console...)
	if err != nil {
		return err
	}
	for _, want := range b.want {
		if want = l.expand.Replace(want); !l.console.Contains(want) {
			return fmt.Errorf("the console does not show %q", want)
		}
	}
	switch {
	case b.cut != "" && !l.console.Contains(b.cut):
		return fmt.Errorf("the console does not show %q, at which power was to fail", b.cut)
	case b.cut != "":
	case b.script != "" && !l.console.Contains("script: exit 0"):
		return errors.New("the script after the pivot did not succeed")
	case b.script == "":
		if err := l.refused(before); err != nil {
			return err
		}
	}
	if b.check != nil {
		return b.check(l)
	}
	return nil
}

// refused checks that a boot stopped with a message and left the disks alone.
func (l *lab) refused(before string) error {
	after, err := l.sums()
	switch {
	case err != nil:
		return err
	case after != before:
		return errors.New("a disk changed, though the boot was refused")
	case l.console.Contains("script: begin"):
		return errors.New("the real root was started, though the boot was refused")
	case l.console.Contains("Kernel panic"):
		return errors.New("the kernel panicked")
	case !l.console.Contains("hint: "):
		return errors.New("the console gives no hint")
	}
	return nil
}

// sums returns the SHA-256 of each disk.
func (l *lab) sums() (string, error) {
	var b strings.Builder
	for _, image := range l.images {
		f, err := os.Open(image)
		if err != nil {
			return "", err
		}
		h := sha256.New()
		_, err = io.Copy(h, f)
		f.Close()
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&b, "%x\n", h.Sum(nil))
	}
	return b.String(), nil
}

// makeDisk makes an image with the system's own tools.
func makeDisk(ctx context.Context, image, content string) error {
	f, err := os.Create(image)
	if err != nil {
		return err
	}
	content, size, sized := strings.Cut(content, ":")
	mib := 64
	if sized {
		if mib, err = strconv.Atoi(size); err != nil {
			return err
		}
	}
	if err := errors.Join(f.Truncate(int64(mib)<<20), f.Close()); err != nil {
		return err
	}
	// Key derivation is kept cheap: without hardware virtualisation it takes a
	// hundred times longer than on an instance.
	format := []string{"cryptsetup", "luksFormat", "-q", "--key-file", "-"}
	switch content {
	case "blank":
		return nil
	case "ext4":
		return tool(ctx, "", "mke2fs", "-q", "-t", "ext4", "-L", "data", image)
	case "luks1":
		return tool(ctx, passphrase, append(format, "--type", "luks1", "--pbkdf-force-iterations", "20000", image)...)
	case "luks2":
		return tool(ctx, passphrase, append(format, "--type", "luks2", "--pbkdf", "argon2id", "--pbkdf-memory", "8192", "--pbkdf-force-iterations", "4", image)...)
	}
	return fmt.Errorf("no disk content is named %q", content)
}

func tool(ctx context.Context, stdin string, command ...string) error {
	_, err := output(ctx, nil, stdin, command...)
	return err
}

// output runs a program, found among the administrator's too, and returns what it printed.
func output(ctx context.Context, env []string, stdin string, command ...string) ([]byte, error) {
	name, err := exec.LookPath(command[0])
	if err != nil {
		name = filepath.Join("/sbin", command[0])
	}
	cmd := exec.CommandContext(ctx, name, command[1:]...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return nil, fmt.Errorf("%s: %w: %s", command[0], err, strings.TrimSpace(string(exit.Stderr)))
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", command[0], err)
	}
	return out, nil
}

// awsEncrypt encrypts the passphrase as an administrator does: with the AWS CLI.
func (l *lab) awsEncrypt(ctx context.Context, key string) ([]byte, error) {
	url, err := l.cloud.Loopback()
	if err != nil {
		return nil, err
	}
	ca, secret := filepath.Join(l.dir, "cli-ca.pem"), filepath.Join(l.dir, "passphrase")
	if err := errors.Join(os.WriteFile(ca, l.cloud.CA(), 0o600), os.WriteFile(secret, []byte(passphrase), 0o600)); err != nil {
		return nil, err
	}
	env := []string{
		"AWS_ACCESS_KEY_ID=" + ec2sim.AccessKey, "AWS_SECRET_ACCESS_KEY=" + ec2sim.SecretKey, "AWS_CA_BUNDLE=" + ca,
		"AWS_REGION=us-east-1", "AWS_DEFAULT_REGION=us-east-1", "AWS_CONFIG_FILE=/dev/null", "AWS_SHARED_CREDENTIALS_FILE=/dev/null",
	}
	return output(ctx, env, "", "sh", "-c",
		`aws --endpoint-url "$1" kms encrypt --key-id "$2" --plaintext "fileb://$3" --output text --query CiphertextBlob | base64 -d`,
		"sh", url, key, secret)
}
