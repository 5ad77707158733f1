package aws

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	"unlock/internal/config"
)

// maxHeader is how long a proxy's answer may be, in bytes.
const maxHeader = 16 << 10

// ProxyOf returns the proxy for connections to addr, host:port, or nil: endpoints that
// are configured are in reach.
func ProxyOf(o config.AWS, addr string) *url.URL {
	for _, e := range o.Endpoint {
		if u, err := url.Parse(e); err == nil && hostPort(u) == addr {
			return nil
		}
	}
	u, err := url.Parse(o.Proxy)
	if err != nil || u.Host == "" {
		return nil
	}
	return u
}

// viaProxy dials through the configured proxy, with HTTP's CONNECT (RFC 9110, section
// 9.3.6), which costs one round trip.
func viaProxy(o config.AWS, dial Dialer) Dialer {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		proxy := ProxyOf(o, addr)
		if proxy == nil {
			return dial(ctx, network, addr)
		}
		conn, err := dial(ctx, network, proxy.Host)
		if err == nil {
			if err = tunnel(ctx, conn, addr); err != nil {
				conn.Close()
			}
		}
		if err != nil {
			return nil, &Fault{"(proxy)", fmt.Errorf("proxy %s: %w", proxy.Host, err)}
		}
		return conn, nil
	}
}

// tunnel has the proxy at the other end connect to addr.
func tunnel(ctx context.Context, conn net.Conn, addr string) error {
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()
	if _, err := fmt.Fprintf(conn, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n", addr, addr); err != nil {
		return err
	}
	// Whoever speaks TLS waits for the client: nothing but the answer comes yet.
	resp, err := http.ReadResponse(bufio.NewReader(io.LimitReader(conn, maxHeader)), &http.Request{Method: http.MethodConnect})
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("it answers %s", resp.Status)
	}
	return nil
}
