//go:build goexperiment.runtimesecret

package attest_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"math/big"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"testing"

	"unlock/internal/ec2/attest"
	"unlock/internal/secret"
	"unlock/test/attested"
	"unlock/test/memory"
)

// TestMemory searches the memory of this process for the primes of the private key, and
// for plaintext, content key and padding, after all that is to be wiped has been. It does
// so in a process with the environment that such processes are given.
func TestMemory(t *testing.T) {
	if os.Getenv("GODEBUG") != secret.NoPreemption {
		cmd := exec.Command(os.Args[0], "-test.run=^TestMemory$", "-test.v")
		cmd.Env = append(os.Environ(), "GODEBUG="+secret.NoPreemption)
		if out, err := cmd.CombinedOutput(); err != nil || !bytes.Contains(out, []byte("PASS")) {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	var public []byte
	r := attest.New(func(_ context.Context, request []byte) (_ []byte, err error) {
		public, err = attested.PublicKey(request)
		return attested.Answer(public), err
	})
	if _, err := r.Document(t.Context()); err != nil {
		t.Fatal(err)
	}
	key, err := x509.ParsePKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	// What is searched for is kept as its complement.
	content, plaintext := make([]byte, 32), make([]byte, 40)
	var envelope []byte
	secret.Do(func() {
		c, p := make([]byte, 32), make([]byte, 40, 48)
		rand.Read(c)
		rand.Read(p)
		for i := range c {
			content[i] = ^c[i]
		}
		for i := range p {
			plaintext[i] = ^p[i]
		}
		envelope, err = attested.Blocks(key.(*rsa.PublicKey), c, append(p, bytes.Repeat([]byte{8}, 8)...))
	})
	if err != nil {
		t.Fatal(err)
	}
	s, err := r.Open(envelope)
	if err != nil {
		t.Fatal(err)
	}
	collect()
	buf := make([]byte, 1<<20)
	n := key.(*rsa.PublicKey).N
	if found := search(t, buf, plaintext); found != 1 {
		t.Errorf("%d copies of the plaintext, want the one in locked memory", found)
	}
	// Division leaves copies of what divides, in memory that it keeps for the next: none is
	// left from before, as the collector came by.
	primes := 0
	secret.Do(func() { primes = factors(t, buf, n) })
	if primes == 0 {
		t.Error("no prime is found where one must be: the search is broken")
	}
	s.Wipe()
	r.Close()
	collect()
	if found := search(t, buf, plaintext); found != 0 {
		t.Errorf("%d copies of the plaintext are left, want none", found)
	}
	if found := search(t, buf, content); found != 0 {
		t.Errorf("%d copies of the content key are left, want none", found)
	}
	if primes := factors(t, buf, n); primes != 0 {
		t.Errorf("%d copies of primes are left, want none", primes)
	}
}

// collect has the garbage collector come by: what finalizers hold goes the second time.
func collect() {
	for range 3 {
		runtime.GC()
	}
}

// overlap is such that pieces begin at multiples of a page.
const overlap = 4096

// search counts the places of what mask is the complement of. Places in the overlap of
// two pieces count twice; there is none, or it does not matter.
func search(t *testing.T, buf, mask []byte) int {
	t.Helper()
	count, first := 0, []byte{^mask[0], ^mask[1], ^mask[2]}
	memory.Pieces(t, buf, overlap, func(chunk []byte) {
		for rest := chunk; ; rest = rest[1:] {
			i := bytes.Index(rest, first)
			if i < 0 || len(rest)-i < len(mask) {
				return
			}
			rest = rest[i:]
			same := true
			for j := range mask {
				same = same && rest[j] == ^mask[j]
			}
			if same {
				count++
			}
		}
	})
	return count
}

// factors counts the places of numbers of half the size of n that divide it, in either
// order of bytes.
func factors(t *testing.T, buf []byte, n *big.Int) int {
	t.Helper()
	size := n.BitLen() / 16
	count := 0
	number, rest := new(big.Int), new(big.Int)
	memory.Pieces(t, buf, overlap, func(chunk []byte) {
		turned := make([]byte, size)
		for at := 0; at+size <= len(chunk); at += 8 {
			c := chunk[at : at+size]
			for _, little := range []bool{false, true} {
				high, low := c[0], c[size-1]
				if little {
					high, low = low, high
				}
				if high < 0xc0 || low&1 == 0 { // Go's primes have these bits set
					continue
				}
				copy(turned, c)
				if little {
					slices.Reverse(turned)
				}
				if rest.Rem(n, number.SetBytes(turned)).Sign() == 0 {
					count++
				}
			}
		}
		clear(turned)
	})
	clear(number.Bits())
	return count
}
