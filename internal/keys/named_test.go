package keys_test

import (
	"maps"
	"strings"
	"testing"

	"unlock/internal/config"
	"unlock/internal/keys"
	"unlock/test/ec2sim"
)

// TestNamedContext: a context that names the instance opens there, and nowhere else.
func TestNamedContext(t *testing.T) {
	t.Parallel()
	i := newInstance(t, ec2sim.Config{})
	first, firstClient := i.md, i.keys
	who, err := first.AwaitInstance(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	named := func(scheme string) config.Key {
		k := i.config(t, scheme)
		k.Context = map[string]string{"host": "${region}/${account}/${instance-id}", "purpose": "$${volume}"}
		return k
	}
	ec := map[string]string{"host": "us-east-1/" + who.Account + "/" + who.ID, "purpose": "${volume}"}

	sealed := named("s3")
	i.PutObject(sealed.Source.Bucket, sealed.Source.Name, i.Encrypt(i.key, []byte(password), ec))
	header := named("header")
	_, blob, _, err := i.keys.Generate(t.Context(), header, thisSet)
	if err != nil {
		t.Fatal(err)
	}
	if want := keys.Bound(ec, thisSet); !maps.Equal(blob.Context, want) {
		t.Errorf("the data key was made with %v, want %v", blob.Context, want)
	}
	i.boot(t, config.AWS{}) // another instance
	for name, row := range map[string]struct {
		client *keys.Client
		key    config.Key
		hint   string // "": it opens
	}{
		"sealed, here":      {firstClient, sealed, ""},
		"sealed, elsewhere": {i.keys, sealed, "or it is another instance's"},
		"header, here":      {firstClient, header, ""},
		"header, elsewhere": {i.keys, header, "made with context host=us-east-1/" + who.Account + "/" + who.ID + ", purpose=${volume}"},
	} {
		t.Run(name, func(t *testing.T) {
			w := keys.Want{Key: row.key}
			if row.key.Source == header.Source {
				w.Set, w.Blob = thisSet, blob
			}
			got, err := row.client.Get(t.Context(), w)
			got.Passphrase.Wipe()
			switch {
			case row.hint == "" && err != nil:
				t.Errorf("it does not open: %v", err)
			case row.hint != "" && (err == nil || !strings.Contains(err.Error(), "InvalidCiphertextException")):
				t.Errorf("error = %v", err)
			case row.hint != "" && !strings.Contains(hintOf(err), row.hint):
				t.Errorf("hint = %q, want %q in it", hintOf(err), row.hint)
			}
		})
	}
}
