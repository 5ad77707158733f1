package initramfs

import (
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
)

// Zstd returns a writer that compresses an image as the kernel unpacks it
// (CONFIG_RD_ZSTD, since 5.9). Close ends the stream.
func Zstd(w io.Writer) (io.WriteCloser, error) {
	// One thread, so that equal images compress to equal bytes; a window that
	// every kernel accepts.
	zw, err := zstd.NewWriter(w, zstd.WithEncoderLevel(zstd.SpeedBestCompression), zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(8<<20))
	if err != nil {
		return nil, fmt.Errorf("compressing the image: %w", err)
	}
	return zw, nil
}
