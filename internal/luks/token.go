package luks

// KMSToken is the LUKS2 token of type "aws-kms": the data key of a volume,
// encrypted by KMS. Nothing in it is authenticated.
type KMSToken struct {
	Keyslots   []string          `json:"keyslots"`
	Version    int               `json:"v"` // 1
	Ciphertext []byte            `json:"ciphertext"`
	Key        string            `json:"key"` // ARN
	Region     string            `json:"region"`
	Context    map[string]string `json:"context"`
}

// State is how far the forming of a set has come.
type State string

const (
	StateForming State = "forming" // not all members have their headers yet
	StateFormed  State = "formed"  // all headers are durable; the file system is not
	StateReady   State = "ready"   // may hold data; never formatted again
)

// SetToken is the LUKS2 token of type "unlock-set": which place a disk has in
// its volume. Nothing in it is authenticated.
type SetToken struct {
	Version   int    `json:"v"`     // 1
	UUID      string `json:"uuid"`  // of the set; a single volume: that of its header
	Index     int    `json:"index"` // from 0
	Count     int    `json:"count"`
	Chunk     int    `json:"chunk,omitempty"` // bytes per stripe; 0: not striped
	State     State  `json:"state"`
	Ephemeral bool   `json:"ephemeral,omitempty"` // the key was thrown away on purpose
}
