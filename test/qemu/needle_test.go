package main

import (
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/hex"
	"slices"
	"strings"
	"testing"
)

func TestNeedles(t *testing.T) {
	const secret = "correct horse battery staple kW7-pZ3_xN9"
	var wide []byte
	for _, b := range []byte(secret) {
		wide = append(wide, b, 0)
	}
	for name, row := range map[string]struct {
		text string
		want int
	}{
		"nothing":              {"correct hors, battery staple", 0},
		"raw":                  {secret, 1},
		"twice":                {secret + "," + secret, 2},
		"its beginning":        {secret[:20], 1},
		"its end":              {secret[len(secret)-20:], 1},
		"hexadecimal":          {hex.EncodeToString([]byte(secret)), 1},
		"capitals":             {strings.ToUpper(hex.EncodeToString([]byte(secret))), 1},
		"UTF-16":               {string(wide), 1},
		"base64":               {base64.StdEncoding.EncodeToString([]byte(secret)), 1},
		"base64, one further":  {base64.StdEncoding.EncodeToString([]byte("\"" + secret + "\"")), 1},
		"base64, two further":  {base64.StdEncoding.EncodeToString([]byte("=\"" + secret + "\"")), 1},
		"base64 for addresses": {base64.URLEncoding.EncodeToString([]byte(secret)), 1},
	} {
		t.Run(name, func(t *testing.T) {
			for _, at := range []int{0, 4090, 8191, 3 * 4096} { // also across pages
				image := slices.Concat(make([]byte, at), []byte(row.text), make([]byte, 5000))
				found := newHaystack(image).find(needlesOf([]byte(secret)))
				if len(found) != row.want {
					t.Errorf("found %d copies at offset %d, want %d: %v", len(found), at, row.want, found)
				}
			}
		})
	}
}

// TestPrimes plants a prime in each order of bytes.
func TestPrimes(t *testing.T) {
	t.Parallel()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	image := make([]byte, 1<<20)
	rand.Read(image[1<<18 : 1<<19])
	key.Primes[0].FillBytes(image[4096+64 : 4096+64+128])
	little := image[1<<18+512 : 1<<18+512+128]
	key.Primes[1].FillBytes(little)
	slices.Reverse(little)
	if got, want := newHaystack(image).primes(key.N.Bytes()), []int{4096 + 64, 1<<18 + 512}; !slices.Equal(got, want) {
		t.Errorf("primes at %v, want %v", got, want)
	}
}
