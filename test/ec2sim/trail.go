package ec2sim

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"unlock/test/cloudtrail"
)

// This file records calls as CloudTrail does, and delivers the records to a bucket.

// administrator is the address from which calls through Loopback are said to come.
const administrator = "198.51.100.4"

// cloudtrailTarget begins X-Amz-Target in requests to CloudTrail; the AWS CLI puts
// the name of a package before it.
const cloudtrailTarget = "CloudTrail_20131101."

// recorder is the simulated account's CloudTrail.
type recorder struct {
	trail    *cloudtrail.Trail // nil: no trail delivers anywhere
	logging  bool
	stopping bool               // with the next event
	events   []cloudtrail.Event // all of them; LookupEvents shows them
	pending  []cloudtrail.Event // those to be delivered

	delivering sync.Mutex
	digested   time.Time // to the second, which the name of a digest has
}

// StartTrail has calls recorded and delivered to a bucket, which is made if it is not
// there. They arrive with their digests when the bucket is listed: how late CloudTrail
// delivers nobody can tell.
func (c *Cloud) StartTrail(bucket string) {
	c.mu.Lock()
	_, ok := c.buckets[bucket]
	c.mu.Unlock()
	if !ok {
		c.CreateBucket(bucket, c.cfg.Region)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.recorder.logging = true
	c.recorder.trail = &cloudtrail.Trail{Account: c.cfg.Account, Region: c.cfg.Region, Name: "unlock", Bucket: bucket,
		Put: func(key string, data []byte, metadata map[string]string) {
			o := c.putObject(bucket, key, "application/json", data)
			c.mu.Lock()
			defer c.mu.Unlock()
			o.encoding, o.metadata = "gzip", metadata
		}}
}

// Events returns the CloudTrail records of all calls so far, in the order in which they
// were made.
func (c *Cloud) Events() [][]byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	var list [][]byte
	for i := range c.recorder.events {
		list = append(list, c.recorder.events[i].JSON())
	}
	return list
}

// log records a call that somebody who is known made, refused or not.
func (c *Cloud) log(r *http.Request, who *identity, e cloudtrail.Event) {
	host, _, _ := net.SplitHostPort(r.RemoteAddr)
	if ip := net.ParseIP(host); ip != nil && ip.IsLoopback() {
		host = administrator
	}
	e.Time, e.Address, e.Agent, e.Account, e.EventID = c.now(), host, r.UserAgent(), c.cfg.Account, uuid()
	e.Identity = cloudtrail.Identity{ARN: who.arn, AccessKey: who.accessKey, Created: who.created}
	if who.token != "" {
		e.Identity.Delivery = "2.0" // of IMDSv2
	}
	if id, _, ok := strings.Cut(r.Host, "."); ok && strings.HasPrefix(id, "vpce-") {
		e.Endpoint = id
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.record1(e)
}

// record1 keeps an event; c.mu is held.
func (c *Cloud) record1(e cloudtrail.Event) {
	r := &c.recorder
	r.events = append(r.events, e)
	if r.logging {
		r.pending = append(r.pending, e)
	}
	r.logging, r.stopping = r.logging && !r.stopping, false
}

// launched records that EC2 started an instance; c.mu is held.
func (c *Cloud) launched(i *instance, now time.Time) {
	c.record1(cloudtrail.Event{
		Time: now, Service: "ec2", Name: "RunInstances", Region: c.cfg.Region, Address: administrator, Agent: "aws-cli", Account: c.cfg.Account,
		RequestID: uuid(), EventID: uuid(), Identity: cloudtrail.Identity{ARN: c.identities[AccessKey].arn, AccessKey: AccessKey},
		Request: map[string]any{"instancesSet": map[string]any{"items": []any{map[string]any{"imageId": imageID, "minCount": 1, "maxCount": 1}}}},
		Response: map[string]any{"instancesSet": map[string]any{"items": []any{map[string]any{
			"instanceId": i.id, "imageId": imageID, "privateIpAddress": i.addr.String(), "launchTime": now.UnixMilli()}}}},
	})
}

// deliver stores what is pending, if bucket is the trail's.
func (c *Cloud) deliver(bucket string) {
	c.recorder.delivering.Lock()
	defer c.recorder.delivering.Unlock()
	c.mu.Lock()
	t, events := c.recorder.trail, c.recorder.pending
	if t == nil || t.Bucket != bucket || len(events) == 0 {
		c.mu.Unlock()
		return
	}
	c.recorder.pending = nil
	c.mu.Unlock()
	var records [][]byte
	for i := range events {
		records = append(records, events[i].JSON())
	}
	now := c.now()
	for now.Truncate(time.Second).Equal(c.recorder.digested) {
		time.Sleep(10 * time.Millisecond)
		now = c.now()
	}
	c.recorder.digested = now.Truncate(time.Second)
	t.Deliver(now, events[0].Time, events[len(events)-1].Time, records...)
	t.Digest(now)
}

// logJSON records a call of the JSON protocol.
func (c *Cloud) logJSON(r *http.Request, service string, rq *call, requestID string, refused *apiError) {
	if rq.who == nil {
		return
	}
	e := cloudtrail.Event{Service: service, Name: rq.operation, Region: rq.region, RequestID: requestID,
		Request: parameters(rq.body), Response: rq.response, Additional: rq.additional, ReadOnly: !slices.ContainsFunc(writing, func(w string) bool { return strings.HasPrefix(rq.operation, w) })}
	if refused != nil {
		e.ErrorCode, e.Message = strings.Replace(refused.kind, "AccessDeniedException", "AccessDenied", 1), refused.message
	}
	switch service {
	case "kms":
		if strings.HasPrefix(rq.operation, "GenerateDataKey") || rq.operation == "ReEncrypt" {
			e.ReadOnly = true
		}
		if rq.operation == "Decrypt" || rq.operation == "Encrypt" {
			e.Request["encryptionAlgorithm"] = algorithm
		}
		for _, arn := range append(rq.sources, rq.resource) {
			if strings.HasPrefix(arn, "arn:") {
				e.Resources = append(e.Resources, cloudtrail.Resource{Account: c.cfg.Account, Type: "AWS::KMS::Key", ARN: arn})
			}
		}
	case "ssm":
		arn := fmt.Sprintf("arn:%s:ssm:%s:%s:parameter/%s", partitions[rq.region], rq.region, c.cfg.Account, strings.TrimPrefix(rq.resource, "/"))
		e.Resources = []cloudtrail.Resource{{Account: c.cfg.Account, Type: "AWS::SSM::Parameter", ARN: arn}}
	case "secretsmanager":
		delete(e.Request, "secretBinary")
		delete(e.Request, "secretString")
	}
	c.log(r, rq.who, e)
}

// writing are the beginnings of operations that change something.
var writing = []string{"Create", "Put", "Delete", "Disable", "Enable", "Schedule", "Cancel", "Start", "Stop", "Update"}

// parameters are those of a request, named as CloudTrail does, without what it leaves
// out: plaintexts, ciphertexts, values of parameters, attestation documents.
func parameters(body []byte) map[string]any {
	var in map[string]any
	if json.Unmarshal(body, &in) != nil {
		return nil
	}
	out := map[string]any{}
	for name, value := range in {
		switch name {
		case "Plaintext", "CiphertextBlob", "Value", "Recipient":
			continue
		}
		first, n := utf8.DecodeRuneInString(name)
		out[string(unicode.ToLower(first))+name[n:]] = value
	}
	return out
}

// logS3 records a call to S3: data events for objects, management events for buckets.
func (c *Cloud) logS3(r *http.Request, who *identity, bucket, key string, body []byte, rep *reply, refused *s3Error) {
	c.mu.Lock()
	t := c.recorder.trail
	c.mu.Unlock()
	if who == nil || t != nil && t.Bucket == bucket { // who looks after the trail is not looked at
		return
	}
	e := cloudtrail.Event{Service: "s3", Name: rep.operation, Region: c.cfg.Region, RequestID: rep.requestID, Data: key != "", ReadOnly: r.Method == http.MethodGet || r.Method == http.MethodHead,
		Request: map[string]any{"bucketName": bucket, "Host": r.Host},
		Additional: map[string]any{"SignatureVersion": "SigV4", "CipherSuite": "TLS_AES_128_GCM_SHA256", "AuthenticationMethod": "AuthHeader",
			"bytesTransferredIn": len(body), "bytesTransferredOut": len(rep.body), "x-amz-id-2": rep.header["x-amz-id-2"]},
	}
	arn := "arn:" + partitions[c.cfg.Region] + ":s3:::" + bucket
	if key != "" {
		e.Request["key"] = key
		e.Resources = append(e.Resources, cloudtrail.Resource{Type: "AWS::S3::Object", ARN: arn + "/" + key})
	}
	e.Resources = append(e.Resources, cloudtrail.Resource{Account: c.cfg.Account, Type: "AWS::S3::Bucket", ARN: arn})
	if v := r.URL.Query().Get("versionId"); v != "" {
		e.Request["versionId"] = v
	}
	if v := rep.header["x-amz-version-id"]; v != "" && !e.ReadOnly {
		e.Response = map[string]any{"x-amz-version-id": v, "x-amz-server-side-encryption": "AES256"}
	}
	switch {
	case e.Name == "PutBucket" && r.URL.Query().Has("versioning"):
		e.Name = "PutBucketVersioning"
	case e.Name == "PutBucket":
		e.Name = "CreateBucket"
	}
	if refused != nil {
		e.ErrorCode, e.Message = refused.code, refused.message
	}
	c.log(r, who, e)
}

// cloudtrail answers one request of CloudTrail's own API.
func (c *Cloud) cloudtrail(rq *call) (any, error) {
	var in struct {
		Name, S3BucketName string
		StartTime, EndTime float64
		LookupAttributes   []struct{ AttributeKey, AttributeValue string }
	}
	if err := rq.read(&in); err != nil {
		return nil, err
	}
	if rq.operation == "CreateTrail" {
		c.mu.Lock()
		_, ok := c.buckets[in.S3BucketName]
		c.mu.Unlock()
		if !ok {
			return nil, refuse("S3BucketDoesNotExistException", "S3 bucket %s does not exist!", in.S3BucketName)
		}
		c.StartTrail(in.S3BucketName)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.recorder.trail
	switch rq.operation {
	case "CreateTrail", "DescribeTrails", "StartLogging", "StopLogging", "PutEventSelectors":
		if t == nil {
			return nil, refuse("TrailNotFoundException", "Unknown trail: %s", in.Name)
		}
		trail := map[string]any{"Name": t.Name, "S3BucketName": t.Bucket, "HomeRegion": t.Region, "LogFileValidationEnabled": true, "IsOrganizationTrail": false,
			"TrailARN": fmt.Sprintf("arn:%s:cloudtrail:%s:%s:trail/%s", partitions[t.Region], t.Region, t.Account, t.Name)}
		switch rq.operation {
		case "CreateTrail":
			return trail, nil
		case "DescribeTrails":
			return map[string]any{"trailList": []any{trail}}, nil
		case "StartLogging":
			c.recorder.logging = true
		case "StopLogging":
			c.recorder.stopping = true // this very call is still recorded
		}
		return map[string]any{}, nil
	case "ListPublicKeys":
		der, fingerprint := cloudtrail.PublicKey()
		return map[string]any{"PublicKeyList": []any{map[string]any{"Value": der, "Fingerprint": fingerprint,
			"ValidityStartTime": float64(time.Now().AddDate(-1, 0, 0).Unix()), "ValidityEndTime": float64(time.Now().AddDate(1, 0, 0).Unix())}}}, nil
	case "LookupEvents":
		events := []any{}
		for i := len(c.recorder.events) - 1; i >= 0; i-- { // the latest first
			e := &c.recorder.events[i]
			at := float64(e.Time.Unix())
			if e.Data || in.StartTime > 0 && at < in.StartTime || in.EndTime > 0 && at > in.EndTime {
				continue
			}
			fits := true
			for _, a := range in.LookupAttributes {
				switch a.AttributeKey {
				case "EventName":
					fits = fits && e.Name == a.AttributeValue
				case "ResourceName":
					fits = fits && slices.ContainsFunc(e.Resources, func(r cloudtrail.Resource) bool { return r.ARN == a.AttributeValue })
				default:
					return nil, refuse("InvalidLookupAttributesException", "The simulation looks up EventName and ResourceName.")
				}
			}
			if fits {
				events = append(events, map[string]any{"EventId": e.EventID, "EventName": e.Name, "EventTime": at, "CloudTrailEvent": string(e.JSON())})
			}
		}
		return map[string]any{"Events": events}, nil
	}
	return nil, refuse("UnknownOperationException", "")
}
