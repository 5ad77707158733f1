package luks2

import "fmt"

// Slot says what a keyslot is like, for people.
type Slot struct {
	ID       int
	Priority string // "normal", "prefer" or "ignore"
	KDF      string // such as "pbkdf2 sha512, 1000 iterations"
	Problem  string // why it cannot be opened here; "" if it can
}

// Slots describes the keyslots, by id.
func (h *Header) Slots() []Slot {
	var list []Slot
	for _, k := range h.meta.keyslots {
		s := Slot{ID: k.id, Priority: "normal", KDF: k.kdf.text()}
		switch k.priority {
		case priorityIgnore:
			s.Priority = "ignore"
		case priorityPrefer:
			s.Priority = "prefer"
		}
		switch {
		case !k.bound:
			s.Problem = "of no use to this volume"
		case k.broken != nil:
			s.Problem = k.broken.Error()
		}
		list = append(list, s)
	}
	return list
}

// text is not String, by which Deriver would tell keys apart.
func (k kdf) text() string {
	if k.name == "pbkdf2" {
		return fmt.Sprintf("pbkdf2 %s, %d iterations", k.hash, k.iterations)
	}
	return fmt.Sprintf("%s, %d passes over %d MiB", k.name, k.time, k.memory>>10)
}
