package ec2

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	"unlock/internal/aws/arn"
	"unlock/internal/config"
)

// Instance is who this instance is (IMDS, instance identity document).
type Instance struct {
	ID      string `json:"instanceId"`
	Account string `json:"accountId"`
	Region  string `json:"region"`
	Image   string `json:"imageId"`
}

// Instance asks once who this instance is. What does not look like ids of EC2 is an
// error: they become part of records and of encryption contexts.
func (c *Client) Instance(ctx context.Context) (Instance, error) {
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	i, err := c.endpoints[c.current.Load()].document(ctx)
	if err != nil {
		return Instance{}, fmt.Errorf("%s: %w", asking, err)
	}
	return i, nil
}

// AwaitInstance asks until IMDS says it, or ctx ends.
func (c *Client) AwaitInstance(ctx context.Context) (i Instance, err error) {
	err = c.retry(ctx, asking, func(ctx context.Context, e *endpoint) (err error) {
		i, err = e.document(ctx)
		return err
	})
	return i, err
}

const asking = "asking who this instance is"

// document gets the identity document.
func (e *endpoint) document(ctx context.Context) (Instance, error) {
	data, err := e.get(ctx, "dynamic/instance-identity/document")
	if status(err) == http.StatusNotFound { // EC2 has it from the first moment on
		err = malformed(err)
	}
	if err != nil {
		return Instance{}, err
	}
	return ParseInstance(data)
}

// ParseInstance reads an instance identity document.
func ParseInstance(data []byte) (Instance, error) {
	var i Instance
	if err := json.Unmarshal(data, &i); err != nil {
		return Instance{}, malformed(err)
	}
	if !i.valid() {
		return Instance{}, malformed(fmt.Errorf("%q is no identity of an instance", fmt.Sprint(i)))
	}
	return i, nil
}

// Identity is what of it an encryption context may name.
func (i Instance) Identity() config.Identity {
	return config.Identity{Instance: i.ID, Account: i.Account, Region: i.Region}
}

func (i *Instance) valid() bool {
	return id(i.ID, "i-") && id(i.Image, "ami-") && len(i.Account) == 12 && strings.Trim(i.Account, "0123456789") == "" && arn.ValidRegion(i.Region)
}

// id reports whether s is an id of EC2, such as i-0123456789abcdef0.
func id(s, prefix string) bool {
	rest, ok := strings.CutPrefix(s, prefix)
	return ok && len(rest) >= 8 && len(rest) <= 17 && strings.Trim(rest, "0123456789abcdef") == ""
}
