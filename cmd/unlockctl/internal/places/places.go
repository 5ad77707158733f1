// Package places holds what only the administrator's tool needs to know of each key
// source, as data, a file for each: what the manual says of it, what a policy allows,
// how seal writes to it, and what to do about the answers to that. What a boot needs
// to know is in package source. S3 and files are written to by code, in package
// account.
package places

import (
	"bytes"
	"embed"
	"encoding/base64"
	"fmt"
	"io/fs"
	"strings"

	"github.com/pelletier/go-toml/v2"

	"unlock/internal/aws/arn"
	"unlock/internal/config"
	"unlock/internal/keys/source"
)

// Place is what is in a file. In its patterns "{bucket}", "{name}", "{version}", and
// "{partition}", "{region}" and "{account}" of ARNs stand for themselves; "{id}" is the
// name, or the ARN where the source is one; "{path}" the name without a slash before it;
// "{resource}" the source; "{base64}" the ciphertext; "{token}" a random word for
// requests that may be repeated.
type Place struct {
	Text        string            // for unlock.toml(5), after the form
	Environment string            // the service's part of AWS_ENDPOINT_URL_…; "": its name
	Resource    string            // the ARN for policies
	ByARN       string            // the same for what is configured by its ARN; "": Resource
	Why         string            // what the statement is for
	Create      *Write            // nil: seal does not write there, or by code
	Replace     *Write            // over what is there
	Kept        string            // where the old ciphertext is after that
	Hints       map[string]string // by AWS' codes, those separated by blanks alike; "{resource}" is the source
	Trail       *Trail            // how CloudTrail records who read it; nil: not, or by code
}

// Write is a request of the JSON protocol.
type Write struct {
	Action  string         // IAM's name
	Target  string         // of the protocol
	Input   map[string]any // strings in it are patterns
	Exists  string         // the code that says that there is one
	Version string         // the field of the answer that holds the version
}

// Trail says where CloudTrail's records have a name, and which operations give the
// ciphertext away.
type Trail struct {
	Fields []string // of requestParameters: a name or ARN, or a list of them
	Type   string   // what an ARN has before the name
	Reads  []string
	Random int // characters that AWS adds to the name in an ARN
}

// Names reports whether what a record has, a name or an ARN, perhaps with a version,
// is that name.
func (t *Trail) Names(recorded, name string) bool {
	recorded, name = strings.TrimPrefix(recorded, "/"), strings.TrimPrefix(name, "/")
	if a, err := arn.Parse(recorded); err == nil {
		recorded = strings.TrimPrefix(a.Resource, t.Type)
		if n := len(recorded) - t.Random; t.Random > 0 && n > 0 && recorded[:n] == name {
			return true
		}
	}
	recorded, _, _ = strings.Cut(recorded, ":")
	return recorded == name
}

//go:embed *.toml
var embedded embed.FS

// files holds a file for each kind of source.
var files fs.FS = embedded

// Of returns what the tool knows of a kind of source.
func Of(k *source.Kind) (Place, error) {
	var p Place
	data, err := fs.ReadFile(files, k.Name+".toml")
	if err == nil {
		err = toml.NewDecoder(bytes.NewReader(data)).DisallowUnknownFields().Decode(&p)
	}
	if err != nil {
		return p, fmt.Errorf("unlockctl knows nothing of %s sources: %w", k.Name, err)
	}
	return p, nil
}

// Words fill patterns for a key's ciphertext, in the region that the configuration
// gives.
type Words struct {
	Key        config.Key
	Region     string // of the configuration
	Ciphertext []byte
	Version    string
	Token      string              // random, of 32 characters
	Escape     func(string) string // applied to what is filled in; nil: nothing
}

// Fill fills a pattern.
func (w Words) Fill(pattern string) string {
	s, in := w.Key.Source, w.Key.Home()
	if s.ARN == (arn.ARN{}) && w.Region != "" {
		in.Region = w.Region
	}
	id := s.Name
	if s.ARN != (arn.ARN{}) {
		id = s.ARN.String()
	}
	words := []string{"{id}", id, "{token}", w.Token, "{partition}", in.Partition, "{region}", in.Region, "{account}", in.Account, "{bucket}", s.Bucket,
		"{name}", s.Name, "{path}", strings.TrimPrefix(s.Name, "/"), "{version}", w.Version, "{resource}", s.String(),
		"{base64}", base64.StdEncoding.EncodeToString(w.Ciphertext)}
	for i := 1; i < len(words) && w.Escape != nil; i += 2 {
		words[i] = w.Escape(words[i])
	}
	return strings.NewReplacer(words...).Replace(pattern)
}

// Input returns the request's, filled in.
func (w Words) Input(in map[string]any) map[string]any {
	out := map[string]any{}
	for name, value := range in {
		if text, ok := value.(string); ok {
			value = w.Fill(text)
		}
		out[name] = value
	}
	return out
}

// ARN returns what policies call a source's ciphertext, "" if it is not in AWS.
func (p Place) ARN(w Words) string {
	if w.Key.Source.ARN != (arn.ARN{}) && p.ByARN != "" {
		return w.Fill(p.ByARN)
	}
	return w.Fill(p.Resource)
}

// Hint returns what to do about a code of AWS, or "".
func (p Place) Hint(code string, s source.Source) string {
	for codes, hint := range p.Hints {
		for c := range strings.FieldsSeq(codes) {
			if c == code {
				return Words{Key: config.Key{Source: s}}.Fill(hint)
			}
		}
	}
	return ""
}
