package vm

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// fakeQEMU puts a shell script in QEMU's place.
func fakeQEMU(t *testing.T, script string) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "qemu-system-x86_64"), []byte("#!/bin/sh\n"+script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
}

func TestConsole(t *testing.T) {
	fakeQEMU(t, `printf 'SeaBIOS\033[2J\033c\r\n[    0.1] one\r\r\nlast'; for a; do echo "$a" >&2; done`)
	var out strings.Builder
	m := Machine{Kernel: "k", Initrd: "i", Output: &out}
	c, err := m.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var texts []string
	for _, l := range c {
		if l.At <= 0 || l.At > time.Minute {
			t.Errorf("%q came after %v", l.Text, l.At)
		}
		texts = append(texts, l.Text)
	}
	if got, want := strings.Join(texts, "|"), "SeaBIOS|[    0.1] one|last"; got != want {
		t.Errorf("console is %q, want %q", got, want)
	}
	if want := strings.Join(texts, "\n") + "\n"; out.String() != want {
		t.Errorf("output is %q, want %q", out.String(), want)
	}
	if !c.Contains("one") || c.Contains("two") || len(c.Tail(2)) != 2 || len(c.Tail(9)) != 3 {
		t.Errorf("Contains or Tail of %v", c)
	}
}

func TestMachineThatNeverEnds(t *testing.T) {
	fakeQEMU(t, "echo here; exec sleep 100")
	m := Machine{Timeout: 3 * time.Second}
	c, err := m.Run(t.Context())
	if !errors.Is(err, context.DeadlineExceeded) || !c.Contains("here") {
		t.Errorf("Run = %v, %v; want the console and a deadline", c, err)
	}
}

func TestPowerCut(t *testing.T) {
	fakeQEMU(t, "echo before; echo formatting; exec sleep 100")
	m := Machine{Cut: "formatting", CutWait: 50 * time.Millisecond}
	c, err := m.Run(t.Context())
	if err != nil || !c.Contains("before") || c.Tail(1)[0].At > time.Minute {
		t.Errorf("Run = %v, %v; want the console up to the cut", c, err)
	}
	fakeQEMU(t, "echo formatting; exit 3") // ends before its power does
	if _, err := m.Run(t.Context()); err == nil {
		t.Error("Run hides how a machine ended before its power was cut")
	}
}

func TestFailureOfQEMU(t *testing.T) {
	fakeQEMU(t, "echo 'no such machine' >&2; exit 1")
	if _, err := new(Machine).Run(t.Context()); err == nil || !strings.Contains(err.Error(), "no such machine") {
		t.Errorf("Run = %v, want QEMU's message", err)
	}
}

// TestNetworkCard checks that the card's connection ends with the machine,
// whether or not the machine ever made it.
func TestNetworkCard(t *testing.T) {
	for _, script := range []string{"true", `
		for a; do case $a in *addr.path=*) sock=${a##*addr.path=};; esac; done
		perl -MIO::Socket::UNIX -e '$s = IO::Socket::UNIX->new(shift) or die; $s->syswrite("x"); $s->sysread($b, 1)' "$sock"`} {
		fakeQEMU(t, script)
		m := Machine{Cards: []Card{{Plug: func(c net.Conn) error {
			b := make([]byte, 1)
			if _, err := io.ReadFull(c, b); err != nil {
				return err
			}
			if _, err := c.Write(b); err != nil {
				return err
			}
			_, err := io.ReadAll(c)
			return err
		}}}}
		if _, err := m.Run(t.Context()); err != nil {
			t.Errorf("Run with %q = %v", script, err)
		}
	}
}

func TestSectors(t *testing.T) {
	for _, n := range []int{0, 1, 511, 512, 513} {
		got := sectors(strings.Repeat("a", n))
		if len(got)%512 != 0 || len(got) <= n || strings.TrimRight(string(got), "\x00") != strings.Repeat("a", n) {
			t.Errorf("sectors of %d bytes has %d", n, len(got))
		}
	}
}

func TestCachedIsWholeOrNotThere(t *testing.T) {
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	broken := errors.New("broken off")
	calls := 0
	fill := func(err error) (string, error) {
		return cached("thing", func(dir string) (string, error) {
			calls++
			file := filepath.Join(dir, "made")
			return file, errors.Join(os.WriteFile(file, []byte("whole"), 0o644), err)
		})
	}
	if _, err := fill(broken); !errors.Is(err, broken) {
		t.Fatalf("cached = %v, want %v", err, broken)
	}
	for range 2 {
		path, err := fill(nil)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(path); string(got) != "whole" {
			t.Errorf("%s holds %q, %v", path, got, err)
		}
	}
	if calls != 2 {
		t.Errorf("made %d times, want 2: once broken off, once kept", calls)
	}
	dir, err := CacheDir()
	if err != nil {
		t.Fatal(err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "new-*")); len(left) > 0 {
		t.Errorf("left over: %v", left)
	}
}

// TestTyping checks that an answer is typed once its question shows, though the
// question ends no line.
func TestTyping(t *testing.T) {
	fakeQEMU(t, `for i in 1 2; do printf 'Passphrase: '; read answer; echo "($i)"; echo "got $answer"; done`)
	m := Machine{Type: []Typed{{When: "Passphrase:", Text: "correct\n"}, {When: "Passphrase:", Text: "horse\n", After: time.Millisecond}}, Timeout: 5 * time.Minute}
	if c, err := m.Run(t.Context()); err != nil || !c.Contains("got correct") || !c.Contains("got horse") {
		t.Errorf("Run = %v, %v; want both answers", c, err)
	}
}

func TestPowerCutByTheDisk(t *testing.T) {
	fakeQEMU(t, "echo here; exec sleep 100")
	asked := 0
	m := Machine{CutWhen: func() bool { asked++; return asked == 5 }, Timeout: 5 * time.Minute}
	if _, err := m.Run(t.Context()); err != nil || asked != 5 {
		t.Errorf("Run = %v after %d questions, want a cut after 5", err, asked)
	}
}
