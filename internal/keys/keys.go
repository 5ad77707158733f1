// Package keys turns a configured key into a passphrase: it gets the ciphertext
// from its source (package source lists them), has KMS decrypt
// it under the pinned key and encryption context, and makes new data keys for
// volumes whose key lies in their header.
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
// A plaintext is decoded out of KMS' answer straight into locked memory; the
// buffers through which it came are overwritten, as package aws has it. Where a key is
// attested, KMS has encrypted it once more, to this boot (package attest), and an answer
// in which it has not is final: no call is made without a document instead.
package keys

import (
	"bytes"
	"context"
	"crypto/x509"
	"maps"
	"slices"

	"unlock/internal/aws"
	"unlock/internal/config"
	"unlock/internal/ec2/attest"
	"unlock/internal/keys/source"
	"unlock/internal/secret"
)

// Options of a Client.
type Options struct {
	// Identity gets role credentials, as aws.Options has it.
	Identity func(ctx context.Context) (aws.Role, error)
	// Region of the instance, asked only if neither ARN nor configuration tells.
	Region func(ctx context.Context) (string, error)
	// Instance says who the instance is, asked only if an encryption context names it.
	Instance func(ctx context.Context) (config.Identity, error)
	// Dial opens TCP connections to host:port, resolving host.
	Dial aws.Dialer
	// Roots are the certificate authorities; nil: the embedded Amazon Trust Services roots.
	Roots *x509.CertPool
	AWS   config.AWS
	// Attest is to whom KMS encrypts where a key is attested; nil: no such key can be had.
	Attest *attest.Recipient
	// Image returns the instance's image, "" while that is not known; nil: it never is.
	Image func() string
	// Families is as aws.Options has it.
	Families func() (four, six bool)
	// Log, if not nil, reports each retry.
	Log func(format string, args ...any)
}

// Client gets keys. Safe for concurrent use. It keeps none: each is asked for anew.
type Client struct {
	o   Options
	aws *aws.Client
}

// New returns a Client. It fails if the configured CA bundle cannot be read.
func New(o Options) (*Client, error) {
	if o.Log == nil {
		o.Log = func(string, ...any) {}
	}
	a, err := aws.New(aws.Options{Identity: o.Identity, Dial: o.Dial, Roots: o.Roots, AWS: o.AWS, Families: o.Families, Log: o.Log})
	if err != nil {
		return nil, err
	}
	return &Client{o: o, aws: a}, nil
}

// Close closes all connections and wipes their buffers. No request may be under
// way, and none may follow.
func (c *Client) Close() { c.aws.Close() }

// Blob is an encrypted data key and what is needed to decrypt it.
type Blob struct {
	Ciphertext []byte
	KeyARN     string            // under which KMS encrypted it; untrusted when read from a disk
	Context    map[string]string // the whole encryption context; untrusted when read from a disk
}

// Want is what a key is wanted for.
type Want struct {
	Key  config.Key
	Set  string // UUID of the set of disks that the key is for alone; "" if it is for any
	New  bool   // there is no such key yet: have one made
	PCR4 string // of the boot that formatted what it is for, to explain a refusal; "": not known
	Blob Blob   // it, else
}

// Equal reports whether one key serves both. What explains refusals only does not count.
func (w Want) Equal(o Want) bool {
	return w.Key.Equal(o.Key) && w.Set == o.Set && w.New == o.New && bytes.Equal(w.Blob.Ciphertext, o.Blob.Ciphertext)
}

// Got is a key.
type Got struct {
	Passphrase *secret.Bytes // the caller wipes it
	Blob       *Blob         // of a new key, for the header
	PCR4       string        // of this boot, where the key is attested; else ""
	Calls      []aws.Call    // that AWS answered, also when it refused
}

// Get gets a key of any source but ephemeral, by one call of Open, OpenBlob or
// Generate.
func (c *Client) Get(ctx context.Context, w Want) (got Got, err error) {
	switch {
	case w.Key.Source.Kind != source.Header:
		got.Passphrase, got.Calls, err = c.Open(ctx, w.Key)
	case w.New:
		got.Blob = new(Blob)
		got.Passphrase, *got.Blob, got.Calls, err = c.Generate(ctx, w.Key, w.Set)
	default:
		got.Passphrase, got.Calls, err = c.OpenBlob(ctx, w.Key, w.Set, w.Blob)
	}
	if w.Key.Attest {
		got.PCR4, err = c.pcr4(), then(err, w.PCR4)
	}
	return got, err
}

// Open returns the passphrase of a key whose ciphertext is kept outside
// the disks. The caller wipes it. The calls are those that AWS answered, also when it refused.
func (c *Client) Open(ctx context.Context, k config.Key) (*secret.Bytes, []aws.Call, error) {
	ciphertext, calls, err := c.ciphertext(ctx, k)
	if err != nil {
		return nil, calls, err
	}
	ec, err := c.context(ctx, k)
	if err != nil {
		return nil, calls, err
	}
	plaintext, call, err := c.decrypt(ctx, k, ec, Blob{Ciphertext: ciphertext})
	calls = append(calls, call...)
	if err != nil {
		return nil, calls, err
	}
	if err := FirstLine(plaintext, k.Source, c.o.Log); err != nil {
		plaintext.Wipe()
		return nil, calls, err
	}
	return plaintext, calls, nil
}

// OpenBlob returns the passphrase of a key with source header, whose blob was
// read from a disk: KMS is asked with the pinned keys and with k.Context plus
// config.ContextSet = set, never with what the blob claims. The caller wipes it. The
// calls are as Open's.
func (c *Client) OpenBlob(ctx context.Context, k config.Key, set string, b Blob) (*secret.Bytes, []aws.Call, error) {
	if err := checkSize(len(b.Ciphertext)); err != nil {
		return nil, nil, &aws.Error{Op: "reading the data key in the LUKS header", Err: err,
			Hint: "restore the header from a backup, or from another disk of the set"}
	}
	ec, err := c.context(ctx, k)
	if err != nil {
		return nil, nil, err
	}
	plaintext, calls, err := c.decrypt(ctx, k, Bound(ec, set), b)
	if err != nil {
		return nil, calls, err
	}
	defer plaintext.Wipe()
	return Text(plaintext), calls, nil
}

// Generate has KMS make a data key for a new set of disks and returns its
// passphrase, which the caller wipes, and its blob.
func (c *Client) Generate(ctx context.Context, k config.Key, set string) (*secret.Bytes, Blob, []aws.Call, error) {
	ec, err := c.context(ctx, k)
	if err != nil {
		return nil, Blob{}, nil, err
	}
	plaintext, b, calls, err := c.generate(ctx, k, Bound(ec, set))
	if err != nil {
		return nil, Blob{}, calls, err
	}
	defer plaintext.Wipe()
	return Text(plaintext), b, calls, nil
}

// context is the encryption context of a key, without the set.
func (c *Client) context(ctx context.Context, k config.Key) (map[string]string, error) {
	var who config.Identity
	if len(config.Variables(k.Context)) > 0 {
		var err error
		if who, err = c.o.Instance(ctx); err != nil {
			return nil, aws.Unidentified(err)
		}
	}
	return config.Fill(k.Context, who.Get), nil
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

// answered returns a call if AWS answered it.
func answered(call aws.Call) []aws.Call {
	if call.RequestID == "" {
		return nil
	}
	return []aws.Call{call}
}
