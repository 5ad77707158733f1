package keys

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"sync"
	"time"

	"unlock/internal/config"
)

const (
	connectTimeout = 5 * time.Second // DNS, TCP and TLS
	attemptTimeout = 10 * time.Second
	maxAnswer      = 64 << 10         // bytes; the largest, a Decrypt, has about 9 KB
	warmFor        = 20 * time.Second // AWS closes connections on which nothing is asked
)

type dialer func(ctx context.Context, network, addr string) (net.Conn, error)

// newTransport returns a transport of HTTP/1.1 without proxies.
func newTransport(dial, dialTLS dialer) *http.Transport {
	return &http.Transport{
		DialContext:         dial, // only for a plain-text endpoint of tests: config refuses one
		DialTLSContext:      dialTLS,
		TLSNextProto:        map[string]func(string, *tls.Conn) http.RoundTripper{},
		MaxIdleConnsPerHost: 2,
		IdleConnTimeout:     warmFor,
		DisableCompression:  true,
	}
}

// warm opens TLS connections and keeps those opened ahead of their use.
type warm struct {
	tcp dialer
	tls *tls.Config

	mu    sync.Mutex
	conns map[string]*warming // by host:port
	seen  []*seen             // the buffers of all connections so far
}

// warming is a connection being opened ahead.
type warming struct {
	done chan struct{}
	conn net.Conn // nil if it failed
	when time.Time
}

func newWarm(tcp dialer, roots *x509.CertPool) *warm {
	return &warm{
		tcp:   tcp,
		tls:   &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}},
		conns: map[string]*warming{},
	}
}

// open connects to addr: TLS 1.2 or later, Go's default key exchanges (first
// the hybrid X25519MLKEM768), our roots.
func (w *warm) open(ctx context.Context, network, addr string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	raw, err := w.tcp(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	config := w.tls.Clone()
	config.ServerName = host
	below, above := new(seen), new(seen)
	w.mu.Lock()
	w.seen = append(w.seen, below, above)
	w.mu.Unlock()
	conn := tls.Client(wiping{raw, below}, config)
	if err := conn.HandshakeContext(ctx); err != nil {
		conn.Close()
		return nil, err
	}
	return wiping{conn, above}, nil
}

// dial gives away the connection that was opened ahead, or opens one.
func (w *warm) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	w.mu.Lock()
	ahead := w.conns[addr]
	w.mu.Unlock()
	if ahead != nil {
		select {
		case <-ahead.done:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		if w.take(addr, ahead) {
			if ahead.conn != nil && time.Since(ahead.when) < warmFor {
				return ahead.conn, nil
			}
			ahead.close()
		}
	}
	return w.open(ctx, network, addr)
}

// take reports whether a is the caller's: it is given away once.
func (w *warm) take(addr string, a *warming) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.conns[addr] != a {
		return false
	}
	delete(w.conns, addr)
	return true
}

// ahead opens a connection for dial to give away.
func (w *warm) ahead(ctx context.Context, addr string) {
	a := &warming{done: make(chan struct{})}
	defer close(a.done)
	w.mu.Lock()
	_, found := w.conns[addr]
	if !found {
		w.conns[addr] = a
	}
	w.mu.Unlock()
	if found {
		return
	}
	if conn, err := w.open(ctx, "tcp", addr); err == nil {
		a.conn, a.when = conn, time.Now()
	}
}

// close closes what nobody took, and wipes the buffers of all connections.
func (w *warm) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, a := range w.conns {
		a.close()
	}
	clear(w.conns)
	for _, s := range w.seen {
		s.wipe()
	}
}

func (a *warming) close() {
	<-a.done
	if a.conn != nil {
		a.conn.Close()
	}
}

// Warm opens connections (DNS, TCP, TLS) to the services that keys will need, so
// that the requests themselves cost one round trip each. It returns when all are
// open or have failed; failures are left for the request to meet again.
func (c *Client) Warm(ctx context.Context, keys ...config.Key) {
	hosts := map[string]bool{}
	for _, k := range keys {
		if k.Source.Scheme() == config.SourceEphemeral {
			continue
		}
		if len(k.KMSKeys) > 0 {
			hosts[hostPort(Endpoint(c.o.AWS, "kms", RegionOf(k.KMSKeys[0])))] = true
		}
		if scheme := k.Source.Scheme(); scheme == config.SourceS3 || scheme == config.SourceSSM {
			region, err := c.region(ctx, k)
			if err != nil {
				continue
			}
			u := Endpoint(c.o.AWS, scheme, region)
			if scheme == config.SourceS3 {
				u = objectURL(c.o.AWS, k, region)
			}
			hosts[hostPort(u)] = true
		}
	}
	var wg sync.WaitGroup
	for addr := range hosts {
		wg.Go(func() { c.warm.ahead(ctx, addr) })
	}
	wg.Wait()
}
