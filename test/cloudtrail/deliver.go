package cloudtrail

import (
	"bytes"
	"compress/gzip"
	"crypto"
	"crypto/md5"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"sync"
	"time"
)

// Trail delivers records to a bucket. It is not safe for concurrent use.
type Trail struct {
	Account, Region, Name string
	Bucket, Prefix        string // Prefix without a slash at its end, or ""
	// Put stores an object with user-defined metadata.
	Put func(key string, data []byte, metadata map[string]string)

	logs     []logFile // since the last digest
	oldest   time.Time // of the events in logs
	newest   time.Time
	last     time.Time // end of the last digest
	previous struct{ key, hash, signature string }
}

type logFile struct {
	Bucket    string `json:"s3Bucket"`
	Object    string `json:"s3Object"`
	Hash      string `json:"hashValue"`
	Algorithm string `json:"hashAlgorithm"`
	Newest    string `json:"newestEventTime"`
	Oldest    string `json:"oldestEventTime"`
}

const (
	keyBits = 2048
	seconds = "2006-01-02T15:04:05Z"
)

// signer is one key for all trails, as CloudTrail has one for each Region.
var signer = sync.OnceValue(func() *rsa.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, keyBits)
	if err != nil {
		panic(err) // never with crypto/rand
	}
	return key
})

// PublicKey returns the key of the digests' signatures (PKCS #1, DER) and its
// fingerprint.
func PublicKey() (der []byte, fingerprint string) {
	der = x509.MarshalPKCS1PublicKey(&signer().PublicKey)
	sum := md5.Sum(der)
	return der, hex.EncodeToString(sum[:])
}

// root is the beginning of all keys.
func (t *Trail) root() string {
	if t.Prefix != "" {
		return t.Prefix + "/AWSLogs/" + t.Account
	}
	return "AWSLogs/" + t.Account
}

// Deliver stores a file of records and returns its key; oldest and newest are the
// times of the events.
func (t *Trail) Deliver(at, oldest, newest time.Time, records ...[]byte) string {
	at = at.UTC()
	content := append([]byte(`{"Records":[`), bytes.Join(records, []byte{','})...)
	content = append(content, "]}"...)
	unique := make([]byte, 8)
	rand.Read(unique)
	key := fmt.Sprintf("%s/CloudTrail/%s/%s/%s_CloudTrail_%s_%s_%X.json.gz", t.root(), t.Region, at.Format("2006/01/02"), t.Account, t.Region, at.Format("20060102T1504Z"), unique)
	t.Put(key, pack(content), nil)
	sum := sha256.Sum256(content)
	t.logs = append(t.logs, logFile{t.Bucket, key, hex.EncodeToString(sum[:]), "SHA-256", newest.UTC().Format(seconds), oldest.UTC().Format(seconds)})
	if t.oldest.IsZero() || oldest.Before(t.oldest) {
		t.oldest = oldest
	}
	if newest.After(t.newest) {
		t.newest = newest
	}
	return key
}

// Digest stores a digest of the files that were delivered since the last one, and
// returns its key. The first one begins an hour before its end.
func (t *Trail) Digest(end time.Time) string {
	end = end.UTC().Truncate(time.Second)
	start := t.last
	if start.IsZero() {
		start = end.Add(-time.Hour)
	}
	_, fingerprint := PublicKey()
	key := fmt.Sprintf("%s/CloudTrail-Digest/%s/%s/%s_CloudTrail-Digest_%s_%s_%s_%s.json.gz", t.root(), t.Region, end.Format("2006/01/02"),
		t.Account, t.Region, t.Name, t.Region, end.Format("20060102T150405Z"))
	d := struct {
		Account           string    `json:"awsAccountId"`
		Start             string    `json:"digestStartTime"`
		End               string    `json:"digestEndTime"`
		Bucket            string    `json:"digestS3Bucket"`
		Object            string    `json:"digestS3Object"`
		Fingerprint       string    `json:"digestPublicKeyFingerprint"`
		Algorithm         string    `json:"digestSignatureAlgorithm"`
		Newest            *string   `json:"newestEventTime"`
		Oldest            *string   `json:"oldestEventTime"`
		PreviousBucket    *string   `json:"previousDigestS3Bucket"`
		PreviousObject    *string   `json:"previousDigestS3Object"`
		PreviousHash      *string   `json:"previousDigestHashValue"`
		PreviousHashKind  *string   `json:"previousDigestHashAlgorithm"`
		PreviousSignature *string   `json:"previousDigestSignature"`
		Logs              []logFile `json:"logFiles"`
	}{
		Account: t.Account, Start: start.Format(seconds), End: end.Format(seconds), Bucket: t.Bucket, Object: key,
		Fingerprint: fingerprint, Algorithm: "SHA256withRSA", Logs: append([]logFile{}, t.logs...),
	}
	if len(t.logs) > 0 {
		d.Oldest, d.Newest = new(t.oldest.UTC().Format(seconds)), new(t.newest.UTC().Format(seconds))
	}
	signedBefore := "null"
	if t.previous.key != "" {
		d.PreviousBucket, d.PreviousObject, d.PreviousHash = &t.Bucket, new(t.previous.key), new(t.previous.hash)
		d.PreviousHashKind, d.PreviousSignature = new("SHA-256"), new(t.previous.signature)
		signedBefore = t.previous.signature
	}
	content, err := json.Marshal(d)
	if err != nil {
		panic(err) // strings
	}
	sum := sha256.Sum256(content)
	text := fmt.Sprintf("%s\n%s/%s\n%x\n%s", d.End, t.Bucket, key, sum, signedBefore)
	hash := sha256.Sum256([]byte(text))
	signature, err := rsa.SignPKCS1v15(nil, signer(), crypto.SHA256, hash[:])
	if err != nil {
		panic(err) // the key is long enough
	}
	t.Put(key, pack(content), map[string]string{"signature": hex.EncodeToString(signature), "signature-algorithm": "SHA256withRSA"})
	t.logs, t.oldest, t.newest, t.last = nil, time.Time{}, time.Time{}, end
	t.previous.key, t.previous.hash, t.previous.signature = key, hex.EncodeToString(sum[:]), hex.EncodeToString(signature)
	return key
}

func pack(content []byte) []byte {
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	z.Write(content)
	z.Close()
	return out.Bytes()
}
