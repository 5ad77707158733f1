package vm

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"
)

// errCut is why a machine ended whose power failed.
var errCut = errors.New("power failed")

// hand does to a running machine what people and accidents do.
type hand struct {
	machine  *Machine
	dir      string
	keyboard io.Writer
	ctx      context.Context // while the machine runs
	end      func(why error) // of the machine
	tasks    sync.WaitGroup
}

// triggers returns what the console sets off.
func (h *hand) triggers() []trigger {
	var all []trigger
	m := h.machine
	on := func(text string, do func()) { all = append(all, trigger{text: text, do: do}) }
	if m.Cut != "" {
		on(m.Cut, func() { h.later(m.CutWait, func() { h.end(errCut) }) })
	}
	for _, d := range m.Dump {
		on(d.When, func() { h.request(m.dumpMemory(d.File)...) })
	}
	for i, d := range m.Disks {
		if d.Late != "" {
			on(d.Late, func() { h.request(m.addDisk(i)) })
		}
	}
	for _, l := range m.Link {
		if l.When != "" {
			on(l.When, func() { h.later(l.After, func() { h.request(setLink(l.Up)) }) })
		}
	}
	for _, t := range m.Type {
		all = append(all, trigger{text: t.When, typed: true, do: func() {
			h.later(t.After, func() {
				if _, err := io.WriteString(h.keyboard, t.Text); err != nil {
					h.end(err)
				}
			})
		}})
	}
	return all
}

// later does something unless the machine has ended by then.
func (h *hand) later(d time.Duration, do func()) {
	h.tasks.Go(func() {
		select {
		case <-time.After(d):
			do()
		case <-h.ctx.Done():
		}
	})
}

// request has QEMU do something; where it does not, the machine ends.
func (h *hand) request(requests ...request) {
	if len(requests) == 0 {
		return
	}
	if err := qmp(h.ctx, h.dir, requests...); err != nil && h.ctx.Err() == nil {
		h.end(err)
	}
}

// watchDisks cuts the power when Machine.CutWhen says so.
func (h *hand) watchDisks() {
	if h.machine.CutWhen == nil {
		return
	}
	tick := time.NewTicker(3 * time.Millisecond)
	defer tick.Stop()
	for !h.machine.CutWhen() {
		select {
		case <-tick.C:
		case <-h.ctx.Done():
			return
		}
	}
	h.end(errCut)
}
