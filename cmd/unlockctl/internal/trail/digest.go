package trail

import (
	"bytes"
	"cmp"
	"context"
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// maxDigest is the largest digest file that is read, in bytes, uncompressed.
const maxDigest = 64 << 20

// digest is a digest file.
type digest struct {
	bucket    string // where it was found; "" in a copy
	name      string // of the file
	hash      [32]byte
	signature string // in hexadecimal; "" where a copy has lost it

	Account           string `json:"awsAccountId"`
	StartText         string `json:"digestStartTime"`
	EndText           string `json:"digestEndTime"`
	Bucket            string `json:"digestS3Bucket"`
	Object            string `json:"digestS3Object"`
	Fingerprint       string `json:"digestPublicKeyFingerprint"`
	Algorithm         string `json:"digestSignatureAlgorithm"`
	PreviousBucket    string `json:"previousDigestS3Bucket"`
	PreviousObject    string `json:"previousDigestS3Object"`
	PreviousHash      string `json:"previousDigestHashValue"`
	PreviousSignature string `json:"previousDigestSignature"`
	Logs              []struct {
		Bucket string `json:"s3Bucket"`
		Object string `json:"s3Object"`
		Hash   string `json:"hashValue"`
	} `json:"logFiles"`

	start, end time.Time
}

// Keys are the public keys of CloudTrail by their fingerprints.
type Keys map[string]*rsa.PublicKey

// ParseKey reads a public key as ListPublicKeys gives it: PKCS #1 or
// SubjectPublicKeyInfo, in DER.
func ParseKey(der []byte) (*rsa.PublicKey, error) {
	if k, err := x509.ParsePKCS1PublicKey(der); err == nil {
		return k, nil
	}
	k, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		return nil, fmt.Errorf("reading a public key of CloudTrail: %w", err)
	}
	if k, ok := k.(*rsa.PublicKey); ok {
		return k, nil
	}
	return nil, fmt.Errorf("reading a public key of CloudTrail: %T is no RSA key", k)
}

// ParseKeys reads what `aws cloudtrail list-public-keys` prints.
func ParseKeys(data []byte) (Keys, error) {
	var list struct {
		PublicKeyList []struct{ Value, Fingerprint string }
	}
	if err := json.Unmarshal(data, &list); err != nil {
		return nil, fmt.Errorf("reading the public keys of CloudTrail: %w", err)
	}
	keys := Keys{}
	for _, k := range list.PublicKeyList {
		der, err := base64.StdEncoding.DecodeString(k.Value)
		if err != nil {
			return nil, fmt.Errorf("reading the public keys of CloudTrail: %w", err)
		}
		if keys[k.Fingerprint], err = ParseKey(der); err != nil {
			return nil, err
		}
	}
	return keys, nil
}

// Problem is something wrong with the files of a trail.
type Problem struct {
	Kind string // FileMissing, …
	File string // its key
	Why  string
}

// Kinds of problems that digests show.
const (
	FileMissing   = "file-missing"   // a digest lists it, and it is not there
	FileChanged   = "file-changed"   // its content is not what the digest says
	FileUnlisted  = "file-unlisted"  // it is there, and no digest lists it
	DigestMissing = "digest-missing" // the next digest follows one that is not there
	DigestChanged = "digest-changed" // signature or hash do not fit, or it was moved or cannot be read
	DigestGap     = "digest-gap"     // time that no digest covers
)

// Chain is the digests of one trail in one account and Region.
type Chain struct {
	Account  string    `json:"account"`
	Trail    string    `json:"trail"` // Region and name, as in the names of the files
	From     time.Time `json:"from"`
	To       time.Time `json:"to"`
	Digests  int       `json:"digests"`
	Signed   int       `json:"signed"`   // digests whose signature was verified
	Unsigned string    `json:"unsigned"` // why others were not
	Files    int       `json:"files"`    // that they list
	Valid    int       `json:"valid"`    // of these, those that are as CloudTrail delivered them
}

// Validation is what the digests say.
type Validation struct {
	Chains   []Chain
	Problems []Problem
}

// ReadDigests reads those of files that are digests.
func ReadDigests(ctx context.Context, files []File) (*Digests, error) {
	d := &Digests{}
	for _, f := range files {
		if !IsDigest(f.Name) {
			continue
		}
		if err := context.Cause(ctx); err != nil {
			return nil, err
		}
		one, err := readDigest(ctx, f)
		if err != nil {
			d.broken = append(d.broken, Problem{DigestChanged, f.Name, err.Error()})
			continue
		}
		d.list = append(d.list, one)
	}
	return d, nil
}

// Digests are the digest files of a trail.
type Digests struct {
	list   []*digest
	broken []Problem
}

// Any reports whether there are any.
func (d *Digests) Any() bool { return len(d.list)+len(d.broken) > 0 }

// Span returns the time that the digests cover, from the first to the last.
func (d *Digests) Span() (from, to time.Time) {
	for _, g := range d.list {
		if from.IsZero() || g.start.Before(from) {
			from = g.start
		}
		if g.end.After(to) {
			to = g.end
		}
	}
	return from, to
}

// Regions returns those that the digests are of.
func (d *Digests) Regions() []string {
	var list []string
	for _, g := range d.list {
		region, _, _ := strings.Cut(g.trail(), "_")
		list = append(list, region)
	}
	slices.Sort(list)
	return slices.Compact(list)
}

func readDigest(ctx context.Context, f File) (*digest, error) {
	content, metadata, err := f.Open(ctx)
	if err != nil {
		return nil, err
	}
	defer content.Close()
	w := worker{progress: new(Progress)}
	plain, err := w.plain(content)
	if err != nil {
		return nil, truncated(err)
	}
	data, err := io.ReadAll(io.LimitReader(plain, maxDigest+1))
	if err != nil {
		return nil, truncated(err)
	}
	if len(data) > maxDigest {
		return nil, fmt.Errorf("more than %d bytes", maxDigest)
	}
	g := &digest{bucket: f.Bucket, name: f.Name, hash: sha256.Sum256(data), signature: metadata["signature"]}
	if err := json.Unmarshal(data, g); err != nil {
		return nil, err
	}
	var errs [2]error
	g.start, errs[0] = time.Parse(time.RFC3339, g.StartText)
	g.end, errs[1] = time.Parse(time.RFC3339, g.EndText)
	if err := errors.Join(errs[:]...); err != nil {
		return nil, err
	}
	if g.Object == "" || g.Bucket == "" {
		return nil, errors.New("it does not say where it belongs")
	}
	return g, nil
}

// trail is what the name of a digest has before its time.
func (g *digest) trail() string {
	name := base(g.Object)
	_, name, _ = strings.Cut(name, "_CloudTrail-Digest_")
	if i := strings.LastIndexByte(strings.TrimSuffix(name, "_backfill.json.gz"), '_'); i >= 0 {
		name = name[:i]
	}
	return name
}

func (g *digest) backfill() bool { return strings.Contains(base(g.Object), "_backfill") }

// signed verifies the signature of a digest: of the time of its end, its place, its
// hash and the signature before it.
func (g *digest) signed(keys Keys, signature string) error {
	key := keys[g.Fingerprint]
	if key == nil {
		return fmt.Errorf("no public key with fingerprint %s", g.Fingerprint)
	}
	raw, err := hex.DecodeString(signature)
	if err != nil {
		return errors.New("its signature is not hexadecimal")
	}
	before := cmp.Or(g.PreviousSignature, "null")
	sum := sha256.Sum256(fmt.Appendf(nil, "%s\n%s/%s\n%x\n%s", g.EndText, g.Bucket, g.Object, g.hash, before))
	if g.Algorithm != "SHA256withRSA" || rsa.VerifyPKCS1v15(key, crypto.SHA256, sum[:], raw) != nil {
		return errors.New("its signature is not CloudTrail's")
	}
	return nil
}

// at reports whether a file lies where it was delivered. In a copy only its name tells.
func at(bucket, name, wantBucket, wantKey string) bool {
	if bucket == "" {
		return base(name) == base(wantKey)
	}
	return bucket == wantBucket && name == wantKey
}

// Validate holds what was read against the digests. Without keys signatures are not
// verified, and Unsigned says so. A file that no digest lists is a problem if it was
// delivered within the time that they cover, up to an hour before its end.
func (d *Digests) Validate(read []Read, keys Keys) Validation {
	v := Validation{Problems: slices.Clone(d.broken)}
	groups := map[string][]*digest{}
	for _, g := range d.list {
		if !at(g.bucket, g.name, g.Bucket, g.Object) {
			v.add(DigestChanged, g.name, "it was delivered as s3://"+g.Bucket+"/"+g.Object)
			continue
		}
		id := g.Account + " " + g.trail()
		groups[id] = append(groups[id], g)
	}
	files := map[string]*Read{} // by name
	for i := range read {
		files[base(read[i].Name)] = &read[i]
	}
	listed := map[string]bool{}
	for _, group := range groups {
		v.chain(group, keys)
		c := &v.Chains[len(v.Chains)-1]
		for _, g := range group {
			for _, l := range g.Logs {
				c.Files++
				listed[base(l.Object)] = true
				f := files[base(l.Object)]
				switch {
				case f == nil || !at(f.Bucket, f.Name, l.Bucket, l.Object):
					v.add(FileMissing, l.Object, "listed by "+base(g.Object))
				case f.Err != nil: // reported already
				case hex.EncodeToString(f.Hash[:]) != l.Hash:
					v.add(FileChanged, f.Name, "its SHA-256 is not the one in "+base(g.Object))
				default:
					c.Valid++
				}
			}
		}
	}
	for _, f := range read {
		delivered, ok := Delivered(f.Name)
		if !ok || listed[base(f.Name)] {
			continue
		}
		for _, c := range v.Chains {
			if strings.HasPrefix(base(f.Name), c.Account+"_CloudTrail_"+c.region()+"_") && delivered.After(c.From) && delivered.Before(c.To.Add(-time.Hour)) {
				v.add(FileUnlisted, f.Name, fmt.Sprintf("the digests from %s to %s do not list it", c.From.Format(time.RFC3339), c.To.Format(time.RFC3339)))
				break
			}
		}
	}
	slices.SortFunc(v.Chains, func(a, b Chain) int { return cmp.Or(cmp.Compare(a.Account, b.Account), cmp.Compare(a.Trail, b.Trail)) })
	slices.SortFunc(v.Problems, func(a, b Problem) int { return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Kind, b.Kind)) })
	return v
}

// region is the first word of the trail.
func (c *Chain) region() string {
	region, _, _ := strings.Cut(c.Trail, "_")
	return region
}

func (v *Validation) add(kind, file, why string) {
	v.Problems = append(v.Problems, Problem{kind, file, why})
}

// chain follows the digests of one trail from the first to the last.
func (v *Validation) chain(group []*digest, keys Keys) {
	slices.SortFunc(group, func(a, b *digest) int { return cmp.Or(a.end.Compare(b.end), cmp.Compare(a.Object, b.Object)) })
	first, last := group[0], group[len(group)-1]
	c := Chain{Account: first.Account, Trail: first.trail(), From: first.start, To: last.end, Digests: len(group)}
	byObject := map[string]*digest{}
	follower := map[string]*digest{}
	for _, g := range group {
		byObject[g.Object] = g
		follower[g.PreviousObject] = g
	}
	var before *digest
	for _, g := range group {
		signature := g.signature
		next := follower[g.Object]
		if signature == "" && next != nil {
			signature = next.PreviousSignature
		}
		switch {
		case len(keys) == 0:
			c.Unsigned = "without CloudTrail's public keys"
		case signature == "":
			c.Unsigned = "of " + base(g.Object) + " the signature is in the metadata of the object in S3, which this copy has not"
		default:
			if err := g.signed(keys, signature); err != nil {
				v.add(DigestChanged, g.name, err.Error())
			} else {
				c.Signed++
			}
		}
		if next != nil && next.PreviousHash != "" && !bytes.Equal(fmt.Appendf(nil, "%x", g.hash), []byte(next.PreviousHash)) {
			v.add(DigestChanged, g.name, "its SHA-256 is not the one in "+base(next.Object))
		}
		if g.backfill() {
			continue
		}
		switch {
		case before == nil:
		case g.PreviousObject == "":
			v.add(DigestGap, g.name, fmt.Sprintf("nothing covers %s to %s: validation was off, or logging stopped", before.end.Format(time.RFC3339), g.start.Format(time.RFC3339)))
		case byObject[g.PreviousObject] == nil:
			v.add(DigestMissing, g.PreviousObject, base(g.Object)+" follows it")
		case g.start.After(before.end):
			v.add(DigestGap, g.name, fmt.Sprintf("nothing covers %s to %s", before.end.Format(time.RFC3339), g.start.Format(time.RFC3339)))
		}
		before = g
	}
	v.Chains = append(v.Chains, c)
}
