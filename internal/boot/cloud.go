package boot

import (
	"context"
	"fmt"
	"sync"
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

	once    sync.Once
	ready   chan struct{} // closed when client or err is set; nil until it is started
	network Network
	imds    *ec2.Client
	client  *keys.Client
	err     error
	warm    sync.WaitGroup

	ask      sync.Once // who the instance is
	asking   sync.WaitGroup
	stop     context.CancelFunc // ends the asking
	instance *status.Instance   // nil: not known
}

// tardy is how long IMDS may still take to say who the instance is, once all else is
// done.
const tardy = 100 * time.Millisecond

// start begins if nobody has yet.
func (c *cloud) start(ctx context.Context) {
	c.once.Do(func() {
		c.ready = make(chan struct{})
		go func() {
			defer close(c.ready)
			c.err = c.up(ctx)
		}()
	})
}

// keys waits for the network and returns what gets keys over it. start was called
// before.
func (c *cloud) keys() unlock.Keys {
	<-c.ready
	if c.err != nil {
		return func(context.Context, keys.Want) (keys.Got, error) { return keys.Got{}, c.err }
	}
	return c.client.Get
}

// blockDevices asks IMDS for the instance's block device mapping.
func (c *cloud) blockDevices(ctx context.Context) (map[string]string, error) {
	c.start(ctx)
	<-c.ready
	if c.err != nil {
		return nil, c.err
	}
	return c.imds.BlockDevices(ctx)
}

func (c *cloud) up(ctx context.Context) error {
	err := c.rec.Step("network", "", func() (err error) {
		c.network, err = c.Network(ctx)
		return err
	})
	if err != nil {
		return fmt.Errorf("bringing up the network: %w", err)
	}
	c.imds = ec2.New(ec2.Options{Dial: c.DialIMDS, Endpoint: c.cfg.AWS.Endpoint["imds"], Log: c.Log.Warnf})
	c.client, err = keys.New(keys.Options{
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
		Region: c.imds.Region,
		Dial:   c.network.Dial,
		AWS:    c.cfg.AWS,
		Log:    c.Log.Warnf,
	})
	if err != nil {
		return err
	}
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
	return nil
}

// identify asks IMDS who the instance is, for the record, while S3 and KMS are asked: it
// costs no time.
func (c *cloud) identify() {
	c.ask.Do(func() {
		var ctx context.Context
		ctx, c.stop = context.WithCancel(context.Background())
		c.asking.Go(func() {
			if i, err := c.imds.Instance(ctx); err == nil { // else the record does without
				c.instance = &status.Instance{ID: i.ID, Account: i.Account, Region: i.Region, Image: i.Image}
			}
		})
	})
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

// close wipes the client's keys and takes the network down again.
func (c *cloud) close() {
	if c.ready == nil {
		return
	}
	<-c.ready
	c.warm.Wait()
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
}
