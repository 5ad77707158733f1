// Package arn reads Amazon Resource Names (AWS General Reference, "Amazon Resource
// Names"): arn:PARTITION:SERVICE:REGION:ACCOUNT:RESOURCE. Two ARNs are equal if ==
// says so.
package arn

import (
	"fmt"
	"strings"
)

// ARN is a name, parsed. The zero value names nothing.
type ARN struct {
	Partition string // "aws", "aws-cn", …
	Service   string
	Region    string // "" for what has none, such as an S3 object
	Account   string // 12 digits, or ""
	Resource  string // "key/1234abcd-…", "parameter/unlock/key"
}

// Parse reads an ARN. Its region, which becomes part of host names, is one.
func Parse(text string) (ARN, error) {
	p := strings.SplitN(text, ":", 6)
	if len(p) != 6 || p[0] != "arn" || !strings.HasPrefix(p[1], "aws") || p[2] == "" || p[5] == "" ||
		p[3] != "" && !ValidRegion(p[3]) || p[4] != "" && len(p[4]) != 12 {
		return ARN{}, fmt.Errorf("%q is not an ARN", text)
	}
	return ARN{p[1], p[2], p[3], p[4], p[5]}, nil
}

// MustParse is Parse for constants; it panics.
func MustParse(text string) ARN {
	a, err := Parse(text)
	if err != nil {
		panic(err)
	}
	return a
}

// String returns the name as AWS writes it, "" for the zero value.
func (a ARN) String() string {
	if a == (ARN{}) {
		return ""
	}
	return strings.Join([]string{"arn", a.Partition, a.Service, a.Region, a.Account, a.Resource}, ":")
}

// ValidRegion reports whether s may be a region.
func ValidRegion(s string) bool {
	return len(s) > 0 && len(s) <= 32 && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789-") == ""
}

// Region returns the region in an ARN, "" if text is none, or has none.
func Region(text string) string {
	a, _ := Parse(text)
	return a.Region
}
