// Package netup brings up a network that reaches the instance metadata service, and
// undoes it. A lease is not the measure, nor a route: a card counts when IMDS answers
// through it. Cards are tried one after the other, the primary one first, each over
// IPv4 (DHCP: RFC 2131, 3442) and IPv6 (router advertisements: RFC 4861, 8106; DHCPv6:
// RFC 8415) at once. A network that is there already is used, and left alone, if it
// reaches IMDS.
//
// Sockets are bound to their card, so that neither other cards nor other routes matter.
// Names are resolved over all name servers that are known. Both DHCP clients are our
// own: they send what EC2 answers, in a tenth of the bytes of a library.
package netup

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"unlock/internal/hint"
)

// Failures of Up that an operator can do something about.
var (
	ErrNoCard = hint.New("no network card: the kernel shows none, or its driver is missing",
		"add the driver of the network card (ena on Nitro) to the initramfs")
	ErrNoLink = hint.New("no link: nothing is at the other end of the network card",
		"check that the network interface is attached to the instance and in use (aws ec2 describe-network-interfaces)")
	ErrNoLease = hint.New("no lease", "check the subnet's DHCP options and that the network interface is attached")
	ErrNoIMDS  = hint.New("IMDS does not answer",
		"no usable answer from the metadata service: check that the instance's metadata options say http-endpoint enabled, and in a subnet without IPv4 http-protocol-ipv6 enabled")
)

// DialFunc opens a connection to host:port.
type DialFunc func(ctx context.Context, network, addr string) (net.Conn, error)

// Options of Up.
type Options struct {
	// Log, if not nil, reports retries and what is given up.
	Log func(format string, args ...any)
	// Debug, if not nil, reports each step of each card.
	Debug func(format string, args ...any)
	// Reach asks IMDS, at that address unless another is configured, through one card;
	// nil says that it answers. It is called for several at a time; the first nil
	// decides. Nil: a connection is opened.
	Reach func(ctx context.Context, imds netip.Addr, dial DialFunc) error
	// Early, if not nil, is called once the first card has addresses, while IMDS is being
	// reached: connections may be opened ahead by the Network's Dial. They fail
	// where that card turns out to be the wrong one.
	Early func(*Network)
	// Settled, if not nil, is closed once udev has dealt with what was there at first, or
	// will not: until then a card waits for it.
	Settled <-chan struct{}
}

// Network is a network that is up. One that is made of name servers alone connects by
// whatever routes there are.
type Network struct {
	Interface string
	Address   netip.Prefix
	Router    netip.Addr
	DNS       []netip.Addr // in the order in which they are asked
	Found     bool         // it was up already

	o    Options
	race *race

	mu    sync.Mutex
	cards []*card       // that can be used, the best first
	grown chan struct{} // closed when there is another
}

// Up waits until IMDS is reached through a card, or ctx ends.
func Up(ctx context.Context, o Options) (*Network, error) {
	if o.Reach == nil {
		o.Reach = connects
	}
	n := &Network{o: o, cards: []*card{}, grown: make(chan struct{})}
	r, err := newRace(n)
	if err != nil {
		return nil, err
	}
	select {
	case <-r.over:
	case <-ctx.Done():
		err := r.finish()
		return nil, errors.Join(r.failure(), err)
	}
	c := r.winner
	n.DNS = c.servers()
	c.mu.Lock()
	defer c.mu.Unlock()
	n.Interface, _, n.Found = strings.Cut(c.name, " ")
	n.Address, n.Router = c.side[r.side].addr, c.side[r.side].router
	return n, nil
}

// Families tells whether there is IPv4, and IPv6, through any card. Where there is no
// IPv4, endpoints of AWS have other names.
func (n *Network) Families() (four, six bool) {
	cards, _ := n.through()
	for _, c := range cards {
		for _, f := range c.families() {
			four, six = four || f == familyOf(IMDS4), six || f == familyOf(IMDS6)
		}
	}
	return four, six
}

// through returns the cards that can be used, and what is closed when there are more.
func (n *Network) through() ([]*card, <-chan struct{}) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.cards == nil {
		n.cards = []*card{{n: n, side: [2]side{{ready: true, dns: n.DNS}, {ready: true}}}}
	}
	return slices.Clone(n.cards), n.grown
}

// join adds a card to those that can be used.
func (n *Network) join(c *card) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !slices.Contains(n.cards, c) {
		n.cards = append(n.cards, c)
	}
	close(n.grown)
	n.grown = make(chan struct{})
}

// leave takes away a card that is taken down.
func (n *Network) leave(c *card) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cards = slices.DeleteFunc(n.cards, func(d *card) bool { return c == d })
}

// settle makes a card the only one.
func (n *Network) settle(c *card) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cards = []*card{c}
	close(n.grown)
	n.grown = make(chan struct{})
}

// prefer puts a card first, as it led to addr.
func (n *Network) prefer(c *card, addr string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if slices.Index(n.cards, c) > 0 {
		n.log("%s: reached through %s", addr, c.called())
		n.cards = append([]*card{c}, slices.DeleteFunc(n.cards, func(d *card) bool { return c == d })...)
	}
}

// help has the other cards raised, once, because addr is not reached through the first
// one. It reports whether some are.
func (n *Network) help(addr string, err error) bool {
	if n.race == nil || !n.race.decided() || n.race.called.Swap(true) {
		return false
	}
	why := fmt.Sprintf("%s: no answer yet", addr)
	if err != nil {
		why = fmt.Sprintf("%s: %v", addr, err)
	}
	return n.race.help(why)
}

func (n *Network) log(format string, args ...any) {
	if n.o.Log != nil {
		n.o.Log(format, args...)
	}
}

func (n *Network) debug(format string, args ...any) {
	if n.o.Debug != nil {
		n.o.Debug(format, args...)
	}
}

// Down undoes all that was done, the last first.
func (n *Network) Down() error { return n.race.finish() }
