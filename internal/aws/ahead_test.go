package aws_test

import (
	"context"
	"errors"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"unlock/internal/aws"
)

// TestAhead counts the connections that were dialled by the time a second one is
// wanted, and those that are closed in the end.
func TestAhead(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		delay time.Duration // of dialling
		fails bool          // the connection opened ahead
		wait  time.Duration // before it is wanted
		dials int
		took  time.Duration // until the one that is wanted is there
	}{
		"ready":      {time.Second, false, 2 * time.Second, 1, 0},
		"on its way": {time.Second, false, 400 * time.Millisecond, 1, 600 * time.Millisecond},
		"stale":      {time.Second, false, 10 * time.Second, 2, time.Second},
		"failed":     {time.Second, true, 2 * time.Second, 2, time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				dials := 0
				a := aws.NewAhead(func(ctx context.Context, network, addr string) (net.Conn, error) {
					dials++
					fails := row.fails && dials == 1
					time.Sleep(row.delay)
					if fails {
						return nil, errors.New("refused")
					}
					c, _ := net.Pipe()
					return c, nil
				}, 5*time.Second)
				opened := make(chan struct{})
				go func() { defer close(opened); a.Open(t.Context(), "tcp", "host:443") }()
				time.Sleep(row.wait)
				start := time.Now()
				conn, err := a.Dial(t.Context(), "tcp", "host:443")
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				if took := time.Since(start); took != row.took || dials != row.dials {
					t.Errorf("Dial took %v and %d connections, want %v and %d", took, dials, row.took, row.dials)
				}
				<-opened
				a.Close()
			})
		})
	}
}

// TestAheadClose closes what nobody took.
func TestAheadClose(t *testing.T) {
	t.Parallel()
	mine, other := net.Pipe()
	a := aws.NewAhead(func(context.Context, string, string) (net.Conn, error) { return mine, nil }, time.Minute)
	a.Open(t.Context(), "tcp", "host:443")
	a.Close()
	if _, err := other.Write([]byte("x")); err == nil {
		t.Error("the connection is still open")
	}
}
