package ec2sim

import (
	"maps"
	"slices"
	"time"
)

// Request is one request that the Cloud saw.
type Request struct {
	Time      time.Time // when it arrived
	Service   string    // "dhcp", "dns", "imds", "s3", "kms", "ssm", "secretsmanager"
	Operation string    // "DISCOVER", "A kms.us-east-1.amazonaws.com", "GET /latest/…", "GetObject", "Decrypt"
	Resource  string    // "bucket/key", the ARN of the KMS key, the name of the SSM parameter
	Host      string    // as the client named it
	Status    int       // HTTP's, or DNS's response code; 0 for DHCP and for what was not answered
	ErrorType string    // "AccessDeniedException", "NoSuchKey"
	RequestID string
}

// Requests returns all requests so far, in the order of their answers.
func (c *Cloud) Requests() []Request {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.requests)
}

func (c *Cloud) record(r Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.requests = append(c.requests, r)
}

// Hosts returns every IPv4 address that machines sent packets to, and every name
// that they asked DNS for, sorted. Names and addresses that do not exist are
// among them: who connects somewhere unexpected is found out.
func (c *Cloud) Hosts() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Sorted(maps.Keys(c.hosts))
}

func (c *Cloud) sawHost(h string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.hosts[h] = true
}
