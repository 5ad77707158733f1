package netup

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"strconv"
	"syscall"
	"time"
)

// Messages and options of DHCPv6 (RFC 8415).
const (
	solicit   = 1
	advertise = 2
	request6  = 3
	reply6    = 7

	optClientID  = 1
	optServerID  = 2
	optIANA      = 3
	optIAAddr    = 5
	optOptions   = 6
	optElapsed   = 8
	optStatus    = 13
	optRapid     = 14
	optServers6  = 23
	optUnlimited = 0xffffffff
)

const (
	dhcp6ServerPort = 547
	dhcp6ClientPort = 546
)

var allServers = netip.MustParseAddr("ff02::1:2")

// Lease6 is what a DHCPv6 server gave.
type Lease6 struct {
	Address netip.Addr
	DNS     []netip.Addr
	Time    time.Duration // for which it is good; 0: forever
}

// listenDHCP6 opens a client's connection on a card.
func listenDHCP6(ctx context.Context, index int) (net.PacketConn, error) {
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		return control(c, func(fd int) error { return bind(fd, index) })
	}}
	conn, err := lc.ListenPacket(ctx, "udp6", fmt.Sprintf("[::]:%d", dhcp6ClientPort))
	if err != nil {
		return nil, fmt.Errorf("listening to DHCPv6 servers: %w", err)
	}
	return conn, nil
}

// RequestLease6 asks for an address until there is one or ctx ends: two round trips, or
// one where the server takes RFC 8415's rapid commit. conn sends from and receives
// on port 546 of the card number index; it is closed.
func RequestLease6(ctx context.Context, conn net.PacketConn, index int, mac net.HardwareAddr, log func(string, ...any)) (Lease6, error) {
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.SetReadDeadline(time.Unix(1, 0)) })()
	c := &dhcp6Client{conn: conn, mac: mac, begun: time.Now(),
		to: &net.UDPAddr{IP: allServers.AsSlice(), Port: dhcp6ServerPort, Zone: strconv.Itoa(index)}}
	return persist(ctx, "DHCPv6", log, c.exchange)
}

type dhcp6Client struct {
	conn  net.PacketConn
	mac   net.HardwareAddr
	to    net.Addr
	begun time.Time
}

// exchange is one SOLICIT, ADVERTISE, REQUEST, REPLY within wait for each answer.
func (c *dhcp6Client) exchange(ctx context.Context, wait time.Duration) (Lease6, error) {
	kind, answer, err := c.ask(ctx, "SOLICIT", solicit, wait, option6(optRapid, nil))
	if err != nil || kind == reply6 {
		return answer.Lease6, err
	}
	_, answer, err = c.ask(ctx, "REQUEST", request6, wait, append(option6(optServerID, answer.server), option6(optIANA, answer.association)...))
	return answer.Lease6, err
}

// answer6 is an ADVERTISE or a REPLY.
type answer6 struct {
	Lease6
	server      []byte // its identifier
	association []byte // the option with the address
}

// ask sends a message and returns the first answer that gives an address.
func (c *dhcp6Client) ask(ctx context.Context, name string, kind byte, wait time.Duration, more []byte) (byte, answer6, error) {
	id := rand.Uint32() & 0xffffff
	b := binary.BigEndian.AppendUint32(nil, uint32(kind)<<24|id)
	me := append([]byte{0, 3, 0, 1}, c.mac...) // DUID of the link-layer address: Ethernet
	b = append(b, option6(optClientID, me)...)
	b = append(b, option6(optElapsed, binary.BigEndian.AppendUint16(nil, uint16(min(time.Since(c.begun)/(10*time.Millisecond), 0xffff))))...)
	b = append(b, option6(optOptions, []byte{0, optServers6})...)
	if kind == solicit {
		var association [12]byte // the card has one, named by its MAC address; times are the server's
		copy(association[:], c.mac[2:])
		b = append(b, option6(optIANA, association[:])...)
	}
	if _, err := c.conn.WriteTo(append(b, more...), c.to); err != nil {
		return 0, answer6{}, fmt.Errorf("sending: %w", err)
	}
	c.conn.SetReadDeadline(time.Now().Add(wait))
	refused := fmt.Errorf("no answer to %s within %v", name, wait)
	buf := make([]byte, 1500)
	for ctx.Err() == nil {
		n, _, err := c.conn.ReadFrom(buf)
		if err != nil {
			break
		}
		m := buf[:n]
		if n < 4 || binary.BigEndian.Uint32(m)&0xffffff != id || m[0] != reply6 && (m[0] != advertise || kind != solicit) {
			continue
		}
		a, err := parseAnswer6(m[4:], me)
		if err == nil {
			return m[0], a, nil
		}
		if !errors.Is(err, errNotOurs) {
			refused = err
		}
	}
	return 0, answer6{}, refused
}

var errNotOurs = errors.New("not an answer to us")

// parseAnswer6 decodes the options of an answer to the client me.
func parseAnswer6(b, me []byte) (answer6, error) {
	var a answer6
	client := false
	status := error(nil)
	valid := eachOption6(b, func(code uint16, v []byte) {
		switch {
		case code == optClientID:
			client = bytes.Equal(v, me)
		case code == optServerID:
			a.server = bytes.Clone(v)
		case code == optStatus:
			status = errors.Join(status, status6(v))
		case code == optServers6:
			for ; len(v) >= 16; v = v[16:] {
				a.DNS = append(a.DNS, netip.AddrFrom16([16]byte(v)))
			}
		case code == optIANA && len(v) >= 12:
			a.association = bytes.Clone(v)
			eachOption6(v[12:], func(code uint16, v []byte) {
				switch {
				case code == optStatus:
					status = errors.Join(status, status6(v))
				case code == optIAAddr && len(v) >= 24:
					ip, valid := netip.AddrFrom16([16]byte(v)), binary.BigEndian.Uint32(v[20:])
					if !ip.IsGlobalUnicast() || ip.Is4In6() || valid == 0 {
						return
					}
					a.Address = ip
					if valid != optUnlimited {
						a.Time = time.Duration(valid) * time.Second
					}
				}
			})
		}
	})
	switch {
	case !valid || !client || a.server == nil:
		return a, errNotOurs
	case status != nil:
		return a, status
	case !a.Address.IsValid():
		return a, errors.New("the server offered no address")
	}
	return a, nil
}

// status6 is what a status option says, nil for success.
func status6(v []byte) error {
	if len(v) < 2 || binary.BigEndian.Uint16(v) == 0 {
		return nil
	}
	return fmt.Errorf("the server refused: %q (status %d)", v[2:], binary.BigEndian.Uint16(v))
}

// option6 encodes an option.
func option6(code uint16, value []byte) []byte {
	b := binary.BigEndian.AppendUint16(nil, code)
	return append(binary.BigEndian.AppendUint16(b, uint16(len(value))), value...)
}

// eachOption6 calls do for each option; it is false if there is anything else.
func eachOption6(b []byte, do func(code uint16, value []byte)) bool {
	for len(b) > 0 {
		if len(b) < 4 || len(b) < 4+int(binary.BigEndian.Uint16(b[2:])) {
			return false
		}
		end := 4 + int(binary.BigEndian.Uint16(b[2:]))
		do(binary.BigEndian.Uint16(b), b[4:end])
		b = b[end:]
	}
	return true
}
