package ec2sim

import (
	"crypto/rand"
	"net/http"
	"slices"
	"strings"
)

// kms answers one request.
func (c *Cloud) kms(rq *call) (any, error) {
	internal := func(kind, message string) error {
		return &apiError{http.StatusInternalServerError, kind, message}
	}
	switch {
	case c.fault("kms-throttled"):
		return nil, refuse("ThrottlingException", "You have exceeded the rate at which you may call KMS. Reduce the frequency of your calls.")
	case c.fault("kms-500"):
		return nil, internal("KMSInternalException", "The request was rejected because an internal exception occurred. The request can be retried.")
	case c.fault("kms-timeout"):
		return nil, internal("DependencyTimeoutException", "The system timed out while trying to fulfill the request. The request can be retried.")
	case c.fault("kms-unavailable"):
		return nil, internal("KeyUnavailableException", "The request was rejected because the specified KMS key was not available. You can retry the request.")
	}
	switch rq.operation {
	case "Encrypt":
		return c.kmsEncrypt(rq)
	case "Decrypt":
		return c.kmsDecrypt(rq)
	case "ReEncrypt":
		return c.kmsReEncrypt(rq)
	case "GenerateDataKey":
		return c.kmsGenerateDataKey(rq, true)
	case "GenerateDataKeyWithoutPlaintext":
		return c.kmsGenerateDataKey(rq, false)
	case "DescribeKey":
		return c.kmsDescribeKey(rq)
	case "CreateKey":
		return c.kmsCreateKey(rq)
	case "CreateAlias":
		return c.kmsCreateAlias(rq)
	case "GetKeyPolicy", "PutKeyPolicy":
		return c.kmsKeyPolicy(rq)
	case "CreateGrant", "DisableKey", "EnableKey", "ScheduleKeyDeletion", "EnableKeyRotation", "DisableKeyRotation":
		return c.kmsAdminister(rq)
	}
	return nil, refuse("UnknownOperationException", "")
}

// keyFor finds the key of an action, and checks that it may be used for it now.
func (c *Cloud) keyFor(rq *call, action, name string) (*key, string, error) {
	k, arn, err := c.permitted(rq, action, name, "kms-denied")
	if err != nil {
		return nil, "", err
	}
	return k, arn, c.usable(k, arn)
}

// permitted finds the key of an action, and checks that whoever calls may do it. Any of
// the faults denies it.
func (c *Cloud) permitted(rq *call, action, name string, faults ...string) (*key, string, error) {
	k, arn, err := c.findKey(name, rq.region)
	if err != nil {
		return nil, "", err
	}
	rq.resource = arn
	if slices.ContainsFunc(faults, c.fault) {
		return nil, "", denied(rq.who, "kms:"+action, arn)
	}
	if err := c.allowed(rq, k, arn, action); err != nil {
		return nil, "", err
	}
	return k, arn, nil
}

const algorithm = "SYMMETRIC_DEFAULT"

type kmsCiphertext struct {
	CiphertextBlob      []byte `json:",omitempty"`
	KeyId               string
	EncryptionAlgorithm string `json:",omitempty"`
	Plaintext           []byte `json:",omitempty"`

	CiphertextForRecipient []byte `json:",omitempty"`
}

func (c *Cloud) kmsEncrypt(rq *call) (any, error) {
	var in struct {
		KeyId             string
		Plaintext         []byte
		EncryptionContext map[string]string
	}
	if err := rq.read(&in); err != nil {
		return nil, err
	}
	if n := len(in.Plaintext); n < 1 || n > 4096 {
		return nil, refuse("ValidationException", "1 validation error detected: Value at 'plaintext' failed to satisfy constraint: Member must have length between 1 and 4096")
	}
	rq.context = in.EncryptionContext
	k, arn, err := c.keyFor(rq, "Encrypt", in.KeyId)
	if err != nil {
		return nil, err
	}
	return kmsCiphertext{CiphertextBlob: k.seal(in.Plaintext, in.EncryptionContext), KeyId: arn, EncryptionAlgorithm: algorithm}, nil
}

func (c *Cloud) kmsDecrypt(rq *call) (any, error) {
	var in struct {
		KeyId             string
		CiphertextBlob    []byte
		EncryptionContext map[string]string
		Recipient         *recipient
	}
	if err := rq.read(&in); err != nil {
		return nil, err
	}
	if err := c.attested(rq, in.Recipient); err != nil {
		return nil, err
	}
	plaintext, arn, err := c.decrypt(rq, "Decrypt", in.KeyId, in.CiphertextBlob, in.EncryptionContext)
	if err != nil {
		return nil, err
	}
	out := kmsCiphertext{KeyId: arn, EncryptionAlgorithm: algorithm}
	return &out, c.answerTo(rq, &out, plaintext)
}

// decrypt opens a ciphertext with the key that made it, which must be the one
// named, if one is.
func (c *Cloud) decrypt(rq *call, action, name string, blob []byte, context map[string]string) ([]byte, string, error) {
	rq.context = context
	var named string
	if name != "" {
		k, arn, err := c.keyFor(rq, action, name)
		if err != nil {
			return nil, "", err
		}
		named, name = k.id, arn
	}
	id, ok := blobKeyID(blob)
	switch {
	case !ok:
		return nil, "", refuse("InvalidCiphertextException", "")
	case named != "" && named != id:
		return nil, "", refuse("IncorrectKeyException", "The key ID in the request does not identify a CMK that can perform this operation.")
	case named == "":
		if _, _, err := c.findKey(id, rq.region); err != nil {
			return nil, "", refuse("AccessDeniedException", "The ciphertext refers to a customer master key that does not exist, does not exist in this region, or you are not allowed to access.")
		}
	}
	k, arn, err := c.keyFor(rq, action, id)
	if err != nil {
		return nil, "", err
	}
	plaintext, err := k.open(blob, context)
	if err != nil {
		return nil, "", refuse("InvalidCiphertextException", "")
	}
	return plaintext, arn, nil
}

func (c *Cloud) kmsReEncrypt(rq *call) (any, error) {
	var in struct {
		CiphertextBlob               []byte
		SourceKeyId                  string
		SourceEncryptionContext      map[string]string
		DestinationKeyId             string
		DestinationEncryptionContext map[string]string
	}
	if err := rq.read(&in); err != nil {
		return nil, err
	}
	plaintext, source, err := c.decrypt(rq, "ReEncryptFrom", in.SourceKeyId, in.CiphertextBlob, in.SourceEncryptionContext)
	if err != nil {
		return nil, err
	}
	rq.sources = []string{source}
	rq.context = in.DestinationEncryptionContext
	k, arn, err := c.keyFor(rq, "ReEncryptTo", in.DestinationKeyId)
	if err != nil {
		return nil, err
	}
	return struct {
		kmsCiphertext
		SourceKeyId                    string
		SourceEncryptionAlgorithm      string
		DestinationEncryptionAlgorithm string
	}{
		kmsCiphertext{CiphertextBlob: k.seal(plaintext, in.DestinationEncryptionContext), KeyId: arn},
		source, algorithm, algorithm,
	}, nil
}

func (c *Cloud) kmsGenerateDataKey(rq *call, withPlaintext bool) (any, error) {
	var in struct {
		KeyId             string
		KeySpec           string
		NumberOfBytes     int
		EncryptionContext map[string]string
		Recipient         *recipient
	}
	if err := rq.read(&in); err != nil {
		return nil, err
	}
	size := map[string]int{"AES_128": 16, "AES_256": 32}[in.KeySpec]
	switch {
	case in.Recipient != nil && !withPlaintext:
		return nil, refuse("ValidationException", "GenerateDataKeyWithoutPlaintext takes no recipient")
	case (in.KeySpec == "") == (in.NumberOfBytes == 0):
		return nil, refuse("ValidationException", "Please specify either number of bytes or key spec.")
	case in.KeySpec == "":
		size = in.NumberOfBytes
	}
	if size < 1 || size > 1024 {
		return nil, refuse("ValidationException", "1 validation error detected: the data key must be AES_128, AES_256 or 1 to 1024 bytes long")
	}
	if err := c.attested(rq, in.Recipient); err != nil {
		return nil, err
	}
	rq.context = in.EncryptionContext
	k, arn, err := c.keyFor(rq, rq.operation, in.KeyId)
	if err != nil {
		return nil, err
	}
	dataKey := make([]byte, size)
	rand.Read(dataKey)
	out := kmsCiphertext{CiphertextBlob: k.seal(dataKey, in.EncryptionContext), KeyId: arn}
	if !withPlaintext {
		return out, nil
	}
	return &out, c.answerTo(rq, &out, dataKey)
}

func (c *Cloud) kmsDescribeKey(rq *call) (any, error) {
	var in struct{ KeyId string }
	if err := rq.read(&in); err != nil {
		return nil, err
	}
	k, arn, err := c.permitted(rq, "DescribeKey", in.KeyId, "kms-denied")
	if err != nil {
		return nil, err
	}
	return c.keyMetadata(k, arn), nil
}

func (c *Cloud) keyMetadata(k *key, arn string) any {
	state := c.state(k)
	meta := map[string]any{
		"AWSAccountId": c.cfg.Account, "Arn": arn, "KeyId": k.id,
		"CreationDate": float64(k.created.UnixMilli()) / 1000,
		"Description":  "", "Enabled": state == "Enabled", "KeyState": state,
		"KeyManager": "CUSTOMER", "KeySpec": algorithm, "CustomerMasterKeySpec": algorithm,
		"KeyUsage": "ENCRYPT_DECRYPT", "Origin": "AWS_KMS",
		"EncryptionAlgorithms": []string{algorithm}, "MultiRegion": strings.HasPrefix(k.id, "mrk-"),
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !k.deletion.IsZero() {
		meta["DeletionDate"] = float64(k.deletion.UnixMilli()) / 1000
	}
	return map[string]any{"KeyMetadata": meta}
}
