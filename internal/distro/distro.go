// Package distro boots real distributions whose initramfs was made by their own
// generator with unlock's hook: scenarios for scripts/qemu-test. It makes the
// systems with mmdebstrap from the machine's own apt sources and keeps them in
// vm's cache; images are built in a chroot, which takes root. unlock and its hooks
// get there by "make install-hooks".
package distro

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"unlock/internal/ec2sim"
	"unlock/internal/vm"
)

// Scenario is a system, a generator, and what they are booted with.
type Scenario struct {
	Name     string
	suite    string   // of Debian
	packages string   // that bring the generator
	config   string   // shell: sets the generator up; WITHOUT gets the image without unlock
	rebuild  string   // the distribution's command that rebuilds all images
	stop     string   // kernel command line: what ends a machine whose boot failed
	stopped  string   // what the console then shows; "": no failure is tried
	check    string   // of the running system
	also     []boot   // after a first and a second boot
	files    []string // in the system: PATH=TEXT
}

// boot is one start of the machine.
type boot struct {
	append string   // to the kernel command line
	fault  string   // of ec2sim
	script string   // runs when the system is up; "": it must not come up, and the disk must stay as it is
	want   []string // texts on the console
}

const (
	dracut = `
cat >/etc/dracut.conf.d/test.conf <<END
compress="zstd -1 -q"
hostonly="$HOSTONLY"
$CONF
END
dracut -q -f "$WITHOUT" "$(ls /lib/modules)"
`
	initramfsTools = `
printf 'COMPRESS=zstd\nCOMPRESSLEVEL=1\n' >/etc/initramfs-tools/conf.d/test
mkinitramfs -o "$WITHOUT" "$(ls /lib/modules)"
`
	rebuildDracut = "dracut -q -f --regenerate-all"
	rebuildTools  = "update-initramfs -u -k all"

	// What a failed boot comes to when nobody is at the console.
	dracutStop  = "rd.shell=0 rd.emergency=reboot"
	dracutStops = "Boot has failed"
	toolsStops  = "Rebooting automatically due to panic= boot argument"
)

// Scenarios in the order in which they run.
var Scenarios = []Scenario{
	{
		Name: "debian12-dracut", suite: "bookworm", packages: "dracut",
		// The chroot is not the machine that boots: drivers must be there even so. But
		// an image made on the machine would have what checks its root.
		config: "HOSTONLY=yes CONF='fscks=\"fsck fsck.ext4 e2fsck\"'\n" + dracut, rebuild: rebuildDracut, stop: dracutStop, stopped: dracutStops,
	},
	{
		Name: "debian13-dracut-systemd", suite: "trixie", packages: "dracut,systemd-cryptsetup",
		config: "HOSTONLY=no CONF=\n" + dracut, rebuild: rebuildDracut, stop: dracutStop, stopped: dracutStops,
	},
	{
		Name: "debian13-dracut-busybox", suite: "trixie", packages: "dracut,systemd-cryptsetup",
		config: `HOSTONLY=no CONF='omit_dracutmodules+=" systemd systemd-initrd dracut-systemd "
add_dracutmodules+=" busybox "'
` + dracut, rebuild: rebuildDracut, stop: dracutStop, stopped: dracutStops,
	},
	{
		Name: "debian12-initramfs-tools", suite: "bookworm", packages: "initramfs-tools",
		config: initramfsTools, rebuild: rebuildTools, stopped: toolsStops,
		also: []boot{{append: "rd.unlock=0", script: "! test -e /dev/mapper/secretfs", want: []string{"skipped (rd.unlock=0)"}}},
	},
	{
		Name: "debian13-initramfs-tools", suite: "trixie", packages: "initramfs-tools",
		config: initramfsTools, rebuild: rebuildTools, stopped: toolsStops,
	},
	{
		Name: "crypttab", suite: "trixie", packages: "dracut,systemd-cryptsetup",
		config: "HOSTONLY=no CONF=\n" + dracut, rebuild: rebuildDracut,
		files: []string{"/etc/crypttab=secretfs /dev/nvme0n1 none luks\n"},
		check: `
active systemd-cryptsetup@secretfs.service
# Not by unit: journald may be too late to learn whose so brief a process was.
journalctl -b -o cat -t systemd-cryptsetup | grep 'secretfs already active'
`,
	},
}

// Names returns the names of all scenarios.
func Names() []string {
	var names []string
	for _, s := range Scenarios {
		names = append(names, s.Name)
	}
	return names
}

// What is configured, encrypted and written. The root file system forgets between
// boots what is written to it, so the volume in a file is always made anew.
const (
	passphrase = "correct horse battery staple 0123456789"
	fileText   = "kept across boots"
	config     = `
[key]
source  = "file:/etc/unlock/key.bin"
kms_key = "$KEY"
[key.context]
purpose = "secretfs"
[aws]
ca_bundle = "/etc/unlock/test-ca.pem"
[[volume]]
name       = "secretfs"
device     = "instance-store"
format     = "blank"
filesystem = "ext4"
mount      = "/mnt/secretfs"
[[volume]]
name       = "infile"
device     = "file:/var/lib/infile"
size       = "48MiB"
format     = "blank"
filesystem = "ext4"
mount      = "/mnt/infile"
`
)

// up is what holds of a system that is up, in sh. The network must be there by the
// distribution's own means: one address and one default route, both by DHCP.
const up = `
active() { for unit in "$@"; do systemctl is-active "$unit"; done; }
active multi-user.target getty.target serial-getty@ttyS0.service
systemctl list-jobs
test -z "$(systemctl list-jobs --no-legend | grep -E 'device|mount|crypt')"
systemctl --failed
test -z "$(systemctl --failed --no-legend)"
/lib/systemd/systemd-networkd-wait-online --timeout=60
ip address
ip route
test "$(ip -o -4 address show scope global | wc -l)" = 1
ip -o -4 address show scope global | grep -q dynamic
test "$(ip route show default | wc -l)" = 1
ip route show default | grep -q 'proto dhcp'
test -z "$(ip route | grep -v proto)"
test "$(cat /proc/sys/net/ipv6/conf/e*/disable_ipv6)" = 0
systemd-analyze time
`

const unlocked = `
for v in secretfs infile; do
	cryptsetup status $v
	test "$(findmnt -no SOURCE,FSTYPE /mnt/$v | tr -s ' ')" = "/dev/mapper/$v ext4"
	udevadm info /dev/mapper/$v
	active dev-mapper-$v.device mnt-$v.mount
done
`

// lab is a scenario being run.
type lab struct {
	Scenario
	dir     string
	system  system
	cloud   *ec2sim.Cloud
	key     string
	disk    string
	console vm.Console
	all     vm.Console
	notes   []string
}

// Result of a scenario.
type Result struct {
	Summary string     // a line
	Console vm.Console // of all boots
}

// Run runs a scenario with bin/unlock, from the top of the source tree. The Result
// is valid, as far as it goes, even with an error.
func Run(ctx context.Context, s Scenario) (Result, error) {
	l := &lab{Scenario: s}
	err := l.run(ctx)
	return Result{Summary: strings.Join(l.notes, ", "), Console: l.all}, err
}

func (l *lab) run(ctx context.Context) (err error) {
	if os.Geteuid() != 0 {
		return errors.New("building an initramfs in a chroot takes root")
	}
	if l.dir, err = os.MkdirTemp("", "qemu-test-"); err != nil {
		return err
	}
	defer os.RemoveAll(l.dir)
	if l.cloud, err = ec2sim.New(ec2sim.Config{}); err != nil {
		return err
	}
	defer l.cloud.Close()
	l.key = l.cloud.CreateKey()
	l.disk = filepath.Join(l.dir, "nvme0.img")
	if err := errors.Join(os.WriteFile(l.disk, nil, 0o600), os.Truncate(l.disk, 64<<20)); err != nil {
		return err
	}
	if l.system, err = l.system.get(ctx, l.suite, l.packages); err != nil {
		return fmt.Errorf("making %s with %s: %w", l.suite, l.packages, err)
	}
	if err := l.build(ctx); err != nil {
		return fmt.Errorf("building images: %w", err)
	}
	boots := []boot{
		{script: unlocked + l.check + "echo '" + fileText + "' >/mnt/secretfs/file; sync"},
		{script: unlocked + l.check + "cat /mnt/secretfs/file", want: []string{fileText}},
	}
	boots = append(boots, l.also...)
	if l.stopped != "" {
		boots = append(boots, boot{append: l.stop, fault: "kms-denied", want: []string{"AccessDenied", "hint: ", l.stopped}})
	}
	for i, b := range boots {
		if err := l.boot(ctx, b); err != nil {
			return fmt.Errorf("boot %d: %w", i+1, err)
		}
	}
	return nil
}

func (l *lab) boot(ctx context.Context, b boot) error {
	var faults []string
	if b.fault != "" {
		faults = append(faults, b.fault)
	}
	if err := l.cloud.SetFaults(faults...); err != nil {
		return err
	}
	before, err := os.ReadFile(l.disk)
	if err != nil {
		return err
	}
	m := vm.Machine{
		Kernel: l.system.kernel, Initrd: l.file("with.img"), Root: l.system.root, Plug: l.cloud.Plug, Memory: 2048,
		Disks: []vm.Disk{{File: l.disk, Serial: vm.Serial(0)}}, Script: up + b.script, Timeout: 15 * time.Minute,
		// On a busy host a machine without acceleration is slower than systemd expects of any.
		Append: "root=LABEL=" + vm.RootLabel + " rw systemd.show_status=1 systemd.default_timeout_start_sec=600" +
			" systemd.default_device_timeout_sec=600 " + b.append,
	}
	l.console, err = m.Run(ctx)
	l.all = append(l.all, l.console...)
	if err != nil {
		return err
	}
	for _, want := range b.want {
		if !l.console.Contains(want) {
			return fmt.Errorf("the console does not show %q", want)
		}
	}
	if b.script != "" {
		if !l.console.Contains("script: exit 0") {
			return errors.New("the script in the running system did not succeed")
		}
		l.notes = append(l.notes, fmt.Sprintf("up in %.0f s", l.at("script: begin").Seconds()))
		return nil
	}
	after, err := os.ReadFile(l.disk)
	switch {
	case err != nil:
		return err
	case sha256.Sum256(after) != sha256.Sum256(before):
		return errors.New("the disk changed, though the boot was refused")
	case l.console.Contains("script: begin") || l.console.Contains("login:"):
		return errors.New("the system was started, though the boot was refused")
	}
	return nil
}

// at returns when the console showed text.
func (l *lab) at(text string) time.Duration {
	for _, line := range l.console {
		if strings.Contains(line.Text, text) {
			return line.At
		}
	}
	return 0
}

func (l *lab) file(name string) string { return filepath.Join(l.dir, name) }

// run runs a program and returns what it printed, both outputs together.
func run(ctx context.Context, env []string, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.WaitDelay = 5 * time.Second
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		lines := strings.Split(strings.TrimSpace(out.String()), "\n")
		return out.String(), fmt.Errorf("%s: %w: %s", name, err, strings.Join(lines[max(0, len(lines)-20):], "\n"))
	}
	return out.String(), nil
}
