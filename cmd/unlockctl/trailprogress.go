package main

import (
	"fmt"
	"strings"
	"sync"
	"time"

	"unlock/cmd/unlockctl/internal/trail"
)

// clearLine empties the line that a terminal shows.
const clearLine = "\r\x1b[K"

// progress shows on a terminal how much of files has been read, until done is called.
func (c console) progress(p *trail.Progress, files []trail.File) (done func()) {
	if !terminal(c.err) {
		return func() {}
	}
	w := raw(c.err)
	var total int64
	for _, f := range files {
		total += f.Size
	}
	stop := make(chan struct{})
	var shown sync.WaitGroup
	shown.Go(func() {
		ticker := time.NewTicker(200 * time.Millisecond)
		defer ticker.Stop()
		start := time.Now()
		for {
			select {
			case <-stop:
				fmt.Fprint(w, clearLine)
				return
			case <-ticker.C:
				records := p.Records.Load()
				fmt.Fprintf(w, "%s%s%d records, %.0f a second", clearLine, bar(p.Bytes.Load(), total), records, float64(records)/time.Since(start).Seconds())
			}
		}
	})
	return func() { close(stop); shown.Wait() }
}

// bar draws a part of a whole; of an unknown whole nothing.
func bar(part, whole int64) string {
	const width = 30
	if whole == 0 {
		return ""
	}
	n := int(min(part, whole) * width / whole)
	return fmt.Sprintf("[%s%s] %3d %%  ", strings.Repeat("#", n), strings.Repeat(".", width-n), min(part, whole)*100/whole)
}
