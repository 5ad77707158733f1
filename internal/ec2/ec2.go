// Package ec2 asks the instance metadata service who this instance is: role
// credentials, region, identity. It speaks IMDSv2 only, never v1, and takes
// nothing from the environment or shared configuration files.
//
// A cold start costs four round trips: TCP, token, name of the role, its
// credentials, although IMDS closes the connection after each (spares.go).
// Whatever can get better is asked again until the context ends: a role that is
// not there yet (404), a token that is no longer valid (401), throttling, 5xx,
// silence. A disabled service (403) cannot.
//
// Credentials are strings, as the SDK's signer wants them, and cannot be wiped. The
// SDK's client of IMDS is not linked: it would be 356 kB of the program.
package ec2

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/aws"

	"unlock/internal/aws"
	"unlock/internal/aws/arn"
)

// Options of a Client.
type Options struct {
	// Dial opens connections to IMDS; nil: a dialer that sets SO_MARK 0x7FFF0815
	// for systemd-imds' locked mode.
	Dial aws.Dialer
	// Endpoint overrides http://169.254.169.254 and http://[fd00:ec2::254].
	Endpoint string
	// Log, if not nil, reports retries ("waiting for role credentials: 404 …").
	Log func(format string, args ...any)
}

// Client talks to IMDS. Safe for concurrent use; one token is shared.
type Client struct {
	spares    *spares
	transport *http.Transport
	endpoints []*endpoint
	current   atomic.Int32  // index of the one to ask
	answered  atomic.Bool   // it has answered once, so the others are not tried any more
	heard     chan struct{} // closed then
	unheard   chan error    // of a try before
	begun     atomic.Pointer[flight]
	skew      atomic.Int64 // nanoseconds by which IMDS' clock is ahead of ours
	log       func(format string, args ...any)
}

// New returns a Client.
func New(o Options) *Client {
	c := &Client{log: o.Log, spares: newSpares(o.Dial), heard: make(chan struct{}), unheard: make(chan error, 1)}
	c.transport = newTransport(c.spares)
	if c.log == nil {
		c.log = func(string, ...any) {}
	}
	urls := []string{"http://169.254.169.254", "http://[fd00:ec2::254]"}
	if o.Endpoint != "" {
		urls = []string{o.Endpoint}
	}
	client := httpClient(c.transport)
	for _, url := range urls {
		c.endpoints = append(c.endpoints, &endpoint{url: url, client: client, imds: c, asking: make(chan struct{}, 1)})
	}
	return c
}

// HTTPClient returns what a Client asks with, for those who have a question of their
// own: no proxy, no redirect.
func HTTPClient() *http.Client { return httpClient(newTransport(newSpares(nil))) }

func httpClient(t *http.Transport) *http.Client {
	return &http.Client{
		Transport: t,
		// IMDS does not redirect, and whoever else does shall not see the token.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// Metadata asks once for what lies at a path below /latest/meta-data/.
func (c *Client) Metadata(ctx context.Context, path string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	data, err := c.endpoints[c.current.Load()].metadata(ctx, path)
	if err != nil {
		return nil, &aws.Error{Op: "asking the instance's metadata service", Err: err, Hint: hint(err)}
	}
	return data, nil
}

// Close closes all connections. The Client is not to be used any more.
func (c *Client) Close() {
	if f := c.begun.Load(); f != nil {
		f.cancel()
		<-f.done
	}
	c.spares.close()
	c.transport.CloseIdleConnections()
}

// flight is a call of Role that Reach began.
type flight struct {
	cancel context.CancelFunc
	done   chan struct{}
	taken  atomic.Bool
	role   aws.Role
	err    error
}

// Reach begins to ask for role credentials, until ctx ends, and returns once IMDS has
// answered at all: nil. The first Role then gets what was begun, so that it costs no
// round trip to know that IMDS is there. It fails with the first try that has no
// answer, or when patience ends; only Close may follow then.
func (c *Client) Reach(ctx, patience context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	f := &flight{cancel: cancel, done: make(chan struct{})}
	c.begun.Store(f)
	go func() {
		defer close(f.done)
		f.role, f.err = c.ask(ctx)
	}()
	select {
	case <-c.heard:
		return nil
	case err := <-c.unheard:
		return err
	case <-f.done:
		return f.err
	case <-patience.Done():
		return context.Cause(patience)
	}
}

// Role waits for the instance's role and its credentials until ctx ends:
// 404 means "not yet".
func (c *Client) Role(ctx context.Context) (aws.Role, error) {
	if f := c.begun.Load(); f != nil && !f.taken.Swap(true) {
		<-f.done
		return f.role, f.err
	}
	return c.ask(ctx)
}

func (c *Client) ask(ctx context.Context) (aws.Role, error) {
	const path = "iam/security-credentials/"
	var r aws.Role
	err := c.retry(ctx, "waiting for role credentials", func(ctx context.Context, e *endpoint) error {
		list, err := e.metadata(ctx, path)
		if err != nil {
			return err
		}
		name, _, _ := strings.Cut(string(list), "\n")
		name = strings.TrimSpace(name)
		if !validRole(name) {
			return malformed(fmt.Errorf("%q is not the name of a role", name))
		}
		data, err := e.metadata(ctx, path+name)
		if err != nil {
			return err
		}
		r.Name = name
		r.Credentials, err = c.credentials(name, data)
		return err
	})
	if err != nil {
		return aws.Role{}, err
	}
	return r, nil
}

// credentials decodes what IMDS says of a role.
func (c *Client) credentials(role string, data []byte) (sdk.Credentials, error) {
	var v struct {
		Code, Message                       string
		AccessKeyID, SecretAccessKey, Token string
		Expiration                          time.Time
	}
	if err := json.Unmarshal(data, &v); err != nil {
		return sdk.Credentials{}, malformed(fmt.Errorf("credentials of role %s: %w", role, err))
	}
	if v.Code != "" && v.Code != "Success" {
		return sdk.Credentials{}, &roleError{role, v.Code, v.Message}
	}
	if v.AccessKeyID == "" || v.SecretAccessKey == "" || v.Token == "" || v.Expiration.IsZero() {
		return sdk.Credentials{}, malformed(fmt.Errorf("credentials of role %s are incomplete", role))
	}
	// A wrong clock of ours must make them neither expired nor immortal.
	expires := v.Expiration.Add(-time.Duration(c.skew.Load()))
	if left := time.Until(expires); left <= 0 {
		return sdk.Credentials{}, fmt.Errorf("credentials of role %s: %w %v ago", role, errExpired, (-left).Round(time.Second))
	}
	return sdk.Credentials{
		AccessKeyID: v.AccessKeyID, SecretAccessKey: v.SecretAccessKey, SessionToken: v.Token,
		CanExpire: true, Expires: expires, Source: "IMDSv2",
	}, nil
}

// Region of the instance, such as us-east-1.
func (c *Client) Region(ctx context.Context) (string, error) {
	var region string
	err := c.retry(ctx, "asking for the region", func(ctx context.Context, e *endpoint) error {
		data, err := e.metadata(ctx, "placement/region")
		if err != nil {
			return err
		}
		if region = strings.TrimSpace(string(data)); !arn.ValidRegion(region) {
			return malformed(fmt.Errorf("%q is not a region", region))
		}
		return nil
	})
	if err != nil {
		return "", err
	}
	return region, nil
}

// BlockDevices returns block-device-mapping: "ephemeral0" → "sdb" (Xen). An
// instance without one has an empty map.
func (c *Client) BlockDevices(ctx context.Context) (map[string]string, error) {
	const path = "block-device-mapping/"
	var devices map[string]string
	err := c.retry(ctx, "asking for the block device mapping", func(ctx context.Context, e *endpoint) error {
		devices = map[string]string{}
		list, err := e.metadata(ctx, path)
		if status(err) == http.StatusNotFound {
			return nil
		}
		if err != nil {
			return err
		}
		for name := range strings.FieldsSeq(string(list)) {
			if strings.Contains(name, "/") {
				return malformed(fmt.Errorf("%q is not the name of a mapping", name))
			}
			data, err := e.metadata(ctx, path+name)
			if err != nil {
				return err
			}
			devices[name] = strings.TrimSpace(string(data))
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return devices, nil
}

// validRole reports whether s may be the name of a role: IAM allows letters,
// digits and "_+=,.@-", at most 64.
func validRole(s string) bool {
	return len(s) > 0 && len(s) <= 64 && strings.Trim(s, letters+"_+=,.@-") == ""
}

const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"

var errExpired = errors.New("expired")
