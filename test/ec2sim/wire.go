package ec2sim

import (
	"bytes"
	"container/heap"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/header"
)

var routerMAC = net.HardwareAddr{0x0a, 0xff, 0xac, 0x1f, 0x00, 0x01}

// port is one machine's cable. Frames towards the machine wait in a queue until
// they are due, so that latency does not limit throughput.
type port struct {
	send   func(frame []byte) error
	quit   func()            // closes what send writes to
	faults map[string]*fault // of the machine's subnet alone; guarded by Cloud.mu

	mu    sync.Mutex
	mac   string // of the last frame that the machine sent
	queue frameQueue
	seq   int
	wake  chan struct{}
	done  chan struct{}
	ended bool
}

type queuedFrame struct {
	due   time.Time
	seq   int // keeps frames that are due at the same time in order
	frame []byte
}

// frameQueue is a heap, the frame due first on top.
type frameQueue []queuedFrame

func (q frameQueue) Len() int      { return len(q) }
func (q frameQueue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q frameQueue) Less(i, j int) bool {
	if q[i].due.Equal(q[j].due) {
		return q[i].seq < q[j].seq
	}
	return q[i].due.Before(q[j].due)
}
func (q *frameQueue) Push(x any) { *q = append(*q, x.(queuedFrame)) }
func (q *frameQueue) Pop() any {
	last := len(*q) - 1
	x := (*q)[last]
	*q = (*q)[:last]
	return x
}

// attach adds a port; its frames go to send, from one goroutine.
func (c *Cloud) attach(send func([]byte) error, quit func(), faults map[string]*fault) (*port, error) {
	p := &port{send: send, quit: quit, faults: faults, wake: make(chan struct{}, 1), done: make(chan struct{})}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ctx.Err() != nil {
		return nil, errors.New("the simulated EC2 is closed")
	}
	c.ports[p] = true
	c.wg.Go(p.deliver)
	return p, nil
}

func (c *Cloud) detach(p *port) {
	c.mu.Lock()
	delete(c.ports, p)
	c.mu.Unlock()
	p.close()
}

func (p *port) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.ended {
		p.ended = true
		close(p.done)
		p.quit()
	}
}

// enqueue has frame delivered after delay.
func (p *port) enqueue(frame []byte, delay time.Duration) {
	p.mu.Lock()
	p.seq++
	heap.Push(&p.queue, queuedFrame{time.Now().Add(delay), p.seq, frame})
	p.mu.Unlock()
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// deliver sends the frames when they are due, until the port is closed.
func (p *port) deliver() {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		p.mu.Lock()
		wait := time.Hour
		var frame []byte
		if len(p.queue) > 0 {
			if wait = time.Until(p.queue[0].due); wait <= 0 {
				frame = heap.Pop(&p.queue).(queuedFrame).frame
			}
		}
		p.mu.Unlock()
		if frame != nil {
			if p.send(frame) != nil {
				return // the machine is gone; its reader sees that too
			}
			continue
		}
		timer.Reset(wait)
		select {
		case <-timer.C:
		case <-p.wake:
		case <-p.done:
			return
		}
	}
}

// Plug connects a machine's network card: conn carries QEMU's stream framing
// (32-bit big-endian length, Ethernet frame). It returns when conn ends: nil if
// the machine's side ended, killed or not, or the Cloud was closed.
func (c *Cloud) Plug(conn net.Conn) error { return c.plug(conn, nil) }

func (c *Cloud) plug(conn net.Conn, faults map[string]*fault) error {
	send := func(frame []byte) error {
		b := binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(frame)), uint32(len(frame)))
		_, err := conn.Write(append(b, frame...))
		return err
	}
	p, err := c.attach(send, func() { conn.Close() }, faults)
	if err != nil {
		return err
	}
	defer c.detach(p)
	for {
		frame, err := readFrame(conn)
		switch {
		case c.ctx.Err() != nil, err == io.EOF, err == io.ErrUnexpectedEOF, errors.Is(err, net.ErrClosed),
			errors.Is(err, syscall.ECONNRESET): // a killed QEMU, with frames unread
			return nil
		case err != nil:
			return fmt.Errorf("reading a frame from the machine: %w", err)
		}
		c.receive(p, frame)
	}
}

// readFrame reads one frame of QEMU's stream framing.
func readFrame(r io.Reader) ([]byte, error) {
	var size [4]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(size[:])
	if n > 1<<17 { // QEMU's own limit is 68 KiB
		return nil, fmt.Errorf("a frame of %d bytes", n)
	}
	frame := make([]byte, n)
	if _, err := io.ReadFull(r, frame); err != nil {
		return nil, err
	}
	return frame, nil
}

// receive takes a frame that a machine sent.
func (c *Cloud) receive(p *port, frame []byte) {
	c.mu.Lock()
	c.frames++
	c.mu.Unlock()
	if len(frame) < header.EthernetMinimumSize || c.lost() {
		return
	}
	eth := header.Ethernet(frame)
	p.mu.Lock()
	mac := string(eth.SourceAddress())
	fresh := p.mac != mac
	p.mac = mac
	p.mu.Unlock()
	if fresh {
		c.instanceOf(net.HardwareAddr(mac))
	}
	c.sawDestination(frame)
	if !c.carries(p, frame) {
		return
	}
	switch payload := frame[header.EthernetMinimumSize:]; eth.Type() {
	case header.IPv4ProtocolNumber:
		if c.dhcp(p, header.IPv4(payload)) {
			return
		}
	case header.IPv6ProtocolNumber:
		if c.ipv6(p, net.HardwareAddr(mac), header.IPv6(payload)) {
			return
		}
	}
	inject(c.link, frame)
}

// sawDestination notes whom a packet is for.
func (c *Cloud) sawDestination(frame []byte) {
	payload := frame[header.EthernetMinimumSize:]
	switch header.Ethernet(frame).Type() {
	case header.IPv4ProtocolNumber:
		if ip := header.IPv4(payload); ip.IsValid(len(ip)) {
			dst := ip.DestinationAddress()
			if dst != header.IPv4Broadcast && !header.IsV4MulticastAddress(dst) {
				c.sawHost(netip.AddrFrom4(dst.As4()).String())
			}
		}
	case header.IPv6ProtocolNumber:
		if ip := header.IPv6(payload); ip.IsValid(len(ip)) {
			if dst := ip.DestinationAddress(); !header.IsV6MulticastAddress(dst) {
				c.sawHost(netip.AddrFrom16(dst.As16()).String())
			}
		}
	}
}

// switchFrames passes what the stack sends to the machine that it is for.
func (c *Cloud) switchFrames() {
	for {
		frame := nextFrame(c.ctx, c.link)
		if frame == nil {
			return
		}
		dst := header.Ethernet(frame).DestinationAddress()
		c.mu.Lock()
		var to []*port
		for p := range c.ports {
			p.mu.Lock()
			if p.mac == string(dst) || dst == header.EthernetBroadcastAddress || header.IsMulticastEthernetAddress(dst) {
				to = append(to, p)
			}
			p.mu.Unlock()
		}
		c.mu.Unlock()
		for _, p := range to {
			if !c.carries(p, frame) {
				continue
			}
			c.transmit(p, bytes.Clone(frame), 0)
		}
	}
}

// transmit sends frame to a machine after the round-trip time and extra. ARP and neighbour discovery
// are not delayed: on EC2 the hypervisor answers it, and it would be one more round
// trip, at times that depend on caches.
func (c *Cloud) transmit(p *port, frame []byte, extra time.Duration) {
	if c.lost() {
		return
	}
	delay := c.cfg.RTT + extra
	if isDiscovery(frame) {
		delay = 0
	}
	p.enqueue(frame, delay)
}

// isDiscovery reports whether a frame is one of ARP or of its like in IPv6.
func isDiscovery(frame []byte) bool {
	switch header.Ethernet(frame).Type() {
	case header.ARPProtocolNumber:
		return true
	case header.IPv6ProtocolNumber:
		ip := header.IPv6(frame[header.EthernetMinimumSize:])
		if !ip.IsValid(len(ip)) || ip.TransportProtocol() != header.ICMPv6ProtocolNumber || len(ip.Payload()) < header.ICMPv6MinimumSize {
			return false
		}
		kind := header.ICMPv6(ip.Payload()).Type()
		return kind == header.ICMPv6NeighborSolicit || kind == header.ICMPv6NeighborAdvert
	}
	return false
}

// lost decides whether a frame is lost.
func (c *Cloud) lost() bool {
	if c.fault("link-down") {
		return true
	}
	percent, ok := c.faultPercent("loss")
	return ok && rand.Float64()*100 < percent
}

// Frames returns how many Ethernet frames the machines have sent.
func (c *Cloud) Frames() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.frames
}
