package ec2sim

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"
)

// ProxyURL is a proxy in the subnet, for HTTP's CONNECT to the endpoints of AWS. It
// reaches them also from where machines do not.
const ProxyURL = "http://172.31.0.8:3128"

var proxyAddr = netip.MustParseAddrPort("172.31.0.8:3128")

// relay is a listener of connections that others have accepted.
type relay struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
	addr   net.Addr
}

// Accept implements net.Listener.
func (r *relay) Accept() (net.Conn, error) {
	select {
	case c := <-r.conns:
		return c, nil
	case <-r.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (r *relay) Close() error {
	r.once.Do(func() { close(r.closed) })
	return nil
}

// Addr implements net.Listener.
func (r *relay) Addr() net.Addr { return r.addr }

// serveProxy runs the proxy, which hands its tunnels to the services.
func (c *Cloud) serveProxy(services map[string]*relay) error {
	l, err := listen(c.stack, proxyAddr, 0)
	if err != nil {
		return err
	}
	c.onClose(func() { l.Close() })
	c.wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			c.wg.Go(func() { c.tunnel(conn, services) })
		}
	})
	return nil
}

// tunnel answers one CONNECT (RFC 9110, section 9.3.6).
func (c *Cloud) tunnel(conn net.Conn, services map[string]*relay) {
	const patience = time.Minute
	conn.SetReadDeadline(time.Now().Add(patience))
	req, err := http.ReadRequest(bufio.NewReader(io.LimitReader(conn, 8<<10)))
	if err != nil {
		conn.Close()
		return
	}
	conn.SetReadDeadline(time.Time{})
	r := Request{Time: time.Now(), Service: "proxy", Operation: req.Method, Host: req.Host, Status: http.StatusOK}
	host, port, _ := net.SplitHostPort(req.Host)
	e, known := parseHost(host)
	to := services[e.service]
	switch {
	case c.fault("proxy-refuses"):
		r.Status = http.StatusForbidden
	case req.Method != http.MethodConnect:
		r.Status = http.StatusMethodNotAllowed
	case !known, port != "443", to == nil:
		r.Status = http.StatusBadGateway
	}
	c.record(r)
	fmt.Fprintf(conn, "HTTP/1.1 %d %s\r\n\r\n", r.Status, http.StatusText(r.Status))
	if r.Status != http.StatusOK {
		conn.Close()
		return
	}
	select {
	case to.conns <- conn:
	case <-to.closed:
		conn.Close()
	}
}
