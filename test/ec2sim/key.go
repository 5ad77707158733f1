package ec2sim

import (
	"crypto/rand"
	"fmt"
	"slices"
	"strings"
	"time"
)

// key is a symmetric KMS key, or a multi-Region key with its replicas.
type key struct {
	id       string
	regions  []string // the first is the primary's
	material [32]byte
	created  time.Time
	disabled bool
	deletion time.Time // pending deletion, if set
	policy   string    // "": everybody of the account may do everything
}

// CreateKey makes a symmetric KMS key and returns its ARN.
func (c *Cloud) CreateKey() string {
	return c.addKey(uuid(), c.cfg.Region)[0]
}

// CreateMultiRegionKey makes a multi-Region key: a primary in the first region and
// replicas in the others. It returns their ARNs.
func (c *Cloud) CreateMultiRegionKey(regions ...string) []string {
	return c.addKey("mrk-"+strings.ReplaceAll(uuid(), "-", ""), regions...)
}

func (c *Cloud) addKey(id string, regions ...string) []string {
	k := &key{id: id, regions: regions, created: time.Now()}
	rand.Read(k.material[:])
	c.mu.Lock()
	c.keys[id] = k
	c.mu.Unlock()
	var arns []string
	for _, r := range regions {
		arns = append(arns, c.keyARN(k, r))
	}
	return arns
}

// CreateAlias gives the key an alias, such as "alias/unlock", in the key's region.
func (c *Cloud) CreateAlias(alias, arn string) {
	k := c.mustKey(arn)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.aliases[strings.Split(arn, ":")[3]+"/"+alias] = k.id
}

// DisableKey disables a key, as an operator would, or enables it again.
func (c *Cloud) DisableKey(arn string, disabled bool) {
	k := c.mustKey(arn)
	c.mu.Lock()
	defer c.mu.Unlock()
	k.disabled = disabled
}

// ScheduleKeyDeletion makes a key pending deletion, or cancels that, which leaves
// it disabled.
func (c *Cloud) ScheduleKeyDeletion(arn string, pending bool) {
	k := c.mustKey(arn)
	c.mu.Lock()
	defer c.mu.Unlock()
	k.deletion, k.disabled = time.Time{}, true
	if pending {
		k.deletion = time.Now().AddDate(0, 0, 30)
	}
}

// Encrypt is KMS Encrypt without a request: raw ciphertext, as `aws kms encrypt` yields.
func (c *Cloud) Encrypt(keyARN string, plaintext []byte, context map[string]string) []byte {
	return c.mustKey(keyARN).seal(plaintext, context)
}

// Decrypt is KMS Decrypt without a request.
func (c *Cloud) Decrypt(keyARN string, ciphertext []byte, context map[string]string) ([]byte, error) {
	return c.mustKey(keyARN).open(ciphertext, context)
}

// mustKey panics if there is no such key: the caller is the test, not the program.
func (c *Cloud) mustKey(arn string) *key {
	parts := strings.Split(arn, ":")
	if len(parts) == 6 {
		if k, _, err := c.findKey(arn, parts[3]); err == nil {
			return k
		}
	}
	panic("the simulated KMS has no key " + arn)
}

func (c *Cloud) keyARN(k *key, region string) string {
	return fmt.Sprintf("arn:%s:kms:%s:%s:key/%s", partitions[region], region, c.cfg.Account, k.id)
}

// findKey finds a key by id, ARN, alias or alias ARN in a region, and returns its ARN.
func (c *Cloud) findKey(name, region string) (*key, string, error) {
	local := name
	prefix := fmt.Sprintf("arn:%s:kms:%s:%s:", partitions[region], region, c.cfg.Account)
	if strings.HasPrefix(name, "arn:") {
		parts := strings.SplitN(name, ":", 6)
		switch {
		case len(parts) != 6 || parts[2] != "kms":
			return nil, "", refuse("NotFoundException", "Invalid arn %s", name)
		case parts[3] != region:
			return nil, "", refuse("NotFoundException", "Invalid arn %s", parts[3])
		}
		local = strings.TrimPrefix(parts[5], "key/")
		if !strings.HasPrefix(name, prefix) {
			local = "" // of another account
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	id := local
	if strings.HasPrefix(local, "alias/") {
		if id = c.aliases[region+"/"+local]; id == "" {
			return nil, "", refuse("NotFoundException", "Alias %s%s is not found.", prefix, local)
		}
	}
	k := c.keys[id]
	if k == nil || !slices.Contains(k.regions, region) {
		if !strings.HasPrefix(name, "arn:") {
			name = prefix + "key/" + name
		}
		return nil, "", refuse("NotFoundException", "Key '%s' does not exist", name)
	}
	return k, c.keyARN(k, region), nil
}

// state is the KeyState.
func (c *Cloud) state(k *key) string {
	disabled, deleted := c.fault("kms-disabled"), c.fault("kms-pending-deletion")
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case deleted || !k.deletion.IsZero():
		return "PendingDeletion"
	case disabled || k.disabled:
		return "Disabled"
	}
	return "Enabled"
}

// usable returns an error unless k can be used now.
func (c *Cloud) usable(k *key, arn string) error {
	switch c.state(k) {
	case "Disabled":
		return refuse("DisabledException", "%s is disabled.", arn)
	case "PendingDeletion":
		return refuse("KMSInvalidStateException", "%s is pending deletion.", arn)
	}
	return nil
}
