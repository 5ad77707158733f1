package ec2sim_test

import (
	"context"
	"net"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"unlock/test/ec2sim"
	"unlock/test/program"
)

// TestQEMU has a real QEMU on the cable: its network card's boot ROM asks for a lease.
func TestQEMU(t *testing.T) {
	t.Parallel()
	program.Need(t, "qemu-system-x86_64")
	c := newCloud(t, ec2sim.Config{})
	socket := filepath.Join(t.TempDir(), "net")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	qemu := exec.CommandContext(ctx, "qemu-system-x86_64", "-M", "q35", "-accel", "tcg", "-m", "64", "-display", "none", "-no-reboot",
		"-netdev", "stream,id=n0,server=off,addr.type=unix,addr.path="+socket,
		"-device", "virtio-net-pci,netdev=n0,bootindex=0")
	if err := qemu.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		conn, err := l.Accept()
		if err == nil {
			err = c.Plug(conn)
		}
		ended <- err
	}()
	want := []string{"DISCOVER", "REQUEST"}
	var got []string
	for ctx.Err() == nil && !slices.Equal(got, want) {
		time.Sleep(50 * time.Millisecond)
		got = nil
		for _, r := range c.Requests() {
			if !slices.Contains(got, r.Operation) {
				got = append(got, r.Operation)
			}
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("QEMU's boot ROM sent %q, want %q", got, want)
	}
	if c.Frames() == 0 {
		t.Error("Frames() = 0")
	}
	cancel()
	qemu.Wait()
	if err := <-ended; err != nil {
		t.Errorf("Plug = %v after QEMU has ended", err)
	}
}
