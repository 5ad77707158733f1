package distro

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// growthMax is how much larger an image may be than without unlock, in bytes: what is
// not the same in both, but for kernel modules, compressed by zstd -19.
const growthMax = 3_200_000

// chrootScript runs buildScript in a throw-away copy of a system.
var (
	//go:embed chroot.sh
	chrootScript string
	//go:embed build.sh
	buildScript string
)

// Generator makes a distribution's initramfs images.
type Generator struct {
	File    string // sets it up
	Text    string // of File
	Rebuild string // the distribution's command that rebuilds all images
}

// Image is what an image is made of.
type Image struct {
	Generator
	Root     string            // ext4 image of the system
	Config   string            // /etc/unlock.toml
	Files    map[string][]byte // key.bin and test-ca.pem, for /etc/unlock
	Thorough bool              // builds are seen to fail that must, and images without unlock are compared
	Plain    bool              // the directory of the image gets plain.img, built before there was a configuration
}

// Build has the system's generator make the image in dir, an empty directory, from
// bin/unlock and its hooks. It returns the image's path and, if thorough, by how many
// bytes unlock makes it grow.
func (i Image) Build(ctx context.Context, dir string) (image string, growth int, err error) {
	if os.Geteuid() != 0 {
		return "", 0, errors.New("building an initramfs in a chroot takes root")
	}
	stage, out := filepath.Join(dir, "stage"), filepath.Join(dir, "out")
	if err := errors.Join(os.Mkdir(stage, 0o755), os.Mkdir(out, 0o755)); err != nil {
		return "", 0, err
	}
	if _, err := run(ctx, nil, "make", "-s", "-f", "install.mk", "install-hooks", "DESTDIR="+stage); err != nil {
		return "", 0, err
	}
	files := map[string][]byte{
		"build.sh":       []byte(buildScript),
		"generator.conf": []byte(i.Text),
		"unlock.toml":    []byte(i.Config),
		"old.toml":       []byte(strings.Replace(i.Config, "/mnt/secretfs", "/mnt/elsewhere", 1)),
		"bad.toml":       []byte(i.Config + "colour = \"red\"\n"),
	}
	for name, content := range i.Files {
		files[name] = content
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(out, name), content, 0o600); err != nil {
			return "", 0, err
		}
	}
	args := []string{"--mount", "--pid", "--fork", "--kill-child", "--propagation=private", "sh", "-euc", chrootScript, "sh", i.Root, stage, out,
		"/bin/sh", "/mnt/build.sh", i.File, i.Rebuild}
	switch {
	case i.Thorough:
		args = append(args, "thorough")
	case i.Plain:
		args = append(args, "plain")
	}
	if _, err := run(ctx, nil, "unshare", args...); err != nil {
		return "", 0, err
	}
	image = filepath.Join(out, "with.img")
	if err := uninstall(ctx, stage); err != nil || !i.Thorough {
		return image, 0, err
	}
	growth, err = i.compare(ctx, out)
	return image, growth, err
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

// compare checks what the images hold, and how much unlock adds.
func (i Image) compare(ctx context.Context, out string) (growth int, err error) {
	images := map[string]map[string][]byte{}
	for _, name := range []string{"unedited", "with", "without"} {
		files, err := readImage(filepath.Join(out, name+".img"))
		if err != nil {
			return 0, err
		}
		images[name] = files
		for file := range files {
			switch {
			case name == "with", !strings.Contains(file, "unlock"):
			case name == "unedited" && strings.HasPrefix(file, "scripts/"): // mkinitramfs takes along all; ours then do nothing
			default:
				return 0, fmt.Errorf("the image %q contains %s", name, file)
			}
		}
	}
	if got := string(images["with"]["etc/unlock.toml"]); got != i.Config {
		return 0, fmt.Errorf("the image carries the configuration %q, want the one before the last rebuild", got)
	}
	size := func(name, other string) (int, error) {
		cmd := exec.CommandContext(ctx, "zstd", "-19", "-q", "-c")
		cmd.Stdin = bytes.NewReader(differing(images[name], images[other]))
		out, err := cmd.Output()
		return len(out), err
	}
	before, err1 := size("without", "with")
	after, err2 := size("with", "without")
	if err := errors.Join(err1, err2); err != nil {
		return 0, err
	}
	if growth = after - before; growth > growthMax {
		return growth, fmt.Errorf("the image grows by %d bytes, more than %d", growth, growthMax)
	}
	return growth, nil
}
