package ec2sim

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// s3Error is a refusal by S3.
type s3Error struct {
	status  int
	code    string
	message string
	detail  []string // pairs of XML element and text
	region  string   // for x-amz-bucket-region
}

func (e *s3Error) Error() string { return e.code + ": " + e.message }

// s3AuthError words the refusal of a signature.
func (c *Cloud) s3AuthError(e *authError) *s3Error {
	forbidden := func(code, message string, detail ...string) *s3Error {
		return &s3Error{status: http.StatusForbidden, code: code, message: message, detail: detail}
	}
	bad := func(code, message string, detail ...string) *s3Error {
		return &s3Error{status: http.StatusBadRequest, code: code, message: message, detail: detail}
	}
	switch e.problem {
	case authMissing:
		return forbidden("AccessDenied", "Access Denied")
	case authIncomplete:
		return bad("AuthorizationHeaderMalformed", "The authorization header is malformed; "+e.message)
	case authUnknownKey:
		return forbidden("InvalidAccessKeyId", "The AWS Access Key Id you provided does not exist in our records.", "AWSAccessKeyId", e.accessKey)
	case authBadToken:
		return bad("InvalidToken", "The provided token is malformed or otherwise invalid.")
	case authExpired:
		return bad("ExpiredToken", "The provided token has expired.")
	case authWrongScope:
		refused := bad("AuthorizationHeaderMalformed", "The authorization header is malformed; "+e.message)
		if e.region != "" {
			refused.detail = []string{"Region", e.region}
		}
		return refused
	case authSkew:
		return forbidden("RequestTimeTooSkewed", "The difference between the request time and the current time is too large.",
			"RequestTime", e.signedAt.Format(sigTime), "ServerTime", c.now().Format(time.RFC3339), "MaxAllowedSkewMilliseconds", "900000")
	case authPayloadHash:
		return bad("XAmzContentSHA256Mismatch", "The provided 'x-amz-content-sha256' header does not match what was computed.")
	case authNoContentSHA:
		return bad("InvalidRequest", "Missing required header for this request: x-amz-content-sha256")
	case authUnsigned:
		return forbidden("AccessDenied", "There were headers present in the request which were not signed", "HeadersNotSigned", e.message)
	}
	return forbidden("SignatureDoesNotMatch", "The request signature we calculated does not match the signature you provided. Check your key and signing method.",
		"AWSAccessKeyId", e.accessKey, "StringToSign", e.stringToSign, "SignatureProvided", e.signature, "CanonicalRequest", e.canonical)
}

// xmlEscaper escapes what S3 escapes; encoding/xml would escape more.
var xmlEscaper = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", `"`, "&quot;")

// xml is the body of the refusal; it sets the headers that go with it.
func (e *s3Error) xml(requestID string, header map[string]string) []byte {
	header["Content-Type"] = "application/xml"
	if e.region != "" {
		header["x-amz-bucket-region"] = e.region
	}
	var b bytes.Buffer
	b.WriteString("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error>")
	pairs := append([]string{"Code", e.code, "Message", e.message}, e.detail...)
	pairs = append(pairs, "RequestId", requestID, "HostId", base64.StdEncoding.EncodeToString([]byte(requestID)))
	for i := 0; i < len(pairs); i += 2 {
		fmt.Fprintf(&b, "<%s>%s</%s>", pairs[i], xmlEscaper.Replace(pairs[i+1]), pairs[i])
	}
	b.WriteString("</Error>")
	return b.Bytes()
}
