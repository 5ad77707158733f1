package netup

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sort"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// headStart is how long each card is tried alone before the next joins, unless it
	// is stuck: the primary one should win, but need not.
	headStart = 2 * time.Second
	// reachTime is for one try to reach IMDS, which may be slow.
	reachTime = 10 * time.Second
	// reachAgain is the longest pause between two tries.
	reachAgain = 2 * time.Second
)

// race raises cards, one after the other, until IMDS is reached through one. What
// loses is taken down. It goes on until Down: cards may come, go and be renamed, and
// those that lost may be asked to help.
type race struct {
	n       *Network
	found   *card // that is there already; nil: none
	cards   map[int]*card
	queue   []*card // not started
	last    *card   // started last
	started int

	links  <-chan linkUpdate
	stuck  chan *card
	calls  chan call   // for help
	called atomic.Bool // one was made
	ctx    context.Context
	over   chan struct{}
	cancel context.CancelFunc
	tasks  sync.WaitGroup

	mu     sync.Mutex
	winner *card
	side   family
	won    chan struct{}
	early  sync.Once
}

func newRace(n *Network) (*race, error) {
	r := &race{n: n, cards: map[int]*card{}, stuck: make(chan *card), calls: make(chan call), over: make(chan struct{}), won: make(chan struct{})}
	n.race = r
	var err error
	if r.found, err = findExisting(n); err != nil {
		return nil, err
	}
	done := make(chan struct{})
	if r.links, err = watchLinks(done); err != nil {
		return nil, err
	}
	links, err := listLinks()
	if err != nil {
		close(done)
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	r.ctx, r.cancel = ctx, cancel
	for _, l := range links {
		r.see(ctx, &l)
	}
	r.tasks.Go(func() {
		defer func() {
			close(done)
			for range r.links { // let go of an update that is under way
			}
		}()
		r.run(ctx)
	})
	return r, nil
}

// call is one for help.
type call struct {
	why   string
	comes chan bool
}

// help has other cards raised, if there are any.
func (r *race) help(why string) bool {
	c := call{why, make(chan bool, 1)}
	select {
	case r.calls <- c:
		return <-c.comes
	case <-r.ctx.Done():
		return false
	}
}

// run is the race's only goroutine that touches its cards.
func (r *race) run(ctx context.Context) {
	defer func() {
		for _, c := range r.cards {
			r.stop(c)
		}
	}()
	if r.found != nil {
		r.start(ctx, r.found)
	}
	next := time.NewTimer(0)
	if r.found != nil {
		next.Reset(headStart)
	}
	defer next.Stop()
	racing, won := true, r.won
	for {
		select {
		case u, ok := <-r.links:
			switch {
			case !ok:
				r.n.log("watching network interfaces: the kernel ended the subscription")
				r.links = nil
			case u.gone:
				r.gone(u.index)
			default:
				if r.see(ctx, &u.link) && r.last == nil {
					next.Reset(0)
				}
			}
		case <-next.C:
			if racing && r.startNext(ctx) {
				next.Reset(headStart)
			}
		case c := <-r.stuck:
			if c == r.last {
				next.Reset(0)
			}
		case <-won:
			racing, won = false, nil
			r.end()
		case call := <-r.calls:
			racing = true
			call.comes <- r.widen(call.why)
			next.Reset(0)
		case <-ctx.Done():
			return
		}
	}
}

// see takes what the kernel says of an interface. It reports whether that is a new card.
func (r *race) see(ctx context.Context, l *link) bool {
	c, known := r.cards[l.index]
	if !known {
		at := place(l.name)
		if at == "" || len(l.mac) != 6 || l.master != 0 {
			return false // not a network card, or part of something bigger
		}
		c = &card{n: r.n, index: l.index, mac: l.mac, place: at, link: make(chan struct{}, 1)}
		r.cards[l.index] = c
		r.queue = append(r.queue, c)
	}
	if c.see(l) && c.ended != nil {
		c.log("somebody shut it down; raising it again")
		r.stop(c)
		c.shut = true
		r.start(ctx, c)
	}
	return !known
}

// gone forgets a card that was taken away.
func (r *race) gone(index int) {
	c, known := r.cards[index]
	if !known {
		return
	}
	if c.ended != nil {
		c.log("it went away")
	}
	r.stop(c)
	delete(r.cards, index)
	r.queue = slices.DeleteFunc(r.queue, func(q *card) bool { return q == c })
}

// startNext starts the next card that waits for its turn and that nobody else has
// configured; false if there is none.
func (r *race) startNext(ctx context.Context) bool {
	for len(r.queue) > 0 {
		c := r.queue[0]
		r.queue = r.queue[1:]
		if held(c.index)[four] {
			c.debug("left to whoever configured it")
			continue
		}
		if r.last != nil && !r.decided() {
			r.n.log("%s: %v; trying %s as well", r.last.called(), r.last.why(), c.called())
		}
		r.start(ctx, c)
		return true
	}
	r.last = nil // whoever comes need not wait
	return false
}

func (r *race) start(ctx context.Context, c *card) {
	ctx, c.cancel = context.WithCancel(ctx)
	ended := make(chan struct{})
	c.ended, r.last = ended, c
	if c != r.found {
		c.rank = r.started
		r.started++
	}
	stuck := func() {
		select {
		case r.stuck <- c:
		case <-ctx.Done():
		}
	}
	go func() {
		defer close(ended)
		if c == r.found {
			c.try(ctx)
		} else {
			c.run(ctx, stuck)
		}
	}()
}

// stop has a card taken down.
func (r *race) stop(c *card) {
	if c.ended != nil {
		c.cancel()
		<-c.ended
		c.ended = nil
		r.n.leave(c)
	}
}

// end takes down what lost.
func (r *race) end() {
	r.n.settle(r.winner)
	for _, c := range r.cards {
		if c == r.winner || c.ended == nil {
			continue
		}
		c.log("given up: %v", c.why())
		r.stop(c)
	}
	if r.found != nil && r.found != r.winner {
		r.stop(r.found)
	}
	r.queue, r.last = nil, nil
	close(r.over)
}

// widen lines up all cards but the winner, and reports whether there are any.
func (r *race) widen(why string) bool {
	r.queue = nil
	for _, c := range r.cards {
		if c.ended == nil && !held(c.index)[four] {
			r.queue = append(r.queue, c)
		}
	}
	if len(r.queue) == 0 {
		return false
	}
	sort.Slice(r.queue, func(i, j int) bool {
		a, b := r.queue[i], r.queue[j]
		return a.place < b.place || a.place == b.place && a.index < b.index
	})
	r.n.log("%s; trying the other network cards, too", why)
	return true
}

// ready is called once a card has addresses of a family: it tries to reach IMDS, or
// is at hand if that has been done.
func (r *race) ready(ctx context.Context, c *card, f family) {
	r.n.join(c)
	if r.n.o.Early != nil {
		r.early.Do(func() { r.n.o.Early(r.n) })
	}
	said := ""
	for pause := 100 * time.Millisecond; ctx.Err() == nil; pause = min(2*pause, reachAgain) {
		if r.decided() {
			return
		}
		begun := time.Now()
		err := r.reach(ctx, c, f)
		if err == nil {
			c.debug("IMDS at %v answered after %v", f.imds(), time.Since(begun).Round(time.Millisecond))
			c.came(stepIMDS, nil)
			r.claim(c, f)
			return
		}
		if ctx.Err() != nil {
			return
		}
		c.came(stepLease, fmt.Errorf("%w over %v: %w", ErrNoIMDS, f, err))
		if s := err.Error(); s != said {
			said = s
			c.log("%v over %v: %v", ErrNoIMDS, f, err)
		}
		select {
		case r.stuck <- c:
		case <-time.After(pause):
			continue
		case <-ctx.Done():
			return
		}
		sleep(ctx, pause)
	}
}

func (r *race) reach(ctx context.Context, c *card, f family) error {
	ctx, cancel := context.WithTimeout(ctx, reachTime)
	defer cancel()
	return r.n.o.Reach(ctx, f.imds(), c.dial)
}

// decided reports whether there is a winner.
func (r *race) decided() bool {
	select {
	case <-r.won:
		return true
	default:
		return false
	}
}

// claim makes a card the winner if it is the first.
func (r *race) claim(c *card, f family) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.winner == nil {
		r.winner, r.side = c, f
		close(r.won)
	}
}

// failure says how far the best card came.
func (r *race) failure() error {
	all := make([]*card, 0, len(r.cards)+1)
	for _, c := range r.cards {
		all = append(all, c)
	}
	if r.found != nil {
		all = append(all, r.found)
	}
	if len(all) == 0 {
		return ErrNoCard
	}
	best := slices.MaxFunc(all, func(a, b *card) int {
		if a.step != b.step {
			return int(a.step - b.step)
		}
		return b.rank - a.rank
	})
	return fmt.Errorf("%s: %w", best.called(), best.why())
}

// why is what stopped a card, at the farthest step that it came to.
func (c *card) why() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.step == stepLink && c.err != nil && c.err6 != nil:
		return fmt.Errorf("%w; IPv6: %w", c.err, c.err6)
	case c.err != nil:
		return c.err
	case c.step == stepLink:
		return fmt.Errorf("%w yet", ErrNoLease)
	}
	return errors.New("time ran out")
}

// finish takes everything down and returns what could not be undone.
func (r *race) finish() error {
	r.cancel()
	r.tasks.Wait()
	var errs []error
	for _, c := range r.cards {
		errs = append(errs, c.downErr)
	}
	return errors.Join(errs...)
}

// connects opens a connection to IMDS.
func connects(ctx context.Context, imds netip.Addr, dial DialFunc) error {
	conn, err := dial(ctx, "tcp", netip.AddrPortFrom(imds, 80).String())
	if err == nil {
		conn.Close()
	}
	return err
}
