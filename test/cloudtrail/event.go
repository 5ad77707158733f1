// Package cloudtrail makes what AWS CloudTrail delivers: records of API calls, files
// of them, and signed digest files, in CloudTrail's own layout and under its names.
// The simulated EC2 writes its calls with it, and tests write calls that nobody made.
//
// Fields and their order follow the examples of the AWS KMS Developer Guide ("Examples
// of AWS KMS log entries", "Monitoring requests for NitroTPM"), of the Amazon S3 User
// Guide ("Amazon S3 CloudTrail events") and of the AWS CloudTrail User Guide
// ("userIdentity element", "digest file structure").
package cloudtrail

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// Event is one API call.
type Event struct {
	Time       time.Time
	Service    string // "kms"
	Name       string // "Decrypt"
	Region     string
	Address    string // where the call came from
	Endpoint   string // id of the VPC endpoint that it came through, or ""
	Agent      string
	Identity   Identity
	ErrorCode  string
	Message    string         // of the error
	Request    map[string]any // nil: null
	Response   map[string]any // nil: null
	Additional map[string]any // nil: left out
	RequestID  string
	EventID    string
	ReadOnly   bool
	Data       bool // a data event
	Resources  []Resource
	Account    string // the recipient
}

// Resource is what a call was about.
type Resource struct {
	Account string `json:"accountId,omitempty"`
	Type    string `json:"type"`
	ARN     string `json:"ARN"`
}

// Identity is who made a call.
type Identity struct {
	ARN       string // of a user, or of a role's session
	AccessKey string
	Created   time.Time // of a session
	Delivery  string    // ec2RoleDelivery: "2.0" for credentials from IMDSv2, "" for others
	InvokedBy string    // an AWS service
}

// JSON returns the record.
func (e *Event) JSON() []byte {
	r := record{
		Version: "1.11", Identity: e.Identity.json(), Time: e.Time.UTC().Format("2006-01-02T15:04:05Z"), Source: e.Service + ".amazonaws.com",
		Name: e.Name, Region: e.Region, Address: e.Address, Agent: e.Agent, Request: e.Request, Response: e.Response, Additional: e.Additional,
		RequestID: e.RequestID, EventID: e.EventID, ReadOnly: e.ReadOnly, Resources: e.Resources, Type: "AwsApiCall", Management: !e.Data,
		Account: e.Account, Category: "Management",
	}
	if e.ErrorCode != "" {
		r.ErrorCode, r.Message = &e.ErrorCode, &e.Message
	}
	if e.Endpoint != "" {
		r.Endpoint, r.EndpointAccount = &e.Endpoint, &e.Account
	}
	if e.Data {
		r.Category = "Data"
	}
	data, err := json.Marshal(r)
	if err != nil {
		panic(err) // maps, strings and numbers
	}
	return data
}

// record has the fields in CloudTrail's order; those that are left out where they are nil
// are of some calls alone.
type record struct {
	Version         string         `json:"eventVersion"`
	Identity        any            `json:"userIdentity"`
	Time            string         `json:"eventTime"`
	Source          string         `json:"eventSource"`
	Name            string         `json:"eventName"`
	Region          string         `json:"awsRegion"`
	Address         string         `json:"sourceIPAddress"`
	Agent           string         `json:"userAgent"`
	ErrorCode       *string        `json:"errorCode,omitzero"`
	Message         *string        `json:"errorMessage,omitzero"`
	Request         map[string]any `json:"requestParameters"`
	Response        map[string]any `json:"responseElements"`
	Additional      map[string]any `json:"additionalEventData,omitzero"`
	RequestID       string         `json:"requestID"`
	EventID         string         `json:"eventID"`
	ReadOnly        bool           `json:"readOnly"`
	Resources       []Resource     `json:"resources,omitzero"`
	Type            string         `json:"eventType"`
	Management      bool           `json:"managementEvent"`
	Account         string         `json:"recipientAccountId"`
	Endpoint        *string        `json:"vpcEndpointId,omitzero"`
	EndpointAccount *string        `json:"vpcEndpointAccountId,omitzero"`
	Category        string         `json:"eventCategory"`
}

// json writes the userIdentity element.
func (i Identity) json() any {
	type attributes struct {
		Created string `json:"creationDate"`
		MFA     string `json:"mfaAuthenticated"`
	}
	type issuer struct {
		Type    string `json:"type"`
		ID      string `json:"principalId"`
		ARN     string `json:"arn"`
		Account string `json:"accountId"`
		Name    string `json:"userName"`
	}
	type session struct {
		Issuer     issuer     `json:"sessionIssuer"`
		Attributes attributes `json:"attributes"`
		Delivery   string     `json:"ec2RoleDelivery,omitempty"`
	}
	type identity struct {
		Type      string   `json:"type"`
		ID        string   `json:"principalId,omitempty"`
		ARN       string   `json:"arn,omitempty"`
		Account   string   `json:"accountId,omitempty"`
		AccessKey string   `json:"accessKeyId,omitempty"`
		Name      string   `json:"userName,omitempty"`
		Session   *session `json:"sessionContext,omitempty"`
		InvokedBy string   `json:"invokedBy,omitempty"`
	}
	if i.ARN == "" {
		return identity{Type: "AWSService", InvokedBy: i.InvokedBy}
	}
	parts := strings.SplitN(i.ARN, ":", 6)
	account, path := parts[4], strings.Split(parts[5], "/")
	name := path[len(path)-1]
	v := identity{Type: "IAMUser", ID: "AIDAEXAMPLE", ARN: i.ARN, Account: account, AccessKey: i.AccessKey, Name: name, InvokedBy: i.InvokedBy}
	switch path[0] {
	case "root":
		v.Type, v.ID, v.Name = "Root", account, ""
	case "assumed-role":
		v.Type, v.ID, v.Name = "AssumedRole", "AROAEXAMPLE:"+name, ""
		v.Session = &session{
			Issuer:     issuer{"Role", "AROAEXAMPLE", fmt.Sprintf("arn:%s:iam::%s:role/%s", parts[1], account, path[1]), account, path[1]},
			Attributes: attributes{i.Created.UTC().Format("2006-01-02T15:04:05Z"), "false"},
			Delivery:   i.Delivery,
		}
	}
	return v
}
