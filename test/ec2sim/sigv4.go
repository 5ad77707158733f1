package ec2sim

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// This file verifies Signature Version 4 ("AWS Signature Version 4 for API
// requests" in the IAM User Guide), rebuilding what was signed from the request
// as it arrived.

const (
	sigAlgorithm = "AWS4-HMAC-SHA256"
	sigTime      = "20060102T150405Z"

	unsignedPayload = "UNSIGNED-PAYLOAD"
	// trailerPayload: the body is in aws-chunked encoding with a checksum at its
	// end, unsigned. Newer AWS SDKs and CLIs put objects so.
	trailerPayload = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
)

// identity is who may sign requests.
type identity struct {
	accessKey string
	secretKey string
	token     string    // session token, "" for a user's static key
	created   time.Time // zero: not a session
	expires   time.Time // zero: never
	arn       string    // "arn:aws:sts::111122223333:assumed-role/ROLE/i-…"
}

// authProblem is why a request is refused.
type authProblem int

const (
	authMissing      authProblem = iota + 1 // no signature at all
	authIncomplete                          // a part of the Authorization header is missing or malformed
	authUnknownKey                          // no such access key
	authBadToken                            // the session token is not that of the access key
	authExpired                             // the session has ended
	authWrongScope                          // signed for another region, service or day
	authSkew                                // signed too long ago or in the future
	authMismatch                            // the signature is wrong
	authPayloadHash                         // the body is not what was signed
	authNoContentSHA                        // S3: x-amz-content-sha256 is missing
	authUnsigned                            // a header that must be signed is not
)

// authError is a refusal by verify, for each protocol to word.
type authError struct {
	problem authProblem
	message string // for authIncomplete, authWrongScope, authSkew, authUnsigned

	accessKey, signature, stringToSign, canonical string // for authMismatch
	signedAt                                      time.Time
	region                                        string // for authWrongScope: the right region, if that is it
}

func (e *authError) Error() string { return fmt.Sprintf("refused (%d): %s", e.problem, e.message) }

// authorization is the Authorization header, taken apart.
type authorization struct {
	accessKey string
	date      string // of the credential scope
	region    string
	service   string
	headers   []string // signed, lower case
	signature string
}

func parseAuthorization(h string) (authorization, *authError) {
	incomplete := func(format string, args ...any) (authorization, *authError) {
		return authorization{}, &authError{problem: authIncomplete, message: fmt.Sprintf(format, args...)}
	}
	rest, ok := strings.CutPrefix(h, sigAlgorithm+" ")
	if !ok {
		return incomplete("Unsupported algorithm in '%s'.", h)
	}
	fields := map[string]string{}
	for _, f := range strings.Split(rest, ",") {
		k, v, _ := strings.Cut(strings.TrimSpace(f), "=")
		fields[k] = v
	}
	for _, k := range []string{"Credential", "Signature", "SignedHeaders"} {
		if fields[k] == "" {
			return incomplete("Authorization header requires '%s' parameter. Authorization=%s", k, h)
		}
	}
	scope := strings.Split(fields["Credential"], "/")
	if len(scope) != 5 || scope[4] != "aws4_request" {
		return incomplete("Credential must have exactly 5 slash-delimited elements, e.g. keyid/date/region/service/term, got '%s'", fields["Credential"])
	}
	return authorization{
		accessKey: scope[0], date: scope[1], region: scope[2], service: scope[3],
		headers:   strings.Split(fields["SignedHeaders"], ";"),
		signature: fields["Signature"],
	}, nil
}

// verify checks the signature of r, whose body has been read, for a service in a
// region ("" accepts any region: Loopback's name has none). It returns who signed.
func (c *Cloud) verify(r *http.Request, body []byte, service, region string) (*identity, *authError) {
	header := r.Header.Get("Authorization")
	if header == "" {
		return nil, &authError{problem: authMissing}
	}
	auth, aerr := parseAuthorization(header)
	if aerr != nil {
		return nil, aerr
	}
	signedAt, aerr := c.checkTime(r, auth, service)
	if aerr != nil {
		return nil, aerr
	}
	switch {
	case auth.service != service:
		return nil, &authError{problem: authWrongScope, message: fmt.Sprintf("Credential should be scoped to correct service: '%s'.", service)}
	case region == "" && partitions[auth.region] == "", region != "" && auth.region != region:
		e := &authError{problem: authWrongScope, region: region, message: "Credential should be scoped to a valid region."}
		if service == "s3" {
			e.message = fmt.Sprintf("the region '%s' is wrong; expecting '%s'", auth.region, region)
		}
		return nil, e
	}
	c.mu.Lock()
	who := c.identities[auth.accessKey]
	c.mu.Unlock()
	token := r.Header.Get("X-Amz-Security-Token")
	switch {
	case who == nil, who.token != "" && token == "":
		return nil, &authError{problem: authUnknownKey, accessKey: auth.accessKey}
	case subtle.ConstantTimeCompare([]byte(who.token), []byte(token)) == 0:
		return nil, &authError{problem: authBadToken}
	case !who.expires.IsZero() && !c.now().Before(who.expires):
		return nil, &authError{problem: authExpired}
	}

	sum := sha256.Sum256(body)
	payload := hex.EncodeToString(sum[:])
	if service == "s3" {
		claimed := r.Header.Get("X-Amz-Content-Sha256")
		switch {
		case claimed == "":
			return nil, &authError{problem: authNoContentSHA}
		case claimed == unsignedPayload, claimed == trailerPayload:
			payload = claimed
		case claimed != payload:
			return nil, &authError{problem: authPayloadHash}
		}
	}
	canonical, aerr := canonicalRequest(r, auth.headers, payload, service == "s3")
	if aerr != nil {
		return nil, aerr
	}
	hash := sha256.Sum256([]byte(canonical))
	toSign := strings.Join([]string{
		sigAlgorithm,
		signedAt.Format(sigTime),
		strings.Join([]string{auth.date, auth.region, auth.service, "aws4_request"}, "/"),
		hex.EncodeToString(hash[:]),
	}, "\n")
	mac := []byte("AWS4" + who.secretKey)
	for _, part := range []string{auth.date, auth.region, auth.service, "aws4_request", toSign} {
		mac = hmacSHA256(mac, part)
	}
	if !hmac.Equal([]byte(hex.EncodeToString(mac)), []byte(auth.signature)) {
		return nil, &authError{
			problem: authMismatch, accessKey: auth.accessKey, signature: auth.signature,
			stringToSign: toSign, canonical: canonical,
		}
	}
	return who, nil
}

// checkTime checks when a request was signed: S3 accepts 15 minutes of skew, the
// others 5.
func (c *Cloud) checkTime(r *http.Request, auth authorization, service string) (time.Time, *authError) {
	stamp := r.Header.Get("X-Amz-Date")
	signedAt, err := time.Parse(sigTime, stamp)
	if stamp == "" {
		signedAt, err = http.ParseTime(r.Header.Get("Date"))
	}
	if err != nil {
		return signedAt, &authError{problem: authIncomplete, message: "Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header."}
	}
	signedAt = signedAt.UTC()
	allowed := 5 * time.Minute
	if service == "s3" {
		allowed = 15 * time.Minute
	}
	now := c.now()
	e := &authError{problem: authSkew, signedAt: signedAt}
	switch {
	case signedAt.Before(now.Add(-allowed)):
		e.message = fmt.Sprintf("Signature expired: %s is now earlier than %s (%s - %d min.)",
			signedAt.Format(sigTime), now.Add(-allowed).Format(sigTime), now.Format(sigTime), allowed/time.Minute)
		return signedAt, e
	case signedAt.After(now.Add(allowed)):
		e.message = fmt.Sprintf("Signature not yet current: %s is still later than %s (%s + %d min.)",
			signedAt.Format(sigTime), now.Add(allowed).Format(sigTime), now.Format(sigTime), allowed/time.Minute)
		return signedAt, e
	}
	if day := signedAt.Format("20060102"); day != auth.date {
		return signedAt, &authError{problem: authWrongScope, message: fmt.Sprintf("Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: '%s' != '%s'", auth.date, day)}
	}
	return signedAt, nil
}

func hmacSHA256(key []byte, data string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(data))
	return h.Sum(nil)
}
