package main

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"unicode/utf16"
)

// window is how many bytes in a row give a copy away. Both ends of a secret are
// looked for: an allocator may have overwritten the rest of a copy, or a page may
// end within it.
const window = 16

// needles are the byte sequences by which copies of one secret are found: for each
// way to write it, its first bytes and its last.
type needles [][2][]byte

// needlesOf returns those of a secret: raw, hexadecimal, UTF-16LE, and base64 at
// each offset that it may have within a longer text.
func needlesOf(secret []byte) needles {
	n := rawNeedles(secret)
	hexa := hex.EncodeToString(secret)
	for _, text := range []string{hexa, strings.ToUpper(hexa)} {
		n = append(n, ends([]byte(text)))
	}
	var wide []byte
	for _, u := range utf16.Encode([]rune(string(secret))) {
		wide = append(wide, byte(u), byte(u>>8))
	}
	n = append(n, ends(wide))
	for shift := range 3 {
		text := base64.RawStdEncoding.EncodeToString(append(make([]byte, shift), secret...))
		// The first and last characters also hold bits of what is beside it.
		n = append(n, ends([]byte(text[(shift*8+5)/6:len(text)-1])))
	}
	return n
}

// rawNeedles returns those of a secret that is only looked for as it is.
func rawNeedles(secret []byte) needles { return needles{ends(secret)} }

func ends(text []byte) [2][]byte {
	n := min(window, len(text))
	return [2][]byte{text[:n], text[len(text)-n:]}
}

// haystack is a large image, most of whose pages hold nothing.
type haystack struct {
	image []byte
	used  [][2]int // from, to: what is not zero
}

func newHaystack(image []byte) haystack {
	const page = 4096
	zeros := make([]byte, page)
	h := haystack{image: image}
	for at := 0; at < len(image); at += page {
		end := min(at+page, len(image))
		last := len(h.used) - 1
		switch {
		case bytes.Equal(image[at:end], zeros[:end-at]):
		case last >= 0 && h.used[last][1] == at:
			h.used[last][1] = end
		default:
			h.used = append(h.used, [2]int{at, end})
		}
	}
	return h
}

// sight is where a copy was found, and what is around it.
type sight struct {
	at   int
	text []byte
}

func (s sight) String() string { return fmt.Sprintf("at %#x: %q", s.at, s.text) }

// find returns the copies of a secret. What is found by two needles is one copy.
func (h haystack) find(n needles) []sight {
	var all []sight
	seen := map[int]bool{}
	for _, row := range n {
		first, last := h.sights(row[0]), h.sights(row[1])
		if len(last) > len(first) {
			first = last
		}
		for _, s := range first {
			if !seen[s.at] {
				all = append(all, s)
			}
			seen[s.at] = true
		}
	}
	return all
}

func (h haystack) sights(needle []byte) []sight {
	var all []sight
	for _, span := range h.used {
		for at := span[0]; ; at++ {
			i := bytes.Index(h.image[at:span[1]], needle)
			if i < 0 {
				break
			}
			at += i
			all = append(all, sight{at, h.image[max(0, at-32):min(len(h.image), at+64)]})
		}
	}
	return all
}

// primes returns where a factor of an RSA modulus lies, half as long as that, in either
// order of bytes and at multiples of eight.
func (h haystack) primes(modulus []byte) []int {
	size := len(modulus) / 2
	n, p, rest := new(big.Int).SetBytes(modulus), new(big.Int), new(big.Int)
	var found []int
	turned := make([]byte, size)
	for _, span := range h.used {
		for at := (span[0] + 7) &^ 7; at+size <= span[1]; at += 8 {
			b := h.image[at : at+size]
			for _, little := range []bool{false, true} {
				first, last := b[0], b[size-1]
				if little {
					first, last = last, first
				}
				if first&0xc0 != 0xc0 || last&1 == 0 { // both highest bits of a prime are set
					continue
				}
				c := b
				if little {
					copy(turned, b)
					slices.Reverse(turned)
					c = turned
				}
				if rest.Rem(n, p.SetBytes(c)).Sign() == 0 {
					found = append(found, at)
				}
			}
		}
	}
	return found
}
