package vm

import (
	"cmp"
	"fmt"
	"net"
	"path/filepath"
)

// Card is a network card of the machine.
type Card struct {
	Plug   func(net.Conn) error // serves it (QEMU's stream framing) until the connection ends; nil: nobody does
	Driver string               // "": virtio-net-pci, with an MTU of 9001
	MAC    string               // "": QEMU's
	Late   string               // attached once the console shows this; "": from the beginning
}

// socket returns where QEMU finds what serves card number i.
func socket(dir string, i int) string { return filepath.Join(dir, fmt.Sprintf("net%d", i)) }

// args returns QEMU's arguments for card number i.
func (c *Card) args(dir string, i int) []string {
	netdev := fmt.Sprintf("hubport,id=net%d,hubid=%d", i, i)
	if c.Plug != nil {
		netdev = fmt.Sprintf("stream,id=net%d,server=off,addr.type=unix,addr.path=%s", i, escape(socket(dir, i)))
	}
	device := fmt.Sprintf("%s,id=card%d,netdev=net%d", cmp.Or(c.Driver, "virtio-net-pci"), i, i)
	device += ",romfile=" // EC2's cards bring no driver for firmware, which PCR 2 would show
	if c.Driver == "" {
		device += ",host_mtu=9001"
	}
	if c.MAC != "" {
		device += ",mac=" + c.MAC
	}
	if c.Late != "" {
		device = fmt.Sprintf("pcie-root-port,id=slot%d,chassis=%d", i, 100+i) // to plug it into
	}
	return []string{"-netdev", netdev, "-device", device}
}

// attach has QEMU put card number i in the slot that is kept for it.
func (c *Card) attach(i int) Request {
	device := map[string]any{"driver": cmp.Or(c.Driver, "virtio-net-pci"), "id": fmt.Sprintf("card%d", i), "netdev": fmt.Sprintf("net%d", i), "bus": fmt.Sprintf("slot%d", i)}
	if c.Driver == "" {
		device["host_mtu"] = 9001
	}
	if c.MAC != "" {
		device["mac"] = c.MAC
	}
	return Request{"device_add", device}
}

// plug listens for QEMU's connection for card number i and serves it. The returned
// function ends both.
func (c *Card) plug(dir string, i int) (unplug func(), err error) {
	l, err := net.Listen("unix", socket(dir, i))
	if err != nil {
		return nil, fmt.Errorf("plugging in a network card: %w", err)
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
		_ = c.Plug(conn) // it ends when the machine does
	}()
	return func() {
		l.Close()
		if conn, ok := <-conns; ok {
			conn.Close()
		}
		<-done
	}, nil
}
