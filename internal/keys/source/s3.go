package source

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
)

// S3 is a ciphertext as `aws kms encrypt` makes it, raw bytes, in an object.
var S3 = &Kind{
	Name: "s3", Form: "s3://BUCKET/KEY", rule: ", a BUCKET being 3 to 63 small letters, digits, dots and hyphens", Pins: true,
	Parse: func(s *Source, location string) bool {
		location, ok := strings.CutPrefix(location, "//")
		s.Bucket, s.Name, _ = strings.Cut(location, "/")
		return ok && validBucket(s.Bucket) && s.Name != ""
	},
	Remote: &Remote{
		Service: "S3", Operation: "GetObject", Action: "s3:GetObject", Pinned: "s3:GetObjectVersion", Put: "raw bytes",
		URL: objectURL,
		Read: func(h http.Header, body []byte) ([]byte, string, error) {
			return body, h.Get("X-Amz-Version-Id"), nil
		},
		Late: map[string]string{
			"AccessDenied":  "allow {action} on {resource} to role {role} (S3 may say the same of an object that does not exist)",
			"NoSuchKey":     "put the ciphertext at {resource}, or check source",
			"NoSuchBucket":  "bucket of {resource} does not exist: check source",
			"NoSuchVersion": "version {version} of {resource} is gone: check version_id, or restore it",
		},
		Final: map[string]string{
			"InvalidObjectState":                  "{resource} is archived: restore it to a class that can be read at once",
			"PermanentRedirect TemporaryRedirect": "set aws.region to the bucket's region",
		},
	},
}

// validBucket applies S3's naming rules as far as a host name depends on them.
func validBucket(b string) bool {
	if len(b) < 3 || len(b) > 63 {
		return false
	}
	for i := range len(b) {
		c := b[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '.' {
			return false
		}
	}
	return true
}

// objectURL returns the URL of an object: the bucket in the host name, but for
// configured endpoints and for buckets whose dots the wildcard certificate does
// not cover.
func objectURL(s Source, endpoint *url.URL, configured bool) *url.URL {
	u, key := *endpoint, s.Name
	if configured || strings.Contains(s.Bucket, ".") {
		key = s.Bucket + "/" + key
	} else {
		u.Host = s.Bucket + "." + u.Host
	}
	u.Path, u.RawPath = "/"+key, "/"+escape(key)
	if s.Version != "" {
		u.RawQuery = url.Values{"versionId": {s.Version}}.Encode()
	}
	return &u
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
