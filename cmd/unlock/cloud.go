package main

import (
	"context"
	"fmt"
	"sync"

	"unlock/internal/aws"
	"unlock/internal/config"
	"unlock/internal/ec2"
	"unlock/internal/keys"
	"unlock/internal/netup"
	"unlock/internal/status"
	"unlock/internal/unlock"
)

// cloud is the network and a client for keys, brought up once in the background.
type cloud struct {
	cfg    *config.Config
	rec    *status.Recorder
	cancel context.CancelFunc // of the deadline

	once    sync.Once
	ready   chan struct{} // closed when client or err is set
	network *netup.Network
	imds    *ec2.Client
	client  *keys.Client
	err     error
	warm    sync.WaitGroup
}

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
		c.network, err = netup.Up(ctx, netup.Options{Log: warn})
		return err
	})
	if err != nil {
		return fmt.Errorf("bringing up the network: %w", err)
	}
	n := c.network
	if n.Found {
		logf(levelInfo, "network: %s, configured already, by %s", n.Interface, n.Router)
	} else {
		logf(levelInfo, "network: %s %s by %s, DNS %v", n.Interface, n.Address, n.Router, n.DNS)
	}
	c.imds = ec2.New(ec2.Options{Endpoint: c.cfg.AWS.Endpoint["imds"], Log: warn})
	c.client, err = keys.New(keys.Options{
		Identity: func(ctx context.Context) (role aws.Role, err error) {
			err = c.rec.Step("credentials", "", func() error {
				role, err = c.imds.Role(ctx)
				return err
			})
			return role, err
		},
		Region: c.imds.Region,
		Dial:   n.Dial,
		AWS:    c.cfg.AWS,
		Log:    warn,
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

// close wipes the client's keys and takes the network down again.
func (c *cloud) close() {
	defer c.cancel()
	if c.ready == nil {
		return
	}
	<-c.ready
	c.warm.Wait()
	if c.client != nil {
		c.client.Close()
	}
	if c.imds != nil {
		c.imds.Close()
	}
	if c.network != nil {
		c.network.Rinse(context.Background())
		if err := c.network.Down(); err != nil {
			complain(err)
		}
	}
}
