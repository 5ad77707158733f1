package audit_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"unlock/cmd/unlockctl/internal/audit"
	"unlock/cmd/unlockctl/internal/places"
	"unlock/cmd/unlockctl/internal/trail"
	"unlock/internal/keys/source"
	"unlock/internal/status"
	"unlock/test/cloudtrail"
)

// What the world below is configured with.
const (
	account   = "111122223333"
	region    = "us-east-1"
	sealedKey = "arn:aws:kms:us-east-1:111122223333:key/11111111-2222-3333-4444-555555555555"
	headerKey = "arn:aws:kms:us-east-1:111122223333:key/mrk-0123456789abcdef0123456789abcdef"
	bucket    = "an-internalstoragekeybucket"
	object    = "LuksInternalStorageKey"
	kmsDoor   = "vpce-0123456789abcdef0"
	s3Door    = "vpce-0fedcba9876543210"
	admin     = "arn:aws:iam::111122223333:user/admin"
	pcr4      = "aa11bb22"
)

var parameters, _ = places.Of(source.SSM)
var secrets, _ = places.Of(source.SecretsManager)

var question = audit.Question{
	Keys: []audit.Key{
		{Volumes: []string{"secretfs"}, ARNs: []string{sealedKey}, Context: map[string]string{"purpose": "secretfs"}, Source: source.MustParse("s3://" + bucket + "/" + object)},
		{Volumes: []string{"scratch", "cache"}, ARNs: []string{headerKey}, Context: map[string]string{"purpose": "scratch"}, Bound: true, Local: true},
		{Volumes: []string{"data"}, ARNs: []string{sealedKey}, Context: map[string]string{"purpose": "data"}, Source: source.MustParse("ssm:/unlock/data"), Trail: parameters.Trail},
		{Volumes: []string{"vault"}, ARNs: []string{sealedKey}, Context: map[string]string{"purpose": "vault"}, Source: source.MustParse("secretsmanager:unlock/vault"), Trail: secrets.Trail},
	},
	Roles:  []string{"unlock"},
	Window: 15 * time.Minute,
}

// world is an account in which instances boot, and in which somebody does what should
// not be done.
type world struct {
	random  *rand.Rand
	events  []*cloudtrail.Event
	boots   []status.Boot
	planted map[string]string // event id → finding that is wanted
	trouble bool              // throttled requests and lost answers
}

func newWorld() *world {
	return &world{random: rand.New(rand.NewPCG(1, 2)), planted: map[string]string{}}
}

func (w *world) hex(n int) string {
	var b strings.Builder
	for range n {
		fmt.Fprintf(&b, "%x", w.random.IntN(16))
	}
	return b.String()
}

func (w *world) uuid() string {
	return strings.Join([]string{w.hex(8), w.hex(4), "4" + w.hex(3), "8" + w.hex(3), w.hex(12)}, "-")
}

// machine is an instance and how it reaches AWS.
type machine struct {
	id, addr      string
	kmsVia, s3Via string // VPC endpoints; with none, public is its address
	public        string
	set           string
	key           string // access key of its session
	created       time.Time
}

func (w *world) machine() *machine {
	m := &machine{id: "i-" + w.hex(17), addr: fmt.Sprintf("172.31.%d.%d", w.random.IntN(16), 4+w.random.IntN(250)), set: w.uuid()}
	switch w.random.IntN(3) {
	case 0:
		m.kmsVia, m.s3Via = kmsDoor, s3Door
	case 1: // behind a NAT gateway, S3 through its gateway endpoint
		m.s3Via, m.public = s3Door, "198.51.100.7"
	case 2:
		m.public = fmt.Sprintf("203.0.113.%d", w.random.IntN(256))
	}
	return m
}

// session is the instance's credentials of one boot.
func (w *world) session(m *machine, at time.Time) {
	m.key, m.created = fmt.Sprintf("ASIA%s", strings.ToUpper(w.hex(16))), at
}

// call is an event of an instance; it is added to the world.
func (w *world) call(m *machine, at time.Time, service, name string) *cloudtrail.Event {
	e := &cloudtrail.Event{
		Time: at, Service: service, Name: name, Region: region, Agent: "unlock", EventID: w.uuid(), RequestID: w.uuid(), ReadOnly: true, Account: account,
		Identity: cloudtrail.Identity{ARN: "arn:aws:sts::111122223333:assumed-role/unlock/" + m.id, AccessKey: m.key, Created: m.created, Delivery: "2.0"},
	}
	e.Endpoint = m.kmsVia
	if service == "s3" {
		e.Endpoint, e.RequestID = m.s3Via, strings.ToUpper(w.hex(16))
	}
	e.Address = m.public
	if e.Endpoint != "" {
		e.Address = m.addr
	}
	w.events = append(w.events, e)
	return e
}

// kms is a call to KMS with a key and a context.
func (w *world) kms(m *machine, at time.Time, name, arn string, context map[string]string) *cloudtrail.Event {
	e := w.call(m, at, "kms", name)
	e.Request = map[string]any{"keyId": arn, "encryptionAlgorithm": "SYMMETRIC_DEFAULT"}
	if name == "GenerateDataKey" {
		e.Request = map[string]any{"keyId": arn, "keySpec": "AES_256"}
	}
	if context != nil {
		e.Request["encryptionContext"] = context
	}
	e.Resources = []cloudtrail.Resource{{Account: account, Type: "AWS::KMS::Key", ARN: arn}}
	return e
}

func (w *world) get(m *machine, at time.Time) *cloudtrail.Event {
	e := w.call(m, at, "s3", "GetObject")
	e.Data = true
	e.Request = map[string]any{"bucketName": bucket, "key": object, "Host": bucket + ".s3.us-east-1.amazonaws.com"}
	e.Additional = map[string]any{"bytesTransferredOut": 180.0, "x-amz-id-2": w.hex(20)}
	e.Resources = []cloudtrail.Resource{{Type: "AWS::S3::Object", ARN: "arn:aws:s3:::" + bucket + "/" + object}, {Account: account, Type: "AWS::S3::Bucket", ARN: "arn:aws:s3:::" + bucket}}
	return e
}

func refused(e *cloudtrail.Event, code string) *cloudtrail.Event {
	e.ErrorCode, e.Message = code, "no"
	return e
}

var (
	purposeSecret  = map[string]string{"purpose": "secretfs"}
	purposeData    = map[string]string{"purpose": "data"}
	purposeScratch = map[string]string{"purpose": "scratch"}
)

func bound(set string) map[string]string {
	c := maps.Clone(purposeScratch)
	c["unlock:set"] = set
	return c
}

// boot is an honest boot: what unlock asks of AWS, with the troubles it may have.
func (w *world) boot(m *machine, at time.Time, first bool) {
	w.session(m, at)
	b := status.Boot{Version: "1", Started: at.Add(4 * time.Second), Result: status.ResultDone, BootID: w.uuid(),
		Instance: &status.Instance{ID: m.id, Account: account, Region: region, Image: "ami-0123456789abcdef0"}}
	answered := func(e *cloudtrail.Event, attempts int) {
		b.Calls = append(b.Calls, status.Call{Service: e.Service, Operation: e.Name, RequestID: e.RequestID, Attempts: attempts})
	}
	t := at.Add(5 * time.Second)
	attempts := 1
	if w.trouble && w.random.IntN(10) == 0 {
		refused(w.kms(m, t, "Decrypt", sealedKey, purposeSecret), "ThrottlingException")
		attempts++
		t = t.Add(2 * time.Second)
	}
	if w.trouble && w.random.IntN(20) == 0 { // its answer is lost on the way
		w.kms(m, t, "Decrypt", sealedKey, purposeSecret)
		attempts++
		t = t.Add(2 * time.Second)
	}
	answered(w.get(m, t), 1)
	answered(w.kms(m, t, "Decrypt", sealedKey, purposeSecret), attempts)
	name := "Decrypt"
	if first {
		name = "GenerateDataKey"
	}
	answered(w.kms(m, t, name, headerKey, bound(m.set)), 1)
	p := w.call(m, t, "ssm", "GetParameter")
	p.Request = map[string]any{"name": "/unlock/data", "withDecryption": false}
	answered(p, 1)
	answered(w.kms(m, t, "Decrypt", sealedKey, purposeData), 1)
	w.boots = append(w.boots, b)
}

// launched is EC2's record that an instance starts.
func (w *world) launched(m *machine, at time.Time, name string) *cloudtrail.Event {
	item := map[string]any{"instanceId": m.id, "privateIpAddress": m.addr}
	set := map[string]any{"instancesSet": map[string]any{"items": []any{item}}}
	e := &cloudtrail.Event{Time: at, Service: "ec2", Name: name, Region: region, Address: "autoscaling.amazonaws.com", Agent: "autoscaling.amazonaws.com",
		Identity: cloudtrail.Identity{ARN: admin, AccessKey: "AKIAEXAMPLE", InvokedBy: "autoscaling.amazonaws.com"}, Response: set, RequestID: w.uuid(), EventID: w.uuid(), Account: account}
	if name == "RebootInstances" {
		e.Request, e.Response = set, map[string]any{"_return": true}
	}
	w.events = append(w.events, e)
	return e
}

// by makes a call that of somebody else.
func by(e *cloudtrail.Event, arn string) *cloudtrail.Event {
	e.Identity = cloudtrail.Identity{ARN: arn, AccessKey: "AKIAEXAMPLE"}
	e.Address, e.Endpoint, e.Agent = "192.0.2.44", "", "aws-cli/2.9.19"
	return e
}

// plant wants a finding on an event, and no other one.
func (w *world) plant(finding string, e *cloudtrail.Event) *cloudtrail.Event {
	w.planted[e.EventID] += " " + finding
	return e
}

// files delivers the events, each five minutes a file, with a digest each hour.
func (w *world) files() ([]trail.File, trail.Keys) {
	slices.SortStableFunc(w.events, func(a, b *cloudtrail.Event) int { return a.Time.Compare(b.Time) })
	var list []trail.File
	t := &cloudtrail.Trail{Account: account, Region: region, Name: "unlock", Bucket: "trail", Put: func(key string, data []byte, metadata map[string]string) {
		list = append(list, trail.File{Bucket: "trail", Name: key, Size: int64(len(data)), Open: func(context.Context) (io.ReadCloser, map[string]string, error) {
			return io.NopCloser(bytes.NewReader(data)), metadata, nil
		}})
	}}
	var batch [][]byte
	var from time.Time
	var hour time.Time
	flush := func(at time.Time) {
		if len(batch) > 0 {
			t.Deliver(at, from, at, batch...)
		}
		batch = nil
	}
	for _, e := range w.events {
		slot := e.Time.Truncate(5 * time.Minute).Add(5 * time.Minute)
		if hour.IsZero() {
			hour = e.Time.Truncate(time.Hour).Add(time.Hour)
		}
		if len(batch) > 0 && slot != from.Truncate(5*time.Minute).Add(5*time.Minute) {
			flush(from.Truncate(5 * time.Minute).Add(5 * time.Minute))
		}
		for ; e.Time.After(hour); hour = hour.Add(time.Hour) {
			t.Digest(hour)
		}
		if len(batch) == 0 {
			from = e.Time
		}
		batch = append(batch, e.JSON())
	}
	flush(hour)
	t.Digest(hour)
	der, fingerprint := cloudtrail.PublicKey()
	key, err := trail.ParseKey(der)
	if err != nil {
		panic(err)
	}
	return list, trail.Keys{fingerprint: key}
}

// judge reads files and judges them, having told a all that it should know.
func judge(t testing.TB, a *audit.Audit, files []trail.File, keys trail.Keys) *audit.Result {
	t.Helper()
	digests, err := trail.ReadDigests(t.Context(), files)
	if err != nil {
		t.Fatal(err)
	}
	logs := slices.DeleteFunc(slices.Clone(files), func(f trail.File) bool { return trail.IsDigest(f.Name) })
	read, err := trail.ReadAll(t.Context(), logs, a.See, new(trail.Progress))
	if err != nil {
		t.Fatal(err)
	}
	var v *trail.Validation
	if digests.Any() {
		v = new(digests.Validate(read, keys))
	}
	return a.Judge(read, v)
}
