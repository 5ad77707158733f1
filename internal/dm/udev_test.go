package dm

import (
	"net"
	"path/filepath"
	"testing"
)

func TestListening(t *testing.T) {
	t.Parallel()
	socket := filepath.Join(t.TempDir(), "control")
	if listening(socket) {
		t.Error("listening without a socket = true, want false")
	}
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: socket, Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	if !listening(socket) {
		t.Error("listening beside a listener = false, want true")
	}
	l.Close()
	if listening(socket) {
		t.Error("listening after the listener's end = true, want false")
	}
}
