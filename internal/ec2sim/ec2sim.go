// Package ec2sim is a simulated EC2 for tests and the demonstration: one process
// that is DHCP server, DNS resolver, IMDSv2 at 169.254.169.254, and S3, KMS and
// SSM under their real host names over TLS from a test CA, on a user-space
// network to which QEMU or an in-process Guest is plugged. It needs no root and
// opens no socket that others could reach. It checks what AWS checks: SigV4
// signatures, session tokens, IMDS hop and token rules, encryption contexts and key
// ids; and its refusals look like AWS's.
//
// It never imports the packages that it tests.
package ec2sim

import (
	"context"
	"net"
	"net/netip"
	"time"
)

// Config of a Cloud. The zero value is a healthy us-east-1.
type Config struct {
	Region  string        // default us-east-1
	Account string        // default 111122223333
	Role    string        // default "unlock-demo"; NoRole for an instance without
	RTT     time.Duration // delay of every frame towards the guest (ARP excepted): one round trip costs one RTT
	Faults  []string      // names from Faults(), with an argument after a colon: "role-late:5s"
}

// Cloud is a running simulation.
type Cloud struct{}

// New starts a Cloud; Close ends it.
func New(c Config) (*Cloud, error) { panic("stub") }

func (c *Cloud) Close() error { panic("stub") }

// CA returns the certificate authority of the endpoints in PEM.
func (c *Cloud) CA() []byte { panic("stub") }

// CreateKey makes a symmetric KMS key and returns its ARN.
func (c *Cloud) CreateKey() string { panic("stub") }

// DisableKey disables a key, as an operator would.
func (c *Cloud) DisableKey(arn string, disabled bool) { panic("stub") }

// Encrypt is KMS Encrypt without a request: raw ciphertext, as `aws kms encrypt` yields.
func (c *Cloud) Encrypt(keyARN string, plaintext []byte, context map[string]string) []byte {
	panic("stub")
}

// PutObject stores an S3 object.
func (c *Cloud) PutObject(bucket, key string, data []byte) { panic("stub") }

// PutParameter stores an SSM parameter.
func (c *Cloud) PutParameter(name, value string) { panic("stub") }

// SetFaults replaces the faults of a running Cloud.
func (c *Cloud) SetFaults(names ...string) error { panic("stub") }

// Plug connects a machine's network card: conn carries QEMU's stream framing
// (32-bit big-endian length, Ethernet frame). It returns when conn ends.
func (c *Cloud) Plug(conn net.Conn) error { panic("stub") }

// Guest is an in-process host on the simulated network, without DHCP's help.
func (c *Cloud) Guest() (*Guest, error) { panic("stub") }

// Guest stands for an instance's kernel.
type Guest struct{}

func (g *Guest) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	panic("stub")
}

// DNS is the address of the resolver.
func (c *Cloud) DNS() netip.Addr { panic("stub") }

// Loopback serves KMS, S3 and SSM over TLS on 127.0.0.1 for command-line tools,
// with the static credentials AccessKey and SecretKey; it returns the URL.
func (c *Cloud) Loopback() (url string, err error) { panic("stub") }

// Request is one request that the Cloud saw.
type Request struct {
	Time      time.Time
	Service   string // "dhcp", "dns", "imds", "s3", "kms", "ssm"
	Operation string // "DISCOVER", "A kms.us-east-1.amazonaws.com", "GET /latest/…", "Decrypt"
	Host      string
	Status    int
	ErrorType string // "AccessDeniedException"
	RequestID string
}

// Requests returns all requests so far.
func (c *Cloud) Requests() []Request { panic("stub") }

// Frames returns how many Ethernet frames the machine has sent.
func (c *Cloud) Frames() int { panic("stub") }
