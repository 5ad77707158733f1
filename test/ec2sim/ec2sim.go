// Package ec2sim is a simulated EC2 for tests and the demonstration: one process
// that is DHCP server, DNS resolver, IMDSv2 at 169.254.169.254, and S3, KMS and
// SSM under their real host names over TLS from a test CA, on a user-space
// network to which QEMU or an in-process Guest is plugged. It needs no root and
// opens no socket that others could reach. It checks what AWS checks: SigV4
// signatures, session tokens, IMDS hop and token rules, encryption contexts and key
// ids; and its refusals look like AWS's.
//
// It never imports the packages that it tests.
package ec2sim

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/link/channel"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// NoRole as Config.Role stands for an instance without an instance profile.
const NoRole = "-"

// AccessKey and SecretKey are the credentials of an administrator of the
// simulated account. They never expire and need no session token.
const (
	AccessKey = "AKIDEXAMPLE"
	SecretKey = "secret-key-of-the-simulated-administrator-EXAMPLE"
)

// Addresses of the simulated VPC. Real endpoints have changing public
// addresses; these are from TEST-NET-1 (RFC 5737), one for each service.
var (
	subnet       = netip.MustParsePrefix("172.31.0.0/20")
	routerAddr   = netip.MustParseAddr("172.31.0.1")
	resolverAddr = netip.MustParseAddr("172.31.0.2")
	localDNSAddr = netip.MustParseAddr("169.254.169.253")
	imdsAddr     = netip.MustParseAddr("169.254.169.254")
	firstAddr    = netip.MustParseAddr("172.31.5.10")

	serviceAddrs = map[string]netip.Addr{
		"s3":  netip.MustParseAddr("192.0.2.10"),
		"kms": netip.MustParseAddr("192.0.2.20"),
		"ssm": netip.MustParseAddr("192.0.2.30"),

		"secretsmanager": netip.MustParseAddr("192.0.2.40"),
	}
)

// Config of a Cloud. The zero value is a healthy us-east-1.
type Config struct {
	Region  string        // default us-east-1
	Account string        // default 111122223333
	Role    string        // default "unlock-demo"; NoRole for an instance without
	RTT     time.Duration // delay of every frame towards the guest (ARP excepted): one round trip costs one RTT
	Faults  []string      // names from Faults(), with an argument after a colon: "role-late:5s"

	// BlockDevices is what IMDS's block-device-mapping says beside "ami" and "root":
	// "ebs1" → "sdf"; default: "ephemeral0" → "sdb".
	BlockDevices map[string]string
}

// Cloud is a running simulation. It is safe for concurrent use.
type Cloud struct {
	cfg   Config
	ca    *authority
	rogue *authority // signs for the fault tls-unknown-ca

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	wg     sync.WaitGroup

	stack *stack.Stack
	link  *channel.Endpoint

	closeOnce sync.Once

	mu         sync.Mutex
	close      []func() // stops servers and listeners
	faults     map[string]*fault
	struck     map[string]int // how often each did
	ports      map[*port]bool
	instances  []*instance
	hosts      map[string]bool
	frames     int
	requests   []Request
	tokens     map[string]imdsToken
	identities map[string]*identity // by access key
	keys       map[string]*key      // by key id
	aliases    map[string]string    // region/alias/name to key id
	buckets    map[string]*bucket
	parameters map[string]*parameter
	secrets    map[string]*storedSecret
	roles      map[string]*role // made through IAM
	recorder   recorder

	attestationRoot []byte // DER
	enveloped       []Envelope
}

// New starts a Cloud; Close ends it.
func New(cfg Config) (*Cloud, error) {
	if cfg.Region == "" {
		cfg.Region = "us-east-1"
	}
	if cfg.Account == "" {
		cfg.Account = "111122223333"
	}
	if cfg.Role == "" {
		cfg.Role = "unlock-demo"
	}
	if cfg.BlockDevices == nil {
		cfg.BlockDevices = map[string]string{"ephemeral0": "sdb"}
	}
	if partitions[cfg.Region] == "" {
		return nil, fmt.Errorf("no AWS region %q", cfg.Region)
	}
	c := &Cloud{
		cfg:        cfg,
		ports:      map[*port]bool{},
		hosts:      map[string]bool{},
		tokens:     map[string]imdsToken{},
		identities: map[string]*identity{},
		keys:       map[string]*key{},
		aliases:    map[string]string{},
		buckets:    map[string]*bucket{},
		parameters: map[string]*parameter{},
		secrets:    map[string]*storedSecret{},
		roles:      map[string]*role{},
	}
	if err := c.SetFaults(cfg.Faults...); err != nil {
		return nil, err
	}
	var err error
	if c.ca, err = newAuthority("Simulated EC2 test CA"); err != nil {
		return nil, err
	}
	if c.rogue, err = newAuthority("A CA that nobody trusts"); err != nil {
		return nil, err
	}
	c.identities[AccessKey] = &identity{
		accessKey: AccessKey,
		secretKey: SecretKey,
		arn:       fmt.Sprintf("arn:%s:iam::%s:user/admin", partitions[cfg.Region], cfg.Account),
	}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	if err := c.start(); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// start brings up the network and the servers on it.
func (c *Cloud) start() error {
	addrs := append([]netip.Addr{routerAddr, resolverAddr, localDNSAddr, imdsAddr, proxyAddr.Addr(),
		routerAddr6, localDNSAddr6, imdsAddr6}, silentAddrs...)
	for _, a := range serviceAddrs {
		addrs = append(addrs, a, private(a), public6(a), nat64(a))
	}
	var err error
	if c.stack, c.link, err = newStack(routerMAC); err != nil {
		return err
	}
	for _, a := range addrs {
		if err := addAddress(c.stack, netip.PrefixFrom(a, a.BitLen())); err != nil {
			return err
		}
	}
	setRoutes(c.stack, subnet, netip.Addr{})
	setRoutes(c.stack, subnet6, netip.Addr{})
	c.stack.AddRoute(tcpip.Route{Destination: header.IPv6LinkLocalPrefix.Subnet(), NIC: nic})
	c.wg.Go(c.switchFrames)

	for _, a := range []netip.Addr{resolverAddr, localDNSAddr, localDNSAddr6} {
		if err := c.serveDNS(a); err != nil {
			return err
		}
	}
	for _, a := range []netip.Addr{imdsAddr, imdsAddr6} {
		l, err := listen(c.stack, netip.AddrPortFrom(a, 80), imdsHopLimit)
		if err != nil {
			return err
		}
		c.serveHTTP(l, http.HandlerFunc(c.imds))
	}
	relays := map[string]*relay{}
	for service, public := range serviceAddrs {
		h := c.api(service)
		for _, a := range []netip.Addr{public, private(public), public6(public), nat64(public)} {
			l, err := listen(c.stack, netip.AddrPortFrom(a, 443), 0)
			if err != nil {
				return err
			}
			c.serveHTTP(c.tlsListener(l), h)
		}
		relays[service] = &relay{conns: make(chan net.Conn), closed: make(chan struct{}), addr: net.TCPAddrFromAddrPort(proxyAddr)}
		c.serveHTTP(c.tlsListener(relays[service]), h)
	}
	return c.serveProxy(relays)
}

// Close ends the simulation: servers, guests and their links, QEMU's connections.
func (c *Cloud) Close() error {
	c.closeOnce.Do(c.stop)
	return nil
}

func (c *Cloud) stop() {
	c.cancel()
	c.mu.Lock()
	stop := c.close
	c.close = nil
	for p := range c.ports {
		p.close()
	}
	c.mu.Unlock()
	for _, f := range stop {
		f()
	}
	if c.stack != nil {
		c.stack.Destroy()
		c.link.Close()
	}
	c.wg.Wait()
}

// onClose has f called by Close.
func (c *Cloud) onClose(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.close = append(c.close, f)
}

// CA returns the certificate authority of the endpoints in PEM.
func (c *Cloud) CA() []byte { return c.ca.pem }

// DNS is the address of the resolver.
func (c *Cloud) DNS() netip.Addr { return resolverAddr }

// now is the time that AWS's side believes it is.
func (c *Cloud) now() time.Time {
	skew, _ := c.faultDuration("clock-skew")
	return time.Now().Add(skew).UTC()
}

// wait returns after d, or false when ctx or the Cloud ends.
func (c *Cloud) wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
	case <-c.ctx.Done():
	}
	return false
}

// serveHTTP serves h on l until Close. HTTP/1.1 only, as IMDS, S3 and KMS offer
// to most clients.
func (c *Cloud) serveHTTP(l net.Listener, h http.Handler) {
	s := &http.Server{
		Handler:     h,
		ConnContext: withConn,
		BaseContext: func(net.Listener) context.Context { return c.ctx },
		ErrorLog:    quiet,
	}
	c.onClose(func() { s.Close() })
	c.wg.Go(func() { s.Serve(l) })
}
