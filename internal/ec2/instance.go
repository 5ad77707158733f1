package ec2

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/aws/aws-sdk-go-v2/feature/ec2/imds"

	"unlock/internal/aws/arn"
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
	var i Instance
	out, err := c.endpoints[c.current.Load()].client.GetDynamicData(ctx, &imds.GetDynamicDataInput{Path: "instance-identity/document"})
	if err == nil {
		var data []byte
		data, err = io.ReadAll(out.Content)
		out.Content.Close()
		if err == nil {
			err = json.Unmarshal(data, &i)
		}
	}
	if err == nil && !i.valid() {
		err = malformed(fmt.Errorf("%q is no identity of an instance", fmt.Sprint(i)))
	}
	if err != nil {
		return Instance{}, fmt.Errorf("asking who this instance is: %w", err)
	}
	return i, nil
}

func (i *Instance) valid() bool {
	return id(i.ID, "i-") && id(i.Image, "ami-") && len(i.Account) == 12 && strings.Trim(i.Account, "0123456789") == "" && arn.ValidRegion(i.Region)
}

// id reports whether s is an id of EC2, such as i-0123456789abcdef0.
func id(s, prefix string) bool {
	rest, ok := strings.CutPrefix(s, prefix)
	return ok && len(rest) >= 8 && len(rest) <= 17 && strings.Trim(rest, "0123456789abcdef") == ""
}
