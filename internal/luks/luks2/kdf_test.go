package luks2

import (
	"bytes"
	"context"
	stdpbkdf2 "crypto/pbkdf2"
	"crypto/sha1"
	"encoding/hex"
	"errors"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"unlock/internal/secret"
)

// TestPBKDF2 holds our loop against the standard library's, whose passphrase is a
// string, and against RFC 6070.
func TestPBKDF2(t *testing.T) {
	for _, name := range []string{"sha1", "sha256", "sha512"} {
		for _, iterations := range []int{1, 2, 1000, 5000} {
			for _, n := range []int{1, 20, 32, 64, 65, 200} {
				passphrase, salt := []byte("passphrase longer than a block of the hash"), []byte("salt")
				want, err := stdpbkdf2.Key(newHash(name), string(passphrase), salt, iterations, n)
				if err != nil {
					t.Fatal(err)
				}
				got := make([]byte, n)
				if err := pbkdf2(t.Context(), newHash(name), passphrase, salt, uint32(iterations), got); err != nil || !bytes.Equal(got, want) {
					t.Errorf("%s, %d iterations, %d bytes: %x, %v, want %x", name, iterations, n, got, err, want)
				}
			}
		}
	}
	got := make([]byte, 20)
	const want = "4b007901b765489abead49d926f721d065a429c1"
	if err := pbkdf2(t.Context(), sha1.New, []byte("password"), []byte("salt"), 4096, got); err != nil || hex.EncodeToString(got) != want {
		t.Errorf("RFC 6070: %x, %v, want %s", got, err, want)
	}
}

func TestPBKDF2Stops(t *testing.T) {
	cause := errors.New("the boot's deadline")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	if err := pbkdf2(ctx, sha1.New, nil, nil, 1<<31, make([]byte, 20)); !errors.Is(err, cause) {
		t.Errorf("pbkdf2 = %v, want the cause", err)
	}
}

// TestArgon2Waits: only one may use half of the memory at a time.
func TestArgon2Waits(t *testing.T) {
	argon2Turn <- struct{}{}
	defer func() { <-argon2Turn }()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	k := kdf{name: "argon2id", salt: make([]byte, saltSize), time: 1, memory: 64, cpus: 1}
	if err := k.derive(ctx, secret.New(1), make([]byte, 64)); !errors.Is(err, context.Canceled) {
		t.Errorf("derive while another runs = %v, want context.Canceled", err)
	}
}

func TestLimits(t *testing.T) {
	if n := (Limits{}).memory(); n < 1<<20 || n > 4<<30 {
		t.Errorf("memory() = %d", n)
	}
	if got := (Limits{Memory: 5}).memory(); got != 5 {
		t.Errorf("memory() = %d, want 5", got)
	}
	pb := kdf{name: "pbkdf2", salt: make([]byte, saltSize), hash: "sha256", iterations: 20_000_000}
	if pb.check(Limits{}) == nil {
		t.Error("20 M iterations pass")
	}
	if err := pb.check(Limits{Iterations: 20_000_000}); err != nil {
		t.Error(err)
	}
}

// TestArgon2Peak has other goroutines allocate meanwhile: memory must not be taken
// twice for one Argon2, as it may need half of the machine's.
func TestArgon2Peak(t *testing.T) {
	const memory, slack = 16 << 10, 12 << 10 // KiB
	runs := 300
	if testing.Short() {
		runs = 30
	}
	allocateMeanwhile(t)
	passphrase := secret.New(8)
	k := kdf{name: "argon2id", time: 1, memory: memory, cpus: 4, salt: make([]byte, saltSize)}
	for range runs {
		if err := os.WriteFile("/proc/self/clear_refs", []byte("5"), 0); err != nil { // resets the peak
			t.Skip(err)
		}
		before := peak(t)
		if err := k.derive(t.Context(), passphrase, make([]byte, 32)); err != nil {
			t.Fatal(err)
		}
		if took := peak(t) - before; took > memory+slack {
			t.Fatalf("Argon2 over %d KiB took %d KiB", memory, took)
		}
	}
}

// TestArgon2HugePages has other goroutines allocate meanwhile: the blocks must stay
// where the kernel was told to use huge pages.
func TestArgon2HugePages(t *testing.T) {
	if mode, err := os.ReadFile("/sys/kernel/mm/transparent_hugepage/enabled"); err != nil || bytes.Contains(mode, []byte("[never]")) {
		t.Skip("no huge pages here")
	}
	const memory = 128 << 10 // KiB
	runs := 40
	if testing.Short() {
		runs = 4
	}
	allocateMeanwhile(t)
	passphrase := secret.New(8)
	k := kdf{name: "argon2id", time: 1, memory: memory, cpus: 2, salt: make([]byte, saltSize)}
	for i := range runs {
		before := minorFaults(t)
		if err := k.derive(t.Context(), passphrase, make([]byte, 32)); err != nil {
			t.Fatal(err)
		}
		if n := minorFaults(t) - before; n > memory/4/4 {
			t.Fatalf("run %d took %d page faults for %d pages of 4 KiB", i, n, memory/4)
		}
	}
}

// allocateMeanwhile has goroutines allocate and forget until t ends.
func allocateMeanwhile(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	var others sync.WaitGroup
	t.Cleanup(func() { stop(); others.Wait() })
	for range 4 {
		others.Go(func() {
			for keep := make([][]byte, 64); ctx.Err() == nil; time.Sleep(100 * time.Microsecond) {
				keep[rand.IntN(len(keep))] = make([]byte, 1<<rand.IntN(16))
			}
		})
	}
}

// minorFaults of this process: pages that the kernel had to give it.
func minorFaults(t *testing.T) int64 {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return u.Minflt
}

// peak of the memory that this process held, in KiB.
func peak(t *testing.T) int {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, value, _ := strings.Cut(string(status), "VmHWM:")
	kib, err := strconv.Atoi(strings.Fields(value)[0])
	if err != nil {
		t.Fatal(err)
	}
	return kib
}
