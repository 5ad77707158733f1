package luks_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"os"
	"strings"
	"testing"

	"unlock/internal/dm"
	"unlock/internal/hint"
	"unlock/internal/luks"
	"unlock/internal/luks/luks2"
)

// TestKinds: volumes of all kinds that the README says are opened give the key that
// cryptsetup dumps.
func TestKinds(t *testing.T) {
	t.Parallel()
	pbkdf2 := []string{"--pbkdf-force-iterations", "1000"}
	const size = 20 << 20
	type kind struct {
		typ, cipher, keySize, hash string
		convert                    bool // from LUKS1 to LUKS2
	}
	rows := []kind{
		{"luks1", "aes-xts-plain64", "512", "sha256", true},
		{"luks1", "aes-xts-plain64", "512", "sha512", true},
		{"luks1", "aes-xts-plain64", "512", "ripemd160", true},
		{"luks1", "aes-cbc-essiv:sha256", "256", "sha1", true},
		{"luks1", "aes-cbc-essiv:sha256", "128", "sha1", false},
	}
	for _, c := range luks2.Ciphers() {
		size := "256"
		rows = append(rows, kind{"luks2", c, size, "sha256", false}, kind{"luks1", c, size, "sha256", false})
	}
	for _, h := range []string{"sha1", "sha224", "sha256", "sha384", "sha512", "sha3-224", "sha3-256", "sha3-384", "sha3-512",
		"blake2b-512", "blake2s-256", "ripemd160"} {
		rows = append(rows, kind{"luks2", "aes-xts-plain64", "512", h, false})
	}
	for _, k := range rows {
		name := strings.Join([]string{k.typ, k.cipher, k.keySize, k.hash}, " ")
		if k.convert {
			name += ", converted"
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := image(t, size)
			args := append([]string{"luksFormat", "-q", "--type", k.typ, "-c", k.cipher, "-s", k.keySize, "--hash", k.hash}, pbkdf2...)
			if k.typ == "luks2" {
				args = append(args, "--pbkdf", "pbkdf2")
			}
			cryptsetup(t, "open sesame", append(args, f.Name(), "-")...)
			if k.convert {
				cryptsetup(t, "", "convert", "-q", "--type", "luks2", f.Name())
			}
			h, err := luks.Read(f, size, luks.Limits{})
			if err != nil {
				t.Fatal(err)
			}
			p, err := h.Open(t.Context(), pass(t, "open sesame"))
			if err != nil {
				t.Fatal(err)
			}
			defer p.Wipe()
			if p.Cipher != k.cipher || !bytes.Equal(p.Key.Bytes(), dumpKey(t, f.Name(), "open sesame")) {
				t.Errorf("payload in %s, want %s, or another key than cryptsetup dumps", p.Cipher, k.cipher)
			}
			if p, err := h.Open(t.Context(), pass(t, "open barley")); err == nil {
				p.Wipe()
				t.Error("opens with a wrong passphrase")
			}
		})
	}
}

// edited returns a LUKS2 volume that opens with "open sesame", the metadata of which
// were changed.
func edited(t *testing.T, change func(doc map[string]any)) *os.File {
	t.Helper()
	const size = 20 << 20
	f := image(t, size)
	cryptsetup(t, "open sesame", "luksFormat", "-q", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000", f.Name(), "-")
	rewrite(t, f, change)
	return f
}

// member returns the object at a path.
func member(doc map[string]any, path ...string) map[string]any {
	for _, p := range path {
		doc = doc[p].(map[string]any)
	}
	return doc
}

// TestRefusedKinds: what is sound but not supported is refused with advice of its own,
// and only what is damaged is left to cryptsetup repair.
func TestRefusedKinds(t *testing.T) {
	t.Parallel()
	const size = 20 << 20
	luks1 := func(args ...string) func(t *testing.T) *os.File {
		return func(t *testing.T) *os.File {
			f := image(t, size)
			args := append([]string{"luksFormat", "-q", "--type", "luks1", "--pbkdf-force-iterations", "1000"}, args...)
			cryptsetup(t, "open sesame", append(args, f.Name(), "-")...)
			return f
		}
	}
	luks2 := func(change func(doc map[string]any)) func(t *testing.T) *os.File {
		return func(t *testing.T) *os.File { return edited(t, change) }
	}
	segment := func(name string, value any) func(t *testing.T) *os.File {
		return luks2(func(doc map[string]any) { member(doc, "segments", "0")[name] = value })
	}
	for name, row := range map[string]struct {
		make   func(t *testing.T) *os.File
		advice string // part of it
	}{
		"LUKS1 in another cipher": {luks1("-c", "aes-cbc-plain64", "-s", "256"), `cipher "aes-cbc-plain64" is not opened by unlock; cryptsetup opens it`},
		"LUKS1 in another hash":   {luks1("--hash", "whirlpool"), "hash is not one that unlock knows; cryptsetup opens it"},
		"another cipher":          {segment("encryption", "serpent-xts-plain64"), `cipher "serpent-xts-plain64" is not opened by unlock; cryptsetup opens it`},
		"integrity":               {segment("integrity", map[string]any{"type": "hmac(sha256)", "journal_encryption": "none", "journal_integrity": "none"}), "integrity protection"},
		"OPAL":                    {segment("type", "hw-opal-crypt"), "encrypt by themselves"},
		"detached":                {segment("offset", "0"), "detached"},
		"another segment":         {segment("type", "zoned"), "luksDump shows"},
		"digest in another hash":  {luks2(func(doc map[string]any) { member(doc, "digests", "0")["hash"] = "whirlpool" }), "hash is not one that unlock knows"},
		"re-encryption":           {luks2(func(doc map[string]any) { member(doc, "keyslots", "0")["type"] = "reencrypt" }), "cryptsetup reencrypt --resume-only"},
		"re-encryption, required": {luks2(func(doc map[string]any) {
			member(doc, "config")["requirements"] = map[string]any{"mandatory": []string{"online-reencrypt-v2"}}
		}), "cryptsetup reencrypt --resume-only"},
		"requirement of the future": {luks2(func(doc map[string]any) {
			member(doc, "config")["requirements"] = map[string]any{"mandatory": []string{"unheard-of"}}
		}), "luksDump shows"},
		"no keyslot that can be used": {luks2(func(doc map[string]any) { member(doc, "keyslots", "0", "kdf")["hash"] = "whirlpool" }), "luksAddKey --pbkdf pbkdf2"},
		"leftovers in the only keyslot": {luks2(func(doc map[string]any) { member(doc, "keyslots", "0", "kdf")["cpus"] = 4 }),
			"luksAddKey --pbkdf pbkdf2"},
		"only keyslot ignored": {luks2(func(doc map[string]any) { member(doc, "keyslots", "0")["priority"] = 0 }), "config --priority normal"},
		"damaged": {func(t *testing.T) *os.File {
			f := edited(t, func(map[string]any) {})
			for _, at := range []int64{5000, 16384 + 5000} {
				if _, err := f.WriteAt([]byte("x"), at); err != nil {
					t.Fatal(err)
				}
			}
			return f
		}, "cryptsetup repair may tell more"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h, err := luks.Read(row.make(t), size, luks.Limits{})
			if err == nil {
				var p *luks.Payload
				if p, err = h.Open(t.Context(), pass(t, "open sesame")); err == nil {
					p.Wipe()
					t.Fatal("opens")
				}
			}
			advice := hint.Of(err)
			if !strings.Contains(advice, row.advice) || strings.Contains(advice, "repair") && name != "damaged" {
				t.Errorf("%v: advice %q, want %q", err, advice, row.advice)
			}
		})
	}
}

// TestLeftovers: members that an old cryptsetup left in a keyslot do not hide the
// others (three images of cryptsetup's own tests).
func TestLeftovers(t *testing.T) {
	t.Parallel()
	for name, extra := range map[string]map[string]any{
		"pbkdf2 with members of argon2": {"time": 4, "memory": 1024, "cpus": 1},
		"argon2 with members of pbkdf2": {"type": "argon2i", "time": 4, "memory": 1024, "cpus": 1},
		"argon2 with one of them":       {"type": "argon2id", "time": 4, "memory": 1024, "cpus": 1, "hash": "sha256"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const size = 20 << 20
			f := image(t, size)
			cryptsetup(t, "open sesame", "luksFormat", "-q", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000", f.Name(), "-")
			key := f.Name() + ".key"
			if err := os.WriteFile(key, []byte("second"), 0o600); err != nil {
				t.Fatal(err)
			}
			cryptsetup(t, "open sesame", "luksAddKey", "-q", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000", "--key-file=-", f.Name(), key)
			rewrite(t, f, func(doc map[string]any) {
				kdf := member(doc, "keyslots", "0", "kdf")
				for k, v := range extra {
					kdf[k] = v
				}
			})
			h, err := luks.Read(f, size, luks.Limits{})
			if err != nil {
				t.Fatal(err)
			}
			p, err := h.Open(t.Context(), pass(t, "second"))
			if err != nil {
				t.Fatal(err)
			}
			p.Wipe()
			if len(h.Notes()) != 1 || !strings.Contains(h.Notes()[0], "keyslot 0 cannot be used") {
				t.Errorf("notes %q", h.Notes())
			}
		})
	}
}

// TestIgnoredKeyslot: a keyslot that is never tried does not count as one that opens
// the volume.
func TestIgnoredKeyslot(t *testing.T) {
	t.Parallel()
	f := image(t, 32<<20)
	h, err := luks.Format(f, 32<<20, pass(t, "first"), luks.FormatOptions{UUID: testUUID, SectorSize: 512})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.AddKeyslot(t.Context(), f, pass(t, "first"), pass(t, "second"), false); err != nil {
		t.Fatal(err)
	}
	cryptsetup(t, "", "config", "--priority", "ignore", "--key-slot", "1", f.Name())
	if h, err = luks.Read(f, 32<<20, luks.Limits{}); err != nil {
		t.Fatal(err)
	}
	if err := h.KillKeyslot(f, 0); err == nil || !strings.Contains(err.Error(), "last that opens") {
		t.Errorf("KillKeyslot of the last one that is tried = %v", err)
	}
	if err := h.KillKeyslot(f, 1); err != nil {
		t.Errorf("KillKeyslot of the one that is ignored = %v", err)
	}
}

// TestFlags: every persistent flag that cryptsetup knows comes through from a header.
func TestFlags(t *testing.T) {
	t.Parallel()
	f := image(t, 32<<20)
	o := luks.FormatOptions{UUID: testUUID, SectorSize: 512}
	for _, flag := range dm.Flags {
		o.Flags = append(o.Flags, flag.Name)
	}
	h, err := luks.Format(f, 32<<20, pass(t, "first"), o)
	if err != nil {
		t.Fatal(err)
	}
	p, err := h.Open(t.Context(), pass(t, "first"))
	if err != nil {
		t.Fatal(err)
	}
	defer p.Wipe()
	if got := strings.Join(p.Flags, " "); got != strings.Join(o.Flags, " ") || len(h.Notes()) > 0 {
		t.Errorf("flags %q, notes %q", got, h.Notes())
	}
	dump := cryptsetup(t, "", "luksDump", f.Name())
	for _, flag := range o.Flags {
		if !strings.Contains(dump, flag) && flag != "high_priority" { // of cryptsetup 2.8
			t.Errorf("cryptsetup does not know flag %s", flag)
		}
	}
}

// TestConvertedDigest: also a converted digest must have its whole length.
func TestConvertedDigest(t *testing.T) {
	t.Parallel()
	for _, n := range []int{0, 1, 19, 20, 21, 31, 32} {
		f := edited(t, func(doc map[string]any) {
			d := member(doc, "digests", "0")
			b := decode(t, d["digest"].(string))
			d["digest"] = b[:min(n, len(b))]
		})
		h, err := luks.Read(f, 20<<20, luks.Limits{})
		if ok := n == 20 || n == 32; ok != (err == nil) {
			t.Errorf("digest of %d bytes: Read = %v", n, err)
		}
		if err != nil {
			continue
		}
		p, err := h.Open(t.Context(), pass(t, "open sesame"))
		if err != nil {
			t.Errorf("digest of %d bytes: Open = %v", n, err)
		}
		p.Wipe()
	}
}

// rewrite changes the metadata of both copies of a header of 16 KiB.
func rewrite(t *testing.T, f *os.File, change func(doc map[string]any)) {
	t.Helper()
	for _, at := range []int64{0, 16 << 10} {
		b := make([]byte, 16<<10)
		if _, err := f.ReadAt(b, at); err != nil {
			t.Fatal(err)
		}
		text, _, _ := bytes.Cut(b[4096:], []byte{0})
		d := json.NewDecoder(bytes.NewReader(text))
		d.UseNumber()
		var doc map[string]any
		if err := d.Decode(&doc); err != nil {
			t.Fatal(err)
		}
		change(doc)
		text, err := json.Marshal(doc)
		if err != nil {
			t.Fatal(err)
		}
		clear(b[4096:])
		copy(b[4096:], text)
		sign(b)
		if _, err := f.WriteAt(b, at); err != nil {
			t.Fatal(err)
		}
	}
}

// sign gives one copy of a header its checksum.
func sign(b []byte) {
	clear(b[448:512])
	sum := sha256.Sum256(b)
	copy(b[448:], sum[:])
}

func decode(t *testing.T, s string) []byte {
	t.Helper()
	b, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
