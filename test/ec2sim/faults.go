package ec2sim

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// argument says what may follow a fault's name.
type argument int

const (
	argNone     argument = iota
	argCount             // optional: only the first n requests
	argWindow            // optional: only for this long after the first time that it matters
	argDuration          // required
	argPercent           // required
	argText              // required
)

// Fault describes something that can go wrong.
type Fault struct {
	Name  string
	Usage string // the name with its argument: "kms-throttled[:n]"
	Help  string // one line

	arg argument
}

// faultTable lists the faults. A window counts from the first packet or request
// that meets the fault, not from when it was set.
var faultTable = []Fault{
	{Name: "link-down", arg: argWindow, Help: "every frame is lost, in both directions"},
	{Name: "loss", arg: argPercent, Help: "frames are lost at random, in both directions"},

	{Name: "dhcp-silent", arg: argWindow, Help: "DHCP does not answer"},
	{Name: "dhcp-nak", arg: argCount, Help: "DHCP refuses requests with a NAK"},
	{Name: "dhcp-slow", arg: argDuration, Help: "DHCP answers late"},
	{Name: "dhcp-two", Help: "a second DHCP server offers a lease, before the first"},
	{Name: "dhcp-no-router", Help: "the lease has no router"},
	{Name: "dhcp-no-dns", Help: "the lease has no name server"},
	{Name: "dhcp-routes", Help: "the lease has routes (option 121) and a router that leads nowhere"},
	{Name: "dhcp-routes-only", Help: "the lease has routes (option 121) and no router"},
	{Name: "dhcp-host", Help: "the lease is of one address, without a subnet: a netmask of 32 bits"},
	{Name: "dhcp-time", arg: argDuration, Help: "leases are that long"},
	{Name: "dhcp-broadcast", Help: "DHCP answers by broadcast only"},
	{Name: "dns-dead", arg: argCount, Help: "so many name servers of the lease, the first, never answer (at most 3, and all at least 1)"},

	{Name: "ipv6", Help: "the subnet has IPv6, too: a router, DHCPv6, IMDS, DNS, and the dual-stack endpoints"},
	{Name: "no-ipv4", Help: "the subnet has no IPv4"},
	{Name: "ipv4-broken", Help: "IPv4 leads nowhere: everything but DHCP is lost"},
	{Name: "ra-silent", arg: argWindow, Help: "the router does not answer solicitations"},
	{Name: "dhcp6-silent", arg: argWindow, Help: "DHCPv6 does not answer"},
	{Name: "imds6-off", Help: "IMDS does not answer over IPv6, as by default"},
	{Name: "dns64", Help: "names without an IPv6 address have one that NAT64 translates"},
	{Name: "no-imds", Help: "the subnet does not lead to IMDS"},
	{Name: "no-endpoints", Help: "the subnet does not lead to the public endpoints over IPv4"},
	{Name: "vpc-endpoints", Help: "names of interface endpoints resolve to addresses in the subnet"},
	{Name: "mtu-1500", Help: "packets of more than 1,500 bytes are lost, without a word"},
	{Name: "proxy-refuses", arg: argCount, Help: "the proxy answers 403"},

	{Name: "dns-late", arg: argWindow, Help: "DNS does not answer"},
	{Name: "dns-slow", arg: argDuration, Help: "each DNS answer is late"},
	{Name: "dns-nxdomain", arg: argCount, Help: "no name exists"},
	{Name: "dns-servfail", arg: argCount, Help: "DNS answers SERVFAIL"},
	{Name: "dns-wrong", Help: "names resolve to an address where nobody answers"},
	{Name: "dns-aaaa", Help: "names also have IPv6 addresses, which nobody can reach"},
	{Name: "dns-truncated", Help: "answers over UDP are truncated: ask again over TCP"},

	{Name: "imds-off", Help: "IMDS is disabled: 403"},
	{Name: "imds-v1-only", Help: "an IMDS that knows no tokens: PUT is 404, GET needs none"},
	{Name: "imds-keepalive", Help: "IMDS keeps connections open; EC2's has been seen to close them after each answer"},
	{Name: "imds-hops", Help: "the answers to PUT do not survive the way here: their hop limit is too low"},
	{Name: "imds-slow", arg: argDuration, Help: "each IMDS answer is late"},
	{Name: "imds-500", arg: argCount, Help: "IMDS answers 500"},
	{Name: "imds-503", arg: argCount, Help: "IMDS answers 503"},
	{Name: "imds-401-once", Help: "the first GET finds its token revoked"},
	{Name: "imds-truncated", arg: argCount, Help: "IMDS answers to GET end in the middle"},
	{Name: "no-role", Help: "the instance has no role: 404"},
	{Name: "role-late", arg: argWindow, Help: "the role appears late: 404 until then"},
	{Name: "role-changed", arg: argCount, Help: "the role is replaced after it was listed: its credentials are 404"},
	{Name: "creds-expired", Help: "the role credentials of IMDS have expired"},

	{Name: "clock-skew", arg: argDuration, Help: "the clock of AWS is ahead of the machine's (negative: behind)"},
	{Name: "tls-expired", Help: "certificates have expired"},
	{Name: "tls-wrong-host", Help: "certificates are for another host"},
	{Name: "tls-unknown-ca", Help: "certificates are from a CA that nobody trusts"},

	{Name: "s3-404", arg: argCount, Help: "S3: NoSuchKey"},
	{Name: "s3-403", arg: argCount, Help: "S3: AccessDenied"},
	{Name: "s3-slowdown", arg: argCount, Help: "S3: 503 SlowDown"},
	{Name: "s3-500", arg: argCount, Help: "S3: 500 InternalError"},
	{Name: "s3-redirect", arg: argText, Help: "S3: the buckets are in that region: 301"},
	{Name: "s3-truncated", arg: argCount, Help: "S3: the object ends in the middle"},
	{Name: "s3-changed", arg: argCount, Help: "S3: an older object of the same length ends in the middle; then it is replaced"},
	{Name: "s3-empty", arg: argCount, Help: "S3: the object is empty"},
	{Name: "s3-oversized", arg: argCount, Help: "S3: the object is 16 MiB long"},
	{Name: "s3-slow", arg: argDuration, Help: "S3: each answer is late"},
	{Name: "s3-slow-body", arg: argDuration, Help: "S3: that long between the bytes of the object"},

	{Name: "kms-denied", arg: argCount, Help: "KMS: AccessDeniedException"},
	{Name: "kms-throttled", arg: argCount, Help: "KMS: ThrottlingException"},
	{Name: "kms-500", arg: argCount, Help: "KMS: KMSInternalException"},
	{Name: "kms-timeout", arg: argCount, Help: "KMS: DependencyTimeoutException"},
	{Name: "kms-unavailable", arg: argCount, Help: "KMS: KeyUnavailableException"},
	{Name: "kms-disabled", Help: "KMS: every key is disabled"},
	{Name: "kms-pending-deletion", Help: "KMS: every key is pending deletion"},
	{Name: "kms-reset", arg: argCount, Help: "KMS: the connection is reset in the middle of the answer"},
	{Name: "kms-slow", arg: argDuration, Help: "KMS: each answer is late"},

	{Name: "kms-plaintext", arg: argCount, Help: "KMS: an attested call is answered with the plaintext beside the envelope"},
	{Name: "kms-unattested", arg: argCount, Help: "KMS: an attested call is answered as if it were none"},
	{Name: "cms-other-key", arg: argCount, Help: "KMS: the envelope is for another key"},
	{Name: "cms-truncated", arg: argCount, Help: "KMS: the envelope ends in the middle"},
	{Name: "cms-padding", arg: argCount, Help: "KMS: the envelope's content is padded with zeros"},

	{Name: "ssm-404", arg: argCount, Help: "SSM: ParameterNotFound"},
	{Name: "ssm-denied", arg: argCount, Help: "SSM: AccessDeniedException"},
	{Name: "ssm-throttled", arg: argCount, Help: "SSM: ThrottlingException"},
	{Name: "ssm-500", arg: argCount, Help: "SSM: InternalServerError"},
	{Name: "ssm-slow", arg: argDuration, Help: "SSM: each answer is late"},

	{Name: "secretsmanager-404", arg: argCount, Help: "Secrets Manager: ResourceNotFoundException"},
	{Name: "secretsmanager-denied", arg: argCount, Help: "Secrets Manager: AccessDeniedException"},
	{Name: "secretsmanager-throttled", arg: argCount, Help: "Secrets Manager: ThrottlingException"},
	{Name: "secretsmanager-500", arg: argCount, Help: "Secrets Manager: InternalServiceError"},
	{Name: "secretsmanager-slow", arg: argDuration, Help: "Secrets Manager: each answer is late"},
}

// Faults lists all faults.
func Faults() []Fault {
	suffix := map[argument]string{argCount: "[:n]", argWindow: "[:duration]", argDuration: ":duration", argPercent: ":percent", argText: ":region"}
	all := slices.Clone(faultTable)
	for i := range all {
		all[i].Usage = all[i].Name + suffix[all[i].arg]
	}
	return all
}

// fault is a fault that is set.
type fault struct {
	always  bool // no argument was given
	left    int  // argCount
	window  time.Duration
	since   time.Time // when the window began
	percent float64
	text    string
}

// SetFaults replaces the faults of a running Cloud: names of Faults, with an
// argument after a colon, or of Topologies. On an error nothing changes.
func (c *Cloud) SetFaults(names ...string) error {
	faults, err := parseFaults(names)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.faults, c.struck = faults, map[string]int{}
	return nil
}

func parseFaults(names []string) (map[string]*fault, error) {
	faults := map[string]*fault{}
	for _, n := range names {
		if i := slices.IndexFunc(topologies, func(t Topology) bool { return t.Name == n }); i >= 0 {
			for _, name := range topologies[i].Faults {
				faults[name] = &fault{always: true}
			}
			continue
		}
		name, arg, given := strings.Cut(n, ":")
		i := slices.IndexFunc(faultTable, func(f Fault) bool { return f.Name == name })
		if i < 0 {
			return nil, fmt.Errorf("no fault is named %q", name)
		}
		f, err := parseFault(faultTable[i].arg, arg, given)
		if err != nil {
			return nil, fmt.Errorf("fault %q: %w", n, err)
		}
		faults[name] = f
	}
	return faults, nil
}

func parseFault(kind argument, arg string, given bool) (*fault, error) {
	if !given {
		if kind == argDuration || kind == argPercent || kind == argText {
			return nil, fmt.Errorf("needs an argument")
		}
		return &fault{always: true}, nil
	}
	var err error
	f := &fault{}
	switch kind {
	case argNone:
		err = fmt.Errorf("takes no argument")
	case argCount:
		f.left, err = strconv.Atoi(arg)
	case argWindow, argDuration:
		f.window, err = time.ParseDuration(arg)
	case argPercent:
		f.percent, err = strconv.ParseFloat(strings.TrimSuffix(arg, "%"), 64)
	case argText:
		f.text = arg
	}
	return f, err
}

// Struck returns how often a fault has struck since it was set, by the name without its argument.
func (c *Cloud) Struck(name string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.struck[name]
}

// fault reports whether a fault strikes now, and counts it.
func (c *Cloud) fault(name string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	f := c.faults[name]
	if f == nil || !f.strikes() {
		return false
	}
	c.struck[name]++
	return true
}

func (f *fault) strikes() bool {
	switch {
	case f.always:
		return true
	case f.window > 0:
		if f.since.IsZero() {
			f.since = time.Now()
		}
		return time.Since(f.since) < f.window
	}
	f.left--
	return f.left >= 0
}

// faultOnce is fault for faults that strike once.
func (c *Cloud) faultOnce(name string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, set := c.faults[name]
	delete(c.faults, name)
	if set {
		c.struck[name]++
	}
	return set
}

func (c *Cloud) faultDuration(name string) (time.Duration, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f := c.faults[name]
	if f == nil {
		return 0, false
	}
	c.struck[name]++
	return f.window, true
}

func (c *Cloud) faultPercent(name string) (float64, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f := c.faults[name]
	if f == nil {
		return 0, false
	}
	c.struck[name]++
	return f.percent, true
}

// faultNumber returns the number that a fault was set with, 0 if it is not set.
func (c *Cloud) faultNumber(name string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	f := c.faults[name]
	if f == nil {
		return 0
	}
	c.struck[name]++
	return f.left
}

func (c *Cloud) faultText(name string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f := c.faults[name]; f != nil {
		c.struck[name]++
		return f.text
	}
	return ""
}
