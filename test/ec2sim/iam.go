package ec2sim

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
)

// This file is as much of IAM as it takes to give an instance a role: its Query
// protocol (IAM API Reference), roles with inline policies, instance profiles.
// Policies of roles are kept; those of keys may leave decisions to them.

// role of the simulated account.
type role struct {
	policies map[string]string
	profile  string
}

// isIAM reports whether a request is one of IAM's.
func isIAM(r *http.Request, body []byte) bool {
	return strings.HasPrefix(r.Header.Get("Content-Type"), "application/x-www-form-urlencoded") && strings.Contains(string(body), "Version=2010-05-08")
}

// RolePolicies returns the inline policies of a role that was made through the API.
func (c *Cloud) RolePolicies(name string) map[string]string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if r := c.roles[name]; r != nil {
		return r.policies
	}
	return nil
}

// iam answers one request.
func (c *Cloud) iam(r *http.Request, body []byte) reply {
	rep := reply{status: http.StatusOK, requestID: uuid(), header: map[string]string{"Content-Type": "text/xml"}}
	form, err := url.ParseQuery(string(body))
	var result string
	var refused *apiError
	if err != nil {
		refused = refuse("MalformedInput", "%v", err)
	} else if _, aerr := c.verify(r, body, "iam", ""); aerr != nil {
		refused = &apiError{http.StatusForbidden, "SignatureDoesNotMatch", "The request signature we calculated does not match the signature you provided."}
	} else {
		rep.operation = form.Get("Action")
		result, refused = c.iamDo(rep.operation, form)
	}
	if refused != nil {
		rep.status, rep.errorType = refused.status, refused.kind
		rep.body = fmt.Appendf(nil, `<ErrorResponse xmlns="https://iam.amazonaws.com/doc/2010-05-08/"><Error><Type>Sender</Type><Code>%s</Code><Message>%s</Message></Error><RequestId>%s</RequestId></ErrorResponse>`,
			refused.kind, xmlEscaper.Replace(refused.message), rep.requestID)
		return rep
	}
	if result != "" {
		result = fmt.Sprintf("<%[1]sResult>%[2]s</%[1]sResult>", rep.operation, result)
	}
	rep.body = fmt.Appendf(nil, `<%[1]sResponse xmlns="https://iam.amazonaws.com/doc/2010-05-08/">%[2]s<ResponseMetadata><RequestId>%[3]s</RequestId></ResponseMetadata></%[1]sResponse>`,
		rep.operation, result, rep.requestID)
	return rep
}

func (c *Cloud) iamDo(action string, form url.Values) (string, *apiError) {
	name, profile, now := form.Get("RoleName"), form.Get("InstanceProfileName"), c.now().Format("2006-01-02T15:04:05Z")
	arn := func(kind, name string) string {
		return fmt.Sprintf("arn:%s:iam::%s:%s/%s", partitions[c.cfg.Region], c.cfg.Account, kind, name)
	}
	described := func(kind, field, name string) string {
		return fmt.Sprintf("<Path>/</Path><Arn>%[1]s</Arn><%[2]s>%[3]s</%[2]s><CreateDate>%[4]s</CreateDate>", arn(kind, name), field, name, now)
	}
	for _, document := range []string{form.Get("AssumeRolePolicyDocument"), form.Get("PolicyDocument")} {
		if document != "" && !json.Valid([]byte(document)) {
			return "", refuse("MalformedPolicyDocument", "Syntax errors in policy.")
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.roles[name]
	if name != "" && r == nil && action != "CreateRole" {
		return "", &apiError{http.StatusNotFound, "NoSuchEntity", fmt.Sprintf("The role with name %s cannot be found.", name)}
	}
	switch action {
	case "CreateRole":
		if r != nil {
			return "", &apiError{http.StatusConflict, "EntityAlreadyExists", fmt.Sprintf("Role with name %s already exists.", name)}
		}
		c.roles[name] = &role{policies: map[string]string{}}
		return "<Role>" + described("role", "RoleName", name) + "</Role>", nil
	case "PutRolePolicy":
		r.policies[form.Get("PolicyName")] = form.Get("PolicyDocument")
		return "", nil
	case "CreateInstanceProfile":
		return "<InstanceProfile>" + described("instance-profile", "InstanceProfileName", profile) + "<Roles/></InstanceProfile>", nil
	case "AddRoleToInstanceProfile":
		r.profile = profile
		return "", nil
	}
	return "", refuse("InvalidAction", "Could not find operation %s for version 2010-05-08", action)
}
