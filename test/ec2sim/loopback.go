package ec2sim

import (
	"fmt"
	"net"
)

// Loopback serves KMS, S3, SSM, Secrets Manager and a little of IAM over TLS on 127.0.0.1 for command-line tools,
// with the static credentials AccessKey and SecretKey; it returns the URL. S3 is
// there in path style; the region is the one that requests are signed for.
func (c *Cloud) Loopback() (url string, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("serving on the loopback interface: %w", err)
	}
	c.serveHTTP(c.tlsListener(l), c.api(""))
	return "https://" + l.Addr().String(), nil
}
