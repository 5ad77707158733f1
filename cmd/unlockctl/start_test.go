package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"unlock/test/ec2sim"
	"unlock/test/program"
)

// example is a command of the documentation and what it is said to print.
type example struct{ command, output string }

// examples reads the blocks marked as console: lines after "$ ", continued by
// lines after "> ", are commands, the others what they print.
func examples(text string) []example {
	var list []example
	inside := false
	for line := range strings.Lines(text) {
		switch {
		case strings.HasPrefix(line, "```"):
			inside = line == "```console\n"
		case !inside:
		case strings.HasPrefix(line, "$ "):
			list = append(list, example{command: line[2:]})
		case strings.HasPrefix(line, "> "), line == ">\n":
			list[len(list)-1].command += strings.TrimPrefix(strings.TrimPrefix(line, ">"), " ")
		default:
			list[len(list)-1].output += line
		}
	}
	return list
}

// changing is what differs from run to run: ids and times.
var changing = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}` +
	`|\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ|\d{4}/\d\d/\d\d/|\d{8}T\d{4,6}Z(_[0-9A-F]{16})?|[0-9a-f]{64}`)

// runExamples runs commands in one shell and wants what they are said to print, once
// both are arranged.
func runExamples(t *testing.T, list []example, dir string, env []string, arrange func(output string) string) {
	t.Helper()
	script := "exec 2>&1\n"
	const mark = "@@@@"
	for _, s := range list {
		script += s.command + "echo \"" + mark + "$?\"\n"
	}
	cmd := exec.CommandContext(t.Context(), "bash", "-c", script)
	cmd.Dir, cmd.Env = dir, env
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	rest := string(out)
	for _, s := range list {
		var got, status string
		got, rest, _ = strings.Cut(rest, mark)
		status, rest, _ = strings.Cut(rest, "\n")
		got = arrange(changing.ReplaceAllString(got, "ID"))
		if want := arrange(changing.ReplaceAllString(s.output, "ID")); got != want || status != "0" {
			t.Errorf("$ %sexit status %s\n%s\nwant\n%s", s.command, status, got, want)
		}
	}
}

// TestStart runs the lines of the README against a simulated AWS and wants the
// output that it shows.
func TestStart(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("-short: it asks the AWS CLI")
	}
	program.Need(t, "aws")
	page, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	list := examples(string(page))
	if len(list) < 10 {
		t.Fatalf("%d commands in the README", len(list))
	}
	c, err := ec2sim.New(ec2sim.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	url, err := c.Loopback()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	bin, work := filepath.Join(dir, "bin"), filepath.Join(dir, "work")
	if err := wrapAWS(bin); err != nil {
		t.Fatal(err)
	}
	for file, text := range map[string]string{
		filepath.Join(dir, "ca.pem"):                      string(c.CA()),
		filepath.Join(work, "x"):                          "",
		filepath.Join(bin, "unlock"):                      "the program\n",
		filepath.Join(bin, "uname"):                       "#!/bin/sh\necho '" + dir + "/6.1.0-cloud'\n", // the kernel that the image is for
		filepath.Join(dir, "6.1.0-cloud/ena.ko"):          "a module\n",
		filepath.Join(dir, "6.1.0-cloud/ext4.ko"):         "a module\n",
		filepath.Join(dir, "6.1.0-cloud/modules.dep"):     "ena.ko:\next4.ko:\n",
		filepath.Join(dir, "6.1.0-cloud/modules.builtin"): builtin,
	} {
		if err := program.Write(file, text, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	unlockctl, err := exec.LookPath("unlockctl")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Link(unlockctl, filepath.Join(bin, "unlockctl")); err != nil { // it looks for unlock beside itself
		t.Fatal(err)
	}
	runExamples(t, list, work, []string{
		"PATH=" + bin + ":" + os.Getenv("PATH") + ":/usr/sbin:/sbin", "HOME=" + dir,
		"AWS_ENDPOINT_URL=" + url, "AWS_ENDPOINT_URL_S3=" + url, "AWS_CA_BUNDLE=" + filepath.Join(dir, "ca.pem"), "AWS_REGION=us-east-1", "AWS_DEFAULT_REGION=us-east-1",
		"AWS_ACCESS_KEY_ID=" + ec2sim.AccessKey, "AWS_SECRET_ACCESS_KEY=" + ec2sim.SecretKey,
	}, func(output string) string { return output })
	if got := c.RolePolicies("unlock")["unlock"]; !strings.Contains(got, "kms:Decrypt") {
		t.Errorf("the role's policy: %s", got)
	}
}

// builtin is in the kernel for which the README makes an image.
const builtin = `dm-mod.ko
dm-crypt.ko
xts.ko
af_packet.ko
nvme.ko
crc32c_generic.ko
crc32c_intel.ko
aes_generic.ko
aesni_intel.ko
xen-blkfront.ko
virtio_blk.ko
ixgbevf.ko
xen-netfront.ko
virtio_net.ko
virtio_pci.ko
aes-ce-blk.ko
aes-neon-blk.ko
`
