package ec2sim

import (
	"fmt"
	"strings"
)

// Credentials are secret, or good for something, until they expire.
type Credentials struct {
	AccessKey string
	SecretKey string // of the role
	Token     string // its session token
}

// IssuedTo returns the latest role credentials that IMDS made for an instance.
func (c *Cloud) IssuedTo(instance string) (Credentials, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var latest *identity
	for _, i := range c.identities {
		if i.token != "" && strings.HasSuffix(i.arn, "/"+instance) && (latest == nil || i.created.After(latest.created)) {
			latest = i
		}
	}
	if latest == nil {
		return Credentials{}, fmt.Errorf("instance %s has had no credentials", instance)
	}
	return Credentials{latest.accessKey, latest.secretKey, latest.token}, nil
}

// Issued returns all role credentials that IMDS has made, and the session tokens of
// IMDSv2 itself.
func (c *Cloud) Issued() (roles []Credentials, sessions []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, i := range c.identities {
		if i.token != "" {
			roles = append(roles, Credentials{i.accessKey, i.secretKey, i.token})
		}
	}
	for t := range c.tokens {
		sessions = append(sessions, t)
	}
	return roles, sessions
}
