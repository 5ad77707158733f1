package ec2

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"time"

	"unlock/internal/aws"
)

const (
	attemptTimeout = 15 * time.Second
	maxWindow      = 5 * time.Second // IMDS is asked by this instance alone: no storm to fear
	maxMalformed   = 5               // tries; what IMDS truncates once may be whole the next time
	maxRefused     = 12              // tries, about half a minute; a trust policy may be just being changed
)

// retry calls attempt until it succeeds, fails for good, or ctx ends. Errors
// are *aws.Error.
func (c *Client) retry(ctx context.Context, op string, attempt func(context.Context, *endpoint) error) error {
	start, said := time.Now(), ""
	var last error
	for try := 1; ; try++ {
		i := c.current.Load()
		err := func() error {
			ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
			defer cancel()
			return attempt(ctx, c.endpoints[i])
		}()
		if err == nil {
			return nil
		}
		if ctx.Err() != nil && last != nil {
			err = last // this try was cut short: what came before says more
		} else if ctx.Err() == nil && final(err, try) {
			return &aws.Error{Op: op, Err: err, Hint: hint(err)}
		}
		last = err
		if !c.answered.Load() {
			c.current.CompareAndSwap(i, (i+1)%int32(len(c.endpoints)))
		}
		if s := err.Error(); s != said && ctx.Err() == nil {
			said = s
			c.log("%s: %v", op, err)
		}
		// Full jitter over half of the time waited so far.
		window := min(max(time.Since(start)/2, 200*time.Millisecond), maxWindow)
		select {
		case <-ctx.Done():
			return &aws.Error{Op: op, Err: fmt.Errorf("%w (gave up after %d tries: %w)", err, try, context.Cause(ctx)), Hint: hint(err)}
		case <-time.After(rand.N(window)):
		}
	}
}

// final reports whether err will not get better.
func final(err error, try int) bool {
	var refused *roleError
	switch {
	case errors.Is(err, errMalformed):
		return try >= maxMalformed
	case errors.As(err, &refused):
		return try >= maxRefused
	}
	switch s := status(err); s {
	case 0, http.StatusUnauthorized, http.StatusNotFound, http.StatusRequestTimeout, http.StatusTooManyRequests:
		return false
	default:
		return s < 500
	}
}

// hint says what an operator can do about err.
func hint(err error) string {
	var refused *roleError
	switch {
	case errors.As(err, &refused):
		return fmt.Sprintf("let ec2.amazonaws.com assume role %s in its trust policy", refused.role)
	case errors.Is(err, errExpired):
		return "detach and attach the instance profile: EC2 no longer renews its credentials"
	case errors.Is(err, errNoTokens):
		return "what answers does not know IMDSv2, which EC2's metadata service does: check the network and aws.endpoint.imds"
	case errors.Is(err, errMalformed):
		return "something other than EC2's metadata service answers at its address: check the network and aws.endpoint.imds"
	}
	switch status(err) {
	case 0:
		return "no usable answer from the metadata service: check that the network is up and the instance's metadata options say http-endpoint enabled"
	case http.StatusForbidden:
		return "the metadata service is disabled: aws ec2 modify-instance-metadata-options --http-endpoint enabled --instance-id INSTANCE"
	case http.StatusNotFound:
		return "attach an instance profile with a role to this instance"
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		return "the metadata service throttles this instance: find what else asks it so often"
	}
	return "the metadata service refuses this program's requests: check aws.endpoint.imds, and report it if that is not set"
}

var errMalformed = errors.New("malformed answer")

func malformed(err error) error { return fmt.Errorf("%w: %w", errMalformed, err) }

// roleError is IMDS saying that it could not get credentials for the role.
type roleError struct{ role, code, message string }

func (e *roleError) Error() string {
	return fmt.Sprintf("EC2 cannot assume role %s: %s: %s", e.role, e.code, e.message)
}

// statusError is an HTTP status other than 2xx.
type statusError int

func (e statusError) Error() string { return fmt.Sprintf("%d %s", int(e), http.StatusText(int(e))) }

// status returns the HTTP status that IMDS refused with, 0 if it was not that.
func status(err error) int {
	var s statusError
	errors.As(err, &s)
	return int(s)
}
