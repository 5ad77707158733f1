package main

import (
	"net"
	"time"

	"unlock/internal/boot"
)

// An initramfs may begin early: it starts "unlock early" in the background before it has
// udev deal with devices, and runs unlock where it has waited for them, as if there had been
// no other. Until then the one before decides nothing and writes nothing; then the later
// waits for it and ends as it does. Should the one before break down, the later does it all.

// meeting is where the two meet, an abstract socket (unix(7)), which needs no file system.
const meeting = "@unlock-early"

// early does the volumes on disks once somebody says that devices have settled.
func early() boot.Outcome {
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: meeting, Net: "unix"}) // net.Listen would bring those of TCP
	if err != nil {
		kernelLog.Warnf("beginning early: %v", err) // the later does it
		return boot.Locked
	}
	var later net.Conn
	outcome := supervisor(&parent{began: started(), settle: func(n *noted) {
		_ = n.note("modules", loadModules)
		_ = n.note("udev", func() error {
			for later == nil { // without, nobody has said so
				if c, err := l.Accept(); err == nil {
					later = c
				} else {
					<-time.After(time.Second)
				}
			}
			return nil
		})
	}}).Run()
	if later != nil {
		_, _ = later.Write([]byte{byte(outcome)}) // if it is gone, another comes, and finds the volumes open
	}
	return outcome
}

// handOn says to who began early that devices have settled, and returns its outcome; false:
// there is nobody, or not any more.
func handOn() (boot.Outcome, bool) {
	c, err := net.Dial("unix", meeting)
	if err != nil {
		return 0, false
	}
	defer c.Close()
	outcome := []byte{0}
	if n, err := c.Read(outcome); n != 1 || err != nil {
		return 0, false
	}
	return boot.Outcome(outcome[0]), true
}
