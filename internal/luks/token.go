package luks

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"
)

const (
	typeKMS = "aws-kms"
	typeSet = "unlock-set"
)

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
	Version   int    `json:"v"`     // 1, or VersionShares
	UUID      string `json:"uuid"`  // of the set; a single volume: that of its header
	Index     int    `json:"index"` // from 0
	Count     int    `json:"count"`
	Chunk     int    `json:"chunk,omitempty"` // bytes per stripe; 0: not striped
	State     State  `json:"state"`
	Ephemeral bool   `json:"ephemeral,omitempty"` // the key was thrown away on purpose
	PCR4      string `json:"pcr4,omitempty"`      // of the boot whose attested key formatted it, in lower-case hexadecimal, for messages alone
	Shares    string `json:"shares,omitempty"`    // into which the volume was divided, as Shares has them; "": it is one

	// Of a mirror; see package plan.
	Copies int    `json:"copies,omitempty"` // of all data; 0: no mirror
	Size   int64  `json:"size,omitempty"`   // bytes of data on each member
	Epoch  string `json:"epoch,omitempty"`  // names what its members have had in common since one last left or joined
	Before string `json:"before,omitempty"` // the epoch before that one; "": it is the first
	Left   string `json:"left,omitempty"`   // members that the others have gone on without, as Left has them
}

// VersionShares is the version of tokens with shares, VersionMirror that of tokens of a
// mirror, with shares or not: who does not know of them is to leave the volume alone.
const (
	VersionShares = 2
	VersionMirror = 3
)

// check says what is wrong with a token that was read or is to be written.
func (t KMSToken) check() error {
	switch {
	case t.Version != 1:
		return fmt.Errorf("version %d is not 1", t.Version)
	case len(t.Ciphertext) == 0:
		return errors.New("no ciphertext")
	}
	return nil
}

func (t SetToken) check() error {
	mirror := t.Copies != 0
	switch {
	case mirror != (t.Version == VersionMirror):
		return fmt.Errorf("version %d, with %d copies", t.Version, t.Copies)
	case t.Version != 1 && t.Shares == "" && !mirror:
		return fmt.Errorf("version %d is not 1", t.Version)
	case t.Version != VersionShares && t.Shares != "" && !mirror:
		return fmt.Errorf("version %d is not %d, that of what has shares", t.Version, VersionShares)
	case mirror && (t.Copies < 2 || t.Size <= 0 || t.Epoch == "" || t.Chunk == 0 && t.Copies != t.Count || t.Chunk != 0 && t.Count%t.Copies != 0):
		return fmt.Errorf("a mirror of %d copies on %d disks of %d bytes, epoch %.20q", t.Copies, t.Count, t.Size, t.Epoch)
	case !mirror && (t.Size != 0 || t.Epoch != "" || t.Before != "" || t.Left != ""):
		return errors.New("it has what only a mirror has")
	case t.UUID == "":
		return errors.New("no UUID")
	case t.Count < 1 || t.Index < 0 || t.Index >= t.Count:
		return fmt.Errorf("index %d of %d members", t.Index, t.Count)
	case t.Chunk < 0:
		return fmt.Errorf("chunk of %d bytes", t.Chunk)
	case t.PCR4 != "" && !isPCR(t.PCR4):
		return fmt.Errorf("PCR 4 of %.100q", t.PCR4)
	case t.State != StateForming && t.State != StateFormed && t.State != StateReady:
		return fmt.Errorf("unknown state %.20q", t.State)
	}
	left, err1 := ParseLeft(t.Left)
	for i := range left {
		if i >= t.Count || i == t.Index {
			err1 = fmt.Errorf("member %d cannot have been left by member %d of %d", i, t.Index, t.Count)
		}
	}
	_, err2 := ParseShares(t.Shares)
	return errors.Join(err1, err2)
}

// isPCR reports whether s is a PCR of SHA-384, in lower-case hexadecimal: what is shown
// of it on a console cannot be anything else.
func isPCR(s string) bool { return len(s) == 96 && strings.Trim(s, "0123456789abcdef") == "" }

// KMS returns the aws-kms token, if there is one (LUKS2 only). Two of them, or
// one that makes no sense, are an error.
func (h *Header) KMS() (t KMSToken, ok bool, err error) {
	_, ok, err = h.token(typeKMS, &t)
	if ok && err == nil {
		if err = t.check(); err != nil {
			err = fmt.Errorf("%s token: %w", typeKMS, err)
		}
	}
	return t, ok, err
}

// Set returns the unlock-set token, if there is one (LUKS2 only). Two of them, or
// one that makes no sense, are an error.
func (h *Header) Set() (t SetToken, ok bool, err error) {
	_, ok, err = h.token(typeSet, &t)
	if ok && err == nil {
		if err = t.check(); err != nil {
			err = fmt.Errorf("%s token: %w", typeSet, err)
		}
	}
	return t, ok, err
}

// token decodes the only token of a type into v and returns its id.
func (h *Header) token(typ string, v any) (id int, ok bool, err error) {
	if h.v2 == nil {
		return 0, false, nil
	}
	for _, t := range h.v2.Tokens() {
		if t.Type != typ {
			continue
		}
		if ok {
			return 0, true, fmt.Errorf("two %s tokens, %d and %d", typ, id, t.ID)
		}
		id, ok = t.ID, true
		if err := decodeToken(t.Raw, v); err != nil {
			return 0, true, fmt.Errorf("%s token %d: %w", typ, t.ID, err)
		}
	}
	return id, ok, nil
}

// decodeToken is json.Unmarshal for the struct v, but a member whose name differs
// from a field's in case only is an error, not that field.
func decodeToken(raw json.RawMessage, v any) error {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(raw, &members); err != nil {
		return err
	}
	t := reflect.TypeOf(v).Elem()
	for i := range t.NumField() {
		name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		for m := range members {
			if strings.EqualFold(m, name) && m != name {
				return fmt.Errorf("member %.40q is not %q", m, name)
			}
		}
	}
	return json.Unmarshal(raw, v)
}

// encodeToken returns the token's JSON, with its type first.
func encodeToken(typ string, v interface{ check() error }) (json.RawMessage, error) {
	if err := v.check(); err != nil {
		return nil, fmt.Errorf("%s token: %w", typ, err)
	}
	b, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("%s token: %w", typ, err)
	}
	return append([]byte(`{"type":`+strconv.Quote(typ)+`,`), b[1:]...), nil
}

// encodeSet returns the token's JSON; it belongs to no keyslot.
func encodeSet(t SetToken) (json.RawMessage, error) {
	b, err := encodeToken(typeSet, t)
	if err != nil {
		return nil, err
	}
	return append(b[:len(b)-1], `,"keyslots":[]}`...), nil
}

// PutSet replaces the unlock-set token, crash-safely.
func (h *Header) PutSet(dev Device, t SetToken) error {
	if h.v2 == nil {
		return errNotLUKS2
	}
	raw, err := encodeSet(t)
	if err != nil {
		return err
	}
	var old SetToken
	id, ok, err := h.token(typeSet, &old)
	if err != nil {
		return err
	}
	if !ok {
		id = -1
	}
	_, err = h.v2.PutToken(dev, id, raw)
	return err
}

// PutToken writes a token's JSON, replacing the one that has the id; id -1 takes
// the first that is free. It returns the id.
func (h *Header) PutToken(dev Device, id int, raw json.RawMessage) (int, error) {
	if h.v2 == nil {
		return 0, errNotLUKS2
	}
	return h.v2.PutToken(dev, id, raw)
}

// ReadToken returns a token's JSON.
func (h *Header) ReadToken(id int) (raw json.RawMessage, ok bool) {
	if h.v2 == nil {
		return nil, false
	}
	for _, t := range h.v2.Tokens() {
		if t.ID == id {
			return t.Raw, true
		}
	}
	return nil, false
}

// RemoveToken removes a token; it is no error if there is none.
func (h *Header) RemoveToken(dev Device, id int) error {
	if h.v2 == nil {
		return errNotLUKS2
	}
	return h.v2.RemoveToken(dev, id)
}
