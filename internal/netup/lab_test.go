package netup

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The tests build subnets of network namespaces and have others' servers serve them:
// dnsmasq, Kea, ISC's dhcpd, radvd, unbound. The machine is a namespace of its own, in
// which this test binary runs again and calls Up.

// role says, in the environment, what the test binary is to be, instead of a test.
const role = "NETUP_TEST_ROLE"

// settles says, likewise, after what time devices have settled.
const settles = "NETUP_TEST_SETTLES"

func TestMain(m *testing.M) {
	switch os.Getenv(role) {
	case "":
		os.Exit(m.Run())
	case "machine":
		beMachine(os.Args[1:])
	case "imds":
		serve(os.Args[1:], http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "token") }))
	case "silent":
		beSilent(os.Args[1:])
	case "settings":
		if err := beSettings(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
}

// serve serves HTTP at the addresses until the process is ended.
func serve(addrs []string, h http.Handler) {
	for _, a := range addrs[1:] {
		go listenAndServe(a, h)
	}
	listenAndServe(addrs[0], h)
}

func listenAndServe(addr string, h http.Handler) {
	fmt.Fprintln(os.Stderr, http.ListenAndServe(addr, h))
	os.Exit(1)
}

// beSilent swallows datagrams to the addresses.
func beSilent(addrs []string) {
	for _, a := range addrs {
		if _, err := net.ListenPacket("udp", a); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	select {}
}

// beMachine calls Up, connects to each address, and Down, and tells so, a line each.
func beMachine(args []string) {
	limit, err := time.ParseDuration(args[0])
	if err != nil {
		panic(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	begun := time.Now()
	say := func(format string, a ...any) {
		fmt.Printf("%6.3f "+format+"\n", append([]any{time.Since(begun).Seconds()}, a...)...)
	}
	o := Options{
		Log:   func(format string, a ...any) { say("log "+format, a...) },
		Debug: func(format string, a ...any) { say("debug "+format, a...) },
	}
	if wait, err := time.ParseDuration(os.Getenv(settles)); err == nil {
		settled := make(chan struct{})
		time.AfterFunc(wait, func() { close(settled) })
		o.Settled = settled
	}
	n, err := Up(ctx, o)
	if err != nil {
		say("failed: %v", err)
		return
	}
	say("up %s %v by %v, DNS %v, found %v", n.Interface, n.Address, n.Router, n.DNS, n.Found)
	for _, addr := range args[1:] {
		if wait, err := time.ParseDuration(addr); err == nil {
			time.Sleep(wait)
			continue
		}
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		began := time.Now()
		conn, err := n.Dial(ctx, "tcp", addr)
		cancel()
		if err != nil {
			say("dial %s: %v", addr, err)
			continue
		}
		say("dial %s: connected to %v after %d ms", addr, conn.RemoteAddr(), time.Since(began).Milliseconds())
		if raw, err := conn.(*net.TCPConn).SyscallConn(); err == nil {
			_ = raw.Control(func(fd uintptr) {
				size, _ := unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_MAXSEG)
				say("segments of %d bytes", size+12) // and the time stamps
			})
		}
		conn.Close()
	}
	say("down: %v", n.Down())
}

// lab is a machine in its subnets.
type lab struct {
	t       testing.TB
	id      string
	machine string // namespace
	cards   []string
	dir     string

	autonomous bool   // hosts make up their addresses of IPv6
	udev       string // what it does, as a shell script; "": it does not run
	settles    string // after what time devices have; "": before
}

var labs atomic.Int32

// newLab makes a machine with these cards, each at a cable to a namespace of its name.
func newLab(t testing.TB, cards ...string) *lab {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("network namespaces need root")
	}
	l := &lab{t: t, id: fmt.Sprintf("nu%d-%d", os.Getpid(), labs.Add(1)), cards: cards, dir: t.TempDir()}
	l.machine = l.id
	l.addNamespace(l.machine)
	for i, c := range cards {
		l.addNamespace(l.side(c))
		l.in(c, "ip", "link", "add", "cable", "type", "bridge", "mcast_snooping", "0")
		// Other hosts: the subnet runs, whether the machine does or not.
		l.in(c, "ip", "link", "add", "other", "type", "veth", "peer", "name", "host")
		l.in(c, "ip", "link", "set", "other", "master", "cable", "up")
		l.in(c, "ip", "link", "set", "host", "up")
		l.in(c, "ip", "link", "set", "cable", "up")
		l.plug(i, c, c)
	}
	return l
}

// plug makes card number i and connects it to the subnet of another, or its own.
func (l *lab) plug(i int, card, subnet string) {
	l.t.Helper()
	l.insert(i, card, subnet)
	l.in(subnet, "ip", "link", "set", "plug-"+card, "master", "cable", "up")
}

// insert is plug for a card without carrier.
func (l *lab) insert(i int, card, subnet string) {
	l.t.Helper()
	l.do("ip", "link", "add", card, "netns", l.machine, "address", mac(i), "type", "veth", "peer", "name", "plug-"+card, "netns", l.side(subnet))
}

// cut takes away a card's carrier.
func (l *lab) cut(card string) { l.in(card, "ip", "link", "set", "plug-"+card, "down") }

// mac is the address of card number i.
func mac(i int) string { return fmt.Sprintf("02:00:00:00:01:%02x", i) }

func (l *lab) addNamespace(name string) {
	l.do("ip", "netns", "add", name)
	l.t.Cleanup(func() {
		_ = exec.Command("ip", "netns", "del", name).Run()
	})
	l.do("ip", "-n", name, "link", "set", "lo", "up")
	if name != l.machine {
		l.do("ip", "netns", "exec", name, "sysctl", "-qw", "net.ipv6.conf.default.accept_dad=0", "net.ipv6.conf.all.forwarding=1", "net.ipv4.ip_forward=1")
	}
}

// side is the namespace at the other end of a card's cable.
func (l *lab) side(card string) string { return l.id + "-" + card }

func (l *lab) do(args ...string) string {
	l.t.Helper()
	cmd := exec.Command(args[0], args[1:]...)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		l.t.Fatalf("%s: %v: %s", strings.Join(args, " "), err, errs.String())
	}
	return string(out)
}

// in runs a command at the other end of a card's cable; "" is the machine.
func (l *lab) in(card string, args ...string) string {
	l.t.Helper()
	return l.do(l.inside(card, args)...)
}

func (l *lab) inside(card string, args []string) []string {
	name := l.machine
	if card != "" {
		name = l.side(card)
	}
	return append([]string{"ip", "netns", "exec", name}, args...)
}

// address gives the other end of a card's cable addresses; those of one host go to lo.
func (l *lab) address(card string, addrs ...string) {
	l.t.Helper()
	for _, a := range addrs {
		dev := "cable"
		if strings.HasSuffix(a, "/32") || strings.HasSuffix(a, "/128") {
			dev = "lo"
		}
		add := []string{"ip", "addr", "add", a, "dev", dev}
		if strings.Contains(a, ":") {
			add = append(add, "nodad") // it can be listened at at once
		}
		l.in(card, add...)
	}
}

// daemon runs a server at the other end of a card's cable until the test ends, and waits
// until its output shows ready.
func (l *lab) daemon(card, ready string, args ...string) {
	l.t.Helper()
	l.daemonEnv(card, ready, nil, args...)
}

func (l *lab) daemonEnv(card, ready string, env []string, args ...string) {
	l.t.Helper()
	args = l.inside(card, args)
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = append(os.Environ(), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	out := &output{seen: make(chan struct{}), want: ready}
	if ready == "" {
		out.done = true
		close(out.seen)
	}
	cmd.Stdout, cmd.Stderr = out, out
	cmd.WaitDelay = time.Second
	if err := cmd.Start(); err != nil {
		l.t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait()
	}()
	l.t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		<-ended
		if l.t.Failed() {
			l.t.Logf("%s: %s", strings.Join(args, " "), out.text())
		}
	})
	select {
	case <-out.seen:
	case <-ended:
		l.t.Fatalf("%s ended: %s", strings.Join(args, " "), out.text())
	case <-time.After(time.Minute):
		l.t.Fatalf("%s does not show %q: %s", strings.Join(args, " "), ready, out.text())
	}
}

// output is what a program says, watched for a text.
type output struct {
	mu   sync.Mutex
	buf  bytes.Buffer
	want string
	seen chan struct{}
	done bool
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.buf.Write(p)
	if !o.done && strings.Contains(o.buf.String(), o.want) {
		o.done = true
		close(o.seen)
	}
	return len(p), nil
}

func (o *output) text() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// imds serves HTTP at addresses at the other end of a card's cable.
func (l *lab) imds(card string, addrs ...string) { l.again("imds", card, addrs...) }

// again runs the test binary in a role at the other end of a card's cable.
func (l *lab) again(as, card string, addrs ...string) {
	l.t.Helper()
	network := "tcp"
	if as == "silent" {
		network = "udp"
	}
	l.daemonEnv(card, "", []string{role + "=" + as}, append([]string{os.Args[0]}, addrs...)...)
	for _, a := range addrs { // until it listens
		_, port, _ := net.SplitHostPort(a)
		for begun := time.Now(); ; time.Sleep(10 * time.Millisecond) {
			if out := l.in(card, "ss", "-Hln", "--"+network, "sport = :"+port); strings.Contains(out, a) {
				break
			}
			if time.Since(begun) > time.Minute {
				l.t.Fatalf("nobody listens at %s", a)
			}
		}
	}
}

// dnsmasq runs it at the other end of a card's cable.
func (l *lab) dnsmasq(card string, args ...string) {
	l.t.Helper()
	l.daemon(card, "started", append([]string{"dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--user=root", "--no-ping",
		"--log-facility=-", "--log-dhcp", "--log-queries", "--pid-file=", "--dhcp-leasefile=" + l.file(card+".leases"), "--dhcp-authoritative"}, args...)...)
}

func (l *lab) file(name string) string { return filepath.Join(l.dir, name) }

// machineOutput is what beMachine told.
type machineOutput []string

// up runs a machine: how long Up may take, and what is then connected to. The state
// of the machine's network must be the same before and after.
func (l *lab) up(args ...string) machineOutput {
	l.t.Helper()
	before := l.state()
	out := l.run(args...)
	if after := l.state(); after != before {
		l.t.Errorf("the network was left in another state:\n%s", difference(before, after))
	}
	return out
}

func (l *lab) run(args ...string) machineOutput {
	l.t.Helper()
	// Only real network cards have a device in sysfs.
	script := "mount -t tmpfs none /sys && mount -t tmpfs none /run"
	for i, c := range l.cards {
		script += fmt.Sprintf(" && mkdir -p /sys/devices/%d /sys/class/net/%s && ln -s /sys/devices/%d /sys/class/net/%s/device", i, c, i, c)
	}
	if l.udev != "" {
		script += " && mkdir -p /run/udev/data && : >/run/udev/control && { (" + l.udev + ") & }"
	}
	script += " && : >" + l.file("resolv.conf") + " && if test -s " + l.file("resolv") + "; then cat " + l.file("resolv") + " >" + l.file("resolv.conf") + "; fi && mount --bind " + l.file("resolv.conf") + ` /etc/resolv.conf && exec "$@"`
	cmd := exec.Command("ip", slices.Concat([]string{"netns", "exec", l.machine, "sh", "-c", script, "sh", os.Args[0]}, args)...)
	cmd.Env = append(os.Environ(), role+"=machine", settles+"="+l.settles)
	out, err := cmd.CombinedOutput()
	if err != nil {
		l.t.Fatalf("the machine: %v: %s", err, out)
	}
	l.t.Logf("\n%s", out)
	return strings.Split(strings.TrimSpace(string(out)), "\n")
}

var (
	counters = regexp.MustCompile(`(valid_lft|preferred_lft|expires|age|used) \S+`)
	queues   = regexp.MustCompile(` qdisc \S+`) // stays from the first time that a card is up
)

// state is all that a boot must leave as it was.
func (l *lab) state() string {
	var b strings.Builder
	for _, args := range [][]string{{"ip", "-d", "addr"}, {"ip", "route", "show", "table", "all"}, {"ip", "-6", "route", "show", "table", "all"}, {"ip", "rule"}} {
		text := counters.ReplaceAllString(l.in("", args...), "$1 N")
		b.WriteString(queues.ReplaceAllString(text, ""))
	}
	for line := range strings.Lines(l.in("", "sysctl", "-a", "--pattern", `^net\.ipv[46]\.conf`)) {
		b.WriteString(line)
	}
	return b.String()
}

// difference lists the lines that one has and the other lacks.
func difference(before, after string) string {
	var b strings.Builder
	was, is := strings.Split(before, "\n"), strings.Split(after, "\n")
	for _, line := range was {
		if !slices.Contains(is, line) {
			fmt.Fprintf(&b, "- %s\n", line)
		}
	}
	for _, line := range is {
		if !slices.Contains(was, line) {
			fmt.Fprintf(&b, "+ %s\n", line)
		}
	}
	return b.String()
}

// wants checks that lines contain the texts, in this order.
func (o machineOutput) wants(t *testing.T, texts ...string) {
	t.Helper()
	rest := o
	for _, text := range texts {
		i := slices.IndexFunc(rest, func(line string) bool { return strings.Contains(line, text) })
		if i < 0 {
			t.Errorf("the machine does not tell %q, or not in this place", text)
			return
		}
		rest = rest[i:]
	}
}
