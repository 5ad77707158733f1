package distro

import (
	"bytes"
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

// buildScript is what an administrator does and may do wrong. The image without
// unlock is made with the hooks installed, but a configuration of comments. In /mnt are the
// configuration and its files; images go there.
const buildScript = `
WITHOUT=/mnt/without.img
echo "# as the packages install it" >/etc/unlock.toml
%s
mkdir -p /etc/unlock
cp /mnt/key.bin /mnt/test-ca.pem /etc/unlock
cp /mnt/old.toml /etc/unlock.toml
%[2]s
cp /mnt/unlock.toml /etc/unlock.toml
%[2]s
for image in /boot/initr*; do cp "$image" /mnt/with.img; done

must_fail() {
	if %[2]s >/mnt/output 2>&1; then echo "the image was rebuilt, though $1"; exit 1; fi
	cat /mnt/output
	grep -qF "$2" /mnt/output || { echo "the generator does not say: $2"; exit 1; }
	cmp "$image" /mnt/with.img
}
rm /etc/unlock/key.bin
must_fail "a file is missing" "unlock: /etc/unlock.toml: it names /etc/unlock/key.bin: no such file"
cp /mnt/key.bin /etc/unlock
cp /mnt/bad.toml /etc/unlock.toml
must_fail "the configuration is wrong" "unlock: /etc/unlock.toml:22: unknown setting \"volume.colour\""
`

// build makes the image that is booted, and sees builds fail that must.
func (l *lab) build(ctx context.Context) error {
	stage, out := l.file("stage"), l.file("out")
	if err := errors.Join(os.Mkdir(stage, 0o755), os.Mkdir(out, 0o755)); err != nil {
		return err
	}
	if _, err := run(ctx, nil, "make", "-s", "-f", "install.mk", "install-hooks", "DESTDIR="+stage); err != nil {
		return err
	}
	good := strings.ReplaceAll(config, "$KEY", l.key)
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
	script := fmt.Sprintf(buildScript, l.config, l.rebuild)
	if _, err := run(ctx, nil, "unshare", "--mount", "--pid", "--fork", "--kill-child", "--propagation=private",
		"sh", "-euc", chrootScript, "sh", l.system.root, stage, out, script); err != nil {
		return err
	}
	if err := errors.Join(uninstall(ctx, stage), l.addFiles(ctx)); err != nil {
		return err
	}
	if err := os.Rename(filepath.Join(out, "with.img"), l.file("with.img")); err != nil {
		return err
	}
	return l.compare(ctx, filepath.Join(out, "without.img"), l.file("with.img"), good)
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

// addFiles makes a copy of the system with the scenario's own files.
func (l *lab) addFiles(ctx context.Context) error {
	if len(l.files) == 0 {
		return nil
	}
	own := l.file("root.ext4")
	if _, err := run(ctx, nil, "cp", "--sparse=always", "--reflink=auto", l.system.root, own); err != nil {
		return err
	}
	l.system.root = own
	for _, f := range l.files {
		name, text, _ := strings.Cut(f, "=")
		commands := fmt.Sprintf("cd %s\nrm %s\nwrite %s %s\n", path.Dir(name), path.Base(name), l.file("new"), path.Base(name))
		if err := errors.Join(os.WriteFile(l.file("new"), []byte(text), 0o644), os.WriteFile(l.file("commands"), []byte(commands), 0o644)); err != nil {
			return err
		}
		if _, err := run(ctx, nil, "/sbin/debugfs", "-w", "-f", l.file("commands"), own); err != nil {
			return err
		}
	}
	return nil
}

// compare checks what the images hold, and how much unlock adds.
func (l *lab) compare(ctx context.Context, without, with, config string) error {
	old, err := readImage(without)
	if err != nil {
		return err
	}
	image, err := readImage(with)
	if err != nil {
		return err
	}
	for name := range old {
		// mkinitramfs takes along all scripts; ours then do nothing.
		if strings.Contains(name, "unlock") && !strings.HasPrefix(name, "scripts/") {
			return fmt.Errorf("an image made before the configuration contains %s", name)
		}
	}
	if got := string(image["etc/unlock.toml"]); got != config {
		return fmt.Errorf("the image carries the configuration %q, want the one before the last rebuild", got)
	}
	size := func(files map[string][]byte) (n int, err error) {
		cmd := exec.CommandContext(ctx, "zstd", "-19", "-q", "-c")
		cmd.Stdin = bytes.NewReader(withoutModules(files))
		out, err := cmd.Output()
		return len(out), err
	}
	before, err := size(old)
	if err != nil {
		return err
	}
	after, err := size(image)
	if err != nil {
		return err
	}
	l.notes = append(l.notes, fmt.Sprintf("image grows by %.2f MB", float64(after-before)/1e6))
	if after-before > growthMax {
		return fmt.Errorf("the image grows by %d bytes, more than %d", after-before, growthMax)
	}
	return nil
}
