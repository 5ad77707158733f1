package aws

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Error is a failure to learn something from AWS, for an operator to act on.
type Error struct {
	Op    string // "decrypting with KMS", "reading s3://…"
	Err   error
	Hint  string // what to do, one line
	class *Class
}

func (e *Error) Error() string { return e.Op + ": " + e.Err.Error() }

// Advice returns the hint, as a hint.Adviser does.
func (e *Error) Advice() string { return e.Hint }

func (e *Error) Unwrap() error { return e.Err }

// Disturbed reports whether another region may answer where this one did not.
func (e *Error) Disturbed() bool { return e.class == fast }

// late adds that there is no time for another try.
func (e *Error) late(ctx context.Context, tries int) *Error {
	e.Err = fmt.Errorf("%w (gave up after %d tries: %w)", e.Err, tries, context.Cause(ctx))
	return e
}

// Refusal is AWS' answer to a request that it did not fulfil.
type Refusal struct {
	Code      string
	status    int // HTTP
	message   string
	requestID string
	region    string    // of the bucket, where S3 says it
	date      time.Time // by AWS' clock
}

func (r *Refusal) Error() string {
	var b strings.Builder
	if r.Code != "" {
		b.WriteString(r.Code + ": ")
	}
	if r.message != "" {
		b.WriteString(r.message + " ")
	}
	fmt.Fprintf(&b, "(HTTP %d", r.status)
	if r.requestID != "" {
		b.WriteString(", request " + r.requestID)
	}
	return b.String() + ")"
}

// Fault is a failure that has a Rule of its own without being an answer of AWS:
// Code is its name there, in parentheses.
type Fault struct {
	Code string
	Err  error
}

func (f *Fault) Error() string { return f.Err.Error() }

func (f *Fault) Unwrap() error { return f.Err }

var errTooLong = &Fault{"(too-long)", errors.New("the answer is too long")}

// maxSkew is the difference of clocks that SigV4 certainly tolerates.
const maxSkew = 4 * time.Minute

// codes returns the names under which rules may know an error, the most exact
// one first.
func codes(err error) []string {
	var (
		answer  *Refusal
		ours    *Fault
		dns     *net.DNSError
		date    x509.CertificateInvalidError
		name    x509.HostnameError
		cert    *tls.CertificateVerificationError
		alert   tls.AlertError
		record  tls.RecordHeaderError
		timeout net.Error
	)
	switch {
	case errors.As(err, &answer):
		off := time.Until(answer.date).Abs()
		if !answer.date.IsZero() && off > maxSkew && strings.Contains(answer.Code, "Signature") {
			return []string{"(skew)"}
		}
		return []string{answer.Code, strconv.Itoa(answer.status), strconv.Itoa(answer.status/100) + "xx"}
	case errors.As(err, &ours):
		return []string{ours.Code}
	case errors.As(err, &dns):
		return []string{"(dns)"}
	case errors.As(err, &date) && date.Reason == x509.Expired:
		return []string{"(certificate-date)"}
	case errors.As(err, &name):
		return []string{"(certificate-name)"}
	case errors.As(err, &cert):
		return []string{"(certificate)"}
	case errors.As(err, &alert), errors.As(err, &record):
		return []string{"(tls)"}
	case errors.Is(err, io.ErrUnexpectedEOF):
		return []string{"(truncated)"}
	case errors.As(err, &timeout) && timeout.Timeout(), errors.Is(err, context.DeadlineExceeded):
		return []string{"(timeout)"}
	}
	return []string{"(network)"}
}

// answerOf returns nil for a response with status 200, else its refusal, with
// what the header says; code and message are in the body, in each protocol's own
// way.
func answerOf(resp *http.Response) *Refusal {
	if resp.StatusCode == http.StatusOK {
		return nil
	}
	r := &Refusal{status: resp.StatusCode, requestID: requestID(resp.Header), region: resp.Header.Get("X-Amz-Bucket-Region")}
	r.date, _ = http.ParseTime(resp.Header.Get("Date"))
	return r
}

func requestID(h http.Header) string {
	for _, name := range []string{"X-Amzn-Requestid", "X-Amz-Request-Id"} {
		if id := h.Get(name); id != "" {
			return id
		}
	}
	return ""
}
