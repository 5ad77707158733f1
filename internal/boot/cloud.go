package boot

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"unlock/internal/aws"
	"unlock/internal/config"
	"unlock/internal/ec2"
	"unlock/internal/keys"
	"unlock/internal/status"
	"unlock/internal/unlock"
)

// cloud is the network and a client for keys, brought up once in the background.
type cloud struct {
	*Machine
	cfg *config.Config
	rec *status.Recorder

	once   sync.Once
	used   atomic.Bool   // somebody has waited for it
	ready  chan struct{} // closed when client or err is set; nil until it is started
	cancel context.CancelFunc
	client *keys.Client
	err    error
	warm   sync.WaitGroup

	attestation *attestation // nil: no key is attested

	early   chan struct{} // closed when network is set
	network Network

	mu   sync.Mutex
	imds *ec2.Client // nil until it is reached

	ask      sync.Once // who the instance is
	asking   sync.WaitGroup
	stop     context.CancelFunc // ends the asking
	known    chan struct{}      // closed when instance or unknown is set
	instance *status.Instance   // nil: not known
	unknown  error
}

// tardy is how long IMDS may still take to say who the instance is, once all else is
// done.
const tardy = 100 * time.Millisecond

// start begins if nobody has yet.
func (c *cloud) start(ctx context.Context) {
	c.once.Do(func() {
		c.ready = make(chan struct{})
		if c.cfg.Attests() {
			c.attest(ctx)
		}
		go func() {
			defer close(c.ready)
			c.err = c.up(ctx)
		}()
	})
}

// wait waits for the network, which start was called for.
func (c *cloud) wait() error {
	c.used.Store(true)
	<-c.ready
	return c.err
}

// keys waits for the network and returns what gets keys over it. start was called
// before.
func (c *cloud) keys() unlock.Keys {
	if err := c.wait(); err != nil {
		return func(context.Context, keys.Want) (keys.Got, error) { return keys.Got{}, err }
	}
	return c.client.Get
}

// blockDevices asks IMDS for the instance's block device mapping.
func (c *cloud) blockDevices(ctx context.Context) (map[string]string, error) {
	c.start(ctx)
	if err := c.wait(); err != nil {
		return nil, err
	}
	return c.imds.BlockDevices(ctx)
}

// up opens connections to AWS while the metadata service is being reached, so that
// neither waits for the other.
func (c *cloud) up(ctx context.Context) error {
	ctx, c.cancel = context.WithCancel(ctx)
	c.early = make(chan struct{})
	var bad error // told only once the network is there, which may be what is amiss
	c.client, bad = keys.New(keys.Options{
		Identity: func(ctx context.Context) (role aws.Role, err error) {
			err = c.rec.Step("credentials", "", func() error {
				role, err = c.imds.Role(ctx)
				return err
			})
			if err == nil {
				c.identify()
			}
			return role, err
		},
		Attest:   c.recipient(),
		Image:    c.image,
		Region:   c.region,
		Instance: c.identity,
		Dial:     c.dial,
		Families: func() (four, six bool) { return c.network.Families() },
		AWS:      c.cfg.AWS,
		Log:      c.Log.Warnf,
	})
	var early sync.Once
	w := Wanted{Debug: c.cfg.Debug, Early: func(n Network) {
		early.Do(func() {
			c.network = n
			close(c.early)
			if bad == nil {
				c.warmUp(ctx)
			}
		})
	}}
	w.Reach = func(patience context.Context, at netip.Addr, dial aws.Dialer) error {
		return c.reach(ctx, patience, at, dial)
	}
	err := c.rec.Step("network", "", func() error {
		n, err := c.Network(ctx, w)
		if err == nil {
			w.Early(n)
		}
		return err
	})
	if err != nil {
		c.cancel()
		return fmt.Errorf("bringing up the network: %w", err)
	}
	return bad
}

// warmUp opens connections for all keys.
func (c *cloud) warmUp(ctx context.Context) {
	var all []config.Key
	for _, v := range c.cfg.Volumes {
		all = append(all, v.Key)
	}
	c.warm.Go(func() {
		_ = c.rec.Step("connections", "", func() error {
			c.client.Warm(ctx, all...)
			return nil
		})
	})
}

// errSecond is why a way to the metadata service is not taken.
var errSecond = errors.New("another way was first")

// reach tries one way to the metadata service, and keeps the client of the first that
// gets an answer.
func (c *cloud) reach(ctx, patience context.Context, at netip.Addr, dial aws.Dialer) error {
	endpoint := c.cfg.AWS.Endpoint["imds"]
	if endpoint == "" {
		endpoint = "http://" + netip.AddrPortFrom(at, imdsPort).String()
	}
	var taken atomic.Bool // what happens before is told by whoever tries the ways
	md := ec2.New(ec2.Options{Dial: dial, Endpoint: endpoint, Log: func(format string, args ...any) {
		if taken.Load() {
			c.Log.Warnf(format, args...)
		}
	}})
	err := md.Reach(ctx, patience)
	c.mu.Lock()
	if err == nil && c.imds != nil {
		err = errSecond
	}
	if err == nil {
		c.imds = md
		taken.Store(true)
	}
	c.mu.Unlock()
	if err != nil {
		md.Close()
	}
	return err
}

const imdsPort = 80

// region is that of the instance, which is known once the metadata service is reached.
func (c *cloud) region(ctx context.Context) (string, error) {
	select {
	case <-c.ready:
		if c.err != nil {
			return "", c.err
		}
		return c.imds.Region(ctx)
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
}

// dial connects through the network, once there is one to try.
func (c *cloud) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	select {
	case <-c.early:
		return c.network.Dial(ctx, network, addr)
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// identify asks IMDS who the instance is, while S3 and KMS are asked: it costs no time.
// The record does without, if need be; an encryption context that names the instance
// cannot.
func (c *cloud) identify() {
	c.ask.Do(func() {
		var ctx context.Context
		ctx, c.stop = context.WithCancel(context.Background())
		ask := c.imds.Instance
		if slices.ContainsFunc(c.cfg.Volumes, func(v config.Volume) bool { return len(config.Variables(v.Key.Context)) > 0 }) {
			ask = c.imds.AwaitInstance
		}
		c.known = make(chan struct{})
		c.asking.Go(func() {
			defer close(c.known)
			var i ec2.Instance
			if i, c.unknown = ask(ctx); c.unknown == nil {
				c.instance = &status.Instance{ID: i.ID, Account: i.Account, Region: i.Region, Image: i.Image}
			}
		})
	})
}

// identity is who the instance is, for encryption contexts.
func (c *cloud) identity(ctx context.Context) (config.Identity, error) {
	<-c.ready
	if c.err != nil {
		return config.Identity{}, c.err
	}
	c.identify()
	select {
	case <-c.known:
	case <-ctx.Done():
		c.stop() // which has the asking say what IMDS answered last
		<-c.known
	}
	if c.unknown != nil {
		return config.Identity{}, c.unknown
	}
	return config.Identity{Instance: c.instance.ID, Account: c.instance.Account, Region: c.instance.Region}, nil
}

// image is the instance's, if IMDS has said so by now.
func (c *cloud) image() string {
	if c.known == nil {
		return ""
	}
	select {
	case <-c.known:
	default:
		return ""
	}
	if c.instance == nil {
		return ""
	}
	return c.instance.Image
}

// identified ends the asking.
func (c *cloud) identified() {
	if c.stop == nil {
		return
	}
	late := time.AfterFunc(tardy, c.stop)
	c.asking.Wait()
	late.Stop()
	c.stop()
}

// close wipes the client's keys and takes the network down again. start was called
// before. It reports failures by itself.
func (c *cloud) close() error {
	<-c.ready
	c.cancel()
	c.warm.Wait()
	c.attestation.close()
	c.identified()
	if c.client != nil {
		c.client.Close()
	}
	if c.imds != nil {
		c.imds.Close()
	}
	if c.network != nil {
		c.network.Rinse(context.Background())
		if err := c.network.Down(); err != nil {
			c.Log.Failure(err)
		}
	}
	return nil
}
