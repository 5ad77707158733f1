// Package source describes the key sources, one file each: how a source is written
// in the configuration, what is asked of AWS for the ciphertext, and how the answer
// is read. It opens and asks nothing itself, which package keys does; what only the
// administrator's tool needs to know of a source stands in cmd/unlockctl/internal/places.
package source

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"unlock/internal/aws/arn"
)

// Kinds lists all kinds of source in the order of messages. One that is added needs a
// file here, one in cmd/unlockctl/internal/places, and its name in this line.
var Kinds = []*Kind{S3, File, SSM, SecretsManager, Header, Ephemeral}

// Kind is a kind of source.
type Kind struct {
	Name   string  // what it begins with, and the name of the service: "ssm"
	Form   string  // "ssm:NAME", for messages
	rule   string  // what the form does not say
	Remote *Remote // what is asked of AWS; nil: nothing
	Pins   bool    // version_id names one of several versions

	// Parse reads what follows the name and the colon into s, and reports whether it
	// is of the form. nil: nothing may follow.
	Parse func(s *Source, location string) bool
}

// Source returns the source of a kind that needs no more words.
func (k *Kind) Source() Source { return Source{Kind: k, text: k.Name} }

// Sealed reports whether a ciphertext is kept outside the volume's disks.
func (k *Kind) Sealed() bool { return k != Header && k != Ephemeral }

// Services lists the services of AWS that are asked for ciphertexts, as people call
// them.
func Services() []string {
	var list []string
	for _, k := range Kinds {
		if k.Remote != nil {
			list = append(list, k.Remote.Service)
		}
	}
	return list
}

// Remote is how AWS is asked for a ciphertext, and what the answers mean.
type Remote struct {
	Service   string // as people call it: "SSM"
	Operation string // "GetParameter"
	Action    string // IAM's name of it
	Pinned    string // that for a version that version_id names, if it is another
	Target    string // of the JSON protocol; "": S3's
	Input     func(s Source) any
	URL       func(s Source, endpoint *url.URL, configured bool) *url.URL // nil: the endpoint's; configured: aws.endpoint names it

	// Read takes the ciphertext, and the version that it is, out of an answer. Unless
	// it is ErrMalformed, an error says why there is no ciphertext.
	Read func(h http.Header, body []byte) (data []byte, version string, err error)
	Put  string // how the output of aws kms encrypt is put there, for hints

	// Hints for AWS' codes of refusals, those separated by blanks alike: Late may be
	// otherwise in a while, Final will not. "{resource}", "{version}", "{action}",
	// "{region}" and "{role}" are filled in.
	Late, Final map[string]string
}

// Source is where a key's ciphertext comes from. Two are the same if == says so. The
// zero value is none.
type Source struct {
	Kind    *Kind
	Bucket  string  // S3
	Name    string  // of object, parameter, …; the path of a file
	Version string  // "": the current one
	ARN     arn.ARN // of what was named by one
	text    string
}

// String returns the source as the configuration has it, without version_id.
func (s Source) String() string { return s.text }

// InHeader reports whether the ciphertext is in the volume's own header.
func (s Source) InHeader() bool { return s.Kind == Header }

// Random reports whether there is no ciphertext: the key is made, used, and forgotten.
func (s Source) Random() bool { return s.Kind == Ephemeral }

// Action is IAM's name for reading the ciphertext, "" if that is not AWS'.
func (s Source) Action() string {
	r := s.Kind.Remote
	if r == nil {
		return ""
	}
	if s.Kind.Pins && s.Version != "" && r.Pinned != "" {
		return r.Pinned
	}
	return r.Action
}

// Parse reads a source.
func Parse(text string) (Source, error) {
	name, location, located := strings.Cut(text, ":")
	for _, k := range Kinds {
		if k.Name != name {
			continue
		}
		s := Source{Kind: k, text: text}
		if located != (k.Parse != nil) || located && !k.Parse(&s, location) {
			return Source{}, fmt.Errorf("key source %q is not %s%s", text, k.Form, k.rule)
		}
		return s, nil
	}
	return Source{}, fmt.Errorf("%q: not a key source", text)
}

// MustParse is Parse for constants; it panics.
func MustParse(text string) Source {
	s, err := Parse(text)
	if err != nil {
		panic(err)
	}
	return s
}

// Forms lists the forms of those kinds that which approves of, for messages: "a, b
// CONJUNCTION c".
func Forms(conjunction string, which func(*Kind) bool) string {
	var forms []string
	for _, k := range Kinds {
		if which(k) {
			forms = append(forms, k.Form)
		}
	}
	return List(conjunction, forms)
}

// Any approves of all kinds.
func Any(*Kind) bool { return true }

// List joins words for messages: "a, b CONJUNCTION c".
func List(conjunction string, words []string) string {
	if n := len(words) - 1; n > 0 {
		return strings.Join(words[:n], ", ") + " " + conjunction + " " + words[n]
	}
	return strings.Join(words, "")
}

// ErrMalformed: an answer is not one of the service.
var ErrMalformed = errors.New("decoding the answer")
