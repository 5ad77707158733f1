package unlock

import (
	"context"
	"fmt"
	"sync"

	"unlock/internal/aws"
	"unlock/internal/config"
	"unlock/internal/keys"
	"unlock/internal/luks"
	"unlock/internal/plan"
	"unlock/internal/secret"
	"unlock/internal/status"
)

// Keys is what Apply needs of a *keys.Client.
type Keys interface {
	Open(ctx context.Context, k config.Key) (*secret.Bytes, []aws.Call, error)
	OpenBlob(ctx context.Context, k config.Key, set string, b keys.Blob) (*secret.Bytes, []aws.Call, error)
	Generate(ctx context.Context, k config.Key, set string) (*secret.Bytes, keys.Blob, []aws.Call, error)
}

// key is a passphrase and where it came from.
type key struct {
	passphrase *secret.Bytes
	deriver    *luks.Deriver // from it; nil if err is not
	blob       *keys.Blob    // of a new data key
	kmsKey     string
	err        error
}

// keyring gets each key once, however many steps need it, and wipes them all in
// the end.
type keyring struct {
	keys Keys
	rec  *status.Recorder
	log  func(format string, args ...any)

	mu  sync.Mutex
	got map[string]func() *key
}

// get returns the key of a step, which stays the keyring's.
func (r *keyring) get(ctx context.Context, s *plan.Step) (*key, error) {
	id := keyID(s)
	r.mu.Lock()
	once := r.got[id]
	if once == nil {
		once = sync.OnceValue(func() *key {
			k := r.fetch(ctx, s)
			if k.err == nil {
				k.deriver = luks.NewDeriver(k.passphrase)
			}
			return k
		})
		if r.got == nil {
			r.got = map[string]func() *key{}
		}
		r.got[id] = once
	}
	r.mu.Unlock()
	k := once()
	return k, k.err
}

// keyID is equal for steps that share a key.
func keyID(s *plan.Step) string {
	k := s.Volume.Key
	switch {
	case k.Source == config.SourceEphemeral:
		return "ephemeral " + s.Name
	case k.Source != config.SourceHeader:
		return fmt.Sprintf("%s %s %q %q", k.Source, k.VersionID, k.KMSKeys, k.Context)
	case s.Format:
		return "new " + s.Set
	}
	return fmt.Sprintf("header %s %x %q %q", s.Set, s.Members[0].LUKS.KMS.Ciphertext, k.KMSKeys, k.Context)
}

func (r *keyring) fetch(ctx context.Context, s *plan.Step) *key {
	k := &key{}
	if s.Volume.Key.Source == config.SourceEphemeral {
		k.passphrase = keys.Random()
		return k
	}
	var calls []aws.Call
	_ = r.rec.Step("key", string(s.Volume.Key.Source), func() error {
		switch {
		case s.Volume.Key.Source != config.SourceHeader:
			k.passphrase, calls, k.err = r.keys.Open(ctx, s.Volume.Key)
		case s.Format:
			var b keys.Blob
			k.passphrase, b, calls, k.err = r.keys.Generate(ctx, s.Volume.Key, s.Set)
			k.blob = &b
		default:
			t := s.Members[0].LUKS.KMS
			k.passphrase, calls, k.err = r.keys.OpenBlob(ctx, s.Volume.Key, s.Set, keys.Blob{Ciphertext: t.Ciphertext, KeyARN: t.Key, Context: t.Context})
		}
		return k.err
	})
	for _, c := range calls {
		r.rec.Called(status.Call{Service: c.Service, Operation: c.Operation, KeyARN: c.KeyARN, RequestID: c.RequestID, Attempts: c.Attempts})
		if c.KeyARN != "" {
			k.kmsKey = c.KeyARN
			r.log("key %s: KMS %s under %s, request %s", s.Volume.Key.Source, c.Operation, c.KeyARN, c.RequestID)
		}
	}
	return k
}

func (r *keyring) wipe() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, once := range r.got {
		k := once()
		k.deriver.Wipe()
		k.passphrase.Wipe()
	}
}

// kmsToken stores a blob in a header.
func kmsToken(b *keys.Blob) *luks.KMSToken {
	return &luks.KMSToken{Version: 1, Ciphertext: b.Ciphertext, Key: b.KeyARN, Context: b.Context, Region: keys.RegionOf(b.KeyARN)}
}
