package keys_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"unlock/internal/config"
	"unlock/internal/ec2"
	"unlock/internal/keys"
)

const (
	region    = "us-east-1"
	keyARN    = "arn:aws:kms:us-east-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
	otherARN  = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
	imdsHost  = "169.254.169.254"
	password  = "correct horse battery staple"
	encrypted = "ciphertext"
)

// cloud answers IMDS, S3, SSM, Secrets Manager and KMS over connections in memory, so that a
// test may run it below testing/synctest. A fault replaces a service's answer.
type cloud struct {
	ca    *x509.Certificate
	key   *ecdsa.PrivateKey
	serve map[string]*http.Server // by scheme
	conns map[string]chan net.Conn

	mu     sync.Mutex
	faults map[string]func(n int) http.HandlerFunc // by service; nil: the healthy answer to the n-th request; "": to what is not read yet
	dial   func(n int, host string) error          // before a connection to a service of AWS is made
	leaf   func(*x509.Certificate)                 // changes the certificate of a host
	seen   []string                                // "service operation" of each request
	asked  map[string]int                          // how many by service
	dials  int
}

func newCloud(t *testing.T) *cloud {
	t.Helper()
	c := &cloud{faults: map[string]func(int) http.HandlerFunc{}, conns: map[string]chan net.Conn{}, serve: map[string]*http.Server{}, asked: map[string]int{}}
	var err error
	if c.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	c.ca = c.certificate(t, &x509.Certificate{Subject: pkix.Name{CommonName: "CA"}, IsCA: true, BasicConstraintsValid: true})
	var leaves sync.Map
	tlsConfig := &tls.Config{GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		if leaf, ok := leaves.Load(hello.ServerName); ok {
			return leaf.(*tls.Certificate), nil
		}
		leaf := c.certificate(t, &x509.Certificate{DNSNames: []string{hello.ServerName}})
		cert := &tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: c.key}
		leaves.Store(hello.ServerName, cert)
		return cert, nil
	}}
	for _, scheme := range []string{"http", "https"} {
		l := listener{make(chan net.Conn), make(chan struct{}), new(sync.Once)}
		srv := &http.Server{Handler: c, ErrorLog: log.New(io.Discard, "", 0)}
		c.conns[scheme], c.serve[scheme] = l.conns, srv
		if scheme == "https" {
			srv.TLSConfig = tlsConfig
			go srv.ServeTLS(l, "", "")
		} else {
			go srv.Serve(l)
		}
		t.Cleanup(func() { srv.Close() })
	}
	return c
}

// certificate signs a certificate with the cloud's CA, or makes the CA.
func (c *cloud) certificate(t *testing.T, template *x509.Certificate) *x509.Certificate {
	template.SerialNumber = big.NewInt(1)
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(24*time.Hour)
	if c.leaf != nil {
		c.leaf(template)
	}
	parent := c.ca
	if parent == nil {
		parent = template
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, c.key.Public(), c.key)
	if err != nil {
		t.Error(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Error(err)
	}
	return cert
}

type listener struct {
	conns chan net.Conn
	done  chan struct{}
	once  *sync.Once
}

func (l listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l listener) Close() error   { l.once.Do(func() { close(l.done) }); return nil }
func (l listener) Addr() net.Addr { return &net.TCPAddr{} }

// Dial is the network.
func (c *cloud) Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	scheme := "https"
	if port == "80" {
		scheme = "http"
	}
	if c.dial != nil && scheme == "https" {
		c.mu.Lock()
		c.dials++
		n := c.dials
		c.mu.Unlock()
		if err := c.dial(n, host); err != nil {
			return nil, err
		}
	}
	client, server := pipe()
	select {
	case c.conns[scheme] <- server:
		return client, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// ServeHTTP is all services.
func (c *cloud) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if early := c.faults[""]; early != nil && r.Method == http.MethodPost {
		early(1)(w, r) // before the request is read
		return
	}
	body, _ := io.ReadAll(r.Body)
	r.Body = io.NopCloser(bytes.NewReader(body)) // once more
	service, operation := "imds", r.URL.Path
	if target, isJSON := r.Header["X-Amz-Target"]; isJSON {
		service, operation, _ = strings.Cut(target[0], ".")
		service = map[string]string{"TrentService": "kms", "AmazonSSM": "ssm", "secretsmanager": "secretsmanager"}[service]
	} else if r.TLS != nil {
		service, operation = "s3", r.Host+r.URL.RequestURI()
	}
	c.mu.Lock()
	c.seen = append(c.seen, service+" "+operation)
	c.asked[service]++
	n := c.asked[service]
	fault := c.faults[service]
	c.mu.Unlock()
	if fault != nil {
		if h := fault(n); h != nil {
			h(w, r)
			return
		}
	}
	switch {
	case service == "imds":
		imds(w, r)
	case service == "s3":
		w.Header().Set("X-Amz-Request-Id", fmt.Sprint("s3-", n))
		io.WriteString(w, encrypted)
	case service == "ssm":
		w.Header().Set("X-Amzn-Requestid", fmt.Sprint("ssm-", n))
		reply(w, map[string]any{"Parameter": map[string]any{"Type": "String", "Value": base64.StdEncoding.EncodeToString([]byte(encrypted))}})
	case service == "secretsmanager":
		w.Header().Set("X-Amzn-Requestid", fmt.Sprint("secretsmanager-", n))
		reply(w, map[string]any{"VersionId": "current", "SecretBinary": []byte(encrypted)})
	default:
		w.Header().Set("X-Amzn-Requestid", fmt.Sprint("kms-", n))
		var in struct{ KeyID string }
		json.Unmarshal(body, &in)
		reply(w, map[string]any{"KeyId": in.KeyID, "Plaintext": []byte(password + "\n"), "CiphertextBlob": []byte(encrypted)})
	}
}

func reply(w http.ResponseWriter, v any) { json.NewEncoder(w).Encode(v) }

// imds is a healthy metadata service.
func imds(w http.ResponseWriter, r *http.Request) {
	switch strings.TrimPrefix(r.URL.Path, "/latest/") {
	case "api/token":
		w.Header().Set("X-Aws-Ec2-Metadata-Token-Ttl-Seconds", "300")
		io.WriteString(w, "token")
	case "meta-data/iam/security-credentials/":
		io.WriteString(w, "demo")
	case "meta-data/iam/security-credentials/demo":
		reply(w, credentials(time.Hour))
	default:
		http.NotFound(w, r)
	}
}

func credentials(left time.Duration) map[string]string {
	return map[string]string{
		"Code": "Success", "AccessKeyId": "ASIAIOSFODNN7EXAMPLE", "SecretAccessKey": "secret", "Token": "session",
		"Expiration": time.Now().Add(left).UTC().Format(time.RFC3339),
	}
}

// count returns how many requests a service has seen.
func (c *cloud) count(prefix string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := 0
	for _, s := range c.seen {
		if strings.HasPrefix(s, prefix) {
			n++
		}
	}
	return n
}

// client returns a keys.Client on this cloud, whose identity comes from its IMDS.
func (c *cloud) client(t *testing.T, o config.AWS, log func(string, ...any)) *keys.Client {
	t.Helper()
	md := ec2.New(ec2.Options{Dial: c.Dial, Endpoint: "http://" + imdsHost})
	t.Cleanup(md.Close)
	k, err := keys.New(keys.Options{Identity: md.Role, Region: md.Region, Dial: c.Dial, Roots: c.roots(), AWS: o, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		k.Close()
		md.Close()
	})
	return k
}

func (c *cloud) roots() *x509.CertPool {
	roots := x509.NewCertPool()
	roots.AddCert(c.ca)
	return roots
}
