package netup

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Metrics of our routes: beside a network of the image's they must not win.
const (
	metric6 = 900 // before those that the kernel takes from routers
	beside  = 8192
)

// step is how far a card has come.
type step int

const (
	stepNone  step = iota
	stepLink       // it has a carrier
	stepLease      // it has an address and a route
	stepIMDS       // IMDS answered
)

// shutFor is how long a card stays down that somebody shut down: who gives it another
// name does so first where Linux is older than 6.2.
const shutFor = time.Second

// raiseAgain is after how long a card is raised again that could not be.
const raiseAgain = 2 * time.Second

// card is a network card, or what the image has set up already. It has one goroutine,
// run, which undoes everything when its context ends.
type card struct {
	n     *Network
	index int // 0: what is there already
	mac   net.HardwareAddr
	place string // in sysfs: orders cards
	rank  int    // how many were started before it

	undo   []func() error // of run: in the order in which it was done
	cancel context.CancelFunc
	ended  chan struct{} // run has; nil: it was not started
	shut   bool          // somebody shut it down while it was in use: run waits, once; set while it does not run
	link   chan struct{} // something has changed about the carrier
	tasks  sync.WaitGroup

	mu       sync.Mutex
	name     string
	up       bool // administratively
	carrier  bool
	answered netip.Addr // the name server that answered last
	side     [2]side    // by family
	step     step
	err      error // why it came no further
	err6     error // why there is no IPv6, if there is no lease of IPv4 either
	downErr  error // of undoing
}

// side is a card's IPv4 or IPv6.
type side struct {
	ready  bool // it has an address and a route
	addr   netip.Prefix
	router netip.Addr
	dns    []netip.Addr
	undo   []func() error
}

// called is the card's name, which may change.
func (c *card) called() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.name
}

func (c *card) log(format string, args ...any) {
	c.n.log("%s: "+format, append([]any{c.called()}, args...)...)
}

func (c *card) debug(format string, args ...any) {
	c.n.debug("%s: "+format, append([]any{c.called()}, args...)...)
}

// families are those that the card has addresses of.
func (c *card) families() []family {
	c.mu.Lock()
	defer c.mu.Unlock()
	var all []family
	for _, f := range []family{four, six} {
		if c.side[f].ready {
			all = append(all, f)
		}
	}
	return all
}

// came notes the farthest step, and what stopped the card there.
func (c *card) came(s step, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s > c.step || s == c.step && err != nil {
		c.step, c.err = s, err
	}
}

// see takes what the kernel says of the card, and reports whether it was shut down by
// somebody else.
func (c *card) see(l *link) (shut bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	up := l.flags&unix.IFF_UP != 0
	shut = c.up && !up
	c.name, c.up, c.carrier = l.name, up, l.flags&unix.IFF_LOWER_UP != 0
	select {
	case c.link <- struct{}{}:
	default:
	}
	return shut
}

// run raises the card and has it configured until ctx ends. stuck is called when
// there is no hope for the moment.
func (c *card) run(ctx context.Context, stuck func()) {
	defer c.restore()
	if !c.awaitUdev(ctx) {
		return
	}
	if c.shut {
		c.shut = false
		if sleep(ctx, shutFor); ctx.Err() != nil {
			return
		}
	}
	held := held(c.index)
	said := ""
	for err := c.raise(); err != nil; err = c.raise() {
		c.came(stepNone, err)
		if text := err.Error(); text != said {
			c.log("%s; trying again", text)
			said = text
		}
		stuck()
		if sleep(ctx, raiseAgain); ctx.Err() != nil {
			return
		}
	}
	if !c.awaitCarrier(ctx, stuck) {
		return
	}
	c.came(stepLink, nil)
	c.debug("link is up")
	if !held[six] {
		c.tasks.Go(func() { c.six(ctx) })
	}
	c.tasks.Go(func() { c.four(ctx) })
	c.tasks.Wait()
}

// awaitUdev waits until udev, where it runs, has seen to the card, whose name kernels
// before 6.2 do not change once it is up; false if ctx ends before.
func (c *card) awaitUdev(ctx context.Context) bool {
	const usual = 2 * time.Second // udev may not care for cards
	seen := fmt.Sprintf("/run/udev/data/n%d", c.index)
	there := func(file string) bool {
		_, err := os.Stat(file)
		return err == nil
	}
	for c.n.o.Settled != nil && !there(seen) {
		select {
		case <-c.n.o.Settled:
		case <-time.After(20 * time.Millisecond):
			continue
		case <-ctx.Done():
			return false
		}
		break
	}
	if !there("/run/udev/control") {
		return true
	}
	for end := time.Now().Add(usual); time.Now().Before(end); {
		if there(seen) {
			return true
		}
		if sleep(ctx, 20*time.Millisecond); ctx.Err() != nil {
			return false
		}
	}
	c.debug("udev has not seen to it within %v", usual)
	return true
}

// raise sets the card up, unless somebody else has.
func (c *card) raise() error {
	l, err := linkOf(c.index)
	if err != nil {
		return fmt.Errorf("looking it up: %w", err)
	}
	// Answers may come in by another card's best route; each card answers for its own
	// addresses.
	settings := []string{"ipv4/rp_filter", "2", "ipv4/arp_ignore", "1", "ipv4/arp_announce", "2"}
	up := l.flags&unix.IFF_UP != 0
	if !up {
		settings = append(settings, "ipv6/accept_ra", "0", "ipv6/accept_dad", "0") // routers are listened to here
	}
	for i := 0; i < len(settings); i += 2 {
		if err := c.sysctl(settings[i], settings[i+1]); err != nil {
			return err
		}
	}
	if !up {
		if err := setLink(c.index, true); err != nil {
			return fmt.Errorf("bringing it up: %w", err)
		}
		c.undo = append(c.undo, func() error { return setLink(c.index, false) })
	}
	return nil
}

// awaitCarrier waits until the card can send; false if ctx ends before.
func (c *card) awaitCarrier(ctx context.Context, stuck func()) bool {
	const usual = time.Second // with which a carrier comes
	late := time.After(usual)
	for {
		c.mu.Lock()
		carrier := c.carrier
		c.mu.Unlock()
		if carrier {
			return true
		}
		select {
		case <-c.link:
		case <-late:
			c.came(stepNone, ErrNoLink)
			c.debug("no link yet")
			stuck()
		case <-ctx.Done():
			return false
		}
	}
}

// restore undoes everything, the last first.
func (c *card) restore() {
	var errs []error
	for _, f := range []family{six, four} {
		errs = append(errs, c.drop(f))
	}
	errs = append(errs, undone(c.undo))
	c.undo = nil
	if err := errors.Join(errs...); err != nil {
		c.mu.Lock()
		c.downErr = fmt.Errorf("taking down %s: %w", c.name, err)
		c.mu.Unlock()
	}
}

// drop takes away what a family has.
func (c *card) drop(f family) error {
	c.mu.Lock()
	undo := c.side[f].undo
	c.side[f] = side{}
	c.mu.Unlock()
	return undone(undo)
}

// undone undoes, the last first. What is gone already, with the card for instance, is
// as it should be.
func undone(undo []func() error) error {
	var errs []error
	for i := range undo {
		err := undo[len(undo)-1-i]()
		if err == nil || errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EADDRNOTAVAIL) || errors.Is(err, unix.ENODEV) ||
			errors.Is(err, unix.ENETDOWN) || errors.Is(err, os.ErrNotExist) {
			continue
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// addAddress gives the card an address, unless it has it.
func (c *card) addAddress(p netip.Prefix) error {
	a := address{c.index, p}
	switch err := setAddress(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_EXCL, a); {
	case errors.Is(err, unix.EEXIST):
		return nil
	case err != nil:
		return fmt.Errorf("adding %s: %w", p, err)
	}
	c.undoes(familyOf(p.Addr()), func() error { return setAddress(unix.RTM_DELADDR, 0, a) })
	return nil
}

// addRoute adds a route through the card, unless it is there.
func (c *card) addRoute(to netip.Prefix, via netip.Addr) error {
	f := familyOf(to.Addr())
	r := route{c.index, to, via, c.rank}
	if f == six {
		r.priority += metric6
	}
	if c.n.race.found != nil {
		r.priority += beside
	}
	switch err := setRoute(unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_EXCL, r); {
	case errors.Is(err, unix.EEXIST):
		return nil
	case err != nil && via.IsValid():
		return fmt.Errorf("adding the route to %s by %s: %w", to, via, err)
	case err != nil:
		return fmt.Errorf("adding the route to %s: %w", to, err)
	}
	c.undoes(f, func() error { return setRoute(unix.RTM_DELROUTE, 0, r) })
	return nil
}

// set says that a family is ready.
func (c *card) set(ctx context.Context, f family, addr netip.Prefix, router netip.Addr, dns []netip.Addr) {
	c.mu.Lock()
	s := &c.side[f]
	fresh := !s.ready
	s.ready, s.addr, s.router = true, addr, router
	for _, a := range dns {
		if !slices.Contains(s.dns, a) {
			s.dns = append(s.dns, a)
		}
	}
	if c.step < stepLease {
		c.step, c.err = stepLease, ErrNoIMDS
	}
	c.mu.Unlock()
	if fresh {
		c.tasks.Go(func() { c.n.race.ready(ctx, c, f) })
	}
}

func (c *card) undoes(f family, undo func() error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.side[f].undo = append(c.side[f].undo, undo)
}
