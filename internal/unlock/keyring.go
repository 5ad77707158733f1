package unlock

import (
	"context"
	"slices"
	"sync"

	"unlock/internal/aws/arn"
	"unlock/internal/keys"
	"unlock/internal/keys/source"
	"unlock/internal/luks"
	"unlock/internal/plan"
	"unlock/internal/secret"
	"unlock/internal/status"
)

// Keys gets a key, as the method Get of a *keys.Client does.
type Keys func(ctx context.Context, w keys.Want) (keys.Got, error)

// key is a passphrase and where it came from.
type key struct {
	want  keys.Want
	ready chan struct{} // closed when what follows is set

	passphrase *secret.Bytes
	deriver    *luks.Deriver // from it; nil if err is not
	blob       *keys.Blob    // of a new data key
	pcr4       string        // of this boot, if it is attested
	kmsKey     string
	requests   []string // ids of those that AWS answered
	err        error
}

// keyring gets each key once, however many steps need it, and wipes them all in
// the end.
type keyring struct {
	keys Keys
	rec  *status.Recorder
	log  func(format string, args ...any)

	mu  sync.Mutex
	all []*key
}

// get returns the key of a step, which stays the keyring's.
func (r *keyring) get(ctx context.Context, s *plan.Step) (*key, error) {
	k, first := r.find(wanted(s))
	if first {
		if r.fetch(ctx, k); k.err == nil {
			k.deriver = luks.NewDeriver(k.passphrase)
		}
		close(k.ready)
	}
	<-k.ready
	return k, k.err
}

// find returns the one key for a want; first says that the caller has to fetch it.
func (r *keyring) find(w keys.Want) (k *key, first bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	i := slices.IndexFunc(r.all, func(k *key) bool { return k.want.Equal(w) })
	if i >= 0 {
		return r.all[i], false
	}
	k = &key{want: w, ready: make(chan struct{})}
	r.all = append(r.all, k)
	return k, true
}

// wanted is the key of a step. Steps share one that is kept outside the disks.
func wanted(s *plan.Step) keys.Want {
	w := keys.Want{Key: s.Volume.Key}
	if !s.Format {
		w.PCR4 = formattedBy(&s.Members[0])
	}
	switch w.Key.Source.Kind {
	case source.Ephemeral:
		w.Set = s.Set
	case source.Header:
		w.Set, w.New = s.Set, s.Format
		if t := s.Members[0].LUKS; !w.New {
			w.Blob = keys.Blob{Ciphertext: t.KMS.Ciphertext, KeyARN: t.KMS.Key, Context: t.KMS.Context}
		}
	}
	return w
}

func (r *keyring) fetch(ctx context.Context, k *key) {
	w := k.want
	if w.Key.Source.Kind == source.Ephemeral {
		k.passphrase = keys.Random()
		return
	}
	var got keys.Got
	_ = r.rec.Step("key", w.Key.Source.String(), func() error {
		got, k.err = r.keys(ctx, w)
		return k.err
	})
	k.passphrase, k.blob, k.pcr4 = got.Passphrase, got.Blob, got.PCR4
	for _, c := range got.Calls {
		r.rec.Called(status.Call{Service: c.Service, Operation: c.Operation, KeyARN: c.KeyARN, RequestID: c.RequestID, Attempts: c.Attempts,
			Start: r.rec.Since(c.Start), Duration: status.Millis(c.Duration)})
		k.requests = append(k.requests, c.RequestID)
		if c.KeyARN != "" {
			k.kmsKey = c.KeyARN
			r.log("key %s: KMS %s under %s, request %s", w.Key.Source, c.Operation, c.KeyARN, c.RequestID)
		}
	}
}

func (r *keyring) wipe() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, k := range r.all {
		<-k.ready
		k.deriver.Wipe()
		k.passphrase.Wipe()
	}
}

// kmsToken stores a blob in a header.
func kmsToken(b *keys.Blob) *luks.KMSToken {
	return &luks.KMSToken{Version: 1, Ciphertext: b.Ciphertext, Key: b.KeyARN, Context: b.Context, Region: arn.Region(b.KeyARN)}
}
