package account

import (
	"context"
	"errors"
	"fmt"
	"time"

	"unlock/cmd/unlockctl/internal/places"
	"unlock/internal/aws/arn"
	"unlock/internal/config"
	"unlock/internal/keys"
	"unlock/internal/keys/source"
)

// ErrExists: there is a ciphertext in this place already.
var ErrExists = errors.New("there is something already")

// Object is a ciphertext in its place.
type Object struct {
	Ciphertext []byte
	Version    string // as the place has it, or "" where there are no versions

	etag string // of S3
}

// Place is where a ciphertext is kept. All kinds write a whole ciphertext or
// none of it.
type Place interface {
	// Read returns what is there.
	Read(ctx context.Context) (Object, error)
	// Create writes where nothing is; ErrExists otherwise.
	Create(ctx context.Context, ciphertext []byte) (Object, error)
	// Replace writes over what old was read from, and says where that remains. It
	// refuses if something else is there meanwhile, where the place can tell.
	Replace(ctx context.Context, old Object, ciphertext []byte) (now Object, kept string, err error)
}

// Place returns the place that a source of the configuration names. key is the ARN
// of the KMS key, whose region is used where none was chosen.
func (a *Account) Place(s source.Source, key string) (Place, error) {
	region := a.region
	if region == "" {
		region = s.ARN.Region
	}
	if region == "" {
		region = arn.Region(key)
	}
	if !s.Kind.Sealed() {
		return nil, fmt.Errorf("%q is not a place for a ciphertext: use %s", s, source.Forms("or", (*source.Kind).Sealed))
	}
	p, err := places.Of(s.Kind)
	if err != nil {
		return nil, err
	}
	switch s.Kind {
	case source.S3:
		return &s3Place{a, s, p, region}, nil
	case source.File:
		return filePlace(s.Name), nil
	}
	return &jsonPlace{a, s, region, p, places.Words{Key: config.Key{Source: s}}}, nil
}

// stamp names what is put aside.
func stamp() string { return time.Now().UTC().Format("20060102T150405.000Z") }

func checked(o Object, where string) (Object, error) {
	if n := len(o.Ciphertext); n == 0 || n > keys.MaxCiphertext {
		return Object{}, fmt.Errorf("%s holds %d bytes: not a ciphertext of KMS", where, n)
	}
	return o, nil
}
