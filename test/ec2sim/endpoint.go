package ec2sim

import "strings"

// partitions are the regions and the partition of each.
var partitions = map[string]string{
	"af-south-1": "aws", "ap-east-1": "aws", "ap-east-2": "aws", "ap-northeast-1": "aws",
	"ap-northeast-2": "aws", "ap-northeast-3": "aws", "ap-south-1": "aws", "ap-south-2": "aws",
	"ap-southeast-1": "aws", "ap-southeast-2": "aws", "ap-southeast-3": "aws", "ap-southeast-4": "aws",
	"ap-southeast-5": "aws", "ap-southeast-7": "aws", "ca-central-1": "aws", "ca-west-1": "aws",
	"eu-central-1": "aws", "eu-central-2": "aws", "eu-north-1": "aws", "eu-south-1": "aws",
	"eu-south-2": "aws", "eu-west-1": "aws", "eu-west-2": "aws", "eu-west-3": "aws",
	"il-central-1": "aws", "me-central-1": "aws", "me-south-1": "aws", "mx-central-1": "aws",
	"sa-east-1": "aws", "us-east-1": "aws", "us-east-2": "aws", "us-west-1": "aws", "us-west-2": "aws",
	"cn-north-1": "aws-cn", "cn-northwest-1": "aws-cn",
	"us-gov-east-1": "aws-us-gov", "us-gov-west-1": "aws-us-gov",
}

// suffixes are the domains of a partition: of IPv4 endpoints and of dual-stack ones.
var suffixes = map[string][2]string{
	"aws":        {"amazonaws.com", "api.aws"},
	"aws-cn":     {"amazonaws.com.cn", "api.amazonwebservices.com.cn"},
	"aws-us-gov": {"amazonaws.com", "api.aws"},
}

// endpoint is a service's host name, taken apart.
type endpoint struct {
	service string // "s3", "kms", "ssm", "secretsmanager"
	region  string
	host    string // without the bucket
	bucket  string // S3, virtual-hosted style
	dual    bool   // it has IPv6, too
	vpce    bool   // it is an interface endpoint of a VPC
}

// parseHost takes a host name apart. It is false for names that AWS does not have.
func parseHost(host string) (endpoint, bool) {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	if host == "s3.amazonaws.com" || strings.HasSuffix(host, ".s3.amazonaws.com") {
		return withBucket("s3", "us-east-1", "s3.amazonaws.com", host)
	}
	for region, partition := range partitions {
		if !strings.Contains(host, region) {
			continue
		}
		suffix := region + "." + suffixes[partition][0]
		dual := region + "." + suffixes[partition][1]
		for _, base := range []string{"s3." + suffix, "s3-fips." + suffix, "s3.dualstack." + suffix, "s3-fips.dualstack." + suffix} {
			if host == base || strings.HasSuffix(host, "."+base) {
				e, ok := withBucket("s3", region, base, host)
				e.dual = strings.Contains(base, ".dualstack.")
				return e, ok
			}
		}
		for _, service := range []string{"kms", "ssm", "secretsmanager"} {
			switch host {
			case service + "." + suffix, service + "-fips." + suffix, service + "." + dual, service + "-fips." + dual:
				return endpoint{service: service, region: region, host: host, dual: strings.HasSuffix(host, dual)}, true
			}
			// An interface endpoint of a VPC: vpce-ID.SERVICE.REGION.vpce.SUFFIX.
			vpce := "." + service + "." + region + ".vpce." + suffixes[partition][0]
			if id, ok := strings.CutSuffix(host, vpce); ok && strings.HasPrefix(id, "vpce-") && !strings.Contains(id, ".") {
				return endpoint{service: service, region: region, host: host, vpce: true}, true
			}
		}
	}
	return endpoint{}, false
}

func withBucket(service, region, base, host string) (endpoint, bool) {
	bucket := strings.TrimSuffix(strings.TrimSuffix(host, base), ".")
	return endpoint{service: service, region: region, host: base, bucket: bucket}, true
}

// certNames are the names in the certificate of an endpoint. The wildcard of S3's
// covers one label, so a bucket with a dot cannot be reached in virtual-hosted
// style over TLS, as with AWS.
func (e endpoint) certNames() []string {
	if e.service == "s3" {
		return []string{e.host, "*." + e.host}
	}
	return []string{e.host}
}
