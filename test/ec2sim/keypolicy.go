package ec2sim

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// This file is the policy of a key and who may do what under it (KMS Developer Guide,
// "Key policies", "Default key policy"; IAM User Guide, "Policy evaluation logic").
// Of IAM's own policies, those of roles that were made through the API are evaluated;
// everybody else is allowed all of KMS by IAM, which matters where a key policy leaves
// the decision to IAM.

// SetKeyPolicy gives a key a policy, "" takes it away: then the account's principals
// may do everything. It panics if the policy is malformed, like mustKey.
func (c *Cloud) SetKeyPolicy(arn, policy string) {
	if policy != "" {
		if _, err := parsePolicy(policy); err != nil {
			panic(err)
		}
	}
	k := c.mustKey(arn)
	c.mu.Lock()
	defer c.mu.Unlock()
	k.policy = policy
}

func (c *Cloud) kmsKeyPolicy(rq *call) (any, error) {
	var in struct {
		KeyId, PolicyName, Policy string
		Bypass                    bool `json:"BypassPolicyLockoutSafetyCheck"`
	}
	if err := rq.read(&in); err != nil {
		return nil, err
	}
	k, _, err := c.permitted(rq, rq.operation, in.KeyId)
	if err != nil {
		return nil, err
	}
	if in.PolicyName != "" && in.PolicyName != "default" {
		return nil, refuse("NotFoundException", "No such policy exists")
	}
	if rq.operation == "GetKeyPolicy" {
		c.mu.Lock()
		defer c.mu.Unlock()
		return map[string]any{"Policy": k.policy, "PolicyName": "default"}, nil
	}
	if err := c.mayPut(rq, in.Policy, in.Bypass); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	k.policy = in.Policy
	return map[string]any{}, nil
}

// mayPut refuses a malformed policy, and one under which whoever sets it could not set
// another.
func (c *Cloud) mayPut(rq *call, policy string, bypass bool) error {
	p, err := parsePolicy(policy)
	if err != nil {
		return err
	}
	if bypass {
		return nil
	}
	if verdict := c.judge(p, c.request(rq, "", "PutKeyPolicy")); verdict != allow {
		return refuse("MalformedPolicyDocumentException", "The new key policy will not allow you to update the key policy in the future.")
	}
	return nil
}

// allowed refuses an action that a key's policy does not allow who calls.
func (c *Cloud) allowed(rq *call, k *key, arn, action string) error {
	c.mu.Lock()
	policy := k.policy
	c.mu.Unlock()
	if policy == "" {
		return nil
	}
	p, err := parsePolicy(policy)
	if err != nil {
		return err
	}
	because := "because no resource-based policy allows the kms:" + action + " action"
	switch c.judge(p, c.request(rq, arn, action)) {
	case allow:
		return nil
	case deny:
		because = "with an explicit deny in a resource-based policy"
	}
	return refuse("AccessDeniedException", "User: %s is not authorized to perform: kms:%s on resource: %s %s", rq.who.arn, action, arn, because)
}

// Allowed reports, as a refusal of KMS or nil, whether a principal may do something with a
// key, such as "Decrypt"; d is the document of an attested call, or nil.
func (c *Cloud) Allowed(principal, arn, action string, context map[string]string, d *Document) error {
	rq := &call{who: &identity{arn: principal}, region: strings.Split(arn, ":")[3], context: context, document: d}
	return c.allowed(rq, c.mustKey(arn), arn, action)
}

// request returns what policies can ask about a call.
func (c *Cloud) request(rq *call, arn, action string) *request {
	q := &request{action: "kms:" + action, resource: arn, who: rq.who.arn, role: roleOf(rq.who.arn), keys: map[string][]string{}}
	set := func(name string, values ...string) { q.keys[strings.ToLower(name)] = values }
	set("aws:PrincipalArn", q.principal())
	set("aws:PrincipalAccount", c.cfg.Account)
	set("kms:CallerAccount", c.cfg.Account)
	set("aws:SecureTransport", "true")
	for name, value := range rq.context {
		set("kms:EncryptionContext:"+name, value)
	}
	if len(rq.context) > 0 {
		set("kms:EncryptionContextKeys", slices.Sorted(maps.Keys(rq.context))...)
	}
	if rq.document != nil {
		for i, value := range rq.document.PCRs {
			set(fmt.Sprintf("kms:RecipientAttestation:NitroTPMPCR%d", i), hex.EncodeToString(value))
		}
	}
	return q
}

// roleOf returns the ARN of the role whose session an ARN names, "" if it does not.
func roleOf(arn string) string {
	parts := strings.SplitN(arn, ":", 6)
	if len(parts) != 6 || parts[2] != "sts" {
		return ""
	}
	names := strings.Split(parts[5], "/")
	if names[0] != "assumed-role" || len(names) < 2 {
		return ""
	}
	return fmt.Sprintf("arn:%s:iam::%s:role/%s", parts[1], parts[4], names[1])
}

type verdict int

const (
	silent verdict = iota // neither allowed nor denied
	allow
	deny
)

// judge evaluates a key policy, and IAM's where it leaves the decision to that.
func (c *Cloud) judge(p *policy, q *request) verdict {
	result := silent
	for _, s := range p.Statement {
		match := s.names(q)
		if match == nobody || !s.covers(q) {
			continue
		}
		switch {
		case s.Effect == "Deny":
			return deny
		case match == account && !c.iamAllows(q): // the account may, but IAM has not let this principal
		default:
			result = allow
		}
	}
	return result
}

// iamAllows evaluates the policies of the role that calls.
func (c *Cloud) iamAllows(q *request) bool {
	_, name, _ := strings.Cut(q.role, ":role/")
	policies := c.RolePolicies(name)
	if policies == nil {
		return true
	}
	result := false
	for _, document := range policies {
		var p policy
		if json.Unmarshal([]byte(document), &p) != nil {
			return false
		}
		for _, s := range p.Statement {
			if s.covers(q) {
				if s.Effect == "Deny" {
					return false
				}
				result = true
			}
		}
	}
	return result
}
