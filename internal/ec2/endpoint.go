package ec2

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

const (
	tokenHeader    = "X-Aws-Ec2-Metadata-Token"
	lifetimeHeader = "X-Aws-Ec2-Metadata-Token-Ttl-Seconds"
	tokenLifetime  = 300 // seconds that are asked for
	maxToken       = 1024
)

// endpoint is one address of IMDS, and the session with it.
type endpoint struct {
	url    string // "http://169.254.169.254"
	client *http.Client
	imds   *Client
	asking chan struct{} // holds one: whoever looks at token and until
	token  string        // "": none
	until  time.Time     // it is valid, by our clock
}

// metadata returns what lies at a path below /latest/meta-data/.
func (e *endpoint) metadata(ctx context.Context, path string) ([]byte, error) {
	return e.get(ctx, "meta-data/"+path)
}

// get returns what lies at a path below /latest/. A token that IMDS refuses (401) is
// given up: the next call gets another.
func (e *endpoint) get(ctx context.Context, path string) ([]byte, error) {
	token, err := e.session(ctx)
	if err != nil {
		return nil, err
	}
	data, _, err := e.do(ctx, http.MethodGet, path, tokenHeader, token)
	if status(err) == http.StatusUnauthorized {
		select {
		case e.asking <- struct{}{}:
			if e.token == token {
				e.token = ""
			}
			<-e.asking
		case <-ctx.Done():
		}
	}
	return data, err
}

// session returns the token of the session, which it begins if there is none. Calls at
// the same time begin one together.
func (e *endpoint) session(ctx context.Context) (string, error) {
	select {
	case e.asking <- struct{}{}:
		defer func() { <-e.asking }()
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
	if e.token != "" && time.Now().Before(e.until) {
		return e.token, nil
	}
	const path = "api/token"
	start := time.Now()
	data, header, err := e.do(ctx, http.MethodPut, path, lifetimeHeader, strconv.Itoa(tokenLifetime))
	if status(err) == http.StatusNotFound {
		err = fmt.Errorf("%w: %w", errNoTokens, err)
	}
	if err != nil {
		return "", err
	}
	token := string(data)
	seconds, err := strconv.Atoi(header.Get(lifetimeHeader))
	if err != nil || seconds <= 0 || token == "" || len(token) > maxToken || strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "", fmt.Errorf("PUT /latest/%s: %w", path, malformed(fmt.Errorf("a token of %d bytes for %q seconds", len(token), header.Get(lifetimeHeader))))
	}
	e.token, e.until = token, start.Add(time.Duration(min(seconds, tokenLifetime))*time.Second)
	return token, nil
}

var errNoTokens = errors.New("no session tokens")

// do sends one request, with one header, and returns the body of an answer with 200. It
// notes IMDS' clock, and that IMDS has answered. Errors name the request.
func (e *endpoint) do(ctx context.Context, method, path, header, value string) (body []byte, answer http.Header, err error) {
	name := method + " /latest/" + path
	defer func() {
		if err != nil {
			err = fmt.Errorf("%s: %w", name, err)
		}
	}()
	req, err := http.NewRequestWithContext(ctx, method, strings.TrimSuffix(e.url, "/")+"/latest/"+path, nil)
	if err != nil {
		return nil, nil, err
	}
	req.Header.Set(header, value)
	req.Header.Set("User-Agent", "unlock")
	resp, err := e.client.Do(req)
	if err != nil {
		if u, ok := errors.AsType[*url.Error](err); ok {
			err = u.Err // without the URL again
		}
		select {
		case e.imds.unheard <- fmt.Errorf("%s: %w", name, err):
		default:
		}
		return nil, nil, err
	}
	defer resp.Body.Close()
	if !e.imds.answered.Swap(true) {
		close(e.imds.heard)
	}
	if date, err := http.ParseTime(resp.Header.Get("Date")); err == nil {
		e.imds.skew.Store(int64(time.Until(date)))
	}
	body, err = io.ReadAll(io.LimitReader(resp.Body, maxBody+1))
	switch {
	case resp.StatusCode != http.StatusOK:
		return nil, nil, statusError(resp.StatusCode)
	case err != nil:
		return nil, nil, cmp.Or(context.Cause(ctx), err)
	case len(body) > maxBody:
		return nil, nil, malformed(errors.New("it is too long"))
	}
	return body, resp.Header, nil
}
