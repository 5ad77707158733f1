package luks2_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"
	"time"

	"unlock/internal/luks/luks2"
)

// volume is a header to be tampered with: two keyslots, "first" and "second", a
// token that belongs to both.
type volume struct {
	d      *disk
	size   int64 // of the device
	copies [2][]byte
	torn   [2]bool // keep the checksum as it is
}

func newVolume(t testing.TB) *volume {
	t.Helper()
	d, h := format(t)
	if _, err := h.AddKeyslot(t.Context(), d, pass(t, "first"), pass(t, "second"), false); err != nil {
		t.Fatal(err)
	}
	if _, err := h.PutToken(d, 0, json.RawMessage(`{"type":"aws-kms","keyslots":["0","1"],"blob":"x"}`)); err != nil {
		t.Fatal(err)
	}
	v := &volume{d: d, size: testSize}
	for i := range v.copies {
		v.copies[i] = make([]byte, 16<<10)
		if _, err := d.ReadAt(v.copies[i], int64(i)<<14); err != nil {
			t.Fatal(err)
		}
	}
	return v
}

func (v *volume) clone() *volume {
	c := &volume{d: v.d.clone(), size: v.size, torn: v.torn}
	for i := range v.copies {
		c.copies[i] = bytes.Clone(v.copies[i])
	}
	return c
}

// store writes both copies with right checksums, but for those that are torn.
func (v *volume) store() {
	for i, b := range v.copies {
		if !v.torn[i] {
			clear(b[448:512])
			sum := sha256.Sum256(b)
			copy(b[448:], sum[:])
		}
		v.d.WriteAt(b, int64(i)<<14)
	}
}

// text changes the JSON of both copies, or of those that are named.
func (v *volume) text(f func(s string) string, which ...int) {
	if which == nil {
		which = []int{0, 1}
	}
	for _, i := range which {
		area := v.copies[i][4096:]
		s, _, _ := strings.Cut(string(area), "\x00")
		s = f(s)
		clear(area)
		copy(area, s)
	}
}

// set sets the member at a path such as "keyslots.0.kdf.salt" to a value, in both
// copies, or of those that are named; the value "drop" removes it.
func (v *volume) set(path string, value any, which ...int) {
	v.text(func(s string) string {
		var doc map[string]any
		d := json.NewDecoder(strings.NewReader(s))
		d.UseNumber()
		if err := d.Decode(&doc); err != nil {
			panic(err)
		}
		o, names := doc, strings.Split(path, ".")
		for _, n := range names[:len(names)-1] {
			o = o[n].(map[string]any)
		}
		if o[names[len(names)-1]] = value; value == "drop" {
			delete(o, names[len(names)-1])
		}
		b, err := json.Marshal(doc)
		if err != nil {
			panic(err)
		}
		return string(b)
	}, which...)
}

// put overwrites a part of the binary header of both copies.
func (v *volume) put(offset int, b []byte, which ...int) {
	if which == nil {
		which = []int{0, 1}
	}
	for _, i := range which {
		copy(v.copies[i][offset:], b)
	}
}

func u16(n uint16) []byte { return binary.BigEndian.AppendUint16(nil, n) }
func u64(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }

// b64 is the base64 of n bytes.
func b64(n int) []byte { return make([]byte, n) }

type hostile struct {
	name string
	edit func(v *volume)
	want string // part of the error of Read or Open; "" if "first" must open
}

// set returns a row that sets one member.
func set(path string, value any, want string) hostile {
	return hostile{fmt.Sprintf("%s=%.40v", path, value), func(v *volume) { v.set(path, value) }, want}
}

// replace returns a row that replaces text of the JSON.
func replace(name, old, new, want string) hostile {
	return hostile{name, func(v *volume) {
		v.text(func(s string) string {
			if !strings.Contains(s, old) {
				panic(name + ": nothing to replace")
			}
			return strings.Replace(s, old, new, 1)
		})
	}, want}
}

// only kills keyslot 1, so that what is wrong with keyslot 0 shows.
func only(path string, value any, want string) hostile {
	return hostile{fmt.Sprintf("only keyslot, %s=%.40v", path, value), func(v *volume) {
		v.set("keyslots.1", "drop")
		v.set("digests.0.keyslots", []string{"0"})
		v.set("tokens", map[string]any{})
		v.set(path, value)
	}, want}
}

type m = map[string]any

// hostileHeaders each have the verdict that is right, which is not always that of
// cryptsetup 2.6.1.
func hostileHeaders() []hostile {
	rows := []hostile{
		{"untouched", func(v *volume) {}, ""},

		// The binary header.
		{"no magic anywhere", func(v *volume) { v.put(0, make([]byte, 6)) }, "not a LUKS2 device"},
		{"primary magic in both", func(v *volume) { v.put(0, []byte("LUKS\xba\xbe")) }, ""},
		{"secondary magic in both", func(v *volume) { v.put(0, []byte("SKUL\xba\xbe")) }, ""},
		{"magic in lower case", func(v *volume) { v.put(0, []byte("luks\xba\xbe")) }, "not a LUKS2 device"},
		{"version 0", func(v *volume) { v.put(6, u16(0)) }, "version 0 is not 2"},
		{"version 3", func(v *volume) { v.put(6, u16(3)) }, "version 3 is not 2"},
		{"version 1 in the secondary", func(v *volume) { v.put(6, u16(1), 1) }, ""},
		{"header size 0", func(v *volume) { v.put(8, u64(0)) }, "header size 0 is none"},
		{"header size 4096", func(v *volume) { v.put(8, u64(4096)) }, "header size 4096 is none"},
		{"header size 24 KiB", func(v *volume) { v.put(8, u64(24<<10)) }, "header size 24576 is none"},
		{"header size 8 MiB", func(v *volume) { v.put(8, u64(8<<20)) }, "header size 8388608 is none"},
		{"header size 2^63", func(v *volume) { v.put(8, u64(1<<63)) }, "header size 9223372036854775808 is none"},
		{"header size 2^64-1", func(v *volume) { v.put(8, u64(1<<64-1)) }, "is none of those"},
		{"header size 32 KiB", func(v *volume) { v.put(8, u64(32<<10)) }, "wrong checksum"},
		{"header size beyond the device", func(v *volume) { v.put(8, u64(4<<20)); v.size = 2 << 20 }, "does not fit on the device"},
		{"primary says it is the secondary", func(v *volume) { v.put(256, u64(16<<10), 0); v.torn[1] = true; v.put(4096, []byte("x"), 1) }, "says that it is at byte 16384"},
		{"secondary says it is the primary", func(v *volume) { v.put(256, u64(0), 1) }, ""},
		{"both say they are elsewhere", func(v *volume) { v.put(256, u64(1<<40)) }, "says that it is at byte"},
		{"label not terminated", func(v *volume) { v.put(24, bytes.Repeat([]byte("x"), 48)) }, "label: not terminated"},
		{"label with an escape sequence", func(v *volume) { v.put(24, []byte("\x1b[2J\x00")) }, "label: has control characters"},
		{"subsystem not terminated", func(v *volume) { v.put(208, bytes.Repeat([]byte("x"), 48)) }, "subsystem: not terminated"},
		{"UUID not terminated", func(v *volume) { v.put(168, bytes.Repeat([]byte("0"), 40)) }, "UUID: not terminated"},
		{"UUID empty", func(v *volume) { v.put(168, make([]byte, 40)) }, `"" is not a UUID`},
		{"UUID with table parameters", func(v *volume) { v.put(168, []byte("0d5bd3a4-9d41-4f9c 0 /dev/null 0 \x00")) }, "is not a UUID"},
		{"UUID with a path", func(v *volume) { v.put(168, []byte("../../../../../../../../etc/passwd\x00")) }, "is not a UUID"},
		{"checksum md5", func(v *volume) { v.put(72, []byte("md5\x00\x00\x00")) }, `checksum algorithm "md5"`},
		{"checksum empty", func(v *volume) { v.put(72, make([]byte, 32)) }, `checksum algorithm ""`},
		{"checksum crc32", func(v *volume) { v.put(72, []byte("crc32\x00")) }, `checksum algorithm "crc32"`},
		{"wrong checksum in both", func(v *volume) { v.torn = [2]bool{true, true}; v.put(448, []byte{1, 2, 3}) }, "both copies of the LUKS2 header are damaged: primary: wrong checksum"},
		{"checksum of zeros in both", func(v *volume) { v.torn = [2]bool{true, true}; v.put(448, make([]byte, 64)) }, "wrong checksum"},
		{"padding of the binary header", func(v *volume) { v.put(1000, []byte("x")) }, ""},
		{"sequence id 2^64-1", func(v *volume) { v.put(16, u64(1<<64-1)) }, ""},
		{"device ends in the header", func(v *volume) { v.size = 8 << 10 }, "does not fit on the device"},
		{"device ends in the key areas", func(v *volume) { v.size = 1 << 20 }, "of a device of 1048576 bytes"},
		{"device ends where data begin", func(v *volume) { v.size = 16 << 20 }, "of a device of 16777216 bytes"},
		{"device of half a sector more", func(v *volume) { v.size = 16<<20 + 6144 }, "not a number of sectors"},
		{"device of 0 bytes", func(v *volume) { v.size = 0 }, "not a LUKS2 device"},

		// Which copy counts.
		{"primary damaged", func(v *volume) { v.torn[0] = true; v.put(5000, []byte("x"), 0) }, ""},
		{"primary gone", func(v *volume) { clear(v.copies[0]); v.torn[0] = true }, ""},
		{"secondary damaged", func(v *volume) { v.torn[1] = true; v.put(5000, []byte("x"), 1) }, ""},
		{"secondary gone", func(v *volume) { clear(v.copies[1]); v.torn[1] = true }, ""},
		{"keyslot 0 killed in a newer secondary", func(v *volume) {
			v.put(16, u64(100), 1)
			v.set("keyslots.0", "drop", 1)
			v.set("digests.0.keyslots", []string{"1"}, 1)
			v.set("tokens.0.keyslots", []string{"1"}, 1)
		}, "no keyslot opens"},
		{"keyslot 0 killed in a newer primary", func(v *volume) {
			v.put(16, u64(100), 0)
			v.set("keyslots.0", "drop", 0)
			v.set("digests.0.keyslots", []string{"1"}, 0)
			v.set("tokens.0.keyslots", []string{"1"}, 0)
		}, "no keyslot opens"},
		{"newer primary makes no sense", func(v *volume) { v.put(16, u64(100), 0); v.text(func(string) string { return "{" }, 0) }, "primary LUKS2 header: metadata"},
		{"newer secondary makes no sense", func(v *volume) { v.put(16, u64(100), 1); v.text(func(string) string { return "{" }, 1) }, "secondary LUKS2 header: metadata"},
		{"newer primary has requirements", func(v *volume) {
			v.put(16, u64(100), 0)
			v.set("config.requirements", m{"mandatory": []string{"online-reencrypt"}}, 0)
		}, "not supported"},
		{"primary makes no sense, secondary of the same update does", func(v *volume) { v.text(func(string) string { return "[" }, 0) }, ""},
		{"secondary makes no sense, primary of the same update does", func(v *volume) { v.text(func(string) string { return "[" }, 1) }, ""},
		{"older primary makes no sense", func(v *volume) { v.put(16, u64(1), 0); v.text(func(string) string { return "[" }, 0) }, ""},
		{"neither makes sense", func(v *volume) { v.text(func(string) string { return "[" }) }, "does not start with an object"},
		{"ext4 over the primary", func(v *volume) { clear(v.copies[0]); v.torn[0] = true; v.put(1080, []byte{0x53, 0xef}, 0) }, "ext4 file system was written over"},
		{"partition table over the primary", func(v *volume) {
			clear(v.copies[0])
			v.torn[0] = true
			v.put(510, []byte{0x55, 0xaa}, 0)
		}, "partition table or boot sector was written over"},
		{"XFS over the primary", func(v *volume) { v.torn[0] = true; v.put(0, []byte("XFSB\x00\x00"), 0) }, "XFS file system was written over"},
		{"swap over the primary", func(v *volume) {
			clear(v.copies[0])
			v.torn[0] = true
			v.put(4086, []byte("SWAPSPACE2"), 0)
		}, "swap space was written over"},

		// The JSON area.
		{"empty JSON", func(v *volume) { v.text(func(string) string { return "" }) }, "does not start with an object"},
		{"no NUL after the JSON", func(v *volume) { v.text(func(s string) string { return s + strings.Repeat(" ", 12288-len(s)) }) }, "not followed by zeros"},
		{"text after the NUL", func(v *volume) { v.put(16000, []byte("x")) }, "not followed by zeros"},
		{"space before the JSON", func(v *volume) { v.text(func(s string) string { return " " + s }) }, "does not start with an object"},
		{"an array", func(v *volume) { v.text(func(string) string { return "[]" }) }, "does not start with an object"},
		{"an empty object", func(v *volume) { v.text(func(string) string { return "{}" }) }, `"config" is missing`},
		{"two objects", func(v *volume) { v.text(func(s string) string { return s + "{}" }) }, "more than one value"},
		{"truncated JSON", func(v *volume) { v.text(func(s string) string { return s[:len(s)/2] }) }, "metadata: "},
		{"invalid UTF-8", func(v *volume) { v.text(func(s string) string { return strings.Replace(s, "aws-kms", "aws\xff", 1) }) }, "not valid UTF-8"},
		{"a comment", func(v *volume) { v.text(func(s string) string { return "{/**/" + s[1:] }) }, "invalid character"},
		{"trailing comma", func(v *volume) { v.text(func(s string) string { return s[:len(s)-1] + ",}" }) }, "invalid character"},
		{"nested deeply", func(v *volume) {
			v.text(func(s string) string {
				return s[:len(s)-1] + `,"x":` + strings.Repeat("[", 2000) + strings.Repeat("]", 2000) + "}"
			})
		}, "nested too deeply"},
		replace("NaN", `"key_size":64`, `"key_size":NaN`, "invalid character"),
		replace("single quotes", `"keyslots"`, `'keyslots'`, "invalid character"),
		replace("KEYSLOTS", `{"keyslots"`, `{"KEYSLOTS"`, `"keyslots" is missing`),
		replace("keyslots twice", `{"keyslots"`, `{"keyslots":{},"keyslots"`, `"keyslots" occurs twice`),
		replace("encryption twice in the segment", `"sector_size":4096`, `"sector_size":4096,"encryption":"cipher_null-ecb"`, `"encryption" occurs twice`),
		replace("twice, one name escaped", `"sector_size":4096`, `"sector_size":4096,"encryptio\u006e":"cipher_null-ecb"`, `"encryption" occurs twice`),
		replace("name with a NUL", `"sector_size":4096`, `"sector_size":4096,"encryption\u0000":"cipher_null-ecb"`, "has a NUL"),
		replace("an unknown member", `{"keyslots"`, `{"unknown":[1,{"a":null}],"keyslots"`, ""),

		// Mandatory objects.
		set("keyslots", "drop", `"keyslots" is missing`),
		set("tokens", "drop", `"tokens" is missing`),
		set("segments", "drop", `"segments" is missing`),
		set("digests", "drop", `"digests" is missing`),
		set("config", "drop", `"config" is missing`),
		set("keyslots", []int{}, `"keyslots" is not an object`),
		set("segments", nil, `"segments" is not an object`),
		set("digests", "x", `"digests" is not an object`),

		// Config.
		set("config.json_size", "12287", "does not belong to a header"),
		set("config.json_size", 12288, `"json_size" is not a string`),
		set("config.json_size", "-1", `"json_size" is not a 64-bit number`),
		set("config.json_size", "18446744073709551616", `"json_size" is not a 64-bit number`),
		set("config.keyslots_size", "drop", `"keyslots_size" is missing`),
		set("config.keyslots_size", "16744449", "not a multiple of 4096"),
		set("config.keyslots_size", "16748544", "begin inside the key areas"),
		set("config.keyslots_size", "134221824", "up to 134217728"),
		set("config.keyslots_size", "18446744073709551615", "beyond any device"),
		set("config.keyslots_size", "0", "outside bytes"),
		set("config.flags", []string{"allow-discards", "unheard-of"}, ""),
		set("config.flags", "allow-discards", "not an array of strings"),
		set("config.flags", []int{1}, "not an array of strings"),
		set("config.requirements", m{"mandatory": []string{"online-reencrypt-v2"}}, "online-reencrypt-v2"),
		set("config.requirements", m{"mandatory": []string{"unheard-of"}}, "not supported"),
		set("config.requirements", m{"mandatory": []int{1}}, "not supported"),
		set("config.requirements", m{"mandatory": "online-reencrypt"}, "not an array"),
		set("config.requirements", []string{"online-reencrypt"}, "not an object"),
		set("config.requirements", m{}, ""),

		// Segments.
		set("segments", m{}, "no segment"),
		set("segments.0.encryption", "cipher_null-ecb", `encryption "cipher_null-ecb"`),
		set("segments.0.encryption", "cipher_null-ecb - 0 /dev/nullb0 0 0 #", "is not aes-xts-plain64"),
		set("segments.0.encryption", "aes-xts-plain64 - 0 /dev/sda 0", "is not aes-xts-plain64"),
		set("segments.0.encryption", "aes-xts-plain64\x00", "is not aes-xts-plain64"),
		set("segments.0.encryption", "AES-XTS-PLAIN64", "is not aes-xts-plain64"),
		set("segments.0.encryption", "aes-ecb", "is not aes-xts-plain64"),
		set("segments.0.encryption", "aes-cbc-essiv:sha256", "volume key of 64 bytes, not 16 or 32"),
		set("segments.0.encryption", "capi:xts(aes)-plain64", "is not aes-xts-plain64"),
		set("segments.0.encryption", "", "is not aes-xts-plain64"),
		set("segments.0.encryption", "drop", `"encryption" is missing`),
		set("segments.0.type", "linear", `type "linear" is not crypt`),
		set("segments.0.type", "hw-opal-crypt", "is not crypt"),
		set("segments.0.offset", "0", "begin inside the key areas"),
		set("segments.0.offset", "32768", "begin inside the key areas"),
		set("segments.0.offset", "16777217", "data at byte 16777217"),
		set("segments.0.offset", "18446744073709551615", "beyond any device"),
		set("segments.0.offset", "9223372036854775807", "data at byte"),
		set("segments.0.offset", "9223372036854771712", "data at byte"),
		set("segments.0.offset", 16777216, `"offset" is not a string`),
		set("segments.0.offset", "0x1000000", `"offset" is not a 64-bit number`),
		set("segments.0.offset", "016777216", `"offset" is not a 64-bit number`),
		set("segments.0.offset", "+16777216", `"offset" is not a 64-bit number`),
		set("segments.0.size", "0", "not a number of sectors"),
		set("segments.0.size", "4097", "not a number of sectors"),
		set("segments.0.size", "1099511627776", "do not fit on a device"),
		set("segments.0.size", "9223372036854771712", "do not fit on a device"),
		set("segments.0.size", "Dynamic", "not a 64-bit number"),
		set("segments.0.size", "4096", ""),
		set("segments.0.sector_size", 0, "sector_size 0 is none"),
		set("segments.0.sector_size", 513, "sector_size 513 is none"),
		set("segments.0.sector_size", 8192, "sector_size 8192 is none"),
		set("segments.0.sector_size", -4096, `"sector_size" is not a whole number`),
		set("segments.0.sector_size", 4096.5, `"sector_size" is not a whole number`),
		set("segments.0.sector_size", "4096", `"sector_size" is not a`),
		set("segments.0.sector_size", "drop", `"sector_size" is missing`),
		set("segments.0.iv_tweak", "drop", `"iv_tweak" is missing`),
		set("segments.0.iv_tweak", 0, `"iv_tweak" is not a string`),
		set("segments.0.iv_tweak", "1 1 1", `"iv_tweak" is not a 64-bit number`),
		set("segments.0.integrity", m{"type": "hmac(sha256)", "journal_encryption": "none", "journal_integrity": "none"}, "integrity"),
		set("segments.0.flags", []string{"in-reencryption"}, "re-encryption"),
		set("segments.0.flags", []string{"backup-final"}, "re-encryption"),
		set("segments.1", m{"type": "crypt", "offset": "20971520", "size": "dynamic"}, "more than one segment"),
		set("segments.x", m{}, `"x" is not an id`),
		set("segments.00", m{}, `"00" is not an id`),
		set("segments.-1", m{}, `"-1" is not an id`),

		// Digests.
		set("digests", m{}, "the segment has no digest"),
		set("digests.0.digest", "", "digest of 0 bytes"),
		set("digests.0.digest", "drop", `"digest" is missing`),
		set("digests.0.digest", b64(31), "digest of 31 bytes"),
		set("digests.0.digest", b64(33), "digest of 33 bytes"),
		set("digests.0.digest", b64(32), "no keyslot opens"),
		set("digests.0.digest", "!", "not base64"),
		set("digests.0.salt", "", "salt of 0 bytes"),
		set("digests.0.salt", b64(31), "salt of 31 bytes"),
		set("digests.0.salt", b64(32), "no keyslot opens"),
		set("digests.0.hash", "sha1", "digest of 32 bytes, sha1 gives 20"),
		set("digests.0.hash", "crc32", `hash "crc32" is unknown`),
		set("digests.0.hash", "", `hash "" is unknown`),
		set("digests.0.iterations", 0, "0 iterations"),
		set("digests.0.iterations", 1<<31-1, "2147483647 iterations"),
		set("digests.0.iterations", 1<<32, "not a whole number"),
		set("digests.0.iterations", -1, "not a whole number"),
		set("digests.0.type", "none", "is not pbkdf2"),
		set("digests.0.segments", []string{}, "the segment has no digest"),
		set("digests.0.segments", []string{"1"}, "segment that does not exist"),
		set("digests.0.segments", []string{"0", "0"}, "names 0 twice"),
		set("digests.0.keyslots", []string{"0"}, "keyslot 1 has no digest"),
		set("digests.0.keyslots", []string{"0", "1", "7"}, "keyslot 7 does not exist"),
		set("digests.0.keyslots", []int{0, 1}, "not an array of strings"),
		set("digests.8", m{"type": "pbkdf2", "keyslots": []string{}, "segments": []string{}}, "not an id from 0 to 7"),
		set("digests.1", m{"type": "pbkdf2", "keyslots": []string{"0"}, "segments": []string{}}, "belongs to digest"),
		set("digests.1", m{"type": "pbkdf2", "keyslots": []string{}, "segments": []string{"0"}, "hash": "sha1", "iterations": 1, "salt": b64(32), "digest": b64(20)}, "has another digest already"),
		{"keyslot 0 holds another key", func(v *volume) {
			v.set("digests.1", m{"type": "pbkdf2", "keyslots": []string{"0"}, "segments": []string{}})
			v.set("digests.0.keyslots", []string{"1"})
		}, "no keyslot opens"},

		// Keyslots: what makes the header invalid.
		set("keyslots.32", m{}, "not an id from 0 to 31"),
		set("keyslots.01", m{}, `"01" is not an id`),
		set("keyslots.0.type", "drop", `"type" is missing`),
		set("keyslots.0.type", 2, `"type" is not a string`),
		set("keyslots.0.type", "reencrypt", "re-encryption is under way"),
		set("keyslots.0.key_size", 0, "key_size is 0"),
		set("keyslots.0.key_size", -64, "not a whole number"),
		set("keyslots.0.key_size", 1<<62, "not a whole number"),
		set("keyslots.0.priority", 3, "priority 3"),
		set("keyslots.0.priority", "2", `"priority" is not a`),
		set("keyslots.0.area", "drop", `"area" is missing`),
		set("keyslots.0.area.offset", "0", "outside bytes"),
		set("keyslots.0.area.offset", "16384", "outside bytes"),
		set("keyslots.0.area.offset", "16777216", "outside bytes"),
		set("keyslots.0.area.offset", "18446744073709547520", "beyond any device"),
		set("keyslots.0.area.offset", "9223372036854771712", "outside bytes"),
		set("keyslots.0.area.offset", "294912", "overlaps another"),
		set("keyslots.0.area.size", "9223372036854771712", "outside bytes"),
		set("keyslots.0.area.size", "262144", "overlaps another"),
		set("keyslots.0.area.size", "0", "outside bytes"),
		set("keyslots.0.af", "drop", `"af" is missing`),
		set("keyslots.0.kdf", "drop", `"kdf" is missing`),
		set("keyslots.0.kdf.salt", "drop", `"salt" is missing`),
		set("keyslots.0.kdf.extra", 1, "pbkdf2 has 5 members, not 4"),
		set("keyslots.0.kdf", m{"type": "argon2id", "time": 1, "memory": 64, "salt": b64(32)}, `"cpus" is missing`),

		// Keyslots: what makes one unusable, and must not hide the other.
		{"keyslot 0 is broken, 1 opens", func(v *volume) {
			v.set("keyslots.0.kdf.hash", "md5")
		}, "no keyslot opens with this passphrase; not tried: keyslot 0: hash \"md5\" is unknown"},
		only("keyslots.0.type", "unheard-of", `keyslot type "unheard-of" is unknown`),
		only("keyslots.0.key_size", 16, "volume key of 16 bytes"),
		only("keyslots.0.key_size", 32, "no keyslot opens"),
		only("keyslots.0.key_size", 1<<31-1, "volume key of 2147483647 bytes"),
		only("keyslots.0.area.type", "datashift", "not aes-xts-plain64"),
		only("keyslots.0.area.encryption", "cipher_null-ecb", `encrypted by "cipher_null-ecb"`),
		only("keyslots.0.area.encryption", "", "not aes-xts-plain64"),
		only("keyslots.0.area.key_size", 0, "key of 0 bytes for the key material"),
		only("keyslots.0.area.key_size", 1<<31-1, "key of 2147483647 bytes for the key material"),
		only("keyslots.0.area.key_size", 32, "no keyslot opens"),
		only("keyslots.0.area.size", "4096", "key area of 4096 bytes, too small"),
		only("keyslots.0.area.offset", "36864", "no keyslot opens"),
		only("keyslots.0.af.stripes", 1, "into 1 stripes"),
		only("keyslots.0.af.stripes", 1<<31-1, "into 2147483647 stripes"),
		only("keyslots.0.af.type", "none", `split by "none"`),
		only("keyslots.0.af.hash", "crc32", `unknown hash "crc32"`),
		only("keyslots.0.priority", 0, "no keyslot to try"),
		only("keyslots.0.kdf.type", "scrypt", `key derivation "scrypt" is unknown`),
		only("keyslots.0.kdf.iterations", 0, "0 iterations"),
		only("keyslots.0.kdf.iterations", 1<<31-1, "2147483647 iterations"),
		only("keyslots.0.kdf.salt", b64(0), "salt of 0 bytes"),
		only("keyslots.0.kdf.salt", b64(8000), "salt of 8000 bytes"),
		only("keyslots.0.kdf", argon2(0, 64, 1), "argon2 with 0 passes"),
		only("keyslots.0.kdf", argon2(1, 64, 0), "0 lanes"),
		only("keyslots.0.kdf", argon2(1, 64000, 256), "256 lanes"),
		only("keyslots.0.kdf", argon2(1, 31, 4), "31 KiB and 4 lanes"),
		only("keyslots.0.kdf", argon2(1, 0, 1), "0 KiB"),
		only("keyslots.0.kdf", argon2(1, 1<<31-1, 4), "more than this machine allows"),
		only("keyslots.0.kdf", argon2(1, 256<<10, 4), "more than this machine allows"),
		only("keyslots.0.kdf", argon2(1<<31-1, 1024, 4), "more than this machine allows"),
		only("keyslots.0.kdf", argon2(1, 64, 1), "no keyslot opens"),

		// Tokens.
		set("tokens.0.type", "", "type is empty"),
		set("tokens.0.type", "drop", `"type" is missing`),
		set("tokens.0.keyslots", "drop", `"keyslots" is missing`),
		set("tokens.0.keyslots", []string{"2"}, "keyslot 2 does not exist"),
		set("tokens.0.keyslots", []string{"0", "0"}, "names 0 twice"),
		set("tokens.0.keyslots", []any{nil}, "not the id of anything"),
		set("tokens.0.keyslots", "0", "not an array"),
		set("tokens.32", m{"type": "x", "keyslots": []string{}}, "not an id from 0 to 31"),
		set("tokens.99", m{"type": "x", "keyslots": []string{}}, "not an id from 0 to 31"),
		set("tokens.0", "x", `"0" is not an object`),
		set("tokens.1", m{"type": "luks2-keyring", "keyslots": []string{}}, `"key_description" is missing`),
		set("tokens.1", m{"type": "luks2-unheard-of", "keyslots": []string{}}, "is reserved"),
		set("tokens.1", m{"type": "unheard-of", "keyslots": []string{}, "x": m{"y": []int{1}}}, ""),
	}
	return rows
}

func argon2(time, memory, cpus int) m {
	return m{"type": "argon2id", "time": time, "memory": memory, "cpus": cpus, "salt": b64(32)}
}

// oversized is a disk with a JSON area of 4 MiB, full of whatever is laborious to parse.
type oversized struct {
	name string
	make func() *disk
	want string // error; "": it opens
}

func hostileSizes(t testing.TB) []oversized {
	t.Helper()
	fill := func(piece func(i int) string) string {
		var b strings.Builder
		for i := 0; b.Len() < 4<<20-8<<10; i++ {
			if i > 0 {
				b.WriteByte(',')
			}
			b.WriteString(piece(i))
		}
		return b.String()
	}
	base := newVolume(t)
	base.text(func(s string) string {
		s = strings.Replace(s, `"json_size":"12288"`, `"json_size":"4190208"`, 1)
		s = strings.Replace(s, `"keyslots_size":"16744448"`, `"keyslots_size":"1048576"`, 1)
		s = strings.Replace(s, `"offset":"32768"`, `"offset":"8388608"`, 1)
		return strings.Replace(s, `"offset":"290816"`, `"offset":"8646656"`, 1)
	})
	text, _, _ := strings.Cut(string(base.copies[0][4096:]), "\x00")
	short := func(piece func(i int) string) string { // as long as is accepted
		s := fill(piece)[:480<<10]
		return s[:strings.LastIndexByte(s, ',')]
	}
	tests := []struct{ name, text, want string }{
		{"nothing", text, ""},
		{"an array of numbers, not too long", text[:len(text)-1] + `,"x":[` + short(func(int) string { return "0" }) + "]}", ""},
		{"many members, not too long", text[:len(text)-1] + "," + short(func(i int) string { return fmt.Sprintf(`"%x":0`, i) }) + "}", ""},
		{"many tokens, not too long", strings.Replace(text, `"tokens":{`, `"tokens":{`+short(func(i int) string { return fmt.Sprintf(`"%d":{}`, i+40) })+",", 1), "is not an id"},
		{"many keyslots of a digest, not too long", strings.Replace(text, `"keyslots":["0"`, `"keyslots":[`+short(func(int) string { return `"1"` })+`,"0"`, 1), "names 1 twice"},
		{"an array of numbers", text[:len(text)-1] + `,"x":[` + fill(func(int) string { return "0" }) + "]}", "longer than"},
		{"an array of objects", text[:len(text)-1] + `,"x":[` + fill(func(int) string { return "{}" }) + "]}", "longer than"},
		{"many members", text[:len(text)-1] + "," + fill(func(i int) string { return fmt.Sprintf(`"%x":0`, i) }) + "}", "longer than"},
		{"many tokens", strings.Replace(text, `"tokens":{`, `"tokens":{`+fill(func(i int) string { return fmt.Sprintf(`"%d":{}`, i+40) })+",", 1), "longer than"},
		{"many keyslots of a digest", strings.Replace(text, `"keyslots":["0"`, `"keyslots":[`+fill(func(int) string { return `"1"` })+`,"0"`, 1), "longer than"},
		{"a long string", strings.Replace(text, `"tokens":{`, `"tokens":{"9":{"type":"x","keyslots":[],"y":"`+strings.Repeat("y", 4<<20-8<<10)+`"},`, 1), "longer than"},
	}
	var all []oversized
	for _, tt := range tests {
		all = append(all, oversized{tt.name, func() *disk {
			d := base.d.clone()
			for i := range 2 {
				b := make([]byte, 4<<20)
				copy(b, base.copies[i][:4096])
				copy(b[8:], u64(4<<20))
				copy(b[256:], u64(uint64(i)<<22))
				if n := copy(b[4096:], tt.text); n < len(tt.text) || n == len(b)-4096 {
					t.Fatal("the text does not fit")
				}
				clear(b[448:512])
				sum := sha256.Sum256(b)
				copy(b[448:], sum[:])
				d.WriteAt(b, int64(i)<<22)
			}
			material := make([]byte, 2*258048)
			base.d.ReadAt(material, 32<<10)
			d.WriteAt(material, 8<<20)
			return d
		}, tt.want})
	}
	return all
}

// TestHostileSizes: they take neither much work nor much memory.
func TestHostileSizes(t *testing.T) {
	for _, tt := range hostileSizes(t) {
		t.Run(tt.name, func(t *testing.T) { opensWithin(t, tt.make(), testSize, tt.want) })
	}
}

// BenchmarkHostile opens each hostile header, and fails where one takes a second.
func BenchmarkHostile(b *testing.B) {
	first, base := pass(b, "first"), newVolume(b)
	try := func(name string, d *disk, size int64) {
		took := stopwatch(b)
		if h, err := luks2.Read(d, size, luks2.Limits{Memory: 128 << 20}); err == nil {
			if p, err := h.Open(b.Context(), first); err == nil {
				p.Wipe()
			}
		}
		if d := took(); d > time.Second {
			b.Errorf("%s takes %v", name, d)
		}
	}
	for b.Loop() {
		for _, tt := range hostileSizes(b) {
			try(tt.name, tt.make(), testSize)
		}
		for _, tt := range hostileHeaders() {
			v := base.clone()
			tt.edit(v)
			v.store()
			try(tt.name, v.d, v.size)
		}
	}
}

// opensWithin opens d with "first" or fails with the error want, within the budget.
func opensWithin(t *testing.T, d *disk, size int64, want string) {
	t.Helper()
	spent := spend(t)
	h, err := luks2.Read(spent.reading(d), size, luks2.Limits{Memory: 128 << 20})
	if err == nil {
		var p *luks2.Payload
		if p, err = h.Open(spent, pass(t, "first")); err == nil {
			p.Wipe()
		}
	}
	if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
		t.Errorf("error %v, want %q", err, want)
	}
	spent.judge()
}

// spending is a context that counts work on a hostile header. The time that it takes
// is judged by BenchmarkHostile, on a machine that does nothing else.
type spending struct {
	context.Context
	t         testing.TB
	before    runtime.MemStats
	asked     int   // whether the context has ended, once in 4,096 iterations of PBKDF2
	bytesRead int64 // of the device
	limit     int   // ends when it has been asked so often; 0: never
	end       func()
}

func spend(t testing.TB) *spending {
	s := &spending{Context: t.Context(), t: t}
	runtime.ReadMemStats(&s.before)
	return s
}

func (s *spending) Err() error {
	if s.asked++; s.asked == s.limit {
		s.end()
	}
	return s.Context.Err()
}

// reading counts what is read from d.
func (s *spending) reading(d *disk) io.ReaderAt { return countedReads{d, &s.bytesRead} }

type countedReads struct {
	d *disk
	n *int64
}

func (c countedReads) ReadAt(b []byte, off int64) (int, error) {
	n, err := c.d.ReadAt(b, off)
	*c.n += int64(n)
	return n, err
}

// judge fails beyond 256 MiB of memory, 128 MiB read, and about 200,000 iterations of PBKDF2.
func (s *spending) judge() {
	s.t.Helper()
	var after runtime.MemStats
	runtime.ReadMemStats(&after)
	n := after.TotalAlloc - s.before.TotalAlloc
	s.t.Logf("%d MiB allocated, %d MiB read, %d iterations", n>>20, s.bytesRead>>20, s.asked*4096)
	if n > 256<<20 || s.bytesRead > 128<<20 || s.asked*4096 > 200_000 {
		s.t.Errorf("allocated %d bytes, read %d, derived for about %d iterations", n, s.bytesRead, s.asked*4096)
	}
}

func TestHostileHeaders(t *testing.T) {
	base := newVolume(t)
	first, second, wrong := pass(t, "first"), pass(t, "second"), pass(t, "wrong")
	rows := hostileHeaders()
	if len(rows) < 120 {
		t.Fatalf("%d rows", len(rows))
	}
	limits := luks2.Limits{Memory: 128 << 20}
	for _, tt := range rows {
		t.Run(tt.name, func(t *testing.T) {
			v := base.clone()
			tt.edit(v)
			v.store()
			spent := spend(t)

			h, err := luks2.Read(spent.reading(v.d), v.size, limits)
			if err == nil {
				var p *luks2.Payload
				if p, err = h.Open(spent, first); err == nil {
					if p.Cipher != "aes-xts-plain64" || p.Key.Len() != 64 || p.Offset < 512<<10 || p.Size <= 0 || p.Offset+p.Size > v.size {
						t.Errorf("payload %+v", p)
					}
					p.Wipe()
				}
				if p, err := h.Open(spent, wrong); err == nil {
					p.Wipe()
					t.Error("opens with a wrong passphrase")
				}
			}
			switch {
			case tt.want == "" && err != nil:
				t.Errorf("does not open: %v", err)
			case tt.want != "" && err == nil:
				t.Errorf("opens, want %q", tt.want)
			case tt.want != "" && !strings.Contains(err.Error(), tt.want):
				t.Errorf("error %q, want %q", err, tt.want)
			}
			if strings.Contains(tt.want, "no keyslot opens") && !errors.Is(err, luks2.ErrPassphrase) {
				t.Errorf("%v is not ErrPassphrase", err)
			}
			if strings.HasPrefix(tt.name, "keyslot 0") {
				p, err := h.Open(spent, second)
				if err != nil {
					t.Errorf("keyslot 1 does not open: %v", err)
				}
				p.Wipe()
			}

			spent.judge()
		})
	}
}
