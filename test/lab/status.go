package lab

import (
	"encoding/json"
	"errors"
	"strings"

	"unlock/internal/status"
)

// BootStatus returns what unlock left in the last boot, whose script has to call
// show_status.
func (l *Lab) BootStatus() (*status.Boot, error) {
	for _, line := range l.Console {
		if text, ok := strings.CutPrefix(line.Text, "status: "); ok {
			b := &status.Boot{}
			return b, json.Unmarshal([]byte(text), b)
		}
	}
	return nil, errors.New("the console shows no status")
}
