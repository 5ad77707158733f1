package ec2

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
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

// doer sends the SDK's requests: it bounds what is read, and notes IMDS' clock,
// that it has answered, and what became of each request.
type doer struct {
	client *http.Client
	imds   *Client
}

func (d *doer) Do(req *http.Request) (*http.Response, error) {
	resp, err := d.client.Do(req)
	if last, ok := req.Context().Value(lastKey{}).(*last); ok {
		*last = outcome(req, resp, err)
	}
	if err != nil {
		select {
		case d.imds.unheard <- fmt.Errorf("%s %s: %w", req.Method, req.URL.Path, outcome(req, nil, err).err):
		default:
		}
		return nil, err
	}
	if !d.imds.answered.Swap(true) {
		close(d.imds.heard)
	}
	if date, err := http.ParseTime(resp.Header.Get("Date")); err == nil {
		d.imds.skew.Store(int64(time.Until(date)))
	}
	resp.Body = &bounded{resp.Body, maxBody}
	return resp, nil
}

// last is what became of the last request under a context. The SDK's errors
// hide the status of a refused token request.
type last struct {
	request string // "PUT /latest/api/token"
	err     error  // nil if it was answered with 200
}

type lastKey struct{}

func outcome(req *http.Request, resp *http.Response, err error) last {
	l := last{request: req.Method + " " + req.URL.Path, err: err}
	var u *url.Error
	if errors.As(err, &u) {
		l.err = u.Err // without the URL again
	}
	if err == nil && resp.StatusCode != http.StatusOK {
		l.err = statusError(resp.StatusCode)
	}
	return l
}

// bounded is a body that may not be longer than left bytes.
type bounded struct {
	io.ReadCloser
	left int
}

func (b *bounded) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if b.left -= n; b.left < 0 {
		return 0, malformed(errors.New("it is too long"))
	}
	return n, err
}
