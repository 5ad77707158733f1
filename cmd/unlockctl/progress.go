package main

import (
	"bytes"
	"fmt"
	"io"
	"sync"
	"time"

	"unlock/internal/hint/plain"
)

// working shows on a terminal what the command is at, once that has taken a second,
// and for how long. The caller calls done before it prints anything else.
func (c console) working(what string) (done func()) {
	if !terminal(c.err) {
		return func() {}
	}
	const erase = "\r\x1b[K"
	what, w := plain.Text(what), raw(c.err)
	stop := make(chan struct{})
	var shown sync.WaitGroup
	shown.Go(func() {
		ticker := time.NewTicker(time.Second)
		defer ticker.Stop()
		for seconds := 1; ; seconds++ {
			select {
			case <-stop:
				if seconds > 1 {
					fmt.Fprint(w, erase)
				}
				return
			case <-ticker.C:
				fmt.Fprintf(w, "%s%s … %d s", erase, what, seconds)
			}
		}
	})
	return func() { close(stop); shown.Wait() }
}

// prefixed puts a prefix before each line; each Write is of whole lines.
type prefixed struct {
	w      io.Writer
	prefix string
}

func (p *prefixed) Write(b []byte) (int, error) {
	for line := range bytes.Lines(b) {
		if _, err := fmt.Fprintf(p.w, "%s%s", p.prefix, line); err != nil {
			return 0, err
		}
	}
	return len(b), nil
}
