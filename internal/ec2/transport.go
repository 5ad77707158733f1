package ec2

import (
	"net/http"
	"time"
)

const (
	connectTimeout = 2 * time.Second // IMDS is one hop away
	headerTimeout  = 5 * time.Second
	maxBody        = 64 << 10 // bytes; credentials have about 1.5 KB
)

// newTransport returns a transport without proxies that asks each endpoint one
// thing at a time.
func newTransport(s *spares) *http.Transport {
	return &http.Transport{
		DialContext:           s.dial,
		MaxConnsPerHost:       1,
		ResponseHeaderTimeout: headerTimeout,
		DisableCompression:    true,
	}
}
