package dm

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

// TestWhileBusy: what udev has open for a moment is waited for, not longer than is
// given, and nothing else is.
func TestWhileBusy(t *testing.T) {
	other := errors.New("other")
	for name, row := range map[string]struct {
		busy  int // how often
		then  error
		calls int
		err   error
		took  time.Duration
	}{
		"at once":        {0, nil, 1, nil, 0},
		"busy for a bit": {3, nil, 4, nil, 3 * removePause},
		"then gone":      {2, unix.ENXIO, 3, unix.ENXIO, 2 * removePause},
		"other error":    {0, other, 1, other, 0},
		"busy for ever":  {1 << 30, nil, 102, unix.EBUSY, removeFor + removePause},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				calls, start := 0, time.Now()
				err := whileBusy(removeFor, removePause, func() error {
					if calls++; calls <= row.busy {
						return unix.EBUSY
					}
					return row.then
				})
				if calls != row.calls || !errors.Is(err, row.err) || time.Since(start) != row.took {
					t.Errorf("%d calls, %v, %v; want %d, %v, %v", calls, err, time.Since(start), row.calls, row.err, row.took)
				}
			})
		})
	}
}
