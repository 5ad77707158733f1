package ec2sim_test

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"

	"unlock/test/ec2sim"
)

// card is a network card on a Plug, frame by frame.
type card struct {
	t    *testing.T
	conn net.Conn
	mac  tcpip.LinkAddress
	sent int
}

func plug(t *testing.T, c *ec2sim.Cloud) (*card, <-chan error) {
	t.Helper()
	ours, theirs := net.Pipe()
	ended := make(chan error, 1)
	go func() { ended <- c.Plug(theirs) }()
	t.Cleanup(func() { ours.Close() })
	ours.SetDeadline(time.Now().Add(2 * time.Minute))
	return &card{t: t, conn: ours, mac: "\x52\x54\x00\x12\x34\x56"}, ended
}

func (n *card) send(dst tcpip.LinkAddress, kind tcpip.NetworkProtocolNumber, payload []byte) {
	n.t.Helper()
	frame := make([]byte, 4+header.EthernetMinimumSize, 4+header.EthernetMinimumSize+len(payload))
	header.Ethernet(frame[4:]).Encode(&header.EthernetFields{SrcAddr: n.mac, DstAddr: dst, Type: kind})
	frame = append(frame, payload...)
	binary.BigEndian.PutUint32(frame, uint32(len(frame)-4))
	if _, err := n.conn.Write(frame); err != nil {
		n.t.Fatal(err)
	}
	n.sent++
}

func (n *card) receive() header.Ethernet {
	n.t.Helper()
	var size [4]byte
	if _, err := io.ReadFull(n.conn, size[:]); err != nil {
		n.t.Fatal(err)
	}
	frame := make([]byte, binary.BigEndian.Uint32(size[:]))
	if _, err := io.ReadFull(n.conn, frame); err != nil {
		n.t.Fatal(err)
	}
	return frame
}

// receiveIP answers ARP until an IPv4 packet comes from an address.
func (n *card) receiveIP(self, from string, router tcpip.LinkAddress) header.IPv4 {
	n.t.Helper()
	for {
		frame := n.receive()
		if frame.Type() == header.IPv4ProtocolNumber {
			if ip := header.IPv4(frame[header.EthernetMinimumSize:]); ip.SourceAddress().String() == from {
				return ip
			}
			continue
		}
		n.send(router, header.ARPProtocolNumber, n.arp(header.ARPReply, self, "172.31.0.1", router))
	}
}

func (n *card) arp(op header.ARPOp, from, to string, target tcpip.LinkAddress) []byte {
	packet := make([]byte, header.ARPSize)
	a := header.ARP(packet)
	a.SetIPv4OverEthernet()
	a.SetOp(op)
	copy(a.HardwareAddressSender(), n.mac)
	copy(a.HardwareAddressTarget(), target)
	copy(a.ProtocolAddressSender(), netip.MustParseAddr(from).AsSlice())
	copy(a.ProtocolAddressTarget(), netip.MustParseAddr(to).AsSlice())
	return packet
}

// TestWire speaks to a Plug without any network stack.
func TestWire(t *testing.T) {
	const rtt = 200 * time.Millisecond
	const self = "172.31.5.10"
	c := newCloud(t, ec2sim.Config{RTT: rtt})
	n, ended := plug(t, c)

	n.send(header.EthernetBroadcastAddress, header.ARPProtocolNumber, n.arp(header.ARPRequest, self, "172.31.0.1", ""))
	answer := header.ARP(n.receive()[header.EthernetMinimumSize:])
	router := tcpip.LinkAddress(answer.HardwareAddressSender())
	if answer.Op() != header.ARPReply {
		t.Errorf("ARP answer %v, want a reply", answer.Op())
	}
	// ARP is not delayed: its answer comes before that to a SYN which was sent first.
	n.send(router, header.IPv4ProtocolNumber, segment(self, "192.0.2.20", header.TCPFields{DstPort: 443, SeqNum: 1, Flags: header.TCPFlagSyn}, ""))
	n.send(router, header.ARPProtocolNumber, n.arp(header.ARPRequest, self, "172.31.0.1", ""))
	for replied := false; !replied; {
		frame := n.receive()
		if frame.Type() != header.ARPProtocolNumber {
			t.Error("the answer to ARP is delayed")
			break
		}
		replied = header.ARP(frame[header.EthernetMinimumSize:]).Op() == header.ARPReply
	}

	// The hop limit of IMDS is 1: its answers do not survive a router.
	for _, tt := range []struct {
		addr string
		port uint16
		want string
		ttl  uint8
	}{{"169.254.169.254", 80, "HTTP/1.0 401 Unauthorized", 1}, {"192.0.2.10", 443, "HTTP/1.0 400 Bad Request", 64}} {
		start := time.Now()
		n.send(router, header.IPv4ProtocolNumber, segment(self, tt.addr, header.TCPFields{DstPort: tt.port, SeqNum: 1, Flags: header.TCPFlagSyn}, ""))
		ip := n.receiveIP(self, tt.addr, router)
		answer := header.TCP(ip.Payload())
		if d := time.Since(start); answer.Flags() != header.TCPFlagSyn|header.TCPFlagAck || d < rtt {
			t.Errorf("%s answers a SYN with %v after %v, want SYN and ACK after %v", tt.addr, answer.Flags(), d, rtt)
		}
		n.send(router, header.IPv4ProtocolNumber, segment(self, tt.addr, header.TCPFields{
			DstPort: tt.port, SeqNum: 2, AckNum: answer.SequenceNumber() + 1, Flags: header.TCPFlagAck,
		}, "GET / HTTP/1.0\r\n\r\n"))
		for {
			ip = n.receiveIP(self, tt.addr, router)
			if text := string(header.TCP(ip.Payload()).Payload()); text != "" {
				if !strings.HasPrefix(text, tt.want) || ip.TTL() != tt.ttl {
					t.Errorf("%s answers %q, TTL %d, want %s, TTL %d", tt.addr, text, ip.TTL(), tt.want, tt.ttl)
				}
				break
			}
		}
	}
	if got := c.Frames(); got != n.sent {
		t.Errorf("Frames() = %d, want the %d that were sent", got, n.sent)
	}
	n.send("", 0, nil)                     // too short for anything but a header
	n.conn.Write([]byte{0, 0, 0, 2, 1, 2}) // shorter than a header
	n.conn.Write([]byte{0xff, 0, 0, 0})    // longer than any frame
	if err := <-ended; err == nil || !strings.Contains(err.Error(), "a frame of 4278190080 bytes") {
		t.Errorf("Plug = %v, want a refused frame", err)
	}
}

// segment is an IPv4 packet with a TCP segment from port 40000.
func segment(from, to string, f header.TCPFields, payload string) []byte {
	src := tcpip.AddrFromSlice(netip.MustParseAddr(from).AsSlice())
	dst := tcpip.AddrFromSlice(netip.MustParseAddr(to).AsSlice())
	packet := make([]byte, header.IPv4MinimumSize+header.TCPMinimumSize+len(payload))
	ip := header.IPv4(packet)
	ip.Encode(&header.IPv4Fields{TotalLength: uint16(len(packet)), TTL: 64, Protocol: uint8(header.TCPProtocolNumber), SrcAddr: src, DstAddr: dst})
	ip.SetChecksum(^ip.CalculateChecksum())
	f.SrcPort, f.DataOffset, f.WindowSize = 40000, header.TCPMinimumSize, 65535
	tcp := header.TCP(ip.Payload())
	tcp.Encode(&f)
	copy(tcp.Payload(), payload)
	sum := header.PseudoHeaderChecksum(header.TCPProtocolNumber, src, dst, uint16(len(tcp)))
	tcp.SetChecksum(^tcp.CalculateChecksum(checksum.Checksum([]byte(payload), sum)))
	return packet
}

func TestPlugEnds(t *testing.T) {
	t.Parallel()
	c := newCloud(t, ec2sim.Config{})
	n, ended := plug(t, c)
	n.conn.Close()
	if err := <-ended; err != nil {
		t.Errorf("Plug = %v after the machine closed", err)
	}
	n, ended = plug(t, c)
	n.send("", 0, nil) // once it is read, the machine is plugged in
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if err := <-ended; err != nil {
		t.Errorf("Plug = %v after Close", err)
	}
	if _, err := c.Guest(); err == nil {
		t.Error("a closed Cloud takes guests")
	}
}

// TestDHCP sends what a client may send beside the usual exchange.
func TestDHCP(t *testing.T) {
	t.Parallel()
	c := newCloud(t, ec2sim.Config{Region: "eu-west-1"})
	g, err := c.BareGuest()
	if err != nil {
		t.Fatal(err)
	}
	conn, mac, err := g.ListenDHCP()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	server := &net.UDPAddr{IP: net.IPv4bcast, Port: 67}
	for _, tt := range []struct {
		name string
		kind dhcpv4.MessageType
		mods []dhcpv4.Modifier
		want dhcpv4.MessageType // none: no answer
		addr string
	}{
		{"discover", dhcpv4.MessageTypeDiscover, nil, dhcpv4.MessageTypeOffer, "172.31.5.10"},
		{"init-reboot", dhcpv4.MessageTypeRequest, []dhcpv4.Modifier{dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(net.IPv4(172, 31, 5, 10)))}, dhcpv4.MessageTypeAck, "172.31.5.10"},
		{"renewal", dhcpv4.MessageTypeRequest, []dhcpv4.Modifier{dhcpv4.WithClientIP(net.IPv4(172, 31, 5, 10))}, dhcpv4.MessageTypeAck, "172.31.5.10"},
		{"another address", dhcpv4.MessageTypeRequest, []dhcpv4.Modifier{dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(net.IPv4(172, 31, 5, 11)))}, dhcpv4.MessageTypeNak, "0.0.0.0"},
		{"another server", dhcpv4.MessageTypeRequest, []dhcpv4.Modifier{dhcpv4.WithOption(dhcpv4.OptServerIdentifier(net.IPv4(172, 31, 0, 9)))}, dhcpv4.MessageTypeNone, ""},
		{"inform", dhcpv4.MessageTypeInform, []dhcpv4.Modifier{dhcpv4.WithClientIP(net.IPv4(172, 31, 5, 10))}, dhcpv4.MessageTypeAck, "0.0.0.0"},
		{"release", dhcpv4.MessageTypeRelease, []dhcpv4.Modifier{dhcpv4.WithClientIP(net.IPv4(172, 31, 5, 10))}, dhcpv4.MessageTypeNone, ""},
		{"decline", dhcpv4.MessageTypeDecline, nil, dhcpv4.MessageTypeNone, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			msg, err := dhcpv4.New(append(tt.mods, dhcpv4.WithHwAddr(mac), dhcpv4.WithMessageType(tt.kind))...)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := conn.WriteTo(msg.ToBytes(), server); err != nil {
				t.Fatal(err)
			}
			conn.SetReadDeadline(time.Now().Add(time.Minute))
			if tt.want == dhcpv4.MessageTypeNone {
				conn.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
			}
			b := make([]byte, 1500)
			n, _, err := conn.ReadFrom(b)
			if tt.want == dhcpv4.MessageTypeNone {
				if !errors.Is(err, os.ErrDeadlineExceeded) {
					t.Errorf("answered with %d bytes: %v", n, err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			reply, err := dhcpv4.FromBytes(b[:n])
			if err != nil {
				t.Fatal(err)
			}
			if reply.MessageType() != tt.want || reply.YourIPAddr.String() != tt.addr || reply.TransactionID != msg.TransactionID {
				t.Errorf("answer = %s, want %v with %s", reply.Summary(), tt.want, tt.addr)
			}
			if tt.want == dhcpv4.MessageTypeNak {
				return
			}
			mtu := reply.Options.Get(dhcpv4.OptionInterfaceMTU)
			if !slices.Equal(mtu, []byte{0x23, 0x29}) || reply.HostName() != "ip-172-31-5-10" || reply.DomainName() != "eu-west-1.compute.internal" ||
				reply.BroadcastAddress().String() != "172.31.15.255" || net.IP(reply.SubnetMask()).String() != "255.255.240.0" ||
				reply.ServerIdentifier().String() != "172.31.0.1" {
				t.Errorf("options = %s", reply.Summary())
			}
		})
	}
	var kinds []string
	for _, r := range c.Requests() {
		kinds = append(kinds, r.Operation)
	}
	if got := strings.Join(kinds, " "); got != "DISCOVER REQUEST REQUEST REQUEST REQUEST INFORM RELEASE DECLINE" {
		t.Errorf("requests = %s", got)
	}

	waiting := make(chan error)
	go func() {
		_, _, err := conn.ReadFrom(make([]byte, 1500))
		waiting <- err
	}()
	conn.SetDeadline(time.Now().Add(-time.Second))
	if err := <-waiting; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("ReadFrom = %v after a deadline that came while it waited", err)
	}
	conn.Close()
	if _, err := conn.WriteTo(nil, server); !errors.Is(err, net.ErrClosed) {
		t.Errorf("WriteTo = %v after Close", err)
	}
}

// TestOrder: frames that wait at the same time arrive as they were sent.
func TestOrder(t *testing.T) {
	t.Parallel()
	c := newCloud(t, ec2sim.Config{RTT: 50 * time.Millisecond})
	g, err := c.BareGuest()
	if err != nil {
		t.Fatal(err)
	}
	conn, mac, err := g.ListenDHCP()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	var sent, received []byte
	for i := range byte(10) {
		msg, err := dhcpv4.NewDiscovery(mac, dhcpv4.WithTransactionID(dhcpv4.TransactionID{i}))
		if err != nil {
			t.Fatal(err)
		}
		sent = append(sent, i)
		if _, err := conn.WriteTo(msg.ToBytes(), &net.UDPAddr{IP: net.IPv4bcast, Port: 67}); err != nil {
			t.Fatal(err)
		}
	}
	conn.SetReadDeadline(time.Now().Add(time.Minute))
	for range sent {
		b := make([]byte, 1500)
		n, _, err := conn.ReadFrom(b)
		if err != nil {
			t.Fatal(err)
		}
		offer, err := dhcpv4.FromBytes(b[:n])
		if err != nil {
			t.Fatal(err)
		}
		received = append(received, offer.TransactionID[0])
	}
	if !slices.Equal(received, sent) {
		t.Errorf("received %v, want %v", received, sent)
	}
}

func TestGuestAddresses(t *testing.T) {
	t.Parallel()
	m := newMachine(t, ec2sim.Config{})
	if got := doDial(t, m); got != "connected" {
		t.Fatal(got)
	}
	// An address that the VPC did not give has no IMDS, and none at all without a route.
	if err := m.Configure(netip.MustParsePrefix("172.31.5.99/20"), netip.MustParseAddr("172.31.0.1")); err != nil {
		t.Fatal(err)
	}
	if a := m.do(request(t, "PUT", imds+"api/token", "", ttlHeader, "60")); a.status != 404 {
		t.Errorf("IMDS for an invented address = %+v", a)
	}
	if err := m.Configure(netip.MustParsePrefix("172.31.5.10/20"), netip.Addr{}); err != nil {
		t.Fatal(err)
	}
	if got := doDial(t, m); !strings.Contains(got, "network is unreachable") && !strings.Contains(got, "no route") {
		t.Errorf("dialing without a default route: %s", got)
	}
	if err := m.Configure(netip.MustParsePrefix("172.31.5.10/20"), netip.MustParseAddr("172.31.0.1")); err != nil {
		t.Fatal(err)
	}
	m.SetDNS(netip.MustParseAddr("169.254.169.253"))
	if conn, err := m.DialContext(t.Context(), "tcp", "kms.us-east-1.amazonaws.com:443"); err != nil {
		t.Errorf("with the other name server: %v", err)
	} else {
		conn.Close()
	}
	bare, err := m.cloud.BareGuest()
	if err != nil {
		t.Fatal(err)
	}
	if got := doDial(t, &machine{Guest: bare}); !strings.HasPrefix(got, "error") {
		t.Errorf("dialing without an address: %s", got)
	}
}
