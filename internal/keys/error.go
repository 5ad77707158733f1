package keys

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

	"unlock/internal/config"
	"unlock/internal/ec2"
)

// Error is a failure to get a key, for an operator to act on.
type Error struct {
	Op    string // "decrypting with KMS", "reading s3://…"
	Err   error
	Hint  string // what to do, one line
	class *class
}

func (e *Error) Error() string { return e.Op + ": " + e.Err.Error() }

// Advice returns the hint, as a hint.Adviser does.
func (e *Error) Advice() string { return e.Hint }

// late adds that there is no time for another try.
func (e *Error) late(ctx context.Context, tries int) *Error {
	e.Err = fmt.Errorf("%w (gave up after %d tries: %w)", e.Err, tries, context.Cause(ctx))
	return e
}

func (e *Error) Unwrap() error { return e.Err }

// refusal is AWS' answer to a request that it did not fulfil.
type refusal struct {
	status    int // HTTP
	code      string
	message   string
	requestID string
	region    string    // of the bucket, where S3 says it
	date      time.Time // by AWS' clock
}

func (r *refusal) Error() string {
	var b strings.Builder
	if r.code != "" {
		b.WriteString(r.code + ": ")
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

// fault is a failure that has a row of its own in rules, without being AWS'.
type fault struct {
	code string
	err  error
}

func (f *fault) Error() string { return f.err.Error() }

func (f *fault) Unwrap() error { return f.err }

var errTooLong = &fault{"(malformed)", errors.New("the answer is too long")}

// maxSkew is the difference of clocks that SigV4 certainly tolerates.
const maxSkew = 4 * time.Minute

// codes returns the names under which rules may know an error, the most exact
// one first.
func codes(err error) []string {
	var (
		answer  *refusal
		ours    *fault
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
		if !answer.date.IsZero() && off > maxSkew && strings.Contains(answer.code, "Signature") {
			return []string{"(skew)"}
		}
		return []string{answer.code, strconv.Itoa(answer.status), strconv.Itoa(answer.status/100) + "xx"}
	case errors.As(err, &ours):
		return []string{ours.code}
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

// request is what is asked of AWS, in the words of messages.
type request struct {
	Call
	op       string // "decrypting with KMS"
	action   string // IAM's name: "kms:Decrypt"
	resource string // the key's ARN, s3://…, ssm:…
	region   string
	host     string
	version  string // of the object
	context  map[string]string

	otherKey, otherContext string // why KMS may refuse a ciphertext, and what to do
}

// hint fills the pattern of a hint, which ends in what to do.
func (r *request) hint(pattern string, role ec2.Role) string {
	var with, missing string
	if len(r.context) > 0 {
		with = " with context " + ContextText(r.context)
	}
	if r.Service == config.SourceS3 {
		missing = " (S3 may say the same of an object that does not exist)"
	}
	return strings.NewReplacer(
		"{service}", strings.ToUpper(r.Service), "{action}", r.action, "{resource}", r.resource, "{region}", r.region,
		"{host}", r.host, "{version}", r.version, "{role}", role.Name, "{context}", with, "{orMissing}", missing, "{otherKey}", r.otherKey, "{otherContext}", r.otherContext,
	).Replace(pattern)
}

// explain adds the host to the error of a request that AWS did not refuse.
func (r *request) explain(err error) error {
	var answer *refusal
	if errors.As(err, &answer) {
		return err
	}
	return fmt.Errorf("%s: %w", r.host, err)
}

// identityError passes on why there are no credentials, or no region.
func identityError(err error) error {
	e := &Error{Op: "asking the instance metadata service", Err: err, class: final}
	var imds *ec2.Error
	if errors.As(err, &imds) {
		e.Hint = imds.Hint
	}
	return e
}

// answerOf returns nil for a response with status 200, else its refusal, with
// what the header says; code and message are in the body, in each service's
// own way.
func answerOf(resp *http.Response) *refusal {
	if resp.StatusCode == http.StatusOK {
		return nil
	}
	r := &refusal{status: resp.StatusCode, requestID: requestID(resp.Header), region: resp.Header.Get("X-Amz-Bucket-Region")}
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
