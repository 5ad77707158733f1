package aws

import (
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

// Endpoint returns the URL of a service, by the name under which requests to it are
// signed ("kms", "s3"), in a region, without a path.
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
		if service == "s3" {
			label += ".dualstack"
		} else {
			suffix = p.dual
		}
	}
	return &url.URL{Scheme: "https", Host: label + "." + region + "." + suffix}
}

// reachable returns the URL of an endpoint by the families that the network has: itself,
// or that of the dual-stack endpoint. One that the configuration names stays: it may
// have addresses of IPv6 in this network, as with DNS64.
func (c *Client) reachable(u *url.URL) *url.URL {
	if c.o.Families == nil || c.configured(u) {
		return u
	}
	four, six := c.o.Families()
	if six && (!four || c.dual.Load()) {
		return dualStack(u)
	}
	return u
}

// configured reports whether the configuration names the endpoint.
func (c *Client) configured(u *url.URL) bool {
	for _, text := range c.o.AWS.Endpoint {
		if e, err := url.Parse(text); err == nil && e.Host == u.Host {
			return true
		}
	}
	return false
}

// dualStack returns the URL of the endpoint with IPv6 beside the given one; itself where
// there is none, or where it is not one of AWS' own.
func dualStack(u *url.URL) *url.URL {
	for _, p := range partitions {
		name, ok := strings.CutSuffix(u.Host, "."+p.suffix)
		labels := strings.Split(name, ".")
		if !ok || len(labels) < 2 || !strings.HasPrefix(labels[len(labels)-1], p.region) {
			continue
		}
		d := *u
		region := labels[len(labels)-1]
		switch service := labels[len(labels)-2]; {
		case service == "s3" || service == "s3-fips":
			d.Host = strings.TrimSuffix(name, region) + "dualstack." + region + "." + p.suffix
		case len(labels) == 2:
			d.Host = name + "." + p.dual
		}
		return &d
	}
	return u
}

// hostPort returns the address to dial for a URL.
func hostPort(u *url.URL) string {
	if u.Port() != "" {
		return u.Host
	}
	return u.Host + ":443"
}
