package secret

import "golang.org/x/sys/unix"

// newPage returns a mapping of at least n bytes.
func newPage(n int) ([]byte, error) {
	size := (n + unix.Getpagesize() - 1) &^ (unix.Getpagesize() - 1)
	page, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, err
	}
	_ = unix.Mlock(page)
	_ = unix.Madvise(page, unix.MADV_DONTDUMP)
	_ = unix.Madvise(page, unix.MADV_DONTFORK)
	return page, nil
}

func freePage(page []byte) { _ = unix.Munmap(page) }
