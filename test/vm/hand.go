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
	for i, d := range m.Disks {
		if d.Late != "" {
			on(d.Late, func() { h.request(m.addDisk(i)) })
		}
	}
	for i, c := range m.Cards {
		if c.Late != "" {
			on(c.Late, func() { h.request(c.attach(i)) })
		}
	}
	for _, e := range m.Events {
		if e.When != "" {
			on(e.When, func() { h.later(e.After, func() { h.befall(e) }) })
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

// befall carries out an event; where that fails, the machine ends.
func (h *hand) befall(e Event) {
	h.request(e.Do...)
	if e.Call == nil {
		return
	}
	if err := e.Call(h.ctx); err != nil && h.ctx.Err() == nil {
		h.end(err)
	}
}

// request has QEMU do something; where it does not, the machine ends.
func (h *hand) request(requests ...Request) {
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
