package ec2sim_test

import (
	"encoding/base64"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"unlock/test/ec2sim"
)

func TestNames(t *testing.T) {
	t.Parallel()
	m := newMachine(t, ec2sim.Config{})
	conn, err := m.DialContext(t.Context(), "udp", "169.254.169.253:53") // the other address of the resolver
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(time.Minute))
	ask := &dns.Conn{Conn: conn}
	const s3, kms, ssm = "192.0.2.10", "192.0.2.20", "192.0.2.30"
	for name, want := range map[string]string{
		"s3.us-east-1.amazonaws.com":                     s3,
		"S3.US-East-1.AmazonAWS.com":                     s3,
		"s3.amazonaws.com":                               s3,
		"bucket.s3.amazonaws.com":                        s3,
		"bucket.s3.eu-west-1.amazonaws.com":              s3,
		"a.dotted.bucket.s3.eu-west-1.amazonaws.com":     s3,
		"bucket.s3.dualstack.eu-west-1.amazonaws.com":    s3,
		"bucket.s3-fips.us-gov-west-1.amazonaws.com":     s3,
		"kms.us-east-1.amazonaws.com":                    kms,
		"kms-fips.us-east-1.amazonaws.com":               kms,
		"kms.eu-central-1.api.aws":                       kms,
		"kms.cn-north-1.amazonaws.com.cn":                kms,
		"vpce-0abc-xyz.kms.us-east-1.vpce.amazonaws.com": kms,
		"ssm.us-east-1.amazonaws.com":                    ssm,
		"secretsmanager.us-east-1.amazonaws.com":         "192.0.2.40",
		"ip-172-31-5-10.ec2.internal":                    "172.31.5.10",
		"ip-172-31-5-11.ec2.internal":                    "NXDOMAIN",
		"kms.us-east-1.amazonaws.com.ec2.internal":       "NXDOMAIN",
		"kms.us-east-9.amazonaws.com":                    "NXDOMAIN",
		"kms.cn-north-1.amazonaws.com":                   "NXDOMAIN",
		"kms.amazonaws.com":                              "NXDOMAIN",
		"xkms.us-east-1.amazonaws.com":                   "NXDOMAIN",
		"bucket.kms.us-east-1.amazonaws.com":             "NXDOMAIN",
		"xs3.us-east-1.amazonaws.com":                    "NXDOMAIN",
		"s3.us-east-1.amazonaws.com.example.com":         "NXDOMAIN",
		"example.com":                                    "NXDOMAIN",
		"evil.kms.us-east-1.vpce.amazonaws.com":          "NXDOMAIN",
		"169.254.169.254.us-east-1":                      "NXDOMAIN",
	} {
		if err := ask.WriteMsg(new(dns.Msg).SetQuestion(name+".", dns.TypeA)); err != nil {
			t.Fatal(err)
		}
		msg, err := ask.ReadMsg()
		if err != nil {
			t.Fatal(err)
		}
		got := dns.RcodeToString[msg.Rcode]
		if len(msg.Answer) == 1 {
			got = msg.Answer[0].(*dns.A).A.String()
		}
		if got != want {
			t.Errorf("%s = %s, want %s", name, got, want)
		}
	}
}

func TestS3(t *testing.T) {
	t.Parallel()
	m := newMachine(t, ec2sim.Config{})
	m.cloud.PutObject("bucket", "key", []byte("old"))
	m.cloud.PutObject("bucket", "key", []byte("new"))
	m.cloud.PutObject("dotted.bucket", "key", []byte("dotted"))
	m.cloud.CreateBucket("europe", "eu-west-1")
	old := m.cloud.Versions("bucket", "key")[0]
	const hosted, path = "https://bucket.s3.us-east-1.amazonaws.com/", "https://s3.us-east-1.amazonaws.com/"
	for name, tt := range map[string]struct {
		method, url, body string
		header            []string
		status            int
		want              string // what the body contains
	}{
		"virtual-hosted":      {"GET", hosted + "key", "", nil, 200, "new"},
		"path style":          {"GET", path + "bucket/key", "", nil, 200, "new"},
		"dual-stack":          {"GET", "https://bucket.s3.dualstack.us-east-1.amazonaws.com/key", "", nil, 200, "new"},
		"FIPS":                {"GET", "https://bucket.s3-fips.us-east-1.amazonaws.com/key", "", nil, 200, "new"},
		"global":              {"GET", "https://bucket.s3.amazonaws.com/key", "", nil, 200, "new"},
		"dotted, path style":  {"GET", path + "dotted.bucket/key", "", nil, 200, "dotted"},
		"version":             {"GET", hosted + "key?versionId=" + old, "", nil, 200, "old"},
		"absent version":      {"GET", hosted + "key?versionId=x", "", nil, 404, "<Code>NoSuchVersion</Code>"},
		"absent key":          {"GET", hosted + "absent", "", nil, 404, "<Code>NoSuchKey</Code><Message>The specified key does not exist.</Message><Key>absent</Key><RequestId>"},
		"absent bucket":       {"GET", path + "absent/key", "", nil, 404, "<Code>NoSuchBucket</Code>"},
		"HEAD":                {"HEAD", hosted + "key", "", nil, 200, ""},
		"HEAD of absent":      {"HEAD", hosted + "absent", "", nil, 404, ""},
		"HEAD of bucket":      {"HEAD", hosted, "", nil, 200, ""},
		"PUT":                 {"PUT", hosted + "put", "data", nil, 200, ""},
		"PUT, absent bucket":  {"PUT", path + "absent/put", "data", nil, 404, "<Code>NoSuchBucket</Code>"},
		"PUT, good checksum":  {"PUT", hosted + "put", "data", []string{"x-amz-checksum-crc32", "rfPzYw=="}, 200, ""},
		"PUT, wrong checksum": {"PUT", hosted + "put", "data", []string{"x-amz-checksum-crc32", "rfPz2g=="}, 400, "<Code>BadDigest</Code>"},
		"PUT with SSE-KMS":    {"PUT", hosted + "put", "data", []string{"x-amz-server-side-encryption", "aws:kms"}, 501, "<Code>NotImplemented</Code>"},
		"DELETE":              {"DELETE", hosted + "key", "", nil, 405, "<Code>MethodNotAllowed</Code>"},
		"policy":              {"GET", hosted + "?policy=", "", nil, 501, "<Code>NotImplemented</Code>"},
		"wrong region":        {"GET", "https://europe.s3.us-east-1.amazonaws.com/key", "", nil, 301, "<Endpoint>europe.s3.eu-west-1.amazonaws.com</Endpoint>"},
		"signed for another":  {"GET", "https://europe.s3.eu-west-1.amazonaws.com/key", "", nil, 400, "expecting 'eu-west-1'</Message><Region>eu-west-1</Region>"},
	} {
		t.Run(name, func(t *testing.T) {
			a := m.s3(t, admin, tt.method, tt.url, tt.body, tt.header...)
			if a.err != nil || a.status != tt.status || !strings.Contains(a.body, tt.want) || tt.method == "HEAD" && a.body != "" {
				t.Errorf("%s %s = %+v, want %d %s", tt.method, tt.url, a, tt.status, tt.want)
			}
			if a.header.Get("x-amz-request-id") == "" || a.header.Get("x-amz-id-2") == "" {
				t.Errorf("no request ids: %v", a.header)
			}
			if tt.status == 301 && a.header.Get("x-amz-bucket-region") != "eu-west-1" {
				t.Errorf("no region: %v", a.header)
			}
			if tt.status == 200 && tt.method == "GET" && (a.header.Get("ETag") == "" || a.header.Get("x-amz-server-side-encryption") != "AES256") {
				t.Errorf("header = %v", a.header)
			}
		})
	}
	if a := m.s3(t, admin, "GET", "https://dotted.bucket.s3.us-east-1.amazonaws.com/key", ""); a.err == nil || !strings.Contains(a.err.Error(), "certificate is valid for") {
		t.Errorf("a dotted bucket, virtual-hosted: %+v, want a refused certificate", a)
	}
	if a := m.do(request(t, "GET", path, "", "Host", "x")); a.status != 403 || !strings.Contains(a.body, "AccessDenied") {
		t.Errorf("unsigned: %+v", a)
	}
}

// TestBlobShape: what an operator sees of a ciphertext begins as KMS's does.
func TestBlobShape(t *testing.T) {
	t.Parallel()
	c := newCloud(t, ec2sim.Config{})
	key := c.CreateKey()
	blob := base64.StdEncoding.EncodeToString(c.Encrypt(key, []byte("x"), nil))
	if !strings.HasPrefix(blob, "AQICA") || blob == base64.StdEncoding.EncodeToString(c.Encrypt(key, []byte("x"), nil)) {
		t.Errorf("blob = %s", blob)
	}
}
