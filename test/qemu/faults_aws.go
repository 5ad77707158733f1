package main

import (
	"strings"
	"time"

	"unlock/test/lab"
	"unlock/test/vm"
)

// awsFaults are those of IMDS, TLS, S3 and KMS.
var awsFaults = []row{
	{name: "imds-off", faults: []string{"imds-off"}, stop: "the metadata service is disabled"},
	{name: "imds-v1-only", faults: []string{"imds-v1-only"}, stop: "what answers does not know IMDSv2"},
	{name: "imds-hop-limited", faults: []string{"imds-hops"}, stop: "no usable answer from the metadata service"},
	{name: "imds-slow", faults: []string{"imds-slow:1s"}},
	{name: "imds-500-twice", faults: []string{"imds-500:2"}},
	{name: "imds-503-twice", faults: []string{"imds-503:2"}},
	{name: "imds-503", faults: []string{"imds-503"}, stop: "the metadata service throttles this instance"},
	{name: "imds-token-revoked", faults: []string{"imds-401-once"}},
	{name: "imds-truncated-once", faults: []string{"imds-truncated:1"}},
	{name: "imds-truncated", faults: []string{"imds-truncated"}, stop: "no usable answer from the metadata service"},
	{name: "role-late", faults: []string{"role-late:5s"}},
	{name: "role-missing", faults: []string{"no-role"}, stop: "attach an instance profile"},
	{name: "role-changed", faults: []string{"role-changed:1"}},
	{name: "role-expired", faults: []string{"creds-expired"}, stop: "detach and attach the instance profile"},

	{name: "tls-expired", faults: []string{"tls-expired"}, stop: "the certificate of an-internalstoragekeybucket.s3.us-east-1.amazonaws.com is not valid at this time"},
	{name: "tls-wrong-host", faults: []string{"tls-wrong-host"}, stop: "the certificate that answers at an-internalstoragekeybucket.s3.us-east-1.amazonaws.com is not its own"},
	{name: "tls-unknown-ca", faults: []string{"tls-unknown-ca"}, stop: "the certificate of an-internalstoragekeybucket.s3.us-east-1.amazonaws.com is not from an authority trusted here"},
	// IMDS could tell the time, but anybody could be IMDS: certificates are not judged by what it says.
	{name: "clock-of-1970", machine: func(_ *lab.Lab, m *vm.Machine) { m.Clock = "1970-01-01T00:00:00" }, timeout: time.Minute,
		stop: "the certificate of an-internalstoragekeybucket.s3.us-east-1.amazonaws.com is not valid at this time: check the instance's clock"},
	{name: "clock-behind", faults: []string{"clock-skew:1h"}},
	{name: "clock-ahead", faults: []string{"clock-skew:-1h"}},

	{name: "s3-404-once", faults: []string{"s3-404:1"}},
	{name: "s3-404", faults: []string{"s3-404"}, stop: "put the ciphertext at s3://"},
	{name: "s3-403", faults: []string{"s3-403"}, stop: "allow s3:GetObject on"},
	{name: "s3-slowdown-twice", faults: []string{"s3-slowdown:2"}},
	{name: "s3-500-twice", faults: []string{"s3-500:2"}},
	{name: "s3-other-region", faults: []string{"s3-redirect:eu-west-1"}, hosts: []string{lab.Bucket + ".s3.eu-west-1.amazonaws.com"}},
	{name: "s3-truncated-once", faults: []string{"s3-truncated:1"}},
	{name: "s3-truncated", faults: []string{"s3-truncated"}, stop: "an-internalstoragekeybucket.s3.us-east-1.amazonaws.com breaks off its answers"},
	{name: "s3-changed", faults: []string{"s3-changed:1"}}, // between two tries
	{name: "s3-empty", faults: []string{"s3-empty"}, stop: "put the output of aws kms encrypt at s3://"},
	{name: "s3-oversized", faults: []string{"s3-oversized"}, stop: "put the output of aws kms encrypt at s3://"},
	{name: "s3-slow-body", faults: []string{"s3-slow-body:10ms"}},

	{name: "kms-throttled-twice", faults: []string{"kms-throttled:2"}},
	{name: "kms-throttled", faults: []string{"kms-throttled"}, stop: "KMS still throttles after all tries"},
	{name: "kms-500-twice", faults: []string{"kms-500:2"}},
	{name: "kms-timeout-twice", faults: []string{"kms-timeout:2"}},
	{name: "kms-unavailable", faults: []string{"kms-unavailable"}, stop: "KMS in us-east-1 is disturbed"},
	{name: "kms-disabled", faults: []string{"kms-disabled"}, stop: "enable $KEY"},
	{name: "kms-pending-deletion", faults: []string{"kms-pending-deletion"}, stop: "$KEY is pending deletion"},
	{name: "kms-reset-twice", faults: []string{"kms-reset:2"}},
	{name: "kms-denied-once", faults: []string{"kms-denied:1"}},
	{name: "kms-denied", faults: []string{"kms-denied"}, stop: "allow kms:Decrypt on $KEY to role unlock-demo with context purpose=secretfs"},
	{name: "kms-slow", faults: []string{"kms-slow:3s"}},
	{name: "kms-other-key", config: strings.Replace(s3Key, "$KEY", "$OTHER", 1) + secretfs, stop: "the ciphertext"},
	{name: "kms-other-context", config: strings.Replace(s3Key, `"secretfs"`, `"other"`, 1) + secretfs, stop: "the ciphertext"},
	{name: "three-at-once", faults: []string{"dns-servfail:1", "s3-slowdown:1", "kms-500:1"}},
}
