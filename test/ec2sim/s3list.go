package ec2sim

import (
	"encoding/xml"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// locationXML answers GetBucketLocation, for which us-east-1 has no name.
func locationXML(region string) []byte {
	if region == "us-east-1" {
		region = ""
	}
	return fmt.Appendf(nil, `<LocationConstraint xmlns="http://s3.amazonaws.com/doc/2006-03-01/">%s</LocationConstraint>`, region)
}

// listXML answers ListObjects and ListObjectsV2, up to a thousand keys at a time.
func (c *Cloud) listXML(name string, params url.Values) []byte {
	type content struct {
		Key, LastModified, ETag string
		Size                    int
		StorageClass            string
	}
	type list struct {
		XMLName     xml.Name  `xml:"http://s3.amazonaws.com/doc/2006-03-01/ ListBucketResult"`
		Name        string    `xml:"Name"`
		Prefix      string    `xml:"Prefix"`
		KeyCount    int       `xml:"KeyCount"`
		MaxKeys     int       `xml:"MaxKeys"`
		IsTruncated bool      `xml:"IsTruncated"`
		NextMarker  string    `xml:"NextMarker,omitempty"`
		Next        string    `xml:"NextContinuationToken,omitempty"`
		Encoding    string    `xml:"EncodingType,omitempty"`
		Contents    []content `xml:"Contents"`
	}
	most, err := strconv.Atoi(params.Get("max-keys"))
	if err != nil || most > 1000 {
		most = 1000
	}
	after := max(params.Get("marker"), params.Get("start-after"), params.Get("continuation-token"))
	out := list{Name: name, Prefix: params.Get("prefix"), MaxKeys: most, Encoding: params.Get("encoding-type")}
	c.mu.Lock()
	defer c.mu.Unlock()
	objects := c.buckets[name].objects
	for _, key := range slices.Sorted(maps.Keys(objects)) {
		if !strings.HasPrefix(key, out.Prefix) || key <= after {
			continue
		}
		if len(out.Contents) == most {
			out.IsTruncated, out.NextMarker = true, out.Contents[most-1].Key
			if params.Has("list-type") {
				out.Next, out.NextMarker = out.NextMarker, ""
			}
			break
		}
		o := objects[key][len(objects[key])-1]
		if out.Encoding == "url" {
			key = strings.ReplaceAll(url.QueryEscape(key), "%2F", "/")
		}
		out.Contents = append(out.Contents, content{key, o.modified.UTC().Format(time.RFC3339), o.etag, len(o.data), "STANDARD"})
	}
	out.KeyCount = len(out.Contents)
	body, err := xml.Marshal(out)
	if err != nil {
		panic(err) // strings and numbers
	}
	return append([]byte(xml.Header), body...)
}
