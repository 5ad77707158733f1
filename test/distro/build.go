package distro

import (
	"bytes"
	"cmp"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
)

// growthMax is how much larger an image may be than without unlock, in bytes, both
// without kernel modules and compressed by zstd -19.
const growthMax = 3_200_000

// chrootScript runs a script in a throw-away copy of a system.
//
//go:embed chroot.sh
var chrootScript string

// Parts of what is run on a system with unlock and its hooks installed. In /mnt are
// the configuration and its files, and what was installed; images go there.
const (
	// prepareScript takes the generator's set-up and the command that rebuilds.
	prepareScript = `
%s
rebuild() { %s; }
keep() { cp /boot/initr* "/mnt/$1.img"; }
mkdir -p /etc/unlock
cp /mnt/key.bin /mnt/test-ca.pem /etc/unlock
`
	// buildScript is what an administrator does to have unlock.
	buildScript = `
cp /mnt/unlock.toml /etc/unlock.toml
rebuild
keep with
`
	// beforeScript comes before it: the configuration as packages install it, and an
	// earlier one that must not stay.
	beforeScript = `
echo "# as the packages install it" >/etc/unlock.toml
rebuild
keep unedited
cp /mnt/old.toml /etc/unlock.toml
rebuild
`
	// afterScript comes after it: what must fail, and a package that is removed, which
	// leaves its configuration.
	afterScript = `
must_fail() {
	if rebuild >/mnt/output 2>&1; then echo "the image was rebuilt, though $1"; exit 1; fi
	cat /mnt/output
	grep -qF "$2" /mnt/output || { echo "the generator does not say: $2"; exit 1; }
	cmp /boot/initr* /mnt/with.img
}
rm /etc/unlock/key.bin
must_fail "a file is missing" "unlock: /etc/unlock.toml: it names /etc/unlock/key.bin: no such file"
cp /mnt/key.bin /etc/unlock
cp /mnt/bad.toml /etc/unlock.toml
must_fail "the configuration is wrong" "unlock: /etc/unlock.toml:23: unknown setting \"volume.colour\""
cp /mnt/unlock.toml /etc/unlock.toml
(cd / && xargs rm </mnt/installed)
rebuild
keep without
`
)

// build makes the image that is booted, and sees builds fail that must.
func (l *lab) build(ctx context.Context) error {
	stage, out := l.file("stage"), l.file("out")
	if err := errors.Join(os.Mkdir(stage, 0o755), os.Mkdir(out, 0o755)); err != nil {
		return err
	}
	if _, err := run(ctx, nil, "make", "-s", "-f", "install.mk", "install-hooks", "DESTDIR="+stage); err != nil {
		return err
	}
	good := strings.ReplaceAll(cmp.Or(l.unlock, usualConfig), "$KEY", l.key)
	for name, text := range map[string]string{
		"unlock.toml": good,
		"old.toml":    strings.Replace(good, "/mnt/secretfs", "/mnt/elsewhere", 1),
		"bad.toml":    good + "colour = \"red\"\n",
		"key.bin":     string(l.cloud.Encrypt(l.key, []byte(passphrase), map[string]string{"purpose": "secretfs"})),
		"test-ca.pem": string(l.cloud.CA()),
	} {
		if err := os.WriteFile(filepath.Join(out, name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	thorough := l.unlock == ""
	script := fmt.Sprintf(prepareScript, l.config, l.rebuild) + buildScript
	if thorough {
		script = fmt.Sprintf(prepareScript, l.config, l.rebuild) + beforeScript + buildScript + afterScript
	}
	if _, err := run(ctx, nil, "unshare", "--mount", "--pid", "--fork", "--kill-child", "--propagation=private",
		"sh", "-euc", chrootScript, "sh", l.system.root, stage, out, script); err != nil {
		return err
	}
	if err := uninstall(ctx, stage); err != nil || !thorough {
		return err
	}
	return l.compare(ctx, good)
}

// uninstall checks that nothing is left of what was installed.
func uninstall(ctx context.Context, stage string) error {
	if _, err := run(ctx, nil, "make", "-s", "-f", "install.mk", "uninstall-hooks", "DESTDIR="+stage); err != nil {
		return err
	}
	left, err := run(ctx, nil, "find", stage, "!", "-type", "d")
	if err == nil && left != "" {
		err = fmt.Errorf("uninstalling leaves %s", left)
	}
	return err
}

// copySystem makes a copy of the system with the scenario's own files.
func (l *lab) copySystem(ctx context.Context) error {
	if len(l.files) == 0 {
		return nil
	}
	l.spare = l.file("root.ext4")
	if _, err := run(ctx, nil, "cp", "--sparse=always", "--reflink=auto", l.system.root, l.spare); err != nil {
		return err
	}
	for _, f := range l.files {
		name, text, _ := strings.Cut(f, "=")
		// Making a directory that is there, or removing a file that is not, harms nothing.
		commands := fmt.Sprintf("mkdir %[1]s\ncd %[1]s\nrm %[2]s\nwrite %[3]s %[2]s\n", path.Dir(name), path.Base(name), l.file("new"))
		if err := errors.Join(os.WriteFile(l.file("new"), []byte(text), 0o644), os.WriteFile(l.file("commands"), []byte(commands), 0o644)); err != nil {
			return err
		}
		if _, err := run(ctx, nil, "/sbin/debugfs", "-w", "-f", l.file("commands"), l.spare); err != nil {
			return err
		}
	}
	return nil
}

// compare checks what the images hold, and how much unlock adds.
func (l *lab) compare(ctx context.Context, config string) error {
	images := map[string]map[string][]byte{}
	for _, name := range []string{"unedited", "with", "without"} {
		files, err := readImage(l.image(name))
		if err != nil {
			return err
		}
		images[name] = files
		for file := range files {
			switch {
			case name == "with", !strings.Contains(file, "unlock"):
			case name == "unedited" && strings.HasPrefix(file, "scripts/"): // mkinitramfs takes along all; ours then do nothing
			default:
				return fmt.Errorf("the image %q contains %s", name, file)
			}
		}
	}
	if got := string(images["with"]["etc/unlock.toml"]); got != config {
		return fmt.Errorf("the image carries the configuration %q, want the one before the last rebuild", got)
	}
	size := func(files map[string][]byte) (int, error) {
		cmd := exec.CommandContext(ctx, "zstd", "-19", "-q", "-c")
		cmd.Stdin = bytes.NewReader(withoutModules(files))
		out, err := cmd.Output()
		return len(out), err
	}
	before, err := size(images["without"])
	if err != nil {
		return err
	}
	after, err := size(images["with"])
	if err != nil {
		return err
	}
	l.notes = append(l.notes, fmt.Sprintf("image grows by %.2f MB", float64(after-before)/1e6))
	if after-before > growthMax {
		return fmt.Errorf("the image grows by %d bytes, more than %d", after-before, growthMax)
	}
	return nil
}

// image returns the path of an image that the build kept.
func (l *lab) image(name string) string { return filepath.Join(l.file("out"), name+".img") }
