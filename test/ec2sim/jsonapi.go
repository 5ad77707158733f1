package ec2sim

import (
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
)

// This file is the protocol of KMS, SSM and Secrets Manager, AWS JSON 1.1.

// apiError is a refusal in the JSON protocol.
type apiError struct {
	status  int
	kind    string // "__type"
	message string // "" leaves it out, as KMS does for InvalidCiphertextException
}

func (e *apiError) Error() string { return e.kind + ": " + e.message }

func refuse(kind, format string, args ...any) *apiError {
	return &apiError{status: http.StatusBadRequest, kind: kind, message: fmt.Sprintf(format, args...)}
}

// call is one request of the JSON protocol.
type call struct {
	who       *identity
	region    string
	operation string
	body      []byte
	resource  string         // for the record; set by the operation
	sources   []string       // of CloudTrail's record: further resources, which come first
	response  map[string]any // likewise: responseElements

	context    map[string]string // KMS: the encryption context
	document   *Document         // KMS: of an attested call
	to         *rsa.PublicKey    // likewise: the recipient's
	additional map[string]any    // of CloudTrail's record: additionalEventData
}

// read decodes the parameters.
func (c *call) read(into any) error {
	if err := json.Unmarshal(c.body, into); err != nil {
		return refuse("SerializationException", "%v", err)
	}
	return nil
}

// json authenticates r and has operation answer it. prefix is that of the service
// in X-Amz-Target.
func (c *Cloud) json(r *http.Request, e endpoint, prefix string, body []byte, operation func(*call) (any, error)) reply {
	rep := reply{status: http.StatusOK, requestID: uuid()}
	name, ok := strings.CutPrefix(r.Header.Get("X-Amz-Target"), prefix)
	rq := &call{region: e.region, operation: name, body: body}
	rep.operation = name
	answer, err := func() (any, error) {
		if r.Method != http.MethodPost || !ok {
			return nil, refuse("UnknownOperationException", "")
		}
		who, aerr := c.verify(r, body, e.service, e.region)
		if aerr != nil {
			return nil, jsonAuthError(aerr)
		}
		rq.who = who
		if rq.region == "" {
			auth, _ := parseAuthorization(r.Header.Get("Authorization"))
			rq.region = auth.region
		}
		return operation(rq)
	}()
	refused := (*apiError)(nil)
	if errors.As(err, &refused) {
		rep.status, rep.errorType = refused.status, refused.kind
		m := map[string]string{"__type": refused.kind}
		if refused.message != "" {
			m["message"] = refused.message
		}
		answer = m
	}
	rep.resource = rq.resource
	c.logJSON(r, e.service, rq, rep.requestID, refused)
	rep.body, _ = json.Marshal(answer)
	rep.header = map[string]string{
		"Content-Type":     "application/x-amz-json-1.1",
		"x-amzn-RequestId": rep.requestID,
		"Cache-Control":    "no-cache, no-store, must-revalidate, private",
	}
	return rep
}

func jsonAuthError(e *authError) *apiError {
	switch e.problem {
	case authMissing:
		return refuse("MissingAuthenticationTokenException", "Missing Authentication Token")
	case authIncomplete:
		return refuse("IncompleteSignatureException", "%s", e.message)
	case authUnknownKey, authBadToken:
		return refuse("UnrecognizedClientException", "The security token included in the request is invalid.")
	case authExpired:
		return refuse("ExpiredTokenException", "The security token included in the request is expired")
	case authWrongScope, authSkew:
		return refuse("InvalidSignatureException", "%s", e.message)
	case authUnsigned:
		return refuse("InvalidSignatureException", "The header '%s' is not signed.", e.message)
	}
	return refuse("InvalidSignatureException", "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key and signing method. Consult the service documentation for details.")
}

// denied is IAM's refusal of an action.
func denied(who *identity, action, resource string) *apiError {
	return refuse("AccessDeniedException",
		"User: %s is not authorized to perform: %s on resource: %s because no identity-based policy allows the %s action",
		who.arn, action, resource, action)
}
