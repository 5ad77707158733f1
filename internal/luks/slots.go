package luks

import "unlock/internal/luks/luks2"

// Slot says what a keyslot is like, for people.
type Slot = luks2.Slot

// Slots describes the keyslots, by id.
func (h *Header) Slots() []Slot {
	if h.v2 != nil {
		return h.v2.Slots()
	}
	var list []Slot
	for _, id := range h.v1.active {
		list = append(list, Slot{ID: id, Priority: "normal", KDF: "pbkdf2"})
	}
	return list
}
