package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"unlock/test/distro"
	"unlock/test/ec2sim"
	"unlock/test/lab"
	"unlock/test/vm"
)

// The benchmark boots one Debian 13 in several ways, which differ in the initramfs and in
// the kernel command line alone, one after the other in each round. All open one disk that
// was formatted before; plain opens none.

// benched is what every way of booting has; initramfs-tools and dracut cannot both be
// installed, but what both need can.
var benched = distro.System{Suite: "trixie", Packages: "dracut,dracut-network,systemd-cryptsetup,initramfs-tools-core,clevis-dracut,clevis-luks,clevis-systemd,curl,tang,awscli"}

// ways of booting, in the order of each round.
var ways = []way{
	{name: plainDracut, initrd: "dracut/out/plain.img"},
	{name: "unlock, dracut", than: plainDracut, initrd: "dracut/out/with.img", opens: true},
	{name: plainTools, initrd: "tools/out/plain.img"},
	{name: "unlock, initramfs-tools", than: plainTools, initrd: "tools/out/with.img", opens: true},
	{name: clevisTang, than: plainDracut, initrd: "clevis/out/plain.img", opens: true,
		append: "ip=dhcp rd.neednet=1 rd.luks.name=" + benchUUID + "=secretfs systemd.mount-extra=/dev/mapper/secretfs:/mnt/secretfs:ext4"},
	{name: awsRecipe, than: plainDracut, initrd: "dracut/out/plain.img", opens: true, append: "systemd.wants=recipe.service"},
}

const (
	plainDracut = "plain, dracut"
	plainTools  = "plain, initramfs-tools"
	clevisTang  = "clevis and tang, dracut"
	awsRecipe   = "recipe with the AWS CLI, dracut"
)

type way struct {
	name   string
	than   string // the way that it adds to; "": none
	initrd string // below the lab's directory
	append string // to the kernel command line
	opens  bool
}

// generatorsOf make the images: what is built before there is a configuration is plain.img.
var generatorsOf = []struct {
	dir string
	distro.Generator
}{
	{"dracut", dracut("no", plainDisks+"\nomit_dracutmodules+=\" crypt systemd-cryptsetup clevis clevis-pin-tang clevis-pin-sss clevis-pin-null clevis-pin-tpm2 clevis-pin-pkcs11 \"")},
	{"clevis", dracut("no", plainDisks+networkd+"\nomit_dracutmodules+=\" unlock \"\nadd_dracutmodules+=\" crypt clevis clevis-pin-tang \"")},
	{"tools", distro.Generator{File: "/usr/local/sbin/make-image", Rebuild: "sh -eu /usr/local/sbin/make-image", Text: `cat >/etc/initramfs-tools/conf.d/test <<END
` + initramfsTools.Text + `END
rm -f /boot/initr*
for kernel in /lib/modules/*; do
	mkinitramfs -o "/boot/initrd.img-${kernel##*/}" "${kernel##*/}"
done
`}},
}

const (
	benchUUID = "7d1f9a52-0c35-4a86-9d5e-5be1c2a4f361"
	tangURL   = "http://172.31.0.60:7500"
)

var tangAddr = netip.MustParseAddrPort("172.31.0.60:7500")

// recipe is the one of the AWS Security Blog, as a unit.
var recipe = []string{
	"/etc/systemd/system/recipe.service", `[Unit]
Wants=network-online.target
After=network-online.target
[Service]
Type=oneshot
RemainAfterExit=yes
Environment=AWS_CA_BUNDLE=/etc/unlock-ca.pem AWS_DEFAULT_REGION=us-east-1 AWS_S3_US_EAST_1_REGIONAL_ENDPOINT=regional HOME=/root
ExecStart=/bin/sh -eu /usr/local/sbin/recipe
`,
	"/usr/local/sbin/recipe", `aws s3 cp s3://` + lab.Bucket + `/` + lab.Object + ` /run/encrypted
aws kms decrypt --ciphertext-blob fileb:///run/encrypted --encryption-context purpose=secretfs --query Plaintext --output text |
	base64 -d | cryptsetup open --key-file - /dev/nvme0n1 secretfs
mkdir -p /mnt/secretfs
mount /dev/mapper/secretfs /mnt/secretfs
`,
}

// figures of a boot, in the order in which they are printed.
var figures = []struct{ name, unit, what string }{
	{"kernel", "s", "until the kernel started the first process"},
	{"initrd", "s", "from then until the system's own systemd began"},
	{"userspace", "s", "from then until the boot was over"},
	{"volume", "s", "from the kernel's start until the volume was mounted"},
	{"sysinit", "s", "from the kernel's start until sysinit.target of the system"},
	{"CPU", "s", "for which the machine's processors were busy, until a little after the boot"},
	{"image", "MB", "of the initramfs (zstd -1, with kernel modules)"},
	{"requests", "", "that DHCP, DNS, IMDS, AWS and tang answered, those of the system's own network included"},
	{"packets", "", "that the machine sent, likewise"},
}

// benchmark is the scenario, and what it has measured by way and figure.
type benchmark struct {
	rtt     time.Duration
	file    string // for the table
	dir     string
	results map[string]map[string][]float64
	frames  int // before the boot
}

// scenario boots each way so many times.
func (b *benchmark) scenario(rounds int) lab.Scenario {
	s := lab.Scenario{
		Name: "bench-boot", Config: s3Key + secretfs, Disks: []string{"blank:64"}, Cloud: ec2sim.Config{RTT: b.rtt},
		System: b.system, Hosts: []string{tangAddr.Addr().String()},
		Boots: []lab.Boot{{Name: "to prepare", Secret: true, Machine: b.boots(ways[0]), Script: "bench_prepare " + tangURL}},
	}
	for range rounds {
		for _, w := range ways {
			script := "bench_times"
			if w.opens {
				script = "bench_mounted\nbench_times"
			}
			s.Boots = append(s.Boots, lab.Boot{Name: w.name, Append: w.append, Machine: b.boots(w), Script: script, Check: b.judge(w),
				Before: func(_ context.Context, l *lab.Lab) error { b.frames = l.Cloud.Frames(); return nil }})
		}
	}
	return s
}

// system builds all images of one system and starts tang from it.
func (b *benchmark) system(ctx context.Context, l *lab.Lab) error {
	system, err := benched.Get(ctx)
	if err != nil {
		return err
	}
	key, err := os.ReadFile(l.File("key.bin"))
	if err != nil {
		return err
	}
	b.dir = l.File("")
	for _, g := range generatorsOf {
		dir := l.File(g.dir)
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
		if _, _, err := (distro.Image{Generator: g.Generator, Root: system.Root, Config: l.Expand(l.Config), Plain: true,
			Files: map[string][]byte{"key.bin": key, "test-ca.pem": l.Cloud.CA()}}).Build(ctx, dir); err != nil {
			return err
		}
	}
	l.Base.Kernel, l.Base.Root, l.Base.Memory, l.Base.Timeout = system.Kernel, system.Root, 2048, 30*time.Minute
	l.Base.Append = "root=LABEL=" + vm.RootLabel + " ro" + patience
	if err := putOnRoot(ctx, l, append([]string{
		"/etc/unlock-ca.pem", string(l.Cloud.CA()),
		"/etc/resolv.conf", "nameserver 172.31.0.2\n", // networkd sets none
	}, recipe...)); err != nil {
		return err
	}
	return b.tang(ctx, l, system.Root)
}

// tang runs the system's own tangd, whose keys lie in the lab's directory, on this machine.
func (b *benchmark) tang(ctx context.Context, l *lab.Lab, root string) error {
	port, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	address := port.Addr().String()
	_, number, _ := net.SplitHostPort(address)
	keys, mounted := l.File("tang"), l.File("tang-root")
	if err := errors.Join(port.Close(), os.Mkdir(keys, 0o777), os.Mkdir(mounted, 0o755)); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "unshare", "--mount", "--pid", "--fork", "--kill-child", "--propagation=private", "sh", "-euc",
		`mount -o loop,ro "$1" "$2"
		mount --bind "$3" "$2/mnt"
		mount --bind /dev "$2/dev"
		chroot "$2" /usr/libexec/tangd-keygen /mnt
		exec chroot "$2" /usr/libexec/tangd -l -p "$4" /mnt`, "sh", root, mounted, keys, number)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // unshare pays no heed to SIGTERM
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("starting tang: %w", err)
	}
	go func() { _ = cmd.Wait() }() // it ends with the benchmark
	for range 100 {
		var conn net.Conn
		if conn, err = net.Dial("tcp", address); err == nil {
			conn.Close()
			return l.Cloud.Forward("tang", tangAddr, address)
		}
		time.Sleep(100 * time.Millisecond)
	}
	return fmt.Errorf("starting tang: %w", err)
}

// boots has the machine boot a way's image.
func (b *benchmark) boots(w way) lab.Change {
	return func(_ *lab.Lab, m *vm.Machine) { m.Initrd = filepath.Join(b.dir, w.initrd) }
}

var benchLine = regexp.MustCompile(`(\w+)=(\d+)`)

// judge takes what a boot's script has printed.
func (b *benchmark) judge(w way) lab.Judge {
	return func(l *lab.Lab) error {
		got := map[string]float64{}
		for _, line := range l.Console {
			if _, text, ok := strings.Cut(line.Text, "bench: "); ok { // a login prompt may stand before it
				for _, m := range benchLine.FindAllStringSubmatch(text, -1) {
					got[m[1]], _ = strconv.ParseFloat(m[2], 64)
				}
			}
		}
		if got["kernel"] == 0 || got["finish"] == 0 || w.opens && got["volume"] == 0 {
			return fmt.Errorf("the machine says too little of its times: %v", got)
		}
		image, err := os.Stat(filepath.Join(b.dir, w.initrd))
		if err != nil {
			return err
		}
		const us = 1e6
		values := map[string]float64{
			"kernel": got["kernel"] / us, "initrd": (got["userspace"] - got["kernel"]) / us, "userspace": (got["finish"] - got["userspace"]) / us,
			"volume": got["volume"] / us, "sysinit": got["sysinit"] / us, "CPU": got["cpu"] / 100, "image": float64(image.Size()) / 1e6,
			"requests": float64(len(l.Requests())), "packets": float64(l.Cloud.Frames() - b.frames),
		}
		if b.results[w.name] == nil {
			b.results[w.name] = map[string][]float64{}
		}
		for name, v := range values {
			b.results[w.name][name] = append(b.results[w.name][name], v)
		}
		line := fmt.Sprintf("%-32s", w.name)
		for _, f := range figures {
			line += fmt.Sprintf(" %s %.2f", f.name, values[f.name])
		}
		fmt.Println(line)
		if w.name != ways[len(ways)-1].name {
			return nil
		}
		return os.WriteFile(b.file, []byte(b.table()), 0o644)
	}
}

// run boots and prints the table. After each round it is in b.file.
func (b *benchmark) run(ctx context.Context, bench lab.Bench, rounds int) error {
	l, err := runOne(ctx, bench, b.scenario(rounds))
	if err != nil {
		fmt.Print(l.Console.Tail(60))
		l.PrintRequests()
		return err
	}
	fmt.Print(b.table())
	return nil
}

// table is Markdown: medians with the smallest and the largest, and what was added.
func (b *benchmark) table() string {
	var t strings.Builder
	rounds := len(b.results[plainDracut]["kernel"])
	fmt.Fprintf(&t, "`make bench-boot ROUNDS=%d RTT=%v`, %s: medians of %d rounds (smallest–largest).\n\n|", rounds, b.rtt, time.Now().UTC().Format(time.DateOnly), rounds)
	for _, f := range figures {
		fmt.Fprintf(&t, " | %s", strings.TrimSuffix(f.name+", "+f.unit, ", "))
	}
	fmt.Fprintf(&t, " |\n|---%s|\n", strings.Repeat("|---", len(figures)))
	for _, w := range ways {
		fmt.Fprintf(&t, "| %s", w.name)
		for _, f := range figures {
			if f.name == "volume" && !w.opens {
				t.WriteString(" | –")
				continue
			}
			t.WriteString(" | " + spread(b.results[w.name][f.name]))
		}
		t.WriteString(" |\n")
	}
	t.WriteString("\n| | added before the system's own systemd, s | to clevis' | added until sysinit.target, s | to clevis' | until the volume, to clevis' | to the recipe's | image, MB more |\n|---|---|---|---|---|---|---|---|\n")
	for _, w := range ways {
		if w.than == "" {
			continue
		}
		volume := b.results[w.name]["volume"]
		fmt.Fprintf(&t, "| %s", w.name)
		for _, until := range []func(string) []float64{b.untilSystem, b.untilSysinit} {
			added := func(w way) []float64 { return each(until(w.name), until(w.than), minus) }
			fmt.Fprintf(&t, " | %s | %s", spread(added(w)), spread(each(added(w), added(named(clevisTang)), over)))
		}
		fmt.Fprintf(&t, " | %s | %s | %s |\n",
			spread(each(volume, b.results[clevisTang]["volume"], over)), spread(each(volume, b.results[awsRecipe]["volume"], over)),
			spread(each(b.results[w.name]["image"], b.results[w.than]["image"], minus)))
	}
	t.WriteString("\n")
	for _, f := range figures {
		fmt.Fprintf(&t, "- %s: %s\n", f.name, f.what)
	}
	return t.String()
}

// untilSystem is when the system's own systemd began, round by round.
func (b *benchmark) untilSystem(way string) []float64 {
	return each(b.results[way]["kernel"], b.results[way]["initrd"], func(x, y float64) float64 { return x + y })
}

// untilSysinit is when its services could begin.
func (b *benchmark) untilSysinit(way string) []float64 { return b.results[way]["sysinit"] }

func named(name string) way {
	return ways[slices.IndexFunc(ways, func(w way) bool { return w.name == name })]
}

func minus(x, y float64) float64 { return x - y }
func over(x, y float64) float64  { return x / y }

// each applies f to the values of the same rounds.
func each(x, y []float64, f func(x, y float64) float64) []float64 {
	var z []float64
	for i := range min(len(x), len(y)) {
		z = append(z, f(x[i], y[i]))
	}
	return z
}

// spread is the median, and the smallest and the largest where they differ from it.
func spread(values []float64) string {
	if len(values) == 0 {
		return "–"
	}
	v := slices.Sorted(slices.Values(values))
	median := (v[len(v)/2] + v[(len(v)-1)/2]) / 2
	text := number(median)
	if first, last := number(v[0]), number(v[len(v)-1]); first != text || last != text {
		text += " (" + first + "–" + last + ")"
	}
	return text
}

// number has as many digits as are of use.
func number(x float64) string {
	if x == math.Trunc(x) {
		return fmt.Sprintf("%.0f", x)
	}
	return fmt.Sprintf("%.2f", x)
}
