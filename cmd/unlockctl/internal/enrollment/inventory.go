package enrollment

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"unlock/internal/keys"
	"unlock/internal/luks"
)

// Inventory is what a LUKS header says of itself. Nothing in it is proof of anything.
type Inventory struct {
	Device   string        `json:"device"`
	Version  int           `json:"luks"`
	UUID     string        `json:"uuid"`
	Label    string        `json:"label,omitempty"`
	Set      *SetState     `json:"set,omitempty"` // nil: unlock did not make the volume
	Keyslots []KeyslotInfo `json:"keyslots"`
	Tokens   []KeyInfo     `json:"tokens"` // those without a keyslot, but for the set's
	Notes    []string      `json:"notes,omitempty"`
}

// SetState is the place of a disk in its volume.
type SetState struct {
	UUID      string `json:"uuid"`
	Disk      int    `json:"disk"` // from 1
	Of        int    `json:"of"`
	Striped   bool   `json:"striped"`
	Copies    int    `json:"copies,omitempty"` // of all data, of a mirror
	State     string `json:"state"`            // "forming", "formed" or "ready"
	Ephemeral bool   `json:"ephemeral"`
}

// KeyslotInfo says what a keyslot is for.
type KeyslotInfo struct {
	ID       int       `json:"id"`
	Priority string    `json:"priority"`
	KDF      string    `json:"kdf"`
	Problem  string    `json:"problem,omitempty"`
	Keys     []KeyInfo `json:"keys"` // none: a passphrase that no token knows of
}

// KeyInfo is a token that names a keyslot.
type KeyInfo struct {
	Token   int               `json:"token"`
	Type    string            `json:"type"`
	KMSKey  string            `json:"kms_key,omitempty"`
	Context map[string]string `json:"context,omitempty"`
	Source  string            `json:"source,omitempty"` // where a sealed passphrase is
}

// Examine returns what the header on a device says.
func Examine(path string, h *luks.Header) (Inventory, error) {
	v := Inventory{Device: path, Version: h.Version(), UUID: h.UUID(), Label: h.Label(), Keyslots: []KeyslotInfo{}, Tokens: []KeyInfo{}, Notes: h.Notes()}
	if t, ok, err := h.Set(); err != nil {
		v.Notes = append(v.Notes, err.Error())
	} else if ok {
		v.Set = &SetState{UUID: t.UUID, Disk: t.Index + 1, Of: t.Count, Striped: t.Chunk != 0, Copies: t.Copies, State: string(t.State), Ephemeral: t.Ephemeral}
	}
	tokens, err := (&Disk{Path: path, header: h}).Tokens()
	if err != nil {
		return v, err
	}
	for _, s := range h.Slots() {
		k := KeyslotInfo{ID: s.ID, Priority: s.Priority, KDF: s.KDF, Problem: s.Problem, Keys: []KeyInfo{}}
		for _, t := range tokens {
			if slices.Contains(t.Keyslots, fmt.Sprint(s.ID)) {
				raw, _ := h.ReadToken(t.ID)
				k.Keys = append(k.Keys, keyInfo(t, raw))
			}
		}
		v.Keyslots = append(v.Keyslots, k)
	}
	for _, t := range tokens {
		if len(t.Keyslots) == 0 && t.Type != typeSet {
			v.Tokens = append(v.Tokens, KeyInfo{Token: t.ID, Type: t.Type})
		}
	}
	return v, nil
}

const typeSet = "unlock-set"

func keyInfo(t Token, raw json.RawMessage) KeyInfo {
	info := KeyInfo{Token: t.ID, Type: t.Type}
	if t.Type == TypeKMS || t.Type == TypeSealed {
		var named struct {
			Key     string            `json:"key"`
			Context map[string]string `json:"context"`
			Source  string            `json:"source"`
		}
		if json.Unmarshal(raw, &named) == nil { // else it is shown by its type alone
			info.KMSKey, info.Context, info.Source = named.Key, named.Context, named.Source
		}
	}
	return info
}

// String says in one line what a key is.
func (k KeyInfo) String() string {
	context := ""
	if len(k.Context) > 0 {
		context = ", context " + keys.ContextText(k.Context)
	}
	switch k.Type {
	case TypeKMS:
		return "data key under " + k.KMSKey + context
	case TypeSealed:
		return "passphrase sealed in " + k.Source + " under " + k.KMSKey + context
	case TypeRecovery:
		return "recovery key"
	}
	if strings.HasPrefix(k.Type, "systemd-") || k.Type == "clevis" {
		return k.Type
	}
	return "token of type " + k.Type
}

// What says in one line what a keyslot is for.
func (k KeyslotInfo) What() string {
	if k.Problem != "" {
		return k.Problem
	}
	if len(k.Keys) == 0 {
		return "passphrase"
	}
	var all []string
	for _, key := range k.Keys {
		all = append(all, key.String())
	}
	return strings.Join(all, "; ")
}
