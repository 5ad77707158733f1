package ec2sim

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// canonicalRequest rebuilds what was signed. S3 signs its paths as sent, the
// others normalize and encode them once more.
func canonicalRequest(r *http.Request, signed []string, payload string, s3 bool) (string, *authError) {
	if aerr := checkSigned(r, signed); aerr != nil {
		return "", aerr
	}
	path, query, _ := strings.Cut(r.RequestURI, "?")
	decoded, err := url.PathUnescape(path)
	if err != nil {
		return "", &authError{problem: authMismatch}
	}
	path = encode(decoded, true)
	if !s3 {
		path = encode(encode(removeDots(decoded), true), true)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n%s\n%s\n", r.Method, path, canonicalQuery(query))
	for _, name := range signed {
		fmt.Fprintf(&b, "%s:%s\n", name, headerValue(r, name))
	}
	fmt.Fprintf(&b, "\n%s\n%s", strings.Join(signed, ";"), payload)
	return b.String(), nil
}

// checkSigned checks that the list of signed headers is in order and has all that
// must be in it: Host and every X-Amz- header.
func checkSigned(r *http.Request, signed []string) *authError {
	if !slices.IsSorted(signed) || !slices.Contains(signed, "host") {
		return &authError{problem: authIncomplete, message: "'Host' or ':authority' must be a 'SignedHeader' in the AWS Authorization."}
	}
	for name := range r.Header {
		name = strings.ToLower(name)
		if strings.HasPrefix(name, "x-amz-") && !slices.Contains(signed, name) {
			return &authError{problem: authUnsigned, message: name}
		}
	}
	return nil
}

// headerValue is a header in canonical form: values joined by commas, runs of
// spaces made one.
func headerValue(r *http.Request, name string) string {
	switch name {
	case "host":
		return r.Host
	case "content-length":
		return strconv.FormatInt(r.ContentLength, 10)
	case "transfer-encoding":
		return strings.Join(r.TransferEncoding, ",")
	}
	values := slices.Clone(r.Header.Values(name))
	for i, v := range values {
		values[i] = strings.Join(strings.FieldsFunc(v, func(r rune) bool { return r == ' ' }), " ")
	}
	return strings.Join(values, ",")
}

func canonicalQuery(raw string) string {
	if raw == "" {
		return ""
	}
	var pairs [][2]string
	for _, p := range strings.Split(raw, "&") {
		k, v, _ := strings.Cut(p, "=")
		if du, err := url.PathUnescape(k); err == nil {
			k = du
		}
		if du, err := url.PathUnescape(v); err == nil {
			v = du
		}
		pairs = append(pairs, [2]string{encode(k, false), encode(v, false)})
	}
	slices.SortFunc(pairs, func(a, b [2]string) int { return slices.Compare(a[:], b[:]) })
	var b strings.Builder
	for i, p := range pairs {
		if i > 0 {
			b.WriteByte('&')
		}
		b.WriteString(p[0] + "=" + p[1])
	}
	return b.String()
}

// encode percent-encodes all but RFC 3986's unreserved characters, and slashes if told so.
func encode(s string, keepSlash bool) string {
	var b strings.Builder
	for i := range len(s) {
		ch := s[i]
		switch {
		case ch >= 'a' && ch <= 'z', ch >= 'A' && ch <= 'Z', ch >= '0' && ch <= '9',
			strings.IndexByte("-._~", ch) >= 0, ch == '/' && keepSlash:
			b.WriteByte(ch)
		default:
			fmt.Fprintf(&b, "%%%02X", ch)
		}
	}
	return b.String()
}

// removeDots removes empty and dot segments from a path (RFC 3986, section 5.2.4).
func removeDots(path string) string {
	var out []string
	segments := strings.Split(path, "/")
	for _, s := range segments {
		switch s {
		case "", ".":
		case "..":
			out = out[:max(0, len(out)-1)]
		default:
			out = append(out, s)
		}
	}
	clean := "/" + strings.Join(out, "/")
	if last := segments[len(segments)-1]; len(out) > 0 && (last == "" || last == "." || last == "..") {
		clean += "/"
	}
	return clean
}
