package aws

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"time"

	"unlock/internal/hint"
)

// Request is something to ask of AWS, and in the words of messages.
type Request struct {
	Call            // Service and Operation; the rest is what becomes of it
	Op       string // "decrypting with KMS"
	Action   string // IAM's name: "kms:Decrypt"
	Resource string // the key's ARN, s3://…, ssm:…
	Region   string
	URL      *url.URL
	Target   string // of the JSON 1.1 protocol: "TrentService.Decrypt"; "": a GET, as S3 has it
	Input    any    // of the JSON protocol
	Hurry    bool   // there is another region to turn to
	// Renew, if not nil, is called before each attempt, for an Input that ages. Its error
	// ends the request.
	Renew func(ctx context.Context) error
	Since time.Time // of the first request of this kind, which widens the windows; zero: this one

	// Move returns the URL in another region, which S3 may name; nil: nowhere else.
	Move func(region string) *url.URL
	// Rules for answers beside those that all services share; Words are pairs of
	// further words in all hints, "{key}", "…", which come before ours.
	Rules []Rule
	Words []string
}

// hint fills the pattern of a hint. Words that a request has nothing for are left
// out.
func (r *Request) hint(pattern string, role Role) string {
	words := append(r.Words[:len(r.Words):len(r.Words)], "{service}", strings.ToUpper(r.Service), "{action}", r.Action,
		"{resource}", r.Resource, "{region}", r.Region, "{host}", r.URL.Host, "{role}", role.Name, "{context}", "")
	return strings.NewReplacer(words...).Replace(pattern)
}

// explain adds the host to the error of a request that AWS did not refuse.
func (r *Request) explain(err error) error {
	var answer *Refusal
	if errors.As(err, &answer) {
		return err
	}
	return fmt.Errorf("%s: %w", r.URL.Host, err)
}

// Do makes a request until read finds its answer right, it fails for good by the
// rule for its error, or ctx ends. The body is wiped once read has returned. What
// became of it is in r.Call. Errors are *Error.
func (c *Client) Do(ctx context.Context, r *Request, read func(h http.Header, body []byte) error) error {
	defer func() {
		if r.Attempts > 0 {
			r.Duration = time.Since(r.Start)
		}
	}()
	since := r.Since
	if since.IsZero() {
		since = time.Now()
	}
	failures := map[*Class]int{}
	var failed *Error
	for {
		role, err := c.identity.get(ctx)
		if err != nil {
			return Unidentified(err)
		}
		if r.Renew != nil {
			if err := r.Renew(ctx); err != nil {
				return &Error{Op: r.Op, Err: err, Hint: hint.Of(err), class: Final}
			}
		}
		if r.Attempts++; r.Attempts == 1 {
			r.Start = time.Now()
		}
		err = c.attempt(ctx, r, role, read)
		if err == nil {
			return nil
		}
		class, pattern := classify(err, r.Rules)
		failures[class]++
		if unreached(err) {
			c.dual.Store(!c.dual.Load())
		}
		c.learn(r, role, class, err)
		tries := class.tries
		if r.Hurry && class == fast {
			tries = elsewhere
		}
		if ctx.Err() != nil && failed != nil {
			return failed.late(ctx, r.Attempts) // the last try was cut short: what came before says more
		}
		failed = &Error{Op: r.Op, Err: r.explain(err), Hint: r.hint(pattern, role), class: class}
		if tries > 0 && failures[class] >= tries {
			return failed
		}
		if ctx.Err() == nil {
			c.o.Log("%s: %v; trying again", r.Op, err)
		}
		// Full jitter over half of the time waited so far: the same window for all
		// who wait since the same moment, however lucky they were.
		window := min(max(time.Since(since)/2, class.window), maxWindow)
		select {
		case <-ctx.Done():
			return failed.late(ctx, r.Attempts)
		case <-time.After(rand.N(window)):
		}
	}
}

// unreached reports whether AWS may be reached under another name.
func unreached(err error) bool {
	code := codes(err)[0]
	return code == "(dns)" || code == "(timeout)" || code == "(network)"
}

// learn takes from an error what the next attempt needs to know.
func (c *Client) learn(r *Request, role Role, class *Class, err error) {
	var answer *Refusal
	if errors.As(err, &answer) {
		r.RequestID = answer.requestID
		if class == skewed && !answer.date.IsZero() {
			c.skew.Store(int64(time.Until(answer.date)))
		}
	}
	if class == stale {
		c.identity.forget(role)
	}
}

// Unidentified passes on why there are no credentials, or no region.
func Unidentified(err error) *Error {
	return &Error{Op: "asking the instance metadata service", Err: err, Hint: hint.Of(err), class: Final}
}

// attempt makes a request once; in another region, once, if S3 says so.
func (c *Client) attempt(ctx context.Context, r *Request, role Role, read func(http.Header, []byte) error) error {
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	for moved := false; ; {
		h, body, err := c.answer(ctx, r, role)
		var refused *Refusal
		if errors.As(err, &refused) && r.Move != nil && !moved && refused.region != r.Region {
			if u := r.Move(refused.region); u != nil {
				c.o.Log("%s is in %s, not %s", r.Resource, refused.region, r.Region)
				moved, r.Region, r.URL = true, refused.region, u
				continue
			}
		}
		if err != nil {
			return err
		}
		defer clear(body)
		r.RequestID = requestID(h)
		return read(h, body)
	}
}

// answer makes a request and returns what AWS says if it does not refuse.
func (c *Client) answer(ctx context.Context, r *Request, role Role) (http.Header, []byte, error) {
	u := *c.reachable(r.URL)
	req := &http.Request{Method: http.MethodGet, URL: &u, Host: u.Host, Header: http.Header{}}
	refusal := xmlRefusal
	var payload []byte
	if r.Target != "" {
		var err error
		if payload, err = json.Marshal(r.Input); err != nil {
			return nil, nil, fmt.Errorf("encoding the request: %w", err)
		}
		u.Path, req.Method, refusal = "/", http.MethodPost, JSONRefusal
		req.Header.Set("Content-Type", "application/x-amz-json-1.1")
		req.Header.Set("X-Amz-Target", r.Target)
	}
	resp, body, err := c.send(ctx, role.Credentials, req, payload, r.Service, r.Region)
	if err != nil {
		return nil, nil, err
	}
	if refused := answerOf(resp); refused != nil {
		defer clear(body)
		refused.Code, refused.message = refusal(body)
		return nil, nil, refused
	}
	return resp.Header, body, nil
}

// Decode reads an answer of the JSON protocol.
func Decode(body []byte, out any) error {
	if err := json.Unmarshal(body, out); err != nil {
		return &Fault{"(malformed)", fmt.Errorf("decoding the answer: %w", err)}
	}
	return nil
}

// JSONRefusal returns code and message of an error in AWS' JSON protocol.
func JSONRefusal(body []byte) (code, message string) {
	var v struct {
		Type    string `json:"__type"`
		Message string `json:"message"` // or "Message"
	}
	if json.Unmarshal(body, &v) != nil {
		return "", ""
	}
	return v.Type[strings.LastIndex(v.Type, "#")+1:], v.Message
}

// xmlRefusal returns those of an error of S3.
func xmlRefusal(body []byte) (code, message string) {
	return element(body, "Code"), element(body, "Message")
}

// element returns the text of the first XML element of that name. S3's errors
// are flat, and this is a diagnosis, not a decision: encoding/xml would add
// 200 KB to the program.
func element(body []byte, name string) string {
	_, rest, _ := strings.Cut(string(body), "<"+name+">")
	text, _, found := strings.Cut(rest, "</"+name+">")
	if !found {
		return ""
	}
	return text
}
