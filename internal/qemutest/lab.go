package main

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

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
	disks   []string // what is on each NVMe disk: "blank", "ext4", "luks1", "luks2"
	append  string   // to the kernel command line
	mistake string   // in the configuration, as the build and the boot tell of it; "": none
	boots   []boot
}

// boot is one start of the machine.
type boot struct {
	script string   // runs after the pivot; "": there must be none, and the disks must stay as they are
	want   []string // texts on the console
	check  judge    // may be nil
}

// The S3 object with the ciphertext, and where the image has it in file scenarios.
const (
	bucket     = "an-internalstoragekeybucket"
	object     = "LuksInternalStorageKey"
	cipherFile = "/etc/unlock/key.bin"
	caFile     = "/etc/unlock/test-ca.pem"
	fileText   = "kept across boots" // what scripts write to the volume
	passphrase = "correct horse battery staple 0123456789"
	diskSize   = 64 << 20 // bytes
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
	initrd, err := l.prepare(ctx)
	if err != nil {
		return fmt.Errorf("preparing: %w", err)
	}
	for i, b := range l.boots {
		if err := l.boot(ctx, initrd, b); err != nil {
			return fmt.Errorf("boot %d: %w", i+1, err)
		}
	}
	return nil
}

// prepare makes keys, ciphertext, disks and the image.
func (l *lab) prepare(ctx context.Context) (initrd string, err error) {
	key, other := l.cloud.CreateKey(), l.cloud.CreateKey()
	l.expand = strings.NewReplacer("$KEY", key, "$OTHER", other, "$PASSPHRASE", passphrase)
	ciphertext := l.cloud.Encrypt(key, []byte(passphrase), map[string]string{"purpose": "secretfs"})
	if l.plain {
		if ciphertext, err = l.awsEncrypt(ctx, key); err != nil {
			return "", err
		}
	}
	l.cloud.PutObject(bucket, object, ciphertext)
	for i, content := range l.disks {
		image := filepath.Join(l.dir, fmt.Sprintf("nvme%d.img", i))
		if err := makeDisk(ctx, image, content); err != nil {
			return "", fmt.Errorf("making a disk with %s: %w", content, err)
		}
		l.images = append(l.images, image)
	}
	return l.image(ctx, ciphertext)
}

// image builds the initramfs as an administrator does.
func (l *lab) image(ctx context.Context, ciphertext []byte) (string, error) {
	at := func(name string) string { return filepath.Join(l.dir, name) }
	for name, data := range map[string][]byte{
		"unlock.toml": []byte(l.expand.Replace(l.config)),
		"good.toml":   []byte(l.expand.Replace(s3Key + secretfs)),
		"key.bin":     ciphertext,
		"ca.pem":      l.cloud.CA(),
	} {
		if err := os.WriteFile(at(name), data, 0o600); err != nil {
			return "", err
		}
	}
	build := func(conf string, more ...string) error {
		return tool(ctx, "", append([]string{filepath.Join(l.bin, "unlockctl"), "initramfs",
			"--kernel", l.kernel.Modules, "--config", at(conf), "-o", at("initrd"),
			"--file", at("key.bin") + ":" + cipherFile, "--file", at("ca.pem") + ":" + caFile}, more...)...)
	}
	if l.mistake == "" {
		return at("initrd"), build("unlock.toml")
	}
	// The build must refuse what the boot refuses. Put it past the build to see that the boot does.
	err := build("unlock.toml")
	if err == nil || !strings.Contains(err.Error(), "exit status 2") || !strings.Contains(err.Error(), l.mistake) {
		return "", fmt.Errorf("building the image: %w, want exit status 2 and %q", err, l.mistake)
	}
	return at("initrd"), build("good.toml", "--file", at("unlock.toml")+":"+config.DefaultFile)
}

func (l *lab) boot(ctx context.Context, initrd string, b boot) error {
	before, err := l.sums()
	if err != nil {
		return err
	}
	m := vm.Machine{
		Kernel: l.kernel.Image, Initrd: initrd, Root: l.root, Plug: l.cloud.Plug,
		Append: "root=LABEL=" + vm.RootLabel + " rw loglevel=7 " + l.append,
		Script: prelude + l.expand.Replace(b.script),
	}
	for i, image := range l.images {
		m.Disks = append(m.Disks, vm.Disk{File: image, Serial: vm.Serial(i)})
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
	if b.script != "" && !l.console.Contains("script: exit 0") {
		return errors.New("the script after the pivot did not succeed")
	}
	if b.script == "" {
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
	}
	if b.check != nil {
		return b.check(l)
	}
	return nil
}

// sums returns the SHA-256 of each disk.
func (l *lab) sums() (string, error) {
	var b strings.Builder
	for _, image := range l.images {
		data, err := os.ReadFile(image)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&b, "%x\n", sha256.Sum256(data))
	}
	return b.String(), nil
}

// makeDisk makes an image with the system's own tools.
func makeDisk(ctx context.Context, image, content string) error {
	f, err := os.Create(image)
	if err != nil {
		return err
	}
	if err := errors.Join(f.Truncate(diskSize), f.Close()); err != nil {
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
		name = cmp.Or(name, filepath.Join("/sbin", command[0]))
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
