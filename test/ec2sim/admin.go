package ec2sim

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
)

// This file is what an administrator does before an instance boots.

func (c *Cloud) ssmPutParameter(rq *call) (any, error) {
	var in struct {
		Name, Value, Type string
		Overwrite         bool
	}
	if err := rq.read(&in); err != nil {
		return nil, err
	}
	rq.resource = in.Name
	c.mu.Lock()
	p := c.parameters[in.Name]
	c.mu.Unlock()
	switch {
	case c.fault("ssm-denied"):
		return nil, denied(rq.who, "ssm:PutParameter", fmt.Sprintf("arn:%s:ssm:%s:%s:parameter/%s", partitions[rq.region], rq.region, c.cfg.Account, strings.TrimPrefix(in.Name, "/")))
	case in.Type != "String" && (in.Type != "" || p == nil):
		return nil, refuse("UnsupportedParameterType", "The simulation stores parameters of type String.")
	case len(in.Value) < 1 || len(in.Value) > 4096:
		return nil, refuse("ValidationException", "Standard tier parameters support a maximum parameter value of 4096 characters.")
	case p != nil && !in.Overwrite:
		return nil, refuse("ParameterAlreadyExists", "The parameter already exists. To overwrite this value, set the overwrite option in the request to true.")
	}
	c.PutParameter(in.Name, in.Value)
	c.mu.Lock()
	defer c.mu.Unlock()
	return map[string]any{"Version": len(c.parameters[in.Name].values), "Tier": "Standard"}, nil
}

func (c *Cloud) kmsCreateKey(rq *call) (any, error) {
	var in struct {
		KeySpec, KeyUsage, Policy string
		Bypass                    bool `json:"BypassPolicyLockoutSafetyCheck"`
	}
	if err := rq.read(&in); err != nil {
		return nil, err
	}
	if in.KeySpec != "" && in.KeySpec != algorithm || in.KeyUsage != "" && in.KeyUsage != "ENCRYPT_DECRYPT" {
		return nil, refuse("UnsupportedOperationException", "The simulation makes symmetric keys.")
	}
	if in.Policy != "" {
		if err := c.mayPut(rq, in.Policy, in.Bypass); err != nil {
			return nil, err
		}
	}
	arn := c.addKey(uuid(), rq.region)[0]
	rq.resource = arn
	c.mustKey(arn).policy = in.Policy
	return c.keyMetadata(c.mustKey(arn), arn), nil
}

func (c *Cloud) kmsCreateAlias(rq *call) (any, error) {
	var in struct{ AliasName, TargetKeyId string }
	if err := rq.read(&in); err != nil {
		return nil, err
	}
	_, arn, err := c.findKey(in.TargetKeyId, rq.region)
	if err != nil {
		return nil, err
	}
	if name, ok := strings.CutPrefix(in.AliasName, "alias/"); !ok || name == "" || strings.HasPrefix(name, "aws/") {
		return nil, refuse("InvalidAliasNameException", "Alias must start with the prefix \"alias/\".")
	}
	rq.resource = arn
	c.mu.Lock()
	taken := c.aliases[rq.region+"/"+in.AliasName] != ""
	c.mu.Unlock()
	if taken {
		return nil, refuse("AlreadyExistsException", "An alias with the name %s already exists", in.AliasName)
	}
	c.CreateAlias(in.AliasName, arn)
	return struct{}{}, nil
}

// s3Bucket makes a bucket, without versions, or sets its versioning.
func (c *Cloud) s3Bucket(e endpoint, name string, params url.Values, body []byte, rep *reply) *s3Error {
	region := e.region
	if region == "" {
		region = c.cfg.Region
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	b := c.buckets[name]
	rep.status = http.StatusOK
	switch {
	case params.Has("versioning") && b != nil:
		b.versioned = strings.Contains(string(body), "<Status>Enabled</Status>")
	case len(params) > 0 || b == nil && params.Has("versioning"):
		return &s3Error{status: http.StatusNotImplemented, code: "NotImplemented", message: "The simulation has no such operation on buckets."}
	case b != nil:
		return &s3Error{status: http.StatusConflict, code: "BucketAlreadyOwnedByYou", message: "Your previous request to create the named bucket succeeded and you already own it.", detail: []string{"BucketName", name}}
	default:
		c.buckets[name] = &bucket{region: region, objects: map[string][]*object{}}
		rep.header["Location"] = "/" + name
	}
	return nil
}

// s3Precondition applies If-None-Match: * and If-Match.
func (c *Cloud) s3Precondition(r *http.Request, bucket, key string) *s3Error {
	c.mu.Lock()
	defer c.mu.Unlock()
	objects := c.buckets[bucket].objects[key]
	none, match := r.Header.Get("If-None-Match"), r.Header.Get("If-Match")
	failed := ""
	switch {
	case none != "" && len(objects) > 0:
		failed = "If-None-Match"
	case match != "" && len(objects) == 0:
		return &s3Error{status: http.StatusNotFound, code: "NoSuchKey", message: "The specified key does not exist.", detail: []string{"Key", key}}
	case match != "" && objects[len(objects)-1].etag != match:
		failed = "If-Match"
	default:
		return nil
	}
	return &s3Error{status: http.StatusPreconditionFailed, code: "PreconditionFailed",
		message: "At least one of the pre-conditions you specified did not hold", detail: []string{"Condition", failed}}
}
