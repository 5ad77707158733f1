package luks2

import (
	"context"
	"crypto/hmac"
	stdbinary "encoding/binary"
	"fmt"
	"hash"
	"runtime"
	"runtime/debug"
	"strings"
	"unsafe"

	"golang.org/x/crypto/argon2"
	"golang.org/x/sys/unix"

	"unlock/internal/secret"
)

// Limits bound what a header may ask of this machine.
type Limits struct {
	Memory     int64  // bytes for a KDF; 0: half of RAM, at most 4 GiB
	Iterations uint32 // of PBKDF2; 0: 10,000,000
}

// maxWork of Argon2, in KiB times passes: 32 GiB, about half a minute. cryptsetup
// aims at two seconds.
const maxWork = 32 << 20

func (l Limits) memory() int64 {
	if l.Memory > 0 {
		return l.Memory
	}
	return min(4<<30, ram()/2)
}

// ram is the size of the machine's memory, in bytes; 2 GiB if the kernel does not say.
func ram() int64 {
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) != nil {
		return 2 << 30
	}
	return int64(info.Totalram) * int64(info.Unit)
}

// MaxIterations of PBKDF2.
func (l Limits) MaxIterations() uint32 {
	if l.Iterations > 0 {
		return l.Iterations
	}
	return 10_000_000
}

// kdf derives a key from a passphrase.
type kdf struct {
	name string // "pbkdf2", "argon2i", "argon2id"
	salt []byte // 32 bytes

	hash       string // pbkdf2
	iterations uint32

	time   uint32 // argon2: passes
	memory uint32 // argon2: KiB
	cpus   uint32 // argon2: lanes
}

// parseKDF reads a keyslot's kdf. What cryptsetup would refuse fails s; what it
// would not, but is beyond us or the limits, is the error.
func parseKDF(s scope, lim Limits) (kdf, error) {
	k := kdf{name: s.str("type"), salt: s.base64("salt")}
	members := 0
	switch k.name {
	case "pbkdf2":
		members = 4
		k.hash, k.iterations = s.str("hash"), s.uint("iterations")
	case "argon2i", "argon2id":
		members = 5
		k.time, k.memory, k.cpus = s.uint("time"), s.uint("memory"), s.uint("cpus")
	default:
		return k, fmt.Errorf("key derivation %.40q is unknown", k.name)
	}
	if len(s.object) != members { // an old cryptsetup left those of another kind, and only cryptsetup repair may drop them
		return k, fmt.Errorf("%s has %d members, not %d", k.name, len(s.object), members)
	}
	return k, k.check(lim)
}

// check says why k cannot be computed here.
func (k kdf) check(lim Limits) error {
	if len(k.salt) != saltSize {
		return fmt.Errorf("salt of %d bytes, not %d", len(k.salt), saltSize)
	}
	if k.name == "pbkdf2" {
		if newHash(k.hash) == nil {
			return fmt.Errorf("hash %.40q is unknown", k.hash)
		}
		if k.iterations < 1 || k.iterations > lim.MaxIterations() {
			return fmt.Errorf("%d iterations, not 1 to %d", k.iterations, lim.MaxIterations())
		}
		return nil
	}
	if k.time < 1 || k.cpus < 1 || k.cpus > 255 || k.memory < 8*k.cpus {
		return fmt.Errorf("argon2 with %d passes, %d KiB and %d lanes", k.time, k.memory, k.cpus)
	}
	if int64(k.memory) > lim.memory()>>10 || int64(k.memory)*int64(k.time) > maxWork {
		return fmt.Errorf("argon2 with %d passes over %d KiB is more than this machine allows: %d KiB", k.time, k.memory, lim.memory()>>10)
	}
	return nil
}

// argon2Turn lets one Argon2 run at a time: each may take half of the memory,
// and several disks are opened in parallel.
var argon2Turn = make(chan struct{}, 1)

// derive fills key.
func (k kdf) derive(ctx context.Context, passphrase *secret.Bytes, key []byte) (err error) {
	if k.name == "pbkdf2" {
		secret.Do(func() { err = pbkdf2(ctx, newHash(k.hash), passphrase.Bytes(), k.salt, k.iterations, key) })
		return err
	}
	select {
	case argon2Turn <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() { <-argon2Turn }()
	adviseHuge(int(k.memory) << 10)
	f := argon2.IDKey
	if k.name == "argon2i" {
		f = argon2.Key
	}
	secret.Do(func() {
		out := f(passphrase.Bytes(), k.salt, k.time, k.memory, uint8(k.cpus), uint32(len(key)))
		copy(key, out)
		clear(out)
	})
	// Its blocks must be gone before the next run takes as much.
	debug.FreeOSMemory()
	return context.Cause(ctx)
}

// advised is the largest n of adviseHuge.
var advised int

// adviseHuge has the kernel give the heap's next n bytes, the blocks of Argon2, in
// huge pages. Touched page by page by several threads, they cost more than the
// hashing. The range is left empty: memory kept for Argon2 would be taken twice
// whenever another goroutine allocated from its start first, and with half of the
// machine's memory that is the end of the process. It is longer than n, as what
// other goroutines allocate, at its start or behind the blocks, moves the next
// blocks on. Who calls has the turn of Argon2.
func adviseHuge(n int) {
	const huge = 2 << 20
	if n <= advised {
		return // the range is used again, and stays advised
	}
	advised = n
	n += min(n+2*huge, int(ram()/4)) // what no memory could back is refused
	b := untouched(n)
	if n >= 2*huge {
		start := (huge - int(uintptr(unsafe.Pointer(&b[0]))%huge)) % huge
		_ = unix.Madvise(b[start:start+(n-start)&^(huge-1)], unix.MADV_HUGEPAGE) // without it, it is slower
	}
	runtime.KeepAlive(b)
	b = nil
	debug.FreeOSMemory()
}

// untouched memory of n bytes, which make would clear if a part had been used before.
func untouched(n int) []byte {
	var b strings.Builder
	b.Grow(n)
	b.WriteByte(0)
	return unsafe.Slice(unsafe.StringData(b.String()), n)
}

// pbkdf2 is RFC 8018, section 5.2. The standard library's takes the passphrase
// as a string, which could not be wiped.
func pbkdf2(ctx context.Context, h func() hash.Hash, passphrase, salt []byte, iterations uint32, key []byte) error {
	mac := hmac.New(h, passphrase)
	u := make([]byte, 0, mac.Size())
	t := make([]byte, mac.Size())
	defer func() { clear(u[:cap(u)]); clear(t) }()
	for block := uint32(1); len(key) > 0; block++ {
		mac.Reset()
		mac.Write(salt)
		mac.Write(stdbinary.BigEndian.AppendUint32(nil, block))
		u = mac.Sum(u[:0])
		copy(t, u)
		for i := uint32(1); i < iterations; i++ {
			mac.Reset()
			mac.Write(u)
			u = mac.Sum(u[:0])
			for j, b := range u {
				t[j] ^= b
			}
			if i%4096 == 0 && ctx.Err() != nil {
				return context.Cause(ctx)
			}
		}
		key = key[copy(key, t):]
	}
	return nil
}
