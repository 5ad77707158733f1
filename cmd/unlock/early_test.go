package main

import (
	"net"
	"testing"

	"unlock/internal/boot"
)

// TestHandOn: who comes later ends as who began early, and does it all where there is
// nobody, or one that breaks down.
func TestHandOn(t *testing.T) {
	if _, ok := handOn(); ok {
		t.Fatal("somebody began early")
	}
	for name, row := range map[string]struct {
		says    []byte
		outcome boot.Outcome
		ok      bool
	}{
		"done":        {[]byte{byte(boot.Done)}, boot.Done, true},
		"locked":      {[]byte{byte(boot.Locked)}, boot.Locked, true},
		"breaks down": {nil, 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			l, err := net.Listen("unix", meeting)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			go func() {
				c, err := l.Accept()
				if err != nil {
					return
				}
				_, _ = c.Write(row.says)
				c.Close()
			}()
			if outcome, ok := handOn(); outcome != row.outcome || ok != row.ok {
				t.Errorf("handOn = %v, %v; want %v, %v", outcome, ok, row.outcome, row.ok)
			}
		})
	}
}
