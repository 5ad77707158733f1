package trail_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"unlock/cmd/unlockctl/internal/trail"
	"unlock/test/cloudtrail"
)

type object struct {
	data     []byte
	metadata map[string]string
}

// delivered is a bucket with what a trail delivered in four hours.
func delivered(t *testing.T) (map[string]object, trail.Keys, []string) {
	t.Helper()
	objects := map[string]object{}
	ct := &cloudtrail.Trail{Account: "111122223333", Region: "us-east-1", Name: "unlock", Bucket: "trail",
		Put: func(key string, data []byte, metadata map[string]string) { objects[key] = object{data, metadata} }}
	begin := time.Date(2026, 3, 1, 22, 0, 0, 0, time.UTC)
	var keys []string // log, log, digest for each hour
	for hour := range 4 {
		end := begin.Add(time.Duration(hour+1) * time.Hour)
		for part := range 2 {
			at := end.Add(time.Duration(part-2) * 20 * time.Minute)
			e := cloudtrail.Event{Time: at, Service: "kms", Name: "Decrypt", Region: "us-east-1", EventID: fmt.Sprint(hour, part), Account: "111122223333",
				Identity: cloudtrail.Identity{ARN: "arn:aws:iam::111122223333:user/admin"}}
			keys = append(keys, ct.Deliver(at, at, at, e.JSON()))
		}
		keys = append(keys, ct.Digest(end))
	}
	der, fingerprint := cloudtrail.PublicKey()
	list := fmt.Sprintf(`{"PublicKeyList":[{"Value":%q,"Fingerprint":%q}]}`, base64.StdEncoding.EncodeToString(der), fingerprint)
	public, err := trail.ParseKeys([]byte(list))
	if err != nil {
		t.Fatal(err)
	}
	return objects, public, keys
}

// files are objects as S3 has them, or as a copy of them is.
func files(objects map[string]object, bucket string) []trail.File {
	var list []trail.File
	for _, key := range slices.Sorted(maps.Keys(objects)) {
		o := objects[key]
		if bucket == "" {
			key, o.metadata = "copy/"+key, nil
		}
		list = append(list, trail.File{Bucket: bucket, Name: key, Size: int64(len(o.data)), Open: func(context.Context) (io.ReadCloser, map[string]string, error) {
			return io.NopCloser(bytes.NewReader(o.data)), o.metadata, nil
		}})
	}
	return list
}

func TestValidate(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name   string
		do     func(objects map[string]object, keys []string)
		copied bool
		want   []string // kind and number of the file in keys
		signed int
		valid  int
	}{
		{name: "as delivered", signed: 4, valid: 8},
		{name: "a copy", copied: true, signed: 3, valid: 8}, // the signature of the last is not there
		{name: "log removed", do: func(o map[string]object, k []string) { delete(o, k[1]) }, want: []string{"file-missing 1"}, signed: 4, valid: 7},
		{name: "log of another hour", do: func(o map[string]object, k []string) { o[k[4]] = o[k[1]] }, want: []string{"file-changed 4"}, signed: 4, valid: 7},
		{name: "log added", do: func(o map[string]object, k []string) {
			o[k[4][:len(k[4])-len("0.json.gz")]+"Z.json.gz"] = o[k[4]]
		}, want: []string{"file-unlisted -1"}, signed: 4, valid: 8},
		{name: "digest removed", do: func(o map[string]object, k []string) { delete(o, k[5]) }, want: []string{"digest-missing 5", "file-unlisted 3", "file-unlisted 4"}, signed: 3, valid: 6},
		{name: "first digest removed", do: func(o map[string]object, k []string) { delete(o, k[2]) }, signed: 3, valid: 6},
		{name: "digest of another hour", do: func(o map[string]object, k []string) { o[k[8]] = o[k[5]] }, want: []string{"digest-changed 8", "digest-missing 8", "file-unlisted 6", "file-unlisted 7"}, signed: 3, valid: 6},
		{name: "signature of another digest", do: func(o map[string]object, k []string) { o[k[8]] = object{o[k[8]].data, o[k[5]].metadata} }, want: []string{"digest-changed 8"}, signed: 3, valid: 8},
		{name: "no digest", do: func(o map[string]object, k []string) { o[k[8]] = object{[]byte("x"), nil} }, want: []string{"digest-changed 8", "digest-missing 8", "file-unlisted 6", "file-unlisted 7"}, signed: 3, valid: 6},
	} {
		t.Run(row.name, func(t *testing.T) {
			objects, public, keys := delivered(t)
			if row.do != nil {
				row.do(objects, keys)
			}
			bucket := "trail"
			if row.copied {
				bucket = ""
			}
			list := files(objects, bucket)
			digests, err := trail.ReadDigests(t.Context(), list)
			if err != nil {
				t.Fatal(err)
			}
			logs := slices.DeleteFunc(list, func(f trail.File) bool { return trail.IsDigest(f.Name) })
			read, err := trail.ReadAll(t.Context(), logs, func(trail.Raw) {}, new(trail.Progress))
			if err != nil {
				t.Fatal(err)
			}
			v := digests.Validate(read, public)
			var got []string
			for _, p := range v.Problems {
				got = append(got, fmt.Sprint(p.Kind, " ", slices.Index(keys, p.File)))
			}
			slices.Sort(got)
			if strings.Join(got, ", ") != strings.Join(row.want, ", ") {
				t.Errorf("problems %v, want %v\n%+v", got, row.want, v.Problems)
			}
			if len(v.Chains) != 1 || v.Chains[0].Signed != row.signed || v.Chains[0].Valid != row.valid {
				t.Errorf("chains %+v, want one with %d signed and %d files valid", v.Chains, row.signed, row.valid)
			}
		})
	}
}
