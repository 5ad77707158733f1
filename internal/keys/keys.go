// Package keys turns a configured key into a passphrase: it gets the ciphertext
// from its source (S3, a file, an SSM parameter, a LUKS2 token), has KMS decrypt
// it under the pinned key and encryption context, and makes new data keys for
// volumes whose key lies in their header. Retries, their classes and the hints
// for the operator are here.
//
// Passphrases are as cryptsetup takes them: a sealed passphrase is used byte for
// byte but for what reading standard input would drop (the first newline and all
// that follows); a data key is base64-encoded and that text is the passphrase
// (systemd's convention), so that
// `aws kms decrypt --query Plaintext --output text | tr -d '\n'` piped into
// cryptsetup opens the volume.
//
// What is not ours to trust: the ciphertext and all that a header says of it.
// They only explain a refusal; KMS judges, by the key and context configured.
//
// What cannot be wiped: the credentials, which the SDK's signer wants as strings.
// A plaintext is decoded out of the answer straight into locked memory; the
// buffers through which it came are overwritten, those of TLS and HTTP by Close.
package keys

import (
	"context"
	"crypto/x509"
	"fmt"
	"maps"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"unlock/internal/config"
	"unlock/internal/ec2"
	"unlock/internal/secret"
)

// Options of a Client.
type Options struct {
	// Identity gives role credentials; called once, its result is kept while valid.
	Identity func(ctx context.Context) (ec2.Role, error)
	// Region of the instance, asked only if neither ARN nor configuration tells.
	Region func(ctx context.Context) (string, error)
	// Dial opens TCP connections to host:port, resolving host.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
	// Roots are the certificate authorities; nil: the embedded Amazon Trust Services roots.
	Roots *x509.CertPool
	AWS   config.AWS
	// Log, if not nil, is told of each retry.
	Log func(format string, args ...any)
}

// Client gets keys. Safe for concurrent use: equal requests share one call, and
// a passphrase once had is kept until Close.
type Client struct {
	o         Options
	transport *http.Transport
	warm      *warm
	skew      atomic.Int64 // nanoseconds by which AWS' clock is ahead of ours
	identity  identity

	mu      sync.Mutex
	flights map[string]*flight
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
	c := &Client{o: o, flights: map[string]*flight{}, identity: newIdentity(o.Identity)}
	c.warm = newWarm(o.Dial, roots)
	c.transport = newTransport(o.Dial, c.warm.dial)
	return c, nil
}

// Close wipes the passphrases that are kept, closes all connections and wipes
// their buffers. No request may be under way, and none may follow.
func (c *Client) Close() {
	c.mu.Lock()
	for _, f := range c.flights {
		f.passphrase.Wipe()
	}
	clear(c.flights)
	c.mu.Unlock()
	c.transport.CloseIdleConnections()
	c.warm.close()
}

// Call is one request that AWS answered, for the log and status.json.
type Call struct {
	Service   string // "s3", "kms", "ssm"
	Operation string
	KeyARN    string // kms: the key that AWS says it used
	Version   string // s3: the version that was read, if the bucket has versions
	RequestID string
	Attempts  int
	Start     time.Time
	Duration  time.Duration
}

// Blob is an encrypted data key and what is needed to decrypt it.
type Blob struct {
	Ciphertext []byte
	KeyARN     string            // under which KMS encrypted it; untrusted when read from a disk
	Context    map[string]string // the whole encryption context; untrusted when read from a disk
}

// Open returns the passphrase of a key with source s3, file or ssm. The caller
// wipes it. The calls are those that AWS answered, also when it refused; those
// who share a request are given the same calls.
func (c *Client) Open(ctx context.Context, k config.Key) (*secret.Bytes, []Call, error) {
	id := fmt.Sprintf("%q %q %q %q", k.Source, k.VersionID, k.KMSKeys, k.Context) // fmt sorts maps
	return c.share(ctx, id, func() (*secret.Bytes, []Call, error) {
		ciphertext, calls, err := c.ciphertext(ctx, k)
		if err != nil {
			return nil, calls, err
		}
		plaintext, call, err := c.decrypt(ctx, k.KMSKeys, k.Context, Blob{Ciphertext: ciphertext})
		calls = append(calls, call...)
		if err != nil {
			return nil, calls, err
		}
		if err := FirstLine(plaintext, k.Source, c.o.Log); err != nil {
			plaintext.Wipe()
			return nil, calls, err
		}
		return plaintext, calls, nil
	})
}

// ciphertext gets what is to be decrypted from its source.
func (c *Client) ciphertext(ctx context.Context, k config.Key) ([]byte, []Call, error) {
	switch k.Source.Scheme() {
	case config.SourceS3:
		return c.getObject(ctx, k)
	case config.SourceSSM:
		return c.getParameter(ctx, k)
	case config.SourceFile:
		data, err := readFile(k.Source.Path())
		return data, nil, err
	}
	return nil, nil, &Error{Op: "getting the key", Err: fmt.Errorf("source %q holds no ciphertext", k.Source)}
}

// OpenBlob returns the passphrase of a key with source header, whose blob was
// read from a disk: KMS is asked with the pinned keys and with k.Context plus
// config.ContextSet = set, never with what the blob claims. The caller wipes it. The
// calls are as Open's.
func (c *Client) OpenBlob(ctx context.Context, k config.Key, set string, b Blob) (*secret.Bytes, []Call, error) {
	context := Bound(k.Context, set)
	id := fmt.Sprintf("blob %q %q %q", b.Ciphertext, k.KMSKeys, context)
	return c.share(ctx, id, func() (*secret.Bytes, []Call, error) {
		if err := checkSize(len(b.Ciphertext)); err != nil {
			return nil, nil, &Error{Op: "reading the data key in the LUKS header", Err: err,
				Hint: "restore the header from a backup, or from another disk of the set"}
		}
		plaintext, calls, err := c.decrypt(ctx, k.KMSKeys, context, b)
		if err != nil {
			return nil, calls, err
		}
		defer plaintext.Wipe()
		return Text(plaintext), calls, nil
	})
}

// Generate has KMS make a data key for a new set of disks and returns its
// passphrase, which the caller wipes, and its blob.
func (c *Client) Generate(ctx context.Context, k config.Key, set string) (*secret.Bytes, Blob, []Call, error) {
	context := Bound(k.Context, set)
	plaintext, b, calls, err := c.generate(ctx, k.KMSKeys, context)
	if err != nil {
		return nil, Blob{}, calls, err
	}
	defer plaintext.Wipe()
	return Text(plaintext), b, calls, nil
}

// Bound returns a copy of an encryption context, bound to a set of disks.
func Bound(context map[string]string, set string) map[string]string {
	bound := map[string]string{}
	maps.Copy(bound, context)
	bound[config.ContextSet] = set
	return bound
}

// ContextText writes an encryption context for people: "a=1, b=2".
func ContextText(context map[string]string) string {
	var text string
	for i, name := range slices.Sorted(maps.Keys(context)) {
		if i > 0 {
			text += ", "
		}
		text += name + "=" + context[name]
	}
	return text
}
