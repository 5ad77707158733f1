package ec2sim

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// quiet drops what net/http has to say about clients that give up.
var quiet = log.New(io.Discard, "", 0)

// maxBody is the largest request body, of S3 objects mostly.
const maxBody = 64 << 20

// reply is an answer to an HTTP request, and how it is to go wrong.
type reply struct {
	status int
	header map[string]string
	body   []byte

	operation, resource, errorType, requestID string // for the record

	head     bool          // send the header only
	truncate bool          // end the connection in the middle of the body
	reset    bool          // the same, with a TCP reset
	padding  int           // bytes to send after the body
	pause    time.Duration // between the bytes of the body
}

// send writes rep and records the request.
func (c *Cloud) send(w http.ResponseWriter, r *http.Request, rep reply, service string, arrived time.Time) {
	c.record(Request{
		Time: arrived, Service: service, Operation: rep.operation, Resource: rep.resource,
		Host: r.Host, Status: rep.status, ErrorType: rep.errorType, RequestID: rep.requestID,
	})
	h := w.Header()
	for k, v := range rep.header {
		h[k] = []string{v} // as AWS spells it
	}
	h.Set("Date", c.now().Format(http.TimeFormat))
	if h.Get("Content-Length") == "" {
		h.Set("Content-Length", strconv.Itoa(len(rep.body)+rep.padding))
	}
	w.WriteHeader(rep.status)
	if rep.head {
		return
	}
	flush := w.(http.Flusher).Flush
	if rep.truncate || rep.reset {
		w.Write(rep.body[:len(rep.body)/2])
		flush()
		if rep.reset {
			reset(r)
		}
		panic(http.ErrAbortHandler)
	}
	if rep.pause == 0 {
		w.Write(rep.body)
	} else {
		for _, b := range rep.body {
			flush()
			if !c.wait(r.Context(), rep.pause) {
				panic(http.ErrAbortHandler)
			}
			w.Write([]byte{b})
		}
	}
	zero := make([]byte, 64<<10)
	for left := rep.padding; left > 0; left -= len(zero) {
		if _, err := w.Write(zero[:min(left, len(zero))]); err != nil {
			return
		}
	}
}

type connKey struct{}

// withConn lets a handler find its connection.
func withConn(ctx context.Context, conn net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, conn)
}

// reset ends a request's TCP connection with a reset, and without the goodbye of TLS.
func reset(r *http.Request) {
	conn := r.Context().Value(connKey{}).(net.Conn)
	if t, ok := conn.(*tls.Conn); ok {
		conn = t.NetConn()
	}
	conn.(interface{ SetLinger(int) error }).SetLinger(0)
	conn.Close()
}

// api serves one of the services of AWS; service "" (Loopback) tells them apart by the request,
// and serves IAM as well.
func (c *Cloud) api(service string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		arrived := time.Now()
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
		if err != nil {
			panic(http.ErrAbortHandler) // too long, or the client gave up
		}
		host, _, err := net.SplitHostPort(r.Host)
		if err != nil {
			host = r.Host
		}
		e, known := parseHost(host)
		target := r.Header.Get("X-Amz-Target")
		switch {
		case service == "": // any name will do
			e.service = "s3"
			if strings.HasPrefix(target, "TrentService.") {
				e.service = "kms"
			} else if strings.HasPrefix(target, "AmazonSSM.") {
				e.service = "ssm"
			} else if strings.HasPrefix(target, secretsTarget) {
				e.service = "secretsmanager"
			} else if strings.Contains(target, cloudtrailTarget) {
				e.service = "cloudtrail"
			} else if isIAM(r, body) {
				e.service = "iam"
			}
		case !known || e.service != service:
			c.record(Request{Time: arrived, Service: service, Operation: r.Method + " " + r.URL.Path, Host: r.Host, Status: http.StatusBadRequest})
			http.Error(w, "this is the endpoint of "+service, http.StatusBadRequest)
			return
		}
		var rep reply
		switch e.service {
		case "s3":
			rep = c.s3(r, e, body)
		case "kms":
			rep = c.json(r, e, "TrentService.", body, c.kms)
			rep.reset = c.fault("kms-reset")
		case "ssm":
			rep = c.json(r, e, "AmazonSSM.", body, c.ssm)
		case "secretsmanager":
			rep = c.json(r, e, secretsTarget, body, c.secretsmanager)
		case "cloudtrail":
			before, _, _ := strings.Cut(target, cloudtrailTarget)
			rep = c.json(r, e, before+cloudtrailTarget, body, c.cloudtrail)
		case "iam":
			rep = c.iam(r, body)
		}
		if slow, set := c.faultDuration(e.service + "-slow"); set && !c.wait(r.Context(), slow) {
			panic(http.ErrAbortHandler)
		}
		c.send(w, r, rep, e.service, arrived)
	})
}

// uuid returns a random UUID (version 4), the form of KMS's key and request ids.
func uuid() string {
	var b [16]byte
	rand.Read(b[:])
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// randomHex returns n random bytes in hexadecimal.
func randomHex(n int) string {
	b := make([]byte, n)
	rand.Read(b)
	return hex.EncodeToString(b)
}
