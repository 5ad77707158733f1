package ec2sim

// Credentials are secret, or good for something, until they expire.
type Credentials struct {
	AccessKey string
	SecretKey string // of the role
	Token     string // its session token
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
