package ec2sim

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// parameter is an SSM parameter; its version is the index of the value plus 1.
type parameter struct {
	key      *key // of a SecureString, else nil
	values   []string
	modified time.Time
}

// PutParameter stores an SSM parameter of type String.
func (c *Cloud) PutParameter(name, value string) { c.putParameter(name, value, nil) }

// PutSecureParameter stores an SSM parameter of type SecureString under a KMS key.
func (c *Cloud) PutSecureParameter(name, value, keyARN string) {
	c.putParameter(name, value, c.mustKey(keyARN))
}

// Parameter returns the current value of an SSM parameter, "" if there is none.
func (c *Cloud) Parameter(name string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if p := c.parameters[name]; p != nil {
		return p.values[len(p.values)-1]
	}
	return ""
}

func (c *Cloud) putParameter(name, value string, k *key) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.parameters[name]
	if p == nil || p.key != k {
		p = &parameter{key: k}
		c.parameters[name] = p
	}
	p.values = append(p.values, value)
	p.modified = time.Now()
}

// ssm answers one request.
func (c *Cloud) ssm(rq *call) (any, error) {
	switch {
	case c.fault("ssm-throttled"):
		return nil, refuse("ThrottlingException", "Rate exceeded")
	case c.fault("ssm-500"):
		return nil, &apiError{http.StatusInternalServerError, "InternalServerError", "An error occurred on the server side."}
	case rq.operation == "PutParameter":
		return c.ssmPutParameter(rq)
	case rq.operation != "GetParameter":
		return nil, refuse("UnknownOperationException", "")
	}
	var in struct {
		Name           string
		WithDecryption bool
	}
	if err := rq.read(&in); err != nil {
		return nil, err
	}
	prefix := fmt.Sprintf("arn:%s:ssm:%s:%s:parameter/", partitions[rq.region], rq.region, c.cfg.Account)
	name := in.Name
	if local, ok := strings.CutPrefix(name, prefix); ok {
		name = local
		if strings.Contains(local, "/") {
			name = "/" + local // only names in a hierarchy begin with a slash
		}
	}
	name, selector, _ := strings.Cut(name, ":")
	arn := prefix + strings.TrimPrefix(name, "/")
	rq.resource = name
	if c.fault("ssm-denied") {
		return nil, denied(rq.who, "ssm:GetParameter", arn)
	}
	c.mu.Lock()
	p := c.parameters[name]
	c.mu.Unlock()
	if p == nil || c.fault("ssm-404") {
		return nil, refuse("ParameterNotFound", "")
	}
	version := len(p.values)
	if selector != "" {
		n, err := strconv.Atoi(selector)
		if err != nil || n < 1 || n > len(p.values) {
			return nil, refuse("ParameterVersionNotFound", "Systems Manager could not find version %s of %s. Verify the version and try again.", selector, name)
		}
		version = n
	}
	value, kind := p.values[version-1], "String"
	if p.key != nil {
		kind = "SecureString"
		if !in.WithDecryption {
			value = base64.StdEncoding.EncodeToString(p.key.seal([]byte(value), map[string]string{"PARAMETER_ARN": arn}))
		} else if _, _, err := c.keyFor(rq, "Decrypt", p.key.id); err != nil {
			return nil, err
		}
		rq.resource = name
	}
	return map[string]any{"Parameter": map[string]any{
		"Name": name, "Type": kind, "Value": value, "Version": version, "ARN": arn,
		"DataType": "text", "LastModifiedDate": float64(p.modified.UnixMilli()) / 1000,
	}}, nil
}
