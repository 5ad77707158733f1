package keys

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"unlock/internal/ec2"
)

// class says how often and how patiently something is tried again.
type class struct {
	tries  int           // in all; 0: until the context ends
	window time.Duration // the first wait is random below this
}

var (
	// throttled: the service has more requests than it takes. The first window is
	// wide, so that thousands of instances that start together come back spread out.
	throttled = &class{0, 4 * time.Second}
	// fast: the service or the way to it is disturbed, for a moment or for long.
	fast = &class{0, 200 * time.Millisecond}
	// slow: permissions, policies and S3's namespace are eventually consistent; a
	// refusal may be yesterday's. Six tries take 40 seconds on average.
	slow = &class{6, 15 * time.Second}
	// stale: the credentials are not accepted; each try asks for new ones.
	stale = &class{6, 15 * time.Second}
	// skewed: our clock is wrong; once corrected, the next request is right.
	skewed = &class{3, time.Millisecond}
	// final: asking again gives the same answer.
	final = &class{1, 0}
)

const (
	maxWindow = 30 * time.Second
	// elsewhere is the number of tries after which a region counts as down, if
	// there is another key to turn to.
	elsewhere = 3
)

// rules is the policy: for each answer its class, and what an operator can do.
// A code is AWS' name of an error or, in parentheses, our name of a failure
// without an answer; "5xx", "429" and "4xx" stand for what has no row of its own.
var rules = []struct {
	codes string
	class *class
	hint  string
}{
	{"ThrottlingException Throttling ThrottledException RequestLimitExceeded TooManyRequestsException SlowDown 429",
		throttled, "{service} still throttles after all tries: raise the account's request quota, start fewer instances at once, or raise timeout"},
	{"KMSInternalException DependencyTimeoutException KeyUnavailableException InternalFailure InternalError InternalServerError ServiceUnavailable ServiceUnavailableException RequestTimeout RequestTimeoutException 5xx",
		fast, "{service} in {region} is disturbed: see the AWS Health Dashboard; a multi-Region key in kms_key gives another region to turn to"},
	{"(dns)", fast, "{host} does not resolve: check the VPC's DNS settings (enableDnsSupport), the resolver, and aws.endpoint"},
	{"(timeout)", fast, "no answer from {host}: check the route, security groups and network ACLs, or add a VPC endpoint for {service}"},
	{"(network)", fast, "cannot talk to {host}: check the route, security groups and network ACLs, or add a VPC endpoint for {service}"},
	{"(truncated)", fast, "{host} breaks off its answers: check proxies and the MTU on the way"},

	{"AccessDeniedException AccessDenied", slow, "allow {action} on {resource} to role {role}{context}{orMissing}"},
	{"NotFoundException", slow, "{resource} does not exist in {region}: check kms_key"},
	{"NoSuchKey", slow, "put the ciphertext at {resource}, or check source"},
	{"NoSuchBucket", slow, "bucket of {resource} does not exist: check source"},
	{"NoSuchVersion", slow, "version {version} of {resource} is gone: check version_id, or restore it"},
	{"ParameterNotFound ParameterVersionNotFound", slow, "{resource} does not exist in {region}: check source and aws.region"},
	{"UnrecognizedClientException InvalidClientTokenId InvalidAccessKeyId InvalidToken ExpiredToken ExpiredTokenException TokenRefreshRequired",
		stale, "{service} in {region} does not accept the credentials of role {role}: check that the region is enabled for the account and belongs to its partition"},
	{"InvalidSignatureException SignatureDoesNotMatch IncompleteSignature AuthorizationHeaderMalformed",
		slow, "{service} does not accept the signature: check aws.endpoint and aws.region"},
	{"(tls)", slow, "no TLS connection to {host}: check aws.endpoint and what lies between"},

	{"RequestTimeTooSkewed RequestExpired (skew)", skewed, "set the instance's clock: it differs too much from that of AWS"},

	{"InvalidCiphertextException", final, "{otherContext}"},
	{"IncorrectKeyException", final, "{otherKey}"},
	{"DisabledException", final, "enable {resource} (aws kms enable-key), if whoever disabled it agrees"},
	{"KMSInvalidStateException", final, "{resource} is pending deletion or otherwise unusable: aws kms cancel-key-deletion and enable-key, if that is wanted"},
	{"InvalidKeyUsageException", final, "{resource} is not for encryption: kms_key must be a symmetric encryption key"},
	{"InvalidObjectState", final, "{resource} is archived: restore it to a class that can be read at once"},
	{"PermanentRedirect TemporaryRedirect", final, "set aws.region to the bucket's region"},
	{"(other-key)", final, "{service} did not use the key it was told to: check aws.endpoint"},
	{"(other-version)", final, "S3 gave another version than {version}: check aws.endpoint"},
	{"(no-ciphertext)", final, "put the output of aws kms encrypt at {resource}: raw bytes in S3, base64 in a parameter of type String"},
	{"(empty)", final, "encrypt a passphrase that is not empty"},
	{"(malformed)", final, "something other than AWS answers at {host}: check aws.endpoint"},
	{"(certificate-date)", final, "the certificate of {host} is not valid at this time: check the instance's clock"},
	{"(certificate-name)", final, "the certificate that answers at {host} is not its own: check DNS and aws.endpoint"},
	{"(certificate)", final, "the certificate of {host} is not from an authority trusted here: if a proxy or endpoint of yours answers, name its CA in aws.ca_bundle"},
	{"403", slow, "allow {action} on {resource} to role {role}{context}"},
	{"404", slow, "{resource} was not found: check source and aws.endpoint"},
	{"4xx", final, "{service} does not take this request: check source, kms_key and aws.endpoint"},
}

// classify returns the class of an error and the pattern of its hint.
func classify(err error) (*class, string) {
	for _, code := range codes(err) {
		for _, r := range rules {
			if slices.Contains(strings.Fields(r.codes), code) {
				return r.class, r.hint
			}
		}
	}
	return final, ""
}

// retry calls attempt until it succeeds, fails for good by the class of its
// error, or ctx ends; since is when the first request of this kind was made,
// which widens the windows. In a hurry, fast failures are given up soon. The
// call is to be reported if its RequestID is not empty. Errors are *Error.
func (c *Client) retry(ctx context.Context, r *request, since time.Time, hurry bool, attempt func(context.Context, ec2.Role) error) (done Call, err error) {
	call := &r.Call
	defer func() {
		if done.Attempts > 0 {
			done.Duration = time.Since(done.Start)
		}
	}()
	failures := map[*class]int{}
	var failed *Error
	for {
		role, err := c.identity.get(ctx)
		if err != nil {
			return *call, identityError(err)
		}
		if call.Attempts++; call.Attempts == 1 {
			call.Start = time.Now()
		}
		err = func() error {
			ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
			defer cancel()
			return attempt(ctx, role)
		}()
		if err == nil {
			return *call, nil
		}
		class, hint := classify(err)
		failures[class]++
		var answer *refusal
		if errors.As(err, &answer) {
			call.RequestID = answer.requestID
			if class == skewed && !answer.date.IsZero() {
				c.skew.Store(int64(time.Until(answer.date)))
			}
		}
		if class == stale {
			c.identity.forget(role)
		}
		tries := class.tries
		if hurry && class == fast {
			tries = elsewhere
		}
		if ctx.Err() != nil && failed != nil {
			return *call, failed.late(ctx, call.Attempts) // the last try was cut short: what came before says more
		}
		failed = &Error{Op: r.op, Err: r.explain(err), Hint: r.hint(hint, role), class: class}
		if tries > 0 && failures[class] >= tries {
			return *call, failed
		}
		if ctx.Err() == nil {
			c.o.Log("%s: %v; trying again", r.op, err)
		}
		// Full jitter over half of the time waited so far: the same window for all
		// who wait since the same moment, however lucky they were.
		window := min(max(time.Since(since)/2, class.window), maxWindow)
		select {
		case <-ctx.Done():
			return *call, failed.late(ctx, call.Attempts)
		case <-time.After(rand.N(window)):
		}
	}
}
