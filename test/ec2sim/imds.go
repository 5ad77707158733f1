package ec2sim

import (
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// imdsHopLimit is the default hop limit: answers of IMDS do not survive a router,
// such as that of a container on the instance. On EC2 it is the answer to PUT
// that has it; here all have.
const imdsHopLimit = 1

const maxTokenTTL = 21600 // seconds

// imdsToken is a session of IMDSv2. It is good for one instance only.
type imdsToken struct {
	instance *instance
	expires  time.Time
}

// imdsVersions are names besides "latest" under which the tree is served.
var imdsVersions = []string{"1.0", "2007-01-19", "2011-05-01", "2016-09-02", "2018-09-24", "2019-10-01", "2021-03-23", "2021-07-15"}

// imds serves 169.254.169.254.
func (c *Cloud) imds(w http.ResponseWriter, r *http.Request) {
	arrived := time.Now()
	io.Copy(io.Discard, io.LimitReader(r.Body, maxBody))
	if r.Method == http.MethodPut && c.fault("imds-hops") {
		c.wait(r.Context(), time.Hour)
		panic(http.ErrAbortHandler)
	}
	rep := c.imdsReply(r)
	if rep.status >= 400 {
		text := http.StatusText(rep.status)
		rep.body = fmt.Appendf(nil, "<?xml version=\"1.0\" encoding=\"iso-8859-1\"?>\n<html><head><title>%d - %s</title></head><body><h1>%d - %s</h1></body></html>\n", rep.status, text, rep.status, text)
		rep.header = map[string]string{"Content-Type": "text/html"}
	}
	rep.header["Server"] = "EC2ws"
	if !c.fault("imds-keepalive") {
		rep.header["Connection"] = "close"
	}
	rep.operation = r.Method + " " + r.URL.Path
	if slow, set := c.faultDuration("imds-slow"); set && !c.wait(r.Context(), slow) {
		panic(http.ErrAbortHandler)
	}
	c.send(w, r, rep, "imds", arrived)
}

func (c *Cloud) imdsReply(r *http.Request) reply {
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	inst := c.instanceAt(peer.Addr())
	switch {
	case err != nil, inst == nil: // a machine with an address that is not its own
		return reply{status: http.StatusNotFound}
	case c.fault("imds-off"):
		return reply{status: http.StatusForbidden}
	case c.fault("imds-500"):
		return reply{status: http.StatusInternalServerError}
	case c.fault("imds-503"):
		return reply{status: http.StatusServiceUnavailable}
	}
	version, path, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	v1 := c.fault("imds-v1-only")
	if path == "api/token" {
		if v1 {
			return reply{status: http.StatusNotFound}
		}
		return c.imdsPutToken(r, inst, version)
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		return reply{status: http.StatusMethodNotAllowed}
	}
	if !v1 && !c.imdsTokenValid(r, inst) {
		return reply{status: http.StatusUnauthorized}
	}
	body, ok := "", true
	switch {
	case version == "":
		body = strings.Join(append(slices.Clone(imdsVersions), "latest"), "\n")
	case version != "latest" && !slices.Contains(imdsVersions, version):
		ok = false
	default:
		hasRole := c.cfg.Role != NoRole && !c.fault("no-role")
		if strings.HasPrefix(path, "meta-data/iam/") && c.fault("role-late") {
			hasRole = false
		}
		if path == "meta-data/iam/security-credentials/"+c.cfg.Role && c.fault("role-changed") {
			hasRole = false
		}
		body, ok = lookup(c.metadata(inst, hasRole), path)
	}
	if !ok {
		return reply{status: http.StatusNotFound}
	}
	return reply{
		status: http.StatusOK, body: []byte(body), header: map[string]string{"Content-Type": "text/plain"},
		truncate: c.fault("imds-truncated"),
	}
}

func (c *Cloud) imdsPutToken(r *http.Request, inst *instance, version string) reply {
	const ttlHeader = "X-Aws-Ec2-Metadata-Token-Ttl-Seconds"
	ttl, err := strconv.Atoi(r.Header.Get(ttlHeader))
	switch {
	case r.Method != http.MethodPut:
		return reply{status: http.StatusMethodNotAllowed}
	case version != "latest", r.Header.Get("X-Forwarded-For") != "":
		return reply{status: http.StatusForbidden}
	case err != nil, ttl < 1, ttl > maxTokenTTL:
		return reply{status: http.StatusBadRequest}
	}
	var secret [37]byte
	rand.Read(secret[:])
	token := "AQAEA" + base64.RawURLEncoding.EncodeToString(secret[:])[:49] + "==" // 56 characters, as real ones
	c.mu.Lock()
	c.tokens[token] = imdsToken{inst, time.Now().Add(time.Duration(ttl) * time.Second)}
	c.mu.Unlock()
	return reply{status: http.StatusOK, body: []byte(token), header: map[string]string{
		"Content-Type": "text/plain",
		ttlHeader:      strconv.Itoa(ttl),
	}}
}

func (c *Cloud) imdsTokenValid(r *http.Request, inst *instance) bool {
	if r.Header.Get("X-Forwarded-For") != "" {
		return false
	}
	id := r.Header.Get("X-Aws-Ec2-Metadata-Token")
	c.mu.Lock()
	token, ok := c.tokens[id]
	c.mu.Unlock()
	if !ok || token.instance != inst || time.Now().After(token.expires) {
		return false
	}
	if c.faultOnce("imds-401-once") {
		c.mu.Lock()
		delete(c.tokens, id)
		c.mu.Unlock()
		return false
	}
	return true
}
