package keys

import (
	"context"
	"fmt"
	"net/url"
	"strings"

	"unlock/internal/config"
)

// partitions are AWS' separate worlds with their DNS suffixes, from the SDK's
// partition table. A partition without a dual-stack suffix has no such endpoints.
var partitions = []struct{ name, region, suffix, dual string }{
	{"aws-cn", "cn-", "amazonaws.com.cn", "api.amazonwebservices.com.cn"},
	{"aws-us-gov", "us-gov-", "amazonaws.com", "api.aws"},
	{"aws-eusc", "eusc-", "amazonaws.eu", "api.amazonwebservices.eu"},
	{"aws-iso-b", "us-isob-", "sc2s.sgov.gov", "api.aws.scloud"},
	{"aws-iso-e", "eu-isoe-", "cloud.adc-e.uk", "api.cloud-aws.adc-e.uk"},
	{"aws-iso-f", "us-isof-", "csp.hci.ic.gov", "api.aws.hci.ic.gov"},
	{"aws-iso", "us-iso-", "c2s.ic.gov", "api.aws.ic.gov"},
	{"aws", "", "amazonaws.com", "api.aws"},
}

// Endpoint returns the URL of a service ("kms", "s3", "ssm") in a region,
// without a path.
func Endpoint(o config.AWS, service, region string) *url.URL {
	if u, err := url.Parse(o.Endpoint[service]); err == nil && u.Host != "" {
		return &url.URL{Scheme: u.Scheme, Host: u.Host}
	}
	p := partitions[len(partitions)-1]
	for _, q := range partitions {
		if strings.HasPrefix(region, q.region) {
			p = q
			break
		}
	}
	label, suffix := service, p.suffix
	if o.FIPS {
		label += "-fips"
	}
	if o.DualStack {
		if service == config.SourceS3 {
			label += ".dualstack"
		} else {
			suffix = p.dual
		}
	}
	return &url.URL{Scheme: "https", Host: label + "." + region + "." + suffix}
}

// objectURL returns the URL of an object: the bucket in the host name, but for
// explicit endpoints and for buckets whose dots the wildcard certificate does
// not cover.
func objectURL(o config.AWS, k config.Key, region string) *url.URL {
	bucket, key := k.Source.Bucket()
	u := Endpoint(o, config.SourceS3, region)
	if o.Endpoint[config.SourceS3] == "" && !strings.Contains(bucket, ".") {
		u.Host = bucket + "." + u.Host
	} else {
		key = bucket + "/" + key
	}
	u.Path, u.RawPath = "/"+key, "/"+escape(key)
	if k.VersionID != "" {
		u.RawQuery = url.Values{"versionId": {k.VersionID}}.Encode()
	}
	return u
}

// escape encodes an object key as SigV4 for S3 wants it: every byte but the
// unreserved ones of RFC 3986 and the slash.
func escape(key string) string {
	var b strings.Builder
	for i := range len(key) {
		switch c := key[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', strings.IndexByte("-._~/", c) >= 0:
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

// RegionOf returns the region in an ARN, "" if there is none.
func RegionOf(arn string) string {
	if f := strings.SplitN(arn, ":", 6); len(f) == 6 && f[0] == "arn" && validRegion(f[3]) {
		return f[3]
	}
	return ""
}

// validRegion reports whether s may be a region. It becomes part of host names.
func validRegion(s string) bool {
	return len(s) > 0 && len(s) <= 32 && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789-") == ""
}

// region returns where a key's bucket or parameter is first looked for: in the
// region of its ARN, as configured, of the first KMS key, or of the instance.
func (c *Client) region(ctx context.Context, k config.Key) (string, error) {
	if r := RegionOf(k.Source.Path()); r != "" {
		return r, nil
	}
	if c.o.AWS.Region != "" {
		return c.o.AWS.Region, nil
	}
	for _, arn := range k.KMSKeys {
		if r := RegionOf(arn); r != "" {
			return r, nil
		}
	}
	return c.o.Region(ctx)
}

// hostPort returns the address to dial for a URL.
func hostPort(u *url.URL) string {
	if u.Port() != "" {
		return u.Host
	}
	return u.Host + ":443"
}
