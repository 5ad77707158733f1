package ec2sim

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"slices"
	"time"
)

// secretsTarget is what operations of Secrets Manager have before them in X-Amz-Target.
const secretsTarget = "secretsmanager."

// secretValue is a version of a secret; one of the two is set.
type secretValue struct {
	id     string
	binary []byte
	text   string
	made   time.Time
}

// storedSecret is a secret of Secrets Manager; the last of its values is the current one.
type storedSecret struct {
	suffix  string // of its ARN
	values  []secretValue
	deleted bool // scheduled for deletion
}

// PutSecret stores binary as the current value of a secret, and returns its version.
func (c *Cloud) PutSecret(name string, binary []byte) string {
	return c.putSecret(name, secretValue{id: uuid(), binary: binary})
}

// PutSecretText stores text likewise.
func (c *Cloud) PutSecretText(name, text string) string {
	return c.putSecret(name, secretValue{id: uuid(), text: text})
}

// Secret returns the current value of a secret, nil if there is none.
func (c *Cloud) Secret(name string) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.secrets[name]
	if s == nil {
		return nil
	}
	v := s.values[len(s.values)-1]
	return append(v.binary, v.text...)
}

// SecretARN returns the ARN of a secret that is there.
func (c *Cloud) SecretARN(name string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.secretARN(c.cfg.Region, name, c.secrets[name].suffix)
}

// DeleteSecret schedules a secret for deletion.
func (c *Cloud) DeleteSecret(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.secrets[name].deleted = true
}

func (c *Cloud) secretARN(region, name, suffix string) string {
	return fmt.Sprintf("arn:%s:secretsmanager:%s:%s:secret:%s-%s", partitions[region], region, c.cfg.Account, name, suffix)
}

func (c *Cloud) putSecret(name string, v secretValue) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.secrets[name]
	if s == nil {
		s = &storedSecret{suffix: randomHex(3)}
		c.secrets[name] = s
	}
	v.made = time.Now()
	s.values = append(s.values, v)
	return v.id
}

// secretsmanager answers one request.
func (c *Cloud) secretsmanager(rq *call) (any, error) {
	switch {
	case c.fault("secretsmanager-throttled"):
		return nil, refuse("ThrottlingException", "Rate exceeded")
	case c.fault("secretsmanager-500"):
		return nil, &apiError{http.StatusInternalServerError, "InternalServiceError", "An error occurred on the server side."}
	}
	var in struct {
		Name, SecretId, VersionId, ClientRequestToken string
		SecretBinary                                  []byte
		SecretString                                  string
	}
	if err := rq.read(&in); err != nil {
		return nil, err
	}
	name := in.SecretId + in.Name
	rq.resource = name
	c.mu.Lock()
	for n, s := range c.secrets {
		if in.SecretId == c.secretARN(rq.region, n, s.suffix) {
			name = n
		}
	}
	s := c.secrets[name]
	c.mu.Unlock()
	arn := c.secretARN(rq.region, name, "??????")
	if s != nil {
		rq.resource = name
		arn = c.secretARN(rq.region, name, s.suffix)
	}
	switch {
	case !slices.Contains([]string{"GetSecretValue", "CreateSecret", "PutSecretValue"}, rq.operation):
		return nil, refuse("UnknownOperationException", "")
	case c.fault("secretsmanager-denied"):
		return nil, denied(rq.who, "secretsmanager:"+rq.operation, arn)
	case rq.operation == "CreateSecret" && s != nil && !s.deleted:
		return nil, refuse("ResourceExistsException", "The operation failed because the secret %s already exists.", name)
	case rq.operation != "CreateSecret" && (s == nil || c.fault("secretsmanager-404")):
		return nil, refuse("ResourceNotFoundException", "Secrets Manager can't find the specified secret.")
	case s != nil && s.deleted:
		return nil, refuse("InvalidRequestException", "You can't perform this operation on the secret because it was marked for deletion.")
	case rq.operation == "GetSecretValue":
		return c.secretValue(name, in.VersionId, arn)
	case in.ClientRequestToken == "" || (in.SecretBinary == nil) == (in.SecretString == ""):
		return nil, refuse("InvalidParameterException", "You must provide a ClientRequestToken, and one of SecretString and SecretBinary.")
	}
	c.putSecret(name, secretValue{id: in.ClientRequestToken, binary: in.SecretBinary, text: in.SecretString})
	c.mu.Lock()
	defer c.mu.Unlock()
	return map[string]any{"ARN": c.secretARN(rq.region, name, c.secrets[name].suffix), "Name": name, "VersionId": in.ClientRequestToken}, nil
}

// secretValue answers GetSecretValue.
func (c *Cloud) secretValue(name, version, arn string) (any, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	values := c.secrets[name].values
	i := len(values) - 1
	if version != "" {
		i = slices.IndexFunc(values, func(v secretValue) bool { return v.id == version })
	}
	if i < 0 {
		return nil, refuse("ResourceNotFoundException", "Secrets Manager can't find the specified secret value for VersionId: %s", version)
	}
	v := values[i]
	answer := map[string]any{"ARN": arn, "Name": name, "VersionId": v.id, "CreatedDate": float64(v.made.UnixMilli()) / 1000}
	switch i {
	case len(values) - 1:
		answer["VersionStages"] = []string{"AWSCURRENT"}
	case len(values) - 2:
		answer["VersionStages"] = []string{"AWSPREVIOUS"}
	}
	if v.binary != nil {
		answer["SecretBinary"] = base64.StdEncoding.EncodeToString(v.binary)
	} else {
		answer["SecretString"] = v.text
	}
	return answer, nil
}
