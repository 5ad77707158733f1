package aws

import (
	"slices"
	"strings"
	"time"
)

// Class says how often and how patiently something is tried again.
type Class struct {
	tries  int           // in all; 0: until the context ends
	window time.Duration // the first wait is random below this
}

var (
	// throttled: the service has more requests than it takes. The first window is
	// wide, so that thousands of instances that start together come back spread out.
	throttled = &Class{0, 4 * time.Second}
	// fast: the service or the way to it is disturbed, for a moment or for long.
	fast = &Class{0, 200 * time.Millisecond}
	// Slow: permissions, policies and S3's namespace are eventually consistent; a
	// refusal may be yesterday's. Six tries take 40 seconds on average.
	Slow = &Class{6, 15 * time.Second}
	// stale: the credentials are not accepted; each try asks for new ones.
	stale = &Class{6, 15 * time.Second}
	// skewed: our clock is wrong; once corrected, the next request is right.
	skewed = &Class{3, time.Millisecond}
	// Final: asking again gives the same answer.
	Final = &Class{1, 0}
)

const (
	maxWindow = 30 * time.Second
	// elsewhere is the number of tries after which a region counts as down, if
	// there is another one to turn to.
	elsewhere = 3
)

// Rule is what an answer means: how patiently to ask again, and what an operator
// can do. A code is AWS' name of an error or, in parentheses, our name of a failure
// without an answer; "5xx", "429" and "4xx" stand for what has no rule of its own.
type Rule struct {
	Codes string // separated by spaces
	Class *Class
	Hint  string // a pattern, see Request.hint; it ends in what to do
}

// rules are those that all services share; a Request may have further ones.
var rules = []Rule{
	{"ThrottlingException Throttling ThrottledException RequestLimitExceeded TooManyRequestsException SlowDown 429",
		throttled, "{service} still throttles after all tries: raise the account's request quota, start fewer instances at once, or raise timeout"},
	{"KMSInternalException DependencyTimeoutException KeyUnavailableException InternalFailure InternalError InternalServerError ServiceUnavailable ServiceUnavailableException RequestTimeout RequestTimeoutException 5xx",
		fast, "{service} in {region} is disturbed: see the AWS Health Dashboard; a multi-Region key in kms_key gives another region to turn to"},
	{"(dns)", fast, "{host} does not resolve: check the VPC's DNS settings (enableDnsSupport), the resolver, and aws.endpoint"},
	{"(timeout)", fast, "no answer from {host}: check the route, security groups and network ACLs, or add a VPC endpoint for {service}"},
	{"(network)", fast, "cannot talk to {host}: check the route, security groups and network ACLs, or add a VPC endpoint for {service}"},
	{"(proxy)", fast, "{host} is not reached: check aws.proxy, and that the proxy lets this instance connect there"},
	{"(truncated)", fast, "{host} breaks off its answers: check proxies and the MTU on the way"},

	{"AccessDeniedException AccessDenied 403", Slow, "allow {action} on {resource} to role {role}{context}"},
	{"UnrecognizedClientException InvalidClientTokenId InvalidAccessKeyId InvalidToken ExpiredToken ExpiredTokenException TokenRefreshRequired",
		stale, "{service} in {region} does not accept the credentials of role {role}: check that the region is enabled for the account and belongs to its partition"},
	{"InvalidSignatureException SignatureDoesNotMatch IncompleteSignature AuthorizationHeaderMalformed",
		Slow, "{service} does not accept the signature: check aws.endpoint and aws.region"},
	{"(tls)", Slow, "no TLS connection to {host}: check aws.endpoint and what lies between"},
	{"404", Slow, "{resource} was not found: check source and aws.endpoint"},

	{"RequestTimeTooSkewed RequestExpired (skew)", skewed, "set the instance's clock: it differs too much from that of AWS"},

	{"(malformed) (too-long)", Final, "something other than AWS answers at {host}: check aws.endpoint"},
	{"(certificate-date)", Final, "the certificate of {host} is not valid at this time: check the instance's clock"},
	{"(certificate-name)", Final, "the certificate that answers at {host} is not its own: check DNS and aws.endpoint"},
	{"(certificate)", Final, "the certificate of {host} is not from an authority trusted here: if a proxy or endpoint of yours answers, name its CA in aws.ca_bundle"},
	{"4xx", Final, "{service} does not take this request: check source, kms_key and aws.endpoint"},
}

// classify returns the class of an error and the pattern of its hint, by a request's
// own rules and then by those of all.
func classify(err error, own []Rule) (*Class, string) {
	for _, code := range codes(err) {
		for _, list := range [][]Rule{own, rules} {
			for _, r := range list {
				if slices.Contains(strings.Fields(r.Codes), code) {
					return r.Class, r.Hint
				}
			}
		}
	}
	return Final, ""
}
