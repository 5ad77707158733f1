// Package ec2 asks the instance metadata service who this instance is: role
// credentials, region, identity. It speaks IMDSv2 only, never v1, and takes
// nothing from the environment or shared configuration files.
package ec2

import (
	"context"
	"net"

	"github.com/aws/aws-sdk-go-v2/aws"
)

// Options of a Client.
type Options struct {
	// Dial opens connections to IMDS; nil: a dialer that sets SO_MARK 0x7FFF0815
	// for systemd-imds' locked mode.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
	// Endpoint overrides http://169.254.169.254 and http://[fd00:ec2::254].
	Endpoint string
	// Log, if not nil, is told of retries ("waiting for role credentials: 404 …").
	Log func(format string, args ...any)
}

// Client talks to IMDS. Safe for concurrent use; one token and one connection
// are shared.
type Client struct{}

// New returns a Client.
func New(o Options) *Client { panic("stub") }

// Role credentials of the instance.
type Role struct {
	Name        string
	Credentials aws.Credentials
}

// Role waits for the instance's role and its credentials until ctx ends:
// 404 means "not yet".
func (c *Client) Role(ctx context.Context) (Role, error) { panic("stub") }

// Region of the instance, such as us-east-1.
func (c *Client) Region(ctx context.Context) (string, error) { panic("stub") }

// BlockDevices returns block-device-mapping: "ephemeral0" → "sdb" (Xen).
func (c *Client) BlockDevices(ctx context.Context) (map[string]string, error) { panic("stub") }
