package audit

import (
	"bytes"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"time"

	"unlock/cmd/unlockctl/internal/trail"
	"unlock/internal/config"
)

// record is as much of a CloudTrail record as is looked at (AWS CloudTrail User Guide,
// "CloudTrail record contents").
type record struct {
	EventTime, EventSource, EventName, AWSRegion string
	SourceIPAddress, ErrorCode, ErrorMessage     string
	RequestID, EventID, VPCEndpointID            string
	RecipientAccountID                           string
	ReadOnly                                     bool
	UserIdentity                                 struct {
		Type, ARN, AccountID, AccessKeyID, PrincipalID, InvokedBy string
		SessionContext                                            struct {
			SessionIssuer   struct{ ARN, UserName string }
			EC2RoleDelivery string
		}
	}
	RequestParameters   fields
	ResponseElements    fields
	AdditionalEventData fields
	Resources           []struct{ ARN, Type string }
}

// fields are the members of an element whose form depends on the operation.
type fields map[string]json.RawMessage

// UnmarshalJSON takes what is no object for one without members.
func (f *fields) UnmarshalJSON(b []byte) error {
	if len(b) == 0 || b[0] != '{' {
		return nil
	}
	m := map[string]json.RawMessage{}
	err := json.Unmarshal(b, &m)
	*f = m
	return err
}

// text returns a member that is a string, else "".
func (f fields) text(name string) string {
	var s string
	_ = json.Unmarshal(f[name], &s) // a number or nothing: ""
	return s
}

// texts returns a member that is an object of strings, and whether it is one.
func (f fields) texts(name string) (map[string]string, bool) {
	var m map[string]string
	return m, len(f[name]) > 0 && json.Unmarshal(f[name], &m) == nil && m != nil
}

// list returns a member that is a list of strings.
func (f fields) list(name string) []string {
	var l []string
	_ = json.Unmarshal(f[name], &l)
	return l
}

// concerns is a quick look at whether a record may matter. It errs towards yes.
func (a *Audit) concerns(r trail.Raw) bool {
	has := func(list []string) bool {
		return slices.ContainsFunc(list, func(n string) bool { return bytes.Contains(r.JSON, []byte(n)) })
	}
	switch service, _ := strings.CutSuffix(r.Source, ".amazonaws.com"); service {
	case "ec2":
		return has(startingQuoted)
	case "cloudtrail":
		return has(trailChangesQuoted)
	default:
		return has(a.needles[service])
	}
}

// starting are the operations that start instances.
var starting = []string{"RunInstances", "StartInstances", "RebootInstances"}

// TrailChanges are the operations after which calls may be missing.
var TrailChanges = []string{"StopLogging", "DeleteTrail", "UpdateTrail", "PutEventSelectors"}

var startingQuoted, trailChangesQuoted = quoted(starting), quoted(TrailChanges)

func quoted(names []string) []string {
	var list []string
	for _, n := range names {
		list = append(list, strconv.Quote(n))
	}
	return list
}

// call turns a record into a Call; nil, if it does not matter after all.
func (a *Audit) call(r *record, at time.Time) *Call {
	c := &Call{
		Time: at, Service: a.intern(strings.TrimSuffix(r.EventSource, ".amazonaws.com")), Operation: a.intern(r.EventName), Outcome: "ok",
		Address: a.intern(r.SourceIPAddress), Endpoint: a.intern(r.VPCEndpointID), Region: a.intern(r.AWSRegion),
		RequestID: r.RequestID, EventID: r.EventID, readOnly: r.ReadOnly, owner: a.intern(r.RecipientAccountID),
	}
	if r.ErrorCode != "" {
		c.Outcome = a.intern(r.ErrorCode)
	}
	a.principal(c, r)
	var matters bool
	switch c.Service {
	case "kms":
		matters = a.kms(c, r)
	case "s3":
		matters = a.s3(c, r)
	case "cloudtrail":
		matters = slices.Contains(TrailChanges, c.Operation)
		c.detail = a.intern(r.RequestParameters.text("name") + r.RequestParameters.text("trailName"))
	default:
		matters = a.stored(c, r)
	}
	if !matters {
		return nil
	}
	return c
}

// principal says who made a call. A session of a role that an instance has is named
// after the instance.
func (a *Audit) principal(c *Call, r *record) {
	id := &r.UserIdentity
	who := id.ARN
	switch {
	case who == "" && id.InvokedBy != "":
		who = id.InvokedBy
	case who == "":
		who = strings.TrimSpace(id.Type + " " + id.PrincipalID)
	}
	c.Principal, c.account, c.Session = a.intern(who), a.intern(id.AccountID), a.intern(id.AccessKeyID)
	if id.Type != "AssumedRole" {
		return
	}
	c.Role = a.intern(id.SessionContext.SessionIssuer.UserName)
	c.Delivery = a.intern(id.SessionContext.EC2RoleDelivery)
	if session := id.ARN[strings.LastIndexByte(id.ARN, '/')+1:]; strings.HasPrefix(session, "i-") {
		c.Instance = a.intern(session)
	}
}

func (a *Audit) kms(c *Call, r *record) bool {
	for _, res := range r.Resources {
		if len(a.configured(res.ARN)) > 0 && c.Key == "" {
			c.Key = a.intern(res.ARN)
		} else if strings.Contains(res.ARN, ":kms:") {
			c.others = append(c.others, a.intern(res.ARN))
		}
	}
	if c.Key == "" && len(c.others) > 0 { // a key of the same name elsewhere
		c.Key, c.others = c.others[0], c.others[1:]
	}
	if c.Key == "" { // refused
		c.Key = a.named(r.RequestParameters.text("keyId"), r.ErrorMessage)
	}
	if !slices.ContainsFunc(append(c.others, c.Key), func(arn string) bool { return slices.Contains(a.needles["kms"], keyID(arn)) }) {
		return false
	}
	if len(c.others) > 0 {
		c.detail = strings.Join(c.others, " ")
	}
	context, ok := r.RequestParameters.texts("encryptionContext")
	if c.Operation == "ReEncrypt" {
		context, ok = r.RequestParameters.texts("sourceEncryptionContext")
	}
	c.keyed = ok || len(r.RequestParameters) > 0
	if ok {
		c.setContext(a, context)
	}
	if grantee := r.RequestParameters.text("granteePrincipal"); grantee != "" {
		c.detail = a.intern(grantee + " may " + strings.Join(r.RequestParameters.list("operations"), ", "))
	}
	if recipient := (fields)(nil); len(r.AdditionalEventData["recipient"]) > 0 && json.Unmarshal(r.AdditionalEventData["recipient"], &recipient) == nil {
		c.Attested = a.intern(recipient.text("attestationDocumentModuleId"))
		for name := range recipient {
			if pcr, ok := strings.CutPrefix(name, "attestationDocumentNitroTPM"); ok {
				if c.PCRs == nil {
					c.PCRs = map[string]string{}
				}
				c.PCRs[pcr] = a.intern(recipient.text(name))
			}
		}
	}
	return slices.Contains(cryptographic, c.Operation) || !c.readOnly
}

// named returns the key of the question that a refused call named, by its id, or that
// is in the message of its error.
func (a *Audit) named(id, message string) string {
	for _, k := range a.q.Keys {
		for _, arn := range k.ARNs {
			if id == arn || id == keyID(arn) || strings.Contains(message, arn) {
				return arn
			}
		}
	}
	return a.intern(id)
}

func (c *Call) setContext(a *Audit, context map[string]string) {
	c.context = a.intern(contextText(context))
	c.Context = map[string]string{}
	for name, value := range context {
		c.Context[a.intern(name)] = a.intern(value)
	}
	c.Set = c.Context[config.ContextSet]
}

// cryptographic are the operations that use a key.
var cryptographic = []string{
	"Decrypt", "Encrypt", "ReEncrypt", "GenerateDataKey", "GenerateDataKeyWithoutPlaintext", "GenerateDataKeyPair",
	"GenerateDataKeyPairWithoutPlaintext", "DeriveSharedSecret", "GenerateMac", "VerifyMac", "Sign", "Verify",
}

func (a *Audit) s3(c *Call, r *record) bool {
	p := r.RequestParameters
	bucket, key := p.text("bucketName"), p.text("key")
	from := strings.TrimPrefix(p.text("x-amz-copy-source"), "/")
	for i := range a.q.Keys {
		k := &a.q.Keys[i]
		if !k.in("s3") {
			continue
		}
		object := k.Source.Bucket + "/" + k.Source.Name
		source, _, _ := strings.Cut(from, "?")
		switch {
		case bucket == k.Source.Bucket && key == k.Source.Name, source == object:
			c.Object, c.Volumes = a.intern(object), k.Volumes
			if source == object {
				c.detail = a.intern("copied to " + bucket + "/" + key)
			}
			if v := p.text("versionId"); v != "" {
				c.detail = a.intern("version " + v)
			}
			return true
		case bucket == k.Source.Bucket && (key == "" || c.Operation == "DeleteObjects") && !c.readOnly:
			c.Object = a.intern(bucket + "/")
			return true
		}
	}
	return false
}

// stored is for ciphertexts that a service keeps under a name.
func (a *Audit) stored(c *Call, r *record) bool {
	for i := range a.q.Keys {
		k := &a.q.Keys[i]
		if k.Trail == nil || !k.in(c.Service) {
			continue
		}
		for _, field := range k.Trail.Fields {
			for _, name := range append(r.RequestParameters.list(field), r.RequestParameters.text(field)) {
				if k.Trail.Names(name, k.Source.Name) {
					c.Object, c.Volumes = a.intern(k.Source.Name), k.Volumes
					return slices.Contains(k.Trail.Reads, c.Operation) || !c.readOnly
				}
			}
		}
	}
	return false
}
