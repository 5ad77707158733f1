// Package keys turns a configured key into a passphrase: it gets the ciphertext
// from its source (S3, a file, an SSM parameter, a LUKS2 token), has KMS decrypt
// it under the pinned key and encryption context, and makes new data keys for
// volumes whose key lies in their header. Retries, their classes and the hints
// for the operator are here.
//
// Passphrases are as cryptsetup takes them: a sealed passphrase is used byte for
// byte but for what reading standard input would drop; a data key is
// base64-encoded and that text is the passphrase (systemd's convention), so that
// `aws kms decrypt --query Plaintext --output text | tr -d '\n'` piped into
// cryptsetup opens the volume.
package keys

import (
	"context"
	"crypto/x509"
	"net"
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

// Client gets keys. Safe for concurrent use: equal requests share one call.
type Client struct{}

// New returns a Client.
func New(o Options) (*Client, error) { panic("stub") }

// Warm opens connections (DNS, TCP, TLS) to the services that keys will need, so
// that the requests themselves cost one round trip each. It returns when all are
// open or have failed; failures are left for the request to meet again.
func (c *Client) Warm(ctx context.Context, keys ...config.Key) { panic("stub") }

// Call is one request that AWS answered, for the log and status.json.
type Call struct {
	Service   string // "s3", "kms", "ssm"
	Operation string
	KeyARN    string // kms: the key that AWS says it used
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
// wipes it.
func (c *Client) Open(ctx context.Context, k config.Key) (*secret.Bytes, []Call, error) {
	panic("stub")
}

// OpenBlob returns the passphrase of a key with source header, whose blob was
// read from a disk: KMS is asked with the pinned keys and with k.Context plus
// ContextSet = set, never with what the blob claims. The caller wipes it.
func (c *Client) OpenBlob(ctx context.Context, k config.Key, set string, b Blob) (*secret.Bytes, []Call, error) {
	panic("stub")
}

// Generate has KMS make a data key for a new set of disks and returns its
// passphrase, which the caller wipes, and its blob.
func (c *Client) Generate(ctx context.Context, k config.Key, set string) (*secret.Bytes, Blob, []Call, error) {
	panic("stub")
}

// ContextSet is the name in the encryption context that binds a data key to its set of disks.
const ContextSet = "unlock:set"

// Error is a failure to get a key, for an operator to act on.
type Error struct {
	Op   string // "decrypting with KMS", "reading s3://…"
	Err  error
	Hint string // what to do, one line
}
