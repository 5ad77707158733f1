package cloudtrail

import (
	"fmt"
	"time"
)

// Busy is the call number i of a busy account: an instance reads an object.
func Busy(i int) *Event {
	at := time.Date(2026, 3, 1, 0, 0, i, 0, time.UTC)
	return &Event{
		Time: at, Service: "s3", Name: "GetObject", Region: "us-east-1", Address: fmt.Sprintf("10.0.%d.%d", i>>8&255, i&255), Agent: "[aws-sdk-go-v2/1.47.7 os/linux lang/go#1.26 md/GOOS#linux md/GOARCH#amd64 api/s3#1.114.8]",
		Identity: Identity{ARN: fmt.Sprintf("arn:aws:sts::111122223333:assumed-role/web/i-%017x", i*7919), AccessKey: fmt.Sprintf("ASIA%016X", i*104729), Created: at.Add(-time.Hour), Delivery: "2.0"},
		Request:  map[string]any{"bucketName": "a-busy-bucket", "Host": "a-busy-bucket.s3.us-east-1.amazonaws.com", "key": fmt.Sprintf("data/part-%06d", i)},
		Additional: map[string]any{"SignatureVersion": "SigV4", "CipherSuite": "TLS_AES_128_GCM_SHA256", "bytesTransferredIn": 0, "AuthenticationMethod": "AuthHeader",
			"x-amz-id-2": fmt.Sprintf("%064x", i*15485863), "bytesTransferredOut": i},
		RequestID: fmt.Sprintf("%016X", i*32452843), EventID: fmt.Sprintf("%08x-0000-4000-8000-%012x", i, i), ReadOnly: true, Data: true,
		Resources: []Resource{{Type: "AWS::S3::Object", ARN: fmt.Sprintf("arn:aws:s3:::a-busy-bucket/data/part-%06d", i)}, {Account: "111122223333", Type: "AWS::S3::Bucket", ARN: "arn:aws:s3:::a-busy-bucket"}},
		Account:   "111122223333",
	}
}
