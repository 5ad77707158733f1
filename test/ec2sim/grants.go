package ec2sim

import "time"

// This file is what an administrator may do to a key. Grants and rotation are
// recorded, not applied.

func (c *Cloud) kmsAdminister(rq *call) (any, error) {
	var in struct {
		KeyId             string
		PendingWindowDays int `json:"PendingWindowInDays"`
	}
	if err := rq.read(&in); err != nil {
		return nil, err
	}
	k, arn, err := c.permitted(rq, rq.operation, in.KeyId)
	if err != nil {
		return nil, err
	}
	switch rq.operation {
	case "CreateGrant":
		id := randomHex(32)
		rq.response = map[string]any{"grantId": id, "keyId": arn}
		return map[string]any{"GrantId": id, "GrantToken": randomHex(16)}, nil
	case "DisableKey", "EnableKey":
		c.DisableKey(arn, rq.operation == "DisableKey")
	case "ScheduleKeyDeletion":
		c.ScheduleKeyDeletion(arn, true)
		rq.response = map[string]any{"keyId": arn, "deletionDate": time.Now().AddDate(0, 0, 30).UTC().Format("Jan 2, 2006 3:04:05 PM")}
		return map[string]any{"KeyId": arn, "KeyState": c.state(k), "PendingWindowInDays": 30}, nil
	}
	return map[string]any{}, nil
}
