package ec2sim

import (
	"bytes"
	"crypto/md5"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// bucket of S3. Without versioning it has one version of each object, without an id.
type bucket struct {
	region    string
	versioned bool
	objects   map[string][]*object // the last is the current version
}

// object is one version of an S3 object.
type object struct {
	version  string
	data     []byte
	etag     string
	kind     string            // Content-Type
	encoding string            // Content-Encoding, or ""
	metadata map[string]string // user-defined
	modified time.Time
}

// CreateBucket makes a bucket with versioning in a region.
func (c *Cloud) CreateBucket(name, region string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.buckets[name] = &bucket{region: region, versioned: true, objects: map[string][]*object{}}
}

// PutObject stores an S3 object. A bucket that is missing is made, in the Cloud's region.
func (c *Cloud) PutObject(bucket, key string, data []byte) {
	c.mu.Lock()
	_, ok := c.buckets[bucket]
	c.mu.Unlock()
	if !ok {
		c.CreateBucket(bucket, c.cfg.Region)
	}
	c.putObject(bucket, key, "binary/octet-stream", data)
}

// Object returns the current version of an S3 object, nil if there is none.
func (c *Cloud) Object(bucket, key string) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	if b := c.buckets[bucket]; b != nil && len(b.objects[key]) > 0 {
		return b.objects[key][len(b.objects[key])-1].data
	}
	return nil
}

// Versions returns the version ids of an object, oldest first.
func (c *Cloud) Versions(bucket, key string) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var ids []string
	if b := c.buckets[bucket]; b != nil {
		for _, o := range b.objects[key] {
			ids = append(ids, o.version)
		}
	}
	return ids
}

func (c *Cloud) putObject(bucket, key, kind string, data []byte) *object {
	sum := md5.Sum(data)
	o := &object{
		version:  randomHex(16),
		data:     bytes.Clone(data),
		etag:     `"` + hex.EncodeToString(sum[:]) + `"`,
		kind:     kind,
		modified: c.now(),
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	objects := c.buckets[bucket].objects
	if !c.buckets[bucket].versioned {
		o.version, objects[key] = "", nil
	}
	objects[key] = append(objects[key], o)
	return o
}

// s3 answers one request.
func (c *Cloud) s3(r *http.Request, e endpoint, body []byte) reply {
	rawPath, query, _ := strings.Cut(r.RequestURI, "?")
	path, err := url.PathUnescape(strings.TrimPrefix(rawPath, "/"))
	params, qerr := url.ParseQuery(query)
	bucket, key := e.bucket, path
	if bucket == "" {
		bucket, key, _ = strings.Cut(path, "/")
	}
	rep := reply{
		requestID: strings.ToUpper(randomHex(8)),
		operation: s3Operation(r.Method, key),
		resource:  bucket + "/" + key,
		head:      r.Method == http.MethodHead,
		header:    map[string]string{},
	}
	var refused *s3Error
	var who *identity
	if err != nil || qerr != nil {
		refused = &s3Error{status: http.StatusBadRequest, code: "InvalidURI", message: "Couldn't parse the specified URI."}
	} else {
		who, refused = c.s3Do(r, e, bucket, key, params, body, &rep)
	}
	if refused != nil {
		rep.status, rep.errorType = refused.status, refused.code
		rep.body = refused.xml(rep.requestID, rep.header)
		if rep.head {
			rep.body = nil // and so the client learns the status only
		}
	}
	rep.header["Server"] = "AmazonS3"
	rep.header["x-amz-request-id"] = rep.requestID
	rep.header["x-amz-id-2"] = base64.StdEncoding.EncodeToString([]byte(randomHex(28)))
	c.logS3(r, who, bucket, key, body, &rep, refused)
	return rep
}

func s3Operation(method, key string) string {
	kind := "Object"
	if key == "" {
		kind = "Bucket"
	}
	return method[:1] + strings.ToLower(method[1:]) + kind
}

// s3Do does what is asked, or returns why not, and who asked.
func (c *Cloud) s3Do(r *http.Request, e endpoint, name, key string, params url.Values, body []byte, rep *reply) (*identity, *s3Error) {
	c.mu.Lock()
	b := c.buckets[name]
	c.mu.Unlock()
	region := e.region
	if b != nil {
		region = b.region
	}
	if to := c.faultText("s3-redirect"); to != "" {
		region = to
	}
	if e.region != "" && region != e.region { // before the signature is looked at
		return nil, &s3Error{
			status:  http.StatusMovedPermanently,
			code:    "PermanentRedirect",
			message: "The bucket you are attempting to access must be addressed using the specified endpoint. Please send all future requests to this endpoint.",
			detail:  []string{"Endpoint", name + ".s3." + region + "." + suffixes[partitions[region]][0], "Bucket", name},
			region:  region,
		}
	}
	who, aerr := c.verify(r, body, "s3", e.region)
	if aerr != nil {
		return nil, c.s3AuthError(aerr)
	}
	action := map[string]string{http.MethodGet: "s3:GetObject", http.MethodHead: "s3:GetObject", http.MethodPut: "s3:PutObject"}[r.Method]
	switch {
	case c.fault("s3-slowdown"):
		return who, &s3Error{status: http.StatusServiceUnavailable, code: "SlowDown", message: "Please reduce your request rate."}
	case c.fault("s3-500"):
		return who, &s3Error{status: http.StatusInternalServerError, code: "InternalError", message: "We encountered an internal error. Please try again."}
	case action == "":
		return who, &s3Error{status: http.StatusMethodNotAllowed, code: "MethodNotAllowed", message: "The specified method is not allowed against this resource.", detail: []string{"Method", r.Method}}
	case c.fault("s3-403"):
		return who, &s3Error{status: http.StatusForbidden, code: "AccessDenied", message: fmt.Sprintf(
			"User: %s is not authorized to perform: %s on resource: \"arn:%s:s3:::%s/%s\" because no identity-based policy allows the %s action",
			who.arn, action, partitions[c.cfg.Region], name, key, action)}
	case key == "" && r.Method == http.MethodPut:
		return who, c.s3Bucket(e, name, params, body, rep)
	case b == nil:
		return who, &s3Error{status: http.StatusNotFound, code: "NoSuchBucket", message: "The specified bucket does not exist", detail: []string{"BucketName", name}}
	case key == "" && r.Method == http.MethodHead:
		rep.status = http.StatusOK
		rep.header["x-amz-bucket-region"] = region
		return who, nil
	case key == "" && params.Has("location"):
		rep.status, rep.body = http.StatusOK, locationXML(region)
		return who, nil
	case key == "" && len(params) == 0, key == "" && (params.Has("list-type") || params.Has("prefix") || params.Has("marker") || params.Has("encoding-type")):
		c.deliver(name)
		rep.status, rep.body = http.StatusOK, c.listXML(name, params)
		return who, nil
	case key == "":
		return who, &s3Error{status: http.StatusNotImplemented, code: "NotImplemented", message: "The simulation has no operations on buckets."}
	case r.Method == http.MethodPut:
		return who, c.s3Put(r, name, key, body, rep)
	}
	return who, c.s3Get(b, key, params.Get("versionId"), rep)
}

func (c *Cloud) s3Put(r *http.Request, bucket, key string, body []byte, rep *reply) *s3Error {
	if sse := r.Header.Get("X-Amz-Server-Side-Encryption"); sse != "" && sse != "AES256" {
		return &s3Error{status: http.StatusNotImplemented, code: "NotImplemented", message: "The simulation encrypts with SSE-S3 only."}
	}
	checksum := r.Header
	if r.Header.Get("X-Amz-Content-Sha256") == trailerPayload {
		var err error
		if body, checksum, err = decodeChunks(body); err != nil {
			return &s3Error{status: http.StatusBadRequest, code: "IncompleteBody", message: err.Error()}
		}
	}
	name, err := verifyChecksum(checksum, body)
	if err != nil {
		return &s3Error{status: http.StatusBadRequest, code: "BadDigest", message: err.Error()}
	}
	if refused := c.s3Precondition(r, bucket, key); refused != nil {
		return refused
	}
	if name != "" {
		rep.header[name] = checksum.Get(name)
	}
	kind := r.Header.Get("Content-Type")
	if kind == "" {
		kind = "binary/octet-stream"
	}
	o := c.putObject(bucket, key, kind, body)
	rep.status = http.StatusOK
	rep.header["ETag"] = o.etag
	if o.version != "" {
		rep.header["x-amz-version-id"] = o.version
	}
	rep.header["x-amz-server-side-encryption"] = "AES256"
	return nil
}

func (c *Cloud) s3Get(b *bucket, key, version string, rep *reply) *s3Error {
	c.mu.Lock()
	versions := b.objects[key]
	c.mu.Unlock()
	if len(versions) == 0 || c.fault("s3-404") {
		return &s3Error{status: http.StatusNotFound, code: "NoSuchKey", message: "The specified key does not exist.", detail: []string{"Key", key}}
	}
	o := versions[len(versions)-1]
	if version != "" {
		o = nil
		for _, v := range versions {
			if v.version == version {
				o = v
			}
		}
		if o == nil {
			return &s3Error{status: http.StatusNotFound, code: "NoSuchVersion", message: "The specified version does not exist.", detail: []string{"Key", key, "VersionId", version}}
		}
	}
	rep.status = http.StatusOK
	rep.body = o.data
	if o.encoding != "" {
		rep.header["Content-Encoding"] = o.encoding
	}
	for k, v := range o.metadata {
		rep.header["x-amz-meta-"+k] = v
	}
	for k, v := range map[string]string{
		"Content-Type": o.kind, "ETag": o.etag, "Accept-Ranges": "bytes",
		"Last-Modified":                o.modified.UTC().Format(http.TimeFormat),
		"x-amz-server-side-encryption": "AES256",
	} {
		rep.header[k] = v
	}
	if o.version != "" {
		rep.header["x-amz-version-id"] = o.version
	}
	if rep.head {
		rep.header["Content-Length"] = fmt.Sprint(len(o.data))
		return nil
	}
	if c.fault("s3-empty") {
		rep.body = nil
	}
	if c.fault("s3-oversized") {
		rep.padding = 16<<20 - len(rep.body)
	}
	rep.truncate = c.fault("s3-truncated")
	if c.fault("s3-changed") {
		rep.body, rep.truncate = bytes.Repeat([]byte{'x'}, len(rep.body)), true
	}
	rep.pause, _ = c.faultDuration("s3-slow-body")
	return nil
}
