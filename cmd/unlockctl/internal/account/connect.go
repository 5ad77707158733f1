package account

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"

	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	awsconfig "github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials/ec2rolecreds"
	"github.com/aws/aws-sdk-go-v2/feature/ec2/imds"
	"github.com/aws/smithy-go/logging"

	"unlock/internal/aws"
	"unlock/internal/config"
	"unlock/internal/ec2"
)

// connections are those of an Account. The SDK has no way to close them, and what went
// through them stays in their buffers until they are.
type connections struct {
	mu   sync.Mutex
	open map[net.Conn]bool
}

type connection struct {
	net.Conn
	all *connections
}

func (c *connection) Close() error {
	c.all.mu.Lock()
	delete(c.all.open, c)
	c.all.mu.Unlock()
	return c.Conn.Close()
}

func (c *connections) close() {
	c.mu.Lock()
	var list []net.Conn
	for conn := range c.open {
		list = append(list, conn)
	}
	c.mu.Unlock()
	for _, conn := range list {
		conn.Close()
	}
}

// dial wraps a dialer.
func (c *connections) dial(dial func(context.Context, string, string) (net.Conn, error)) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		tracked := &connection{conn, c}
		if c.open == nil {
			c.open = map[net.Conn]bool{}
		}
		c.open[tracked] = true
		return tracked, nil
	}
}

// transport is the SDK's client, which also trusts the configured authorities unless
// the environment names others.
func (c *connections) transport(o config.AWS) (*awshttp.BuildableClient, error) {
	client := awshttp.NewBuildableClient().WithTransportOptions(func(t *http.Transport) {
		t.DialContext, t.Proxy = c.dial(t.DialContext), proxy(o)
	})
	if o.CABundle == "" || os.Getenv("AWS_CA_BUNDLE") != "" {
		return client, nil
	}
	pem, err := os.ReadFile(o.CABundle)
	if err != nil {
		return nil, fmt.Errorf("reading certificate authorities: %w", err)
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("reading certificate authorities: %s holds no certificate in PEM", o.CABundle)
	}
	return client.WithTransportOptions(func(t *http.Transport) { t.TLSClientConfig = &tls.Config{RootCAs: pool} }), nil
}

// proxy is the environment's or else that of a boot.
func proxy(o config.AWS) func(*http.Request) (*url.URL, error) {
	return func(r *http.Request) (*url.URL, error) {
		if u, err := http.ProxyFromEnvironment(r); u != nil || err != nil {
			return u, err
		}
		return aws.ProxyOf(o, net.JoinHostPort(r.URL.Hostname(), cmp.Or(r.URL.Port(), "443"))), nil
	}
}

// instanceRole has the SDK ask IMDS, where it comes to that, as a boot does: version 2
// only, no proxy, no redirect. AWS_EC2_METADATA_DISABLED is left to the SDK.
func instanceRole(o config.AWS) (*ec2.Client, []func(*awsconfig.LoadOptions) error) {
	quiet := awsconfig.WithLogger(logging.Nop{}) // it prints where nobody has asked
	if os.Getenv("AWS_EC2_METADATA_DISABLED") == "true" {
		return nil, []func(*awsconfig.LoadOptions) error{quiet}
	}
	endpoint := o.Endpoint["imds"]
	if e := os.Getenv("AWS_EC2_METADATA_SERVICE_ENDPOINT"); e != "" {
		endpoint = e
	}
	client := ec2.New(ec2.Options{Endpoint: endpoint})
	return client, []func(*awsconfig.LoadOptions) error{quiet,
		awsconfig.WithEC2RoleCredentialOptions(func(o *ec2rolecreds.Options) { o.Client = metadata{client} })}
}

// metadata is a Client as the SDK's provider of the role's credentials wants one.
type metadata struct{ *ec2.Client }

func (m metadata) GetMetadata(ctx context.Context, in *imds.GetMetadataInput, _ ...func(*imds.Options)) (*imds.GetMetadataOutput, error) {
	data, err := m.Metadata(ctx, strings.TrimPrefix(in.Path, "/"))
	if err != nil {
		return nil, err
	}
	return &imds.GetMetadataOutput{Content: io.NopCloser(bytes.NewReader(data))}, nil
}

// Close closes all connections.
func (a *Account) Close() {
	a.connections.close()
	if a.imds != nil {
		a.imds.Close()
	}
}

// Instance asks IMDS, once, who this machine is.
func (a *Account) Instance(ctx context.Context) (config.Identity, error) {
	if a.imds == nil {
		return config.Identity{}, errors.New("AWS_EC2_METADATA_DISABLED is set")
	}
	i, err := a.imds.Instance(ctx)
	return i.Identity(), err
}
