package keys_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"runtime/debug"
	"strings"
	"testing"

	"unlock/internal/aws/arn"
	"unlock/internal/config"
	"unlock/internal/keys"
	"unlock/internal/secret"
	"unlock/test/memory"
)

// kmsProcess, when set in the environment, has the test binary be a KMS in a
// process of its own, so that its copies of the plaintext are not found here.
const kmsProcess = "UNLOCK_TEST_KMS"

func TestMain(m *testing.M) {
	if os.Getenv(kmsProcess) != "" {
		serveKMS()
		return
	}
	os.Exit(m.Run())
}

// masked hides the plaintext from a search through the memory of this process.
func masked(b []byte) []byte {
	m := make([]byte, len(b))
	for i := range b {
		m[i] = b[i] ^ 0xa5
	}
	return m
}

// serveKMS prints its address, its certificate and the masked plaintext, and
// serves until its standard input ends.
func serveKMS() {
	plaintext := make([]byte, 48)
	rand.Read(plaintext)
	for i := range plaintext {
		plaintext[i] |= 0x80 // no newline
	}
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		json.NewEncoder(w).Encode(map[string]any{"KeyId": keyARN, "Plaintext": plaintext, "Tail": strings.Repeat("x", 6000)})
	}))
	srv.TLS = &tls.Config{DynamicRecordSizingDisabled: true} // one record, as large as it may be
	srv.StartTLS()
	fmt.Println(srv.Listener.Addr(), hex.EncodeToString(srv.Certificate().Raw), hex.EncodeToString(masked(plaintext)),
		hex.EncodeToString(masked([]byte(base64.StdEncoding.EncodeToString(plaintext)))))
	io.Copy(io.Discard, os.Stdin)
	srv.Close()
}

// pieces is a connection that gives at most size bytes at a time, as a network may.
type pieces struct {
	net.Conn
	size int
}

func (p pieces) Read(b []byte) (int, error) { return p.Conn.Read(b[:min(len(b), p.size)]) }

// TestMemory searches the memory of this process for the plaintext that KMS sent,
// as it is and as base64, after all that is ours to wipe has been wiped, however the
// answer is cut on its way. It does so in a process with the environment that such
// processes are given.
func TestMemory(t *testing.T) {
	if os.Getenv("GODEBUG") != secret.NoPreemption {
		cmd := exec.Command(os.Args[0], "-test.run=^TestMemory$", "-test.v")
		cmd.Env = append(os.Environ(), "GODEBUG="+secret.NoPreemption)
		if out, err := cmd.CombinedOutput(); err != nil || !bytes.Contains(out, []byte("PASS")) {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	for _, size := range []int{1, 100, 700, 1000, 2000, 1 << 20} {
		t.Run(fmt.Sprint(size), func(t *testing.T) { searchMemory(t, size) })
	}
}

// searchMemory has the answer come in pieces of so many bytes at most.
func searchMemory(t *testing.T, size int) {
	// Nothing that becomes garbage is reused, and so overwritten by chance.
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	buf := make([]byte, 1<<20)
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), kmsProcess+"=1")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer stdin.Close()
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	said := strings.Fields(line)
	der, _ := hex.DecodeString(said[1])
	raw, _ := hex.DecodeString(said[2])
	text, _ := hex.DecodeString(said[3])
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(cert)
	client, err := keys.New(keys.Options{
		Identity: role, Roots: roots, AWS: config.AWS{Endpoint: map[string]string{"kms": "https://example.com"}},
		Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
			conn, err := (&net.Dialer{}).DialContext(ctx, network, said[0])
			return pieces{conn, size}, err
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	s, _, err := client.Open(t.Context(), config.Key{Source: file(t), KMSKeys: []arn.ARN{arn.MustParse(keyARN)}})
	if err != nil {
		t.Fatal(err)
	}
	if n := copies(t, buf, raw); n == 0 {
		t.Error("the plaintext is not found where it must be: the search is broken")
	}
	s.Wipe()
	client.Close()
	if n := copies(t, buf, raw); n != 0 {
		t.Errorf("%d copies of the plaintext are left, want none", n)
	}
	if n := copies(t, buf, text); n != 0 {
		t.Errorf("%d copies of the plaintext's base64 text are left, want none", n)
	}
}

// copies counts how often what is masked lies in the writable memory of this
// process, reading it through buf.
func copies(t *testing.T, buf, mask []byte) int {
	t.Helper()
	n := 0
	key := []byte{mask[0] ^ 0xa5, mask[1] ^ 0xa5, mask[2] ^ 0xa5, mask[3] ^ 0xa5}
	memory.Pieces(t, buf, len(mask), func(rest []byte) {
		for {
			i := bytes.Index(rest, key)
			if i < 0 || len(rest)-i < len(mask) {
				return
			}
			if bytes.Equal(masked(rest[i:i+len(mask)]), mask) {
				n++
			}
			rest = rest[i+1:]
		}
	})
	return n
}
