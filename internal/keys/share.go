package keys

import (
	"context"
	"errors"

	"unlock/internal/aws"
	"unlock/internal/secret"
)

// flight is a request under way, or one whose passphrase is kept.
type flight struct {
	ctx        context.Context // of who makes the request
	done       chan struct{}
	passphrase *secret.Bytes
	calls      []aws.Call
	err        error
}

// share runs get once for all who ask for the same id, and gives each a copy of
// the passphrase to wipe. Failures are not kept: who comes later tries anew, and
// so does who waited for one whose context ended early.
func (c *Client) share(ctx context.Context, id string, get func() (*secret.Bytes, []aws.Call, error)) (*secret.Bytes, []aws.Call, error) {
	for {
		c.mu.Lock()
		f, found := c.flights[id]
		if !found {
			f = &flight{ctx: ctx, done: make(chan struct{})}
			c.flights[id] = f
		}
		c.mu.Unlock()

		if !found {
			f.passphrase, f.calls, f.err = get()
			if f.err != nil {
				c.mu.Lock()
				delete(c.flights, id)
				c.mu.Unlock()
			}
			close(f.done)
		}
		select {
		case <-f.done:
		case <-ctx.Done():
			if f.ctx.Err() == nil {
				return nil, nil, &aws.Error{Op: "waiting for the key", Err: context.Cause(ctx)}
			}
			<-f.done // its context has ended, too, and it knows why there is no key
		}
		ended := errors.Is(f.err, context.Canceled) || errors.Is(f.err, context.DeadlineExceeded)
		if found && ended && ctx.Err() == nil {
			continue
		}
		if f.err != nil {
			return nil, f.calls, f.err
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		return f.passphrase.Clone(), f.calls, nil
	}
}
