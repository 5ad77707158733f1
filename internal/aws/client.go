// Package aws makes signed requests of AWS: transport, signature, the JSON and S3
// protocols as far as keys need them, endpoints, authorities, and for each answer
// what it means: how patiently to try again, and what an operator can do. What is
// asked and why is for others to know.
//
// Of the SDK only the signer is used: its clients pass answers through strings,
// which nobody can wipe, and each would be a tenth of the program.
//
// What cannot be wiped: the credentials, which the signer wants as strings. Answers
// are read into buffers that are overwritten once they are used; those of TLS and
// HTTP are by Close.
package aws

import (
	"context"
	"crypto/x509"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/aws"

	"unlock/internal/config"
)

// Role is what requests are signed as.
type Role struct {
	Name string
	// Credentials; Expires is in terms of this machine's clock, right or wrong.
	Credentials sdk.Credentials
}

// Options of a Client.
type Options struct {
	// Identity gets credentials. They are asked for when there are none, when those
	// at hand expire within a minute, and when AWS does not accept them.
	Identity func(ctx context.Context) (Role, error)
	// Dial opens TCP connections to host:port, resolving host.
	Dial Dialer
	// Roots are the certificate authorities; nil: the embedded Amazon Trust Services roots.
	Roots *x509.CertPool
	AWS   config.AWS
	// Families tells whether the network has IPv4 and IPv6 by now; nil: IPv4 alone.
	// Without IPv4 the dual-stack endpoints are asked; with both, they are where the
	// others cannot be reached.
	Families func() (four, six bool)
	// Log, if not nil, reports each retry.
	Log func(format string, args ...any)
}

// Client makes requests. Safe for concurrent use.
type Client struct {
	o         Options
	transport *http.Transport
	tls       *tlsDialer
	ahead     *Ahead
	skew      atomic.Int64 // nanoseconds by which AWS' clock is ahead of ours
	identity  identity
	dual      atomic.Bool // with both families: the dual-stack endpoints' turn
}

// New returns a Client. It fails if the configured CA bundle cannot be read.
func New(o Options) (*Client, error) {
	if o.Log == nil {
		o.Log = func(string, ...any) {}
	}
	roots, err := roots(o.Roots, o.AWS.CABundle)
	if err != nil {
		return nil, err
	}
	c := &Client{o: o, identity: newIdentity(o.Identity), tls: newTLSDialer(viaProxy(o.AWS, o.Dial), roots)}
	c.ahead = NewAhead(c.tls.dial, warmFor)
	c.transport = newTransport(o.Dial, c.ahead.Dial)
	return c, nil
}

// Close closes all connections and wipes their buffers. No request may be under
// way, and none may follow.
func (c *Client) Close() {
	c.transport.CloseIdleConnections()
	c.ahead.Close()
	c.tls.wipe()
}

// Warm opens connections (DNS, TCP, TLS), so that the first requests cost one round
// trip each. It returns when all are open or have failed; failures are left for the
// request to meet again.
func (c *Client) Warm(ctx context.Context, urls ...*url.URL) {
	hosts := map[string]bool{}
	for _, u := range urls {
		hosts[hostPort(c.reachable(u))] = true
	}
	var wg sync.WaitGroup
	for addr := range hosts {
		wg.Go(func() { c.ahead.Open(ctx, "tcp", addr) })
	}
	wg.Wait()
}

// Call is one request that AWS answered, for the log and status.json.
type Call struct {
	Service   string // "s3", "kms", "ssm", …
	Operation string
	KeyARN    string // kms: the key that AWS says it used
	Version   string // of what was read, if it has versions
	RequestID string // "": there was no answer
	Attempts  int
	Start     time.Time
	Duration  time.Duration
}
