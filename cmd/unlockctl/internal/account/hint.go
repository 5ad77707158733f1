package account

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"

	"github.com/aws/smithy-go"

	"unlock/cmd/unlockctl/internal/places"
	"unlock/internal/keys/source"
)

// wrap says what was being done, and shortens the SDK's chain of errors to what
// AWS answered, or to why it could not be asked. action is IAM's name.
func wrap(op, action, resource string, err error) error {
	var (
		api  smithy.APIError
		dns  *net.DNSError
		cert x509.UnknownAuthorityError
	)
	e := &Error{Op: op, Err: err, cause: err}
	text := err.Error()
	switch {
	case errors.As(err, &api):
		e.Err = fmt.Errorf("%s: %s", api.ErrorCode(), api.ErrorMessage())
		if api.ErrorMessage() == "" {
			e.Err = errors.New(api.ErrorCode())
		}
		e.Hint = hintFor(api.ErrorCode(), action, resource)
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		e.Err = errors.New("no answer in time")
		e.Hint = "check the network and the proxy variables, then try again"
	case errors.As(err, &dns):
		e.Err, e.Hint = dns, "check the region's name and this machine's DNS"
	case errors.As(err, &cert):
		e.Err, e.Hint = cert, "set AWS_CA_BUNDLE to the authorities of a proxy or private endpoint"
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.ECONNRESET):
		var op *net.OpError
		if errors.As(err, &op) {
			e.Err = op
		}
		e.Hint = "nobody answers there: check the network, the proxy variables and AWS_ENDPOINT_URL"
	case errors.Is(err, errNoRegion), strings.Contains(text, "Missing Region"), strings.Contains(text, "missing AWS region"), strings.Contains(text, "A region must be set"):
		e.Err, e.Hint = errNoRegion, "give --region, set AWS_REGION, or name the KMS key by its ARN"
	case strings.Contains(text, "get credentials"), strings.Contains(text, "retrieve credentials"), strings.Contains(text, "refresh cached credentials"):
		e.Err, e.Hint = errors.New("no AWS credentials"), "log in (aws sso login), or choose a profile with --profile"
	}
	return e
}

var errNoRegion = errors.New("no region")

// withHint adds the hint that a place has for an answer of AWS.
func withHint(err error, p places.Place, s source.Source) error {
	var (
		e   *Error
		api smithy.APIError
	)
	if errors.As(err, &e) && errors.As(e.cause, &api) {
		if hint := p.Hint(api.ErrorCode(), s); hint != "" {
			e.Hint = hint
		}
	}
	return err
}

// Denied reports whether AWS answered that something is not allowed.
func Denied(err error) bool {
	var (
		e   *Error
		api smithy.APIError
	)
	return errors.As(err, &e) && errors.As(e.cause, &api) && api.ErrorCode() == "AccessDeniedException"
}

// hintFor is what to do about an answer of AWS.
func hintFor(code, action, resource string) string {
	switch code {
	case "AccessDenied", "AccessDeniedException", "Forbidden":
		return fmt.Sprintf("allow %s on %s to the identity that aws sts get-caller-identity prints", action, resource)
	case "NotFoundException":
		return "check the key's ARN, its region and account: aws kms describe-key --key-id " + resource
	case "DisabledException":
		return "enable the key: aws kms enable-key"
	case "KMSInvalidStateException":
		return "the key is pending deletion: aws kms cancel-key-deletion, then enable-key"
	case "InvalidCiphertextException":
		return "the ciphertext is damaged, or was made under another encryption context: compare --context with what sealed it"
	case "IncorrectKeyException":
		return "the ciphertext is under another KMS key: someone replaced it, or kms_key is wrong"
	case "SignatureDoesNotMatch", "InvalidSignatureException":
		return "the secret key is not that of the access key: log in again, or correct the profile"
	case "InvalidAccessKeyId", "UnrecognizedClientException", "InvalidClientTokenId":
		return "AWS does not know these credentials: log in again, or choose a profile with --profile"
	case "ExpiredToken", "ExpiredTokenException":
		return "the credentials have expired: log in again"
	case "RequestTimeTooSkewed":
		return "set this machine's clock"
	case "PreconditionFailed", "ConditionalRequestConflict":
		return "somebody else wrote it at the same moment; look at it and try again"
	}
	return ""
}
