package ec2sim

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
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
	rep := c.imdsReply(r)
	if rep.status >= 400 {
		text := http.StatusText(rep.status)
		rep.body = fmt.Appendf(nil, "<?xml version=\"1.0\" encoding=\"iso-8859-1\"?>\n<html><head><title>%d - %s</title></head><body><h1>%d - %s</h1></body></html>\n", rep.status, text, rep.status, text)
		rep.header = map[string]string{"Content-Type": "text/html"}
	}
	rep.header["Server"] = "EC2ws"
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

// lookup returns what is at path in a tree: a value, or the listing of a directory
// with its subdirectories marked by a slash.
func lookup(tree map[string]string, path string) (string, bool) {
	path = strings.TrimSuffix(path, "/")
	if v, ok := tree[path]; ok {
		return v, true
	}
	prefix := path + "/"
	if path == "" {
		prefix = ""
	}
	var names []string
	for p := range tree {
		if rest, ok := strings.CutPrefix(p, prefix); ok {
			name, _, dir := strings.Cut(rest, "/")
			if dir {
				name += "/"
			}
			names = append(names, name)
		}
	}
	slices.Sort(names)
	names = slices.Compact(names)
	return strings.Join(names, "\n"), len(names) > 0
}

// metadata is the tree of an instance below its version.
func (c *Cloud) metadata(inst *instance, hasRole bool) map[string]string {
	partition := partitions[c.cfg.Region]
	mac := inst.mac.String()
	private := inst.hostName() + "." + c.domain()
	eni := "network/interfaces/macs/" + mac + "/"
	tree := map[string]string{
		"ami-id":                          "ami-0123456789abcdef0",
		"ami-launch-index":                "0",
		"ami-manifest-path":               "(unknown)",
		"block-device-mapping/ami":        "/dev/xvda",
		"block-device-mapping/ephemeral0": "sdb",
		"block-device-mapping/root":       "/dev/xvda",
		"hostname":                        private,
		"instance-action":                 "none",
		"instance-id":                     inst.id,
		"instance-life-cycle":             "on-demand",
		"instance-type":                   "i4i.large",
		"local-hostname":                  private,
		"local-ipv4":                      inst.addr.String(),
		"mac":                             mac,
		eni + "device-number":             "0",
		eni + "interface-id":              "eni-0123456789abcdef0",
		eni + "local-hostname":            private,
		eni + "local-ipv4s":               inst.addr.String(),
		eni + "mac":                       mac,
		eni + "owner-id":                  c.cfg.Account,
		eni + "security-groups":           "default",
		eni + "subnet-id":                 "subnet-0123456789abcdef0",
		eni + "subnet-ipv4-cidr-block":    subnet.String(),
		eni + "vpc-id":                    "vpc-0123456789abcdef0",
		eni + "vpc-ipv4-cidr-block":       "172.31.0.0/16",
		"placement/availability-zone":     c.cfg.Region + "a",
		"placement/region":                c.cfg.Region,
		"profile":                         "default-hvm",
		"reservation-id":                  "r-0123456789abcdef0",
		"security-groups":                 "default",
		"services/domain":                 suffixes[partition][0],
		"services/partition":              partition,
	}
	if role := c.cfg.Role; hasRole {
		tree["iam/info"] = jsonText(map[string]string{
			"Code": "Success", "LastUpdated": c.now().Format(time.RFC3339),
			"InstanceProfileArn": fmt.Sprintf("arn:%s:iam::%s:instance-profile/%s", partition, c.cfg.Account, role),
			"InstanceProfileId":  "AIPAEXAMPLE",
		})
		tree["iam/security-credentials/"+role] = c.credentials(inst)
	}
	all := map[string]string{}
	for k, v := range tree {
		all["meta-data/"+k] = v
	}
	all["dynamic/instance-identity/document"] = c.identityDocument(inst)
	return all
}

// credentials are the role's, in the form of IMDS. They are renewed shortly before
// they expire.
func (c *Cloud) credentials(inst *instance) string {
	now := c.now().Truncate(time.Second)
	lifetime := 6 * time.Hour
	if c.fault("creds-expired") {
		now = now.Add(-lifetime - time.Hour)
	}
	arn := fmt.Sprintf("arn:%s:sts::%s:assumed-role/%s/%s", partitions[c.cfg.Region], c.cfg.Account, c.cfg.Role, inst.id)
	c.mu.Lock()
	defer c.mu.Unlock()
	var who *identity
	for _, i := range c.identities {
		left := i.expires.Sub(now)
		if i.arn == arn && left > 5*time.Minute && left <= lifetime {
			who = i
		}
	}
	if who == nil {
		secret := make([]byte, 30+300)
		rand.Read(secret)
		who = &identity{
			accessKey: "ASIA" + strings.ToUpper(randomHex(8)),
			secretKey: base64.StdEncoding.EncodeToString(secret[:30]),
			token:     "IQoJb3JpZ2luX2Vj" + base64.StdEncoding.EncodeToString(secret[30:]),
			expires:   now.Add(lifetime),
			arn:       arn,
		}
		c.identities[who.accessKey] = who
	}
	return jsonText(struct {
		Code            string
		LastUpdated     string
		Type            string
		AccessKeyId     string
		SecretAccessKey string
		Token           string
		Expiration      string
	}{
		"Success", who.expires.Add(-lifetime).Format(time.RFC3339), "AWS-HMAC",
		who.accessKey, who.secretKey, who.token, who.expires.Format(time.RFC3339),
	})
}

func (c *Cloud) identityDocument(inst *instance) string {
	return jsonText(struct {
		AccountID               string    `json:"accountId"`
		Architecture            string    `json:"architecture"`
		AvailabilityZone        string    `json:"availabilityZone"`
		BillingProducts         *[]string `json:"billingProducts"`
		DevpayProductCodes      *[]string `json:"devpayProductCodes"`
		MarketplaceProductCodes *[]string `json:"marketplaceProductCodes"`
		ImageID                 string    `json:"imageId"`
		InstanceID              string    `json:"instanceId"`
		InstanceType            string    `json:"instanceType"`
		KernelID                *string   `json:"kernelId"`
		PendingTime             string    `json:"pendingTime"`
		PrivateIP               string    `json:"privateIp"`
		RamdiskID               *string   `json:"ramdiskId"`
		Region                  string    `json:"region"`
		Version                 string    `json:"version"`
	}{
		AccountID: c.cfg.Account, Architecture: "x86_64", AvailabilityZone: c.cfg.Region + "a",
		ImageID: "ami-0123456789abcdef0", InstanceID: inst.id, InstanceType: "i4i.large",
		PendingTime: "2026-01-01T00:00:00Z", PrivateIP: inst.addr.String(),
		Region: c.cfg.Region, Version: "2017-09-30",
	})
}

func jsonText(v any) string {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		panic(err) // structs and maps of strings
	}
	return string(b)
}
