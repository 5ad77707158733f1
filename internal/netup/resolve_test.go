package netup

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
)

var hosts atomic.Int32

// loopback returns an address of its own.
func loopback() netip.Addr {
	n := hosts.Add(1)
	return netip.AddrFrom4([4]byte{127, 53, byte(os.Getpid()), byte(n)})
}

// silent is a name server that swallows the questions; it counts those for IPv4.
func silent(t testing.TB) (netip.Addr, *atomic.Int32) {
	t.Helper()
	at := loopback()
	conn, err := net.ListenPacket("udp", netip.AddrPortFrom(at, 53).String())
	if err != nil {
		t.Skipf("listening on port 53: %v", err)
	}
	t.Cleanup(func() { conn.Close() })
	asked := new(atomic.Int32)
	go func() {
		b := make([]byte, 512)
		for {
			n, _, err := conn.ReadFrom(b)
			if err != nil {
				return
			}
			if m := new(dns.Msg); m.Unpack(b[:n]) == nil && m.Question[0].Qtype == dns.TypeA {
				asked.Add(1)
			}
		}
	}()
	return at, asked
}

// answering is a name server, over UDP and TCP.
func answering(t testing.TB, answer func(m *dns.Msg, tcp bool)) netip.Addr {
	t.Helper()
	at := loopback()
	for _, network := range []string{"udp", "tcp"} {
		started := make(chan struct{})
		s := &dns.Server{Addr: netip.AddrPortFrom(at, 53).String(), Net: network, NotifyStartedFunc: func() { close(started) },
			Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
				m := new(dns.Msg).SetReply(q)
				answer(m, network == "tcp")
				_ = w.WriteMsg(m)
			})}
		failed := make(chan error, 1)
		go func() { failed <- s.ListenAndServe() }()
		select {
		case <-started:
			t.Cleanup(func() { _ = s.Shutdown() })
		case err := <-failed:
			t.Skipf("listening on port 53: %v", err)
		}
	}
	return at
}

// here answers that every name has the address 127.0.0.1.
func here(m *dns.Msg, _ bool) {
	if q := m.Question[0]; q.Qtype == dns.TypeA {
		m.Answer = append(m.Answer, &dns.A{Hdr: dns.RR_Header{Name: q.Name, Rrtype: q.Qtype, Class: dns.ClassINET, Ttl: 60}, A: net.IPv4(127, 0, 0, 1)})
	}
}

// endpoint is something to connect to; it returns its port.
func endpoint(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

func TestNameServers(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		servers func(t *testing.T) []netip.Addr
		want    string // of the error; "": none
	}{
		"one": {servers: func(t *testing.T) []netip.Addr { return []netip.Addr{answering(t, here)} }},
		"first of two is silent": {servers: func(t *testing.T) []netip.Addr {
			dead, _ := silent(t)
			return []netip.Addr{dead, answering(t, here)}
		}},
		"all but the last of six are silent": {servers: func(t *testing.T) []netip.Addr {
			var all []netip.Addr
			for range 5 {
				dead, _ := silent(t)
				all = append(all, dead)
			}
			return append(all, answering(t, here))
		}},
		"first knows no such name": {servers: func(t *testing.T) []netip.Addr {
			return []netip.Addr{answering(t, func(m *dns.Msg, _ bool) { m.Rcode = dns.RcodeNameError }), answering(t, here)}
		}},
		"first fails": {servers: func(t *testing.T) []netip.Addr {
			return []netip.Addr{answering(t, func(m *dns.Msg, _ bool) { m.Rcode = dns.RcodeServerFailure }), answering(t, here)}
		}},
		"nobody listens at the first": {servers: func(t *testing.T) []netip.Addr { return []netip.Addr{loopback(), answering(t, here)} }},
		"answers are too long for UDP": {servers: func(t *testing.T) []netip.Addr {
			return []netip.Addr{answering(t, func(m *dns.Msg, tcp bool) {
				if m.Truncated = !tcp; tcp {
					here(m, tcp)
				}
			})}
		}},
		"AAAA is never answered": {servers: func(t *testing.T) []netip.Addr {
			return []netip.Addr{answering(t, func(m *dns.Msg, tcp bool) {
				if here(m, tcp); m.Question[0].Qtype == dns.TypeAAAA {
					<-t.Context().Done()
				}
			})}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := &Network{DNS: row.servers(t)}
			port := endpoint(t)
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second) // what package aws allows
			defer cancel()
			conn, err := n.Dial(ctx, "tcp", "kms.us-east-1.test:"+port)
			if err != nil {
				t.Fatal(err)
			}
			conn.Close()
		})
	}
}

// TestServersAreAskedInTurn: a silent server is not asked again while another has not
// been, nor for a name after one that another answered.
func TestServersAreAskedInTurn(t *testing.T) {
	t.Parallel()
	dead, asked := silent(t)
	n := &Network{DNS: []netip.Addr{dead, answering(t, here)}}
	port := endpoint(t)
	for i := range 3 {
		conn, err := n.Dial(t.Context(), "tcp", fmt.Sprintf("name%d.test:%s", i, port))
		if err != nil {
			t.Fatal(err)
		}
		conn.Close()
	}
	if got := asked.Load(); got != 1 { // for the first name
		t.Errorf("the silent server was asked %d times, want 1", got)
	}
}

// TestNobodyKnows: the error is what a server said, and not that another was silent.
func TestNobodyKnows(t *testing.T) {
	t.Parallel()
	dead, _ := silent(t)
	n := &Network{DNS: []netip.Addr{dead, answering(t, func(m *dns.Msg, _ bool) { m.Rcode = dns.RcodeNameError })}}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	_, err := n.Dial(ctx, "tcp", "nobody.test:443")
	if err == nil || !strings.Contains(err.Error(), "no such host") {
		t.Errorf("Dial = %v, want no such host", err)
	}
}

// BenchmarkSilentNameServer compares a connection where the first name server is silent
// with one where none is. It must add at most 1.2 s.
func BenchmarkSilentNameServer(b *testing.B) {
	const most = 1200 * time.Millisecond
	good := answering(b, here)
	port := endpoint(b)
	connect := func(servers ...netip.Addr) time.Duration {
		n := &Network{DNS: servers} // it has learnt nothing yet
		begun := time.Now()
		conn, err := n.Dial(b.Context(), "tcp", "kms.us-east-1.test:"+port)
		if err != nil {
			b.Fatal(err)
		}
		conn.Close()
		return time.Since(begun)
	}
	var without, with time.Duration
	for b.Loop() {
		dead, _ := silent(b)
		without += connect(good)
		with += connect(dead, good)
	}
	n := time.Duration(b.N)
	b.ReportMetric(float64(with)/float64(without), "ratio")
	b.ReportMetric((with-without).Seconds()/float64(n), "added-s/op")
	if added := (with - without) / n; added > most {
		b.Errorf("a silent name server adds %v, want at most %v", added, most)
	}
}
