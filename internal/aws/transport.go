package aws

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"sync"
	"time"
)

const (
	connectTimeout = 5 * time.Second // DNS, TCP and TLS
	attemptTimeout = 10 * time.Second
	maxAnswer      = 64 << 10         // bytes; the largest, a Decrypt, has about 9 KB
	warmFor        = 20 * time.Second // AWS closes connections on which nothing is asked
)

// newTransport returns a transport of HTTP/1.1; proxies are below it.
func newTransport(dial, dialTLS Dialer) *http.Transport {
	return &http.Transport{
		DialContext:         dial, // only for a plain-text endpoint of tests: config refuses one
		DialTLSContext:      dialTLS,
		TLSNextProto:        map[string]func(string, *tls.Conn) http.RoundTripper{},
		MaxIdleConnsPerHost: 2,
		IdleConnTimeout:     warmFor,
		DisableCompression:  true,
	}
}

// tlsDialer opens TLS connections, and remembers their buffers.
type tlsDialer struct {
	tcp Dialer
	tls *tls.Config

	mu   sync.Mutex
	seen []*seen // the buffers of all connections so far
}

func newTLSDialer(tcp Dialer, roots *x509.CertPool) *tlsDialer {
	return &tlsDialer{tcp: tcp, tls: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}}}
}

// dial connects to addr: TLS 1.2 or later, Go's default key exchanges (first the
// hybrid X25519MLKEM768), our roots.
func (d *tlsDialer) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	raw, err := d.tcp(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	config := d.tls.Clone()
	config.ServerName = host
	below, above := new(seen), new(seen)
	d.mu.Lock()
	d.seen = append(d.seen, below, above)
	d.mu.Unlock()
	conn := tls.Client(wiping{&records{Conn: raw}, below}, config)
	if err := conn.HandshakeContext(ctx); err != nil {
		conn.Close()
		return nil, err
	}
	return wiping{conn, above}, nil
}

// wipe wipes the buffers of all connections.
func (d *tlsDialer) wipe() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, s := range d.seen {
		s.wipe()
	}
}
