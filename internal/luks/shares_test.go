package luks_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"unlock/internal/luks"
	"unlock/internal/secret"
)

func TestShares(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		text  string
		sound bool
	}{
		{"", true},
		{"a=1048576+16777216", true},
		{"a=1048576+16777216 b=17825792+1048576", true},
		{"a=1048576+16777216 b=16777216+1048576", false}, // overlap
		{"b=17825792+1048576 a=1048576+1048576", false},  // not in order
		{"a=0+16777216", false},
		{"a=1048577+16777216", false},
		{"a=1048576+0", false},
		{"a=1048576+-1048576", false},
		{"a=1048576+9223372036854775807", false},
		{"a=9223372036853727232+1048576", false},
		{"a=1048576+1048576 a=2097152+1048576", false},
		{"=1048576+1048576", false},
		{"a=1048576", false},
		{"a=1048576+1048576 ", false},
		{"a=01048576+1048576", false},
		{"a=1048576+1048576x", false},
		{strings.Repeat("a", 65) + "=1048576+1048576", false},
	} {
		shares, err := luks.ParseShares(row.text)
		if (err == nil) != row.sound || err == nil && shares.String() != row.text {
			t.Errorf("ParseShares(%q) = %v, %v, want sound: %v", row.text, shares, err, row.sound)
		}
	}
}

// TestLeft: members that were left are read as they are written, and nothing else is.
func TestLeft(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		text  string
		sound bool
	}{
		{"", true},
		{"1=e0:1", true},
		{"0=e1:a 3=e0:2", true},
		{"3=e0:1 0=e1:2", false}, // not in order
		{"1=e0:1 1=e1:1", false},
		{"1=e0:1 ", false},
		{"01=e0:1", false},
		{"-1=e0:1", false},
		{"1x=e0:1", false},
		{"1=:1", false},
		{"1", false},
		{"1=e0", false},
		{"1=e0:0", false},
		{"1=e0:01", false},
		{"1=e0:2", false}, // with itself
		{"1=e0:A0", false},
		{"18446744073709551617=e0:1", false},
		{"64=e0:1", false},
		{"1=" + strings.Repeat("e", 65) + ":1", false},
	} {
		left, err := luks.ParseLeft(row.text)
		if (err == nil) != row.sound || err == nil && left.String() != row.text {
			t.Errorf("ParseLeft(%q) = %v, %v, want sound: %v", row.text, left, err, row.sound)
		}
	}
}

// TestSharesToken: a header keeps them, under a version that others refuse.
func TestSharesToken(t *testing.T) {
	t.Parallel()
	const divided = "a=1048576+16777216"
	for _, row := range []struct {
		token luks.SetToken
		sound bool
	}{
		{luks.SetToken{Version: luks.VersionShares, Shares: divided}, true},
		{luks.SetToken{Version: 1}, true},
		{luks.SetToken{Version: 1, Shares: divided}, false},
		{luks.SetToken{Version: luks.VersionShares}, false},
		{luks.SetToken{Version: 3, Shares: divided}, false},
		{luks.SetToken{Version: luks.VersionShares, Shares: "a=1+1"}, false},
		{luks.SetToken{Version: 1, PCR4: strings.Repeat("0a", 48)}, true},
		{luks.SetToken{Version: 1, PCR4: strings.Repeat("0a", 32)}, false},
		{luks.SetToken{Version: 1, PCR4: strings.Repeat("0A", 48)}, false},
		{luks.SetToken{Version: 1, PCR4: strings.Repeat("0a", 47) + "\x1b["}, false},
	} {
		row.token.UUID, row.token.Count, row.token.State = testUUID, 1, luks.StateFormed
		f, err := os.Create(filepath.Join(t.TempDir(), "disk"))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if err := f.Truncate(20 << 20); err != nil {
			t.Fatal(err)
		}
		passphrase := secret.Take([]byte("a passphrase of many letters, random as it may be"))
		defer passphrase.Wipe()
		deriver := luks.NewDeriver(passphrase)
		defer deriver.Wipe()
		_, err = luks.FormatWith(f, 20<<20, deriver, luks.FormatOptions{UUID: testUUID, SectorSize: 512, Set: &row.token})
		if (err == nil) != row.sound {
			t.Errorf("formatting with %+v: %v, want sound: %v", row.token, err, row.sound)
		}
		if err != nil {
			continue
		}
		h, err := luks.Read(f, 20<<20, luks.Limits{})
		if err != nil {
			t.Fatal(err)
		}
		if got, ok, err := h.Set(); err != nil || !ok || got.Shares != row.token.Shares || got.Version != row.token.Version {
			t.Errorf("Set = %+v, %v, %v, want %+v", got, ok, err, row.token)
		}
	}
}

func FuzzShares(f *testing.F) {
	f.Add("a=1048576+16777216 b=17825792+1048576")
	f.Fuzz(func(t *testing.T, text string) {
		shares, err := luks.ParseShares(text)
		if err != nil {
			return
		}
		end := int64(luks.ShareUnit)
		for _, s := range shares {
			if s.Offset < end || s.Size <= 0 {
				t.Fatalf("ParseShares(%q) = %v", text, shares)
			}
			end = s.Offset + s.Size
		}
	})
}
