package vm

import (
	"fmt"
	"net"
	"path/filepath"
	"time"
)

// Link is a change of the network cable of the card that Plug serves.
type Link struct {
	When  string        // the console shows this; "": before the machine starts
	After time.Duration // and this much later
	Up    bool
}

// cardArgs returns QEMU's arguments for the network cards.
func (m *Machine) cardArgs(dir string) []string {
	var a []string
	for i := range m.DeadCards {
		a = append(a, "-netdev", fmt.Sprintf("hubport,id=dead%d,hubid=%d", i, i), "-device", fmt.Sprintf("virtio-net-pci,netdev=dead%d", i))
	}
	if m.Plug != nil {
		a = append(a, "-netdev", "stream,id=net0,server=off,addr.type=unix,addr.path="+escape(filepath.Join(dir, "net")),
			"-device", "virtio-net-pci,id=card,netdev=net0,host_mtu=9001")
	}
	return a
}

// plug listens for QEMU's connection and serves it. The returned function ends both.
func (m *Machine) plug(dir string) (unplug func(), err error) {
	l, err := net.Listen("unix", filepath.Join(dir, "net"))
	if err != nil {
		return nil, fmt.Errorf("plugging in the network card: %w", err)
	}
	done := make(chan struct{})
	conns := make(chan net.Conn, 1)
	go func() {
		defer close(done)
		defer close(conns)
		conn, err := l.Accept()
		if err != nil {
			return // closed: QEMU never came
		}
		conns <- conn
		_ = m.Plug(conn) // it ends when the machine does
	}()
	return func() {
		l.Close()
		if conn, ok := <-conns; ok {
			conn.Close()
		}
		<-done
	}, nil
}
