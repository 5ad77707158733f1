package ec2sim_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"unlock/test/ec2sim"
)

func TestIMDSToken(t *testing.T) {
	t.Parallel()
	m := newMachine(t, ec2sim.Config{})
	for name, tt := range map[string]struct {
		method, path string
		header       []string
		want         int
	}{
		"TTL 1":             {"PUT", "api/token", []string{ttlHeader, "1"}, 200},
		"TTL 21600":         {"PUT", "api/token", []string{ttlHeader, "21600"}, 200},
		"TTL missing":       {"PUT", "api/token", nil, 400},
		"TTL 0":             {"PUT", "api/token", []string{ttlHeader, "0"}, 400},
		"TTL 21601":         {"PUT", "api/token", []string{ttlHeader, "21601"}, 400},
		"TTL no number":     {"PUT", "api/token", []string{ttlHeader, "long"}, 400},
		"forwarded":         {"PUT", "api/token", []string{ttlHeader, "60", "X-Forwarded-For", "172.31.5.11"}, 403},
		"dated version":     {"PUT", "../2021-03-23/api/token", []string{ttlHeader, "60"}, 403},
		"GET":               {"GET", "api/token", nil, 405},
		"POST of metadata":  {"POST", "meta-data/mac", []string{tokenHeader, m.token(t)}, 405},
		"v1":                {"GET", "meta-data/mac", nil, 401},
		"invented token":    {"GET", "meta-data/mac", []string{tokenHeader, "AQAEA"}, 401},
		"forwarded GET":     {"GET", "meta-data/mac", []string{tokenHeader, m.token(t), "X-Forwarded-For", "172.31.5.11"}, 401},
		"good":              {"GET", "meta-data/mac", []string{tokenHeader, m.token(t)}, 200},
		"dated metadata":    {"GET", "../2021-03-23/meta-data/mac", []string{tokenHeader, m.token(t)}, 200},
		"invented version":  {"GET", "../2020-01-01/meta-data/mac", []string{tokenHeader, m.token(t)}, 404},
		"absent":            {"GET", "meta-data/absent", []string{tokenHeader, m.token(t)}, 404},
		"prefix of a name":  {"GET", "meta-data/ma", []string{tokenHeader, m.token(t)}, 404},
		"absent user data":  {"GET", "user-data", []string{tokenHeader, m.token(t)}, 404},
		"another role":      {"GET", "meta-data/iam/security-credentials/other", []string{tokenHeader, m.token(t)}, 404},
		"identity document": {"GET", "dynamic/instance-identity/document", []string{tokenHeader, m.token(t)}, 200},
	} {
		t.Run(name, func(t *testing.T) {
			url := strings.Replace(imds+tt.path, "latest/../", "", 1)
			a := m.do(request(t, tt.method, url, "", tt.header...))
			if a.status != tt.want {
				t.Errorf("%s %s = %+v, want %d", tt.method, url, a, tt.want)
			}
			if tt.want == 200 && tt.method == "PUT" && (len(a.body) != 56 || a.header.Get(ttlHeader) != tt.header[1]) {
				t.Errorf("token = %+v", a)
			}
		})
	}
	t.Run("expired", func(t *testing.T) {
		token := m.do(request(t, "PUT", imds+"api/token", "", ttlHeader, "1")).body
		time.Sleep(1100 * time.Millisecond)
		if a := m.do(request(t, "GET", imds+"meta-data/mac", "", tokenHeader, token)); a.status != 401 {
			t.Errorf("GET with an expired token = %+v", a)
		}
	})
	t.Run("of another instance", func(t *testing.T) {
		g, err := m.cloud.Guest()
		if err != nil {
			t.Fatal(err)
		}
		second := &machine{Guest: g, cloud: m.cloud, http: newHTTPClient(t, m.cloud, g)}
		if a := second.do(request(t, "GET", imds+"meta-data/mac", "", tokenHeader, m.token(t))); a.status != 401 {
			t.Errorf("GET with another instance's token = %+v", a)
		}
		if mine, its := m.metadata(t, "meta-data/instance-id"), second.metadata(t, "meta-data/instance-id"); mine.body == its.body {
			t.Errorf("two instances have the id %s", its.body)
		}
	})
}

func TestIMDSTree(t *testing.T) {
	t.Parallel()
	m := newMachine(t, ec2sim.Config{Region: "cn-north-1", Account: "444455556666", Role: "a-role", BlockDevices: map[string]string{"ebs1": "sdf"}})
	mac := m.MAC().String()
	for path, want := range map[string]string{
		"meta-data/placement/region":                                "cn-north-1",
		"meta-data/services/domain":                                 "amazonaws.com.cn",
		"meta-data/services":                                        "domain\npartition",
		"meta-data/iam/":                                            "info\nsecurity-credentials/",
		"meta-data/iam/security-credentials/":                       "a-role",
		"meta-data/block-device-mapping/":                           "ami\nebs1\nroot",
		"meta-data/block-device-mapping/ebs1":                       "sdf",
		"meta-data/network/interfaces/macs/":                        mac + "/",
		"meta-data/local-hostname":                                  "ip-172-31-5-10.cn-north-1.compute.internal",
		"meta-data/network/interfaces/macs/" + mac + "/local-ipv4s": "172.31.5.10",
	} {
		if a := m.metadata(t, path); a.body != want {
			t.Errorf("%s = %q, want %q", path, a.body, want)
		}
	}
	var doc struct{ AccountID, InstanceID, Region, PrivateIP string }
	a := m.metadata(t, "dynamic/instance-identity/document")
	if err := json.Unmarshal([]byte(a.body), &doc); err != nil || doc.AccountID != "444455556666" || doc.Region != "cn-north-1" || doc.PrivateIP != "172.31.5.10" {
		t.Errorf("identity document = %s: %v", a.body, err)
	}
}

func TestIMDSWithoutRole(t *testing.T) {
	t.Parallel()
	m := newMachine(t, ec2sim.Config{Role: ec2sim.NoRole})
	if a := m.metadata(t, "meta-data/iam/security-credentials/"); a.status != http.StatusNotFound {
		t.Errorf("roles = %+v, want 404", a)
	}
	if a := m.metadata(t, "meta-data/block-device-mapping/ephemeral0"); a.body != "sdb" {
		t.Errorf("instance store = %+v, want sdb", a)
	}
	if a := m.metadata(t, "meta-data/"); strings.Contains(a.body, "iam") {
		t.Errorf("listing = %s", a.body)
	}
}
