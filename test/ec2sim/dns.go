package ec2sim

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/miekg/dns"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
)

// Addresses of the faults dns-wrong and dns-aaaa (RFC 5737, RFC 3849): nobody has them.
var (
	wrongAddr = netip.MustParseAddr("203.0.113.1")
	wrongV6   = netip.MustParseAddr("2001:db8::1")
)

// serveDNS runs the resolver at addr, UDP and TCP.
func (c *Cloud) serveDNS(addr netip.Addr) error {
	at := netip.AddrPortFrom(addr, 53)
	local := fullAddress(at)
	udpConn, err := gonet.DialUDP(c.stack, &local, nil, protocolOf(addr))
	if err != nil {
		return fmt.Errorf("listening on %v: %w", at, err)
	}
	tcpListener, err := listen(c.stack, at, 0)
	if err != nil {
		return err
	}
	for _, s := range []*dns.Server{
		{PacketConn: udpConn, Handler: c.dnsHandler(addr, true)},
		{Listener: tcpListener, Handler: c.dnsHandler(addr, false)},
	} {
		started := make(chan struct{})
		s.NotifyStartedFunc = func() { close(started) }
		c.onClose(func() {
			<-started // ShutdownContext refuses a server that has not begun
			s.ShutdownContext(c.ctx)
		})
		c.wg.Go(func() { s.ActivateAndServe() })
	}
	return nil
}

func (c *Cloud) dnsHandler(addr netip.Addr, udp bool) dns.HandlerFunc {
	return func(w dns.ResponseWriter, req *dns.Msg) {
		if len(req.Question) != 1 {
			return
		}
		q := req.Question[0]
		name := strings.ToLower(strings.TrimSuffix(q.Name, "."))
		r := Request{Time: time.Now(), Service: "dns", Operation: dns.TypeToString[q.Qtype] + " " + name, Host: addr.String()}
		c.sawHost(name)
		if c.fault("dns-late") {
			c.record(r)
			return
		}
		if slow, set := c.faultDuration("dns-slow"); set && !c.wait(c.ctx, slow) {
			return
		}
		m := c.resolve(req, q, name)
		if udp && c.fault("dns-truncated") {
			m.Answer, m.Truncated = nil, true
		}
		r.Status, r.ErrorType = m.Rcode, strings.TrimPrefix(dns.RcodeToString[m.Rcode], "NOERROR")
		c.record(r)
		w.WriteMsg(m)
	}
}

// resolve answers for the names that AWS has, and for those of the instances.
func (c *Cloud) resolve(req *dns.Msg, q dns.Question, name string) *dns.Msg {
	m := new(dns.Msg).SetReply(req)
	m.RecursionAvailable = true
	var addr, addr6 netip.Addr
	if e, ok := parseHost(name); ok {
		addr = serviceAddrs[e.service]
		switch {
		case e.dual:
			addr6 = public6(addr)
		case e.vpce && c.fault("vpc-endpoints"):
			addr = private(addr)
		}
	} else if host, ok := strings.CutSuffix(name, "."+c.domain()); ok {
		addr = c.addrOf(host)
	}
	switch {
	case c.fault("dns-servfail"):
		m.Rcode = dns.RcodeServerFailure
		return m
	case !addr.IsValid(), c.fault("dns-nxdomain"):
		m.Rcode = dns.RcodeNameError
		return m
	}
	if c.fault("dns-wrong") {
		addr, addr6 = wrongAddr, wrongV6
	}
	if !addr6.IsValid() && addr.Is4() && c.fault("dns64") {
		addr6 = nat64(addr)
	}
	hdr := dns.RR_Header{Name: q.Name, Rrtype: q.Qtype, Class: dns.ClassINET, Ttl: 60}
	switch {
	case q.Qtype == dns.TypeA:
		m.Answer = append(m.Answer, &dns.A{Hdr: hdr, A: net.IP(addr.AsSlice())})
	case q.Qtype == dns.TypeAAAA && addr6.IsValid():
		m.Answer = append(m.Answer, &dns.AAAA{Hdr: hdr, AAAA: net.IP(addr6.AsSlice())})
	case q.Qtype == dns.TypeAAAA && c.fault("dns-aaaa"):
		m.Answer = append(m.Answer, &dns.AAAA{Hdr: hdr, AAAA: net.IP(wrongV6.AsSlice())})
	}
	return m
}

func (c *Cloud) addrOf(hostName string) netip.Addr {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, i := range c.instances {
		if i.hostName() == hostName {
			return i.addr
		}
	}
	return netip.Addr{}
}
