package badinput

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

const (
	keyARN     = "arn:aws:kms:us-east-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
	passphrase = "correct horse battery staple kW7-pZ3_xN9"
)

// ciphertext stands for what KMS made of passphrase.
var ciphertext = append([]byte{1, 2, 2, 0}, bytes.Repeat([]byte("ciphertext "), 16)...)

// cloud answers as AWS does, and changes the answers of one service. Its network
// are pipes, so that a test can run in a synctest bubble.
type cloud struct {
	mutate func(service string, answer []byte) []byte
	cert   tls.Certificate
	wait   sync.WaitGroup
}

// authority returns a certificate for all of AWS, and the pool that trusts it. Fake
// time begins in 2000.
func authority() (tls.Certificate, *x509.CertPool, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Date(1999, 1, 1, 0, 0, 0, 0, time.UTC), NotAfter: time.Date(2090, 1, 1, 0, 0, 0, 0, time.UTC),
		DNSNames: []string{"*.us-east-1.amazonaws.com", "*.s3.us-east-1.amazonaws.com"},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool, nil
}

// dial connects to a service by its name.
func (c *cloud) dial(_ context.Context, _, addr string) (net.Conn, error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	service := "imds"
	switch {
	case strings.HasPrefix(host, "kms."):
		service = "kms"
	case strings.Contains(host, "s3."):
		service = "s3"
	case host != "169.254.169.254":
		return nil, fmt.Errorf("no host %q", host)
	}
	here, conn := bufferedPipe(&c.wait)
	if service != "imds" {
		conn = tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{c.cert}})
	}
	c.wait.Go(func() {
		defer conn.Close()
		c.serve(service, conn)
	})
	return here, nil
}

// serve answers one request.
func (c *cloud) serve(service string, conn net.Conn) {
	r, err := http.ReadRequest(bufio.NewReader(conn))
	if err != nil {
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	status, kind, text := answer(service, r, body)
	raw := fmt.Appendf(nil, "HTTP/1.1 %d %s\r\nDate: %s\r\nContent-Type: %s\r\nContent-Length: %d\r\nConnection: close\r\nx-amzn-RequestId: 1\r\n%s\r\n%s",
		status, http.StatusText(status), time.Now().UTC().Format(http.TimeFormat), kind, len(text), ttl(r), text)
	_, _ = conn.Write(c.mutate(service, raw)) // who does not listen has hung up
}

// ttl is a header of the answer to a request for a token.
func ttl(r *http.Request) string {
	if r.Method != http.MethodPut {
		return ""
	}
	return "X-Aws-Ec2-Metadata-Token-Ttl-Seconds: 21600\r\n"
}

func answer(service string, r *http.Request, body []byte) (status int, kind, text string) {
	switch service {
	case "s3":
		return http.StatusOK, "binary/octet-stream", string(ciphertext)
	case "kms":
		var in struct{ CiphertextBlob []byte }
		if json.Unmarshal(body, &in) != nil || !bytes.Equal(in.CiphertextBlob, ciphertext) {
			return http.StatusBadRequest, "application/x-amz-json-1.1", `{"__type":"InvalidCiphertextException"}`
		}
		return http.StatusOK, "application/x-amz-json-1.1", fmt.Sprintf(`{"KeyId":%q,"Plaintext":%q,"EncryptionAlgorithm":"SYMMETRIC_DEFAULT"}`,
			keyARN, base64.StdEncoding.EncodeToString([]byte(passphrase)))
	}
	switch {
	case r.Method == http.MethodPut:
		text = "AQAEATOKEN=="
	case strings.HasSuffix(r.URL.Path, "/security-credentials/"):
		text = "demo"
	case strings.HasSuffix(r.URL.Path, "/security-credentials/demo"):
		text = fmt.Sprintf(`{"Code":"Success","Type":"AWS-HMAC","AccessKeyId":"ASIAEXAMPLE","SecretAccessKey":"secret","Token":"token","Expiration":%q}`,
			time.Now().Add(time.Hour).UTC().Format(time.RFC3339))
	case strings.HasSuffix(r.URL.Path, "/placement/region"):
		text = "us-east-1"
	default:
		return http.StatusNotFound, "text/html", "not found"
	}
	return http.StatusOK, "text/plain", text
}

// wire is the raw socket of a DHCP client, with a server at its other end.
type wire struct {
	mutate  func(service string, answer []byte) []byte
	answers chan []byte
	closed  chan struct{}
	once    sync.Once
}

func newWire(mutate func(string, []byte) []byte) *wire {
	return &wire{mutate: mutate, answers: make(chan []byte, 8), closed: make(chan struct{})}
}

var card = net.HardwareAddr{2, 0, 0, 0, 0, 1}

func (w *wire) WriteTo(b []byte, _ net.Addr) (int, error) {
	request, err := dhcpv4.FromBytes(b)
	if err != nil {
		return 0, err
	}
	kind := dhcpv4.MessageTypeOffer
	if request.MessageType() == dhcpv4.MessageTypeRequest {
		kind = dhcpv4.MessageTypeAck
	}
	reply, err := dhcpv4.NewReplyFromRequest(request, dhcpv4.WithMessageType(kind), dhcpv4.WithYourIP(net.IPv4(172, 31, 5, 10)),
		dhcpv4.WithServerIP(net.IPv4(172, 31, 0, 1)), dhcpv4.WithNetmask(net.CIDRMask(20, 32)), dhcpv4.WithRouter(net.IPv4(172, 31, 0, 1)),
		dhcpv4.WithDNS(net.IPv4(172, 31, 0, 2)), dhcpv4.WithLeaseTime(3600), dhcpv4.WithOption(dhcpv4.OptServerIdentifier(net.IPv4(172, 31, 0, 1))))
	if err != nil {
		return 0, err
	}
	select {
	case w.answers <- w.mutate("dhcp", reply.ToBytes()):
	default:
	}
	return len(b), nil
}

func (w *wire) ReadFrom(b []byte) (int, net.Addr, error) {
	select {
	case a := <-w.answers:
		return copy(b, a), &net.UDPAddr{IP: net.IPv4(172, 31, 0, 1), Port: 67}, nil
	case <-w.closed:
		return 0, nil, net.ErrClosed
	}
}

func (w *wire) Close() error {
	w.once.Do(func() { close(w.closed) })
	return nil
}

func (w *wire) LocalAddr() net.Addr              { return &net.UDPAddr{Port: 68} }
func (w *wire) SetDeadline(time.Time) error      { return nil }
func (w *wire) SetReadDeadline(time.Time) error  { return nil }
func (w *wire) SetWriteDeadline(time.Time) error { return nil }
