package luks_test

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"unlock/internal/luks"
)

// TestChangeByTurns: here and there each change what the other has written.
func TestChangeByTurns(t *testing.T) {
	t.Parallel()
	const size = 24 << 20
	f := image(t, size)
	kms := luks.KMSToken{Version: 1, Ciphertext: []byte{0xfb, 0xff, 0xfe}, Key: "arn:aws:kms:eu-west-1:111122223333:key/x", Region: "eu-west-1", Context: map[string]string{"a": "<b>"}}
	set := luks.SetToken{Version: 1, UUID: testUUID, Index: 1, Count: 2, Chunk: 65536, State: luks.StateForming}
	if _, err := luks.Format(f, size, pass(t, "first"), luks.FormatOptions{UUID: testUUID, SectorSize: 512, KMS: &kms, Set: &set}); err != nil {
		t.Fatal(err)
	}
	read := func() *luks.Header {
		t.Helper()
		h, err := luks.Read(f, size, luks.Limits{})
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	here := func(passphrase string, want bool) {
		t.Helper()
		p, err := read().Open(t.Context(), pass(t, passphrase))
		if err != nil && !errors.Is(err, luks.ErrPassphrase) {
			t.Fatal(err)
		}
		p.Wipe()
		if (err == nil) != want {
			t.Errorf("%q opens here: %v, want %v", passphrase, err == nil, want)
		}
		if out, err := tryCryptsetup(t, passphrase, "open", "--test-passphrase", "--key-file=-", f.Name()); (err == nil) != want {
			t.Errorf("%q opens there: %v, want %v\n%s", passphrase, err == nil, want, out)
		}
	}
	here("first", true)

	// There: a keyslot, a label, a token of another type.
	key := t.TempDir() + "/second"
	if err := os.WriteFile(key, []byte("second"), 0o600); err != nil {
		t.Fatal(err)
	}
	cryptsetup(t, "first", "luksAddKey", "-q", "--pbkdf", "argon2id", "--pbkdf-memory", "256", "--pbkdf-force-iterations", "4", "--key-file=-", f.Name(), key)
	cryptsetup(t, "", "config", "--label", "there", f.Name())
	cryptsetup(t, `{"type":"clevis","keyslots":["1"],"jwe":{}}`, "token", "import", f.Name())
	here("first", true)
	here("second", true)
	if h := read(); h.Label() != "there" || !slices.Equal(h.Keyslots(), []int{0, 1}) || len(h.Notes()) != 0 {
		t.Errorf("label %q, keyslots %v, notes %q", h.Label(), h.Keyslots(), h.Notes())
	}

	// Here: a keyslot and the state; there: the tokens are what they were.
	if id, err := read().AddKeyslot(t.Context(), f, pass(t, "second"), pass(t, "third"), false); err != nil || id != 2 {
		t.Fatalf("AddKeyslot = %d, %v", id, err)
	}
	set.State = luks.StateReady
	if err := read().PutSet(f, set); err != nil {
		t.Fatal(err)
	}
	here("third", true)
	const wantKMS = `{"type":"aws-kms","keyslots":["0"],"v":1,"ciphertext":"+//+","key":"arn:aws:kms:eu-west-1:111122223333:key/x","region":"eu-west-1","context":{"a":"<b>"}}`
	if got, ok := read().ReadToken(0); string(got) != wantKMS || !ok {
		t.Errorf("ReadToken(0) = %s, want %s", got, wantKMS)
	}
	if got := cryptsetup(t, "", "token", "export", "--token-id", "0", f.Name()); !strings.Contains(got, `"ciphertext":"+\/\/+"`) && !strings.Contains(got, `"ciphertext":"+//+"`) {
		t.Errorf("token export = %s", got)
	}
	if got, ok, err := read().Set(); got != set || !ok || err != nil {
		t.Errorf("Set() = %+v, %v, %v, want %+v", got, ok, err, set)
	}
	if got, ok, err := read().KMS(); !slices.Equal(got.Ciphertext, kms.Ciphertext) || got.Context["a"] != "<b>" || !ok || err != nil {
		t.Errorf("KMS() = %+v, %v, %v", got, ok, err)
	}

	// Kill by turns.
	cryptsetup(t, "", "luksKillSlot", "-q", f.Name(), "0")
	here("first", false)
	if got, _, _ := read().KMS(); len(got.Keyslots) != 0 {
		t.Errorf("the token still names keyslots %v", got.Keyslots)
	}
	if err := read().KillKeyslot(f, 1); err != nil {
		t.Fatal(err)
	}
	here("second", false)
	here("third", true)
	if got := cryptsetup(t, "", "token", "export", "--token-id", "2", f.Name()); !strings.Contains(got, `"keyslots":[]`) {
		t.Errorf("token export = %s", got)
	}
	if err := read().RemoveToken(f, 2); err != nil {
		t.Fatal(err)
	}
	if out, err := tryCryptsetup(t, "", "token", "export", "--token-id", "2", f.Name()); err == nil {
		t.Errorf("the removed token is still there: %s", out)
	}

	// Damage a copy; repair here and there.
	for _, at := range []int64{0, 16 << 10} {
		for _, repair := range []func(){
			func() {
				h := read()
				p, err := h.Open(t.Context(), pass(t, "third"))
				if err != nil {
					t.Fatal(err)
				}
				p.Wipe()
				if err := h.Repair(f); err != nil {
					t.Fatal(err)
				}
			},
			func() { cryptsetup(t, "", "repair", "-q", f.Name()) },
		} {
			if _, err := f.WriteAt(make([]byte, 4096), at); err != nil {
				t.Fatal(err)
			}
			if n := read().Notes(); len(n) != 1 || !strings.Contains(n[0], "damaged") {
				t.Errorf("Notes() = %q", n)
			}
			repair()
			if n := read().Notes(); len(n) != 0 {
				t.Errorf("Notes() after repair = %q", n)
			}
			here("third", true)
		}
	}
}

// TestTokens: what makes no sense is an error, never another meaning.
func TestTokens(t *testing.T) {
	t.Parallel()
	const set = `{"type":"unlock-set","keyslots":[],"v":1,"uuid":"x","index":0,"count":1,"state":"ready"}`
	const kms = `{"type":"aws-kms","keyslots":["0"],"v":1,"ciphertext":"AAAA"}`
	tests := []struct {
		name   string
		tokens []string
		want   string // in the error of KMS or Set
	}{
		{"none", nil, ""},
		{"both", []string{set, kms}, ""},
		{"unknown members", []string{strings.Replace(set, "{", `{"y":1,`, 1)}, ""},
		{"two sets", []string{set, set}, "two unlock-set tokens, 0 and 1"},
		{"two keys", []string{kms, kms}, "two aws-kms tokens, 0 and 1"},
		{"version 2 of a set", []string{strings.Replace(set, `"v":1`, `"v":2`, 1)}, "version 2 is not 1"},
		{"version 2 of a key", []string{strings.Replace(kms, `"v":1`, `"v":2`, 1)}, "version 2 is not 1"},
		{"STATE", []string{strings.Replace(set, `"y"`, `"y"`, 1), strings.Replace(kms, `"v"`, `"V":1,"v"`, 1)}, `member "V" is not "v"`},
		{"state in another case", []string{strings.Replace(set, `"state"`, `"State":"forming","state"`, 1)}, `member "State" is not "state"`},
		{"unknown state", []string{strings.Replace(set, "ready", "blank", 1)}, `unknown state "blank"`},
		{"no state", []string{strings.Replace(set, `,"state":"ready"`, "", 1)}, `unknown state ""`},
		{"index beyond count", []string{strings.Replace(set, `"index":0`, `"index":1`, 1)}, "index 1 of 1 members"},
		{"negative index", []string{strings.Replace(set, `"index":0`, `"index":-1`, 1)}, "index -1 of 1 members"},
		{"no count", []string{strings.Replace(set, `"count":1,`, ``, 1)}, "index 0 of 0 members"},
		{"negative chunk", []string{strings.Replace(set, `"count":1`, `"count":1,"chunk":-1`, 1)}, "chunk of -1 bytes"},
		{"index of another type", []string{strings.Replace(set, `"index":0`, `"index":"0"`, 1)}, "unlock-set token 0"},
		{"no ciphertext", []string{strings.Replace(kms, "AAAA", "", 1)}, "no ciphertext"},
		{"ciphertext that is not base64", []string{strings.Replace(kms, "AAAA", "A", 1)}, "aws-kms token 0"},
	}
	f := image(t, 24<<20)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h, err := luks.Format(f, 24<<20, pass(t, "first"), luks.FormatOptions{UUID: testUUID, SectorSize: 4096})
			if err != nil {
				t.Fatal(err)
			}
			for _, raw := range tt.tokens {
				if _, err := h.PutToken(f, -1, []byte(raw)); err != nil {
					t.Fatal(err)
				}
			}
			_, _, err1 := h.KMS()
			_, _, err2 := h.Set()
			err = errors.Join(err1, err2)
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
		})
	}
}
