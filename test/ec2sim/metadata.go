package ec2sim

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
)

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

// imageID is the image of all instances.
const imageID = "ami-0123456789abcdef0"

// metadata is the tree of an instance below its version.
func (c *Cloud) metadata(inst *instance, hasRole bool) map[string]string {
	partition := partitions[c.cfg.Region]
	mac := inst.mac.String()
	private := inst.hostName() + "." + c.domain()
	eni := "network/interfaces/macs/" + mac + "/"
	tree := map[string]string{
		"ami-id":                       imageID,
		"ami-launch-index":             "0",
		"ami-manifest-path":            "(unknown)",
		"block-device-mapping/ami":     "/dev/xvda",
		"block-device-mapping/root":    "/dev/xvda",
		"hostname":                     private,
		"instance-action":              "none",
		"instance-id":                  inst.id,
		"instance-life-cycle":          "on-demand",
		"instance-type":                "i4i.large",
		"local-hostname":               private,
		"local-ipv4":                   inst.addr.String(),
		"mac":                          mac,
		eni + "device-number":          "0",
		eni + "interface-id":           "eni-0123456789abcdef0",
		eni + "local-hostname":         private,
		eni + "local-ipv4s":            inst.addr.String(),
		eni + "mac":                    mac,
		eni + "owner-id":               c.cfg.Account,
		eni + "security-groups":        "default",
		eni + "subnet-id":              "subnet-0123456789abcdef0",
		eni + "subnet-ipv4-cidr-block": subnet.String(),
		eni + "vpc-id":                 "vpc-0123456789abcdef0",
		eni + "vpc-ipv4-cidr-block":    "172.31.0.0/16",
		"placement/availability-zone":  c.cfg.Region + "a",
		"placement/region":             c.cfg.Region,
		"profile":                      "default-hvm",
		"reservation-id":               "r-0123456789abcdef0",
		"security-groups":              "default",
		"services/domain":              suffixes[partition][0],
		"services/partition":           partition,
	}
	for name, device := range c.cfg.BlockDevices {
		tree["block-device-mapping/"+name] = device
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
			created:   now,
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
		ImageID: imageID, InstanceID: inst.id, InstanceType: "i4i.large",
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
