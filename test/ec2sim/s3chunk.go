package ec2sim

import (
	"bufio"
	"bytes"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"hash/crc64"
	"io"
	"net/http"
	"net/textproto"
	"strconv"
	"strings"
)

// decodeChunks undoes aws-chunked encoding (lines of hexadecimal sizes, as in
// HTTP's own, then trailers) and returns the data and the trailers.
func decodeChunks(body []byte) ([]byte, http.Header, error) {
	r := bufio.NewReader(bytes.NewReader(body))
	lines := textproto.NewReader(r)
	var data []byte
	for {
		line, err := lines.ReadLine()
		if err != nil {
			return nil, nil, errors.New("the body ends before its last chunk")
		}
		size, err := strconv.ParseUint(line, 16, 31)
		if err != nil {
			return nil, nil, fmt.Errorf("bad chunk size %q", line)
		}
		if size == 0 {
			break
		}
		chunk := make([]byte, size)
		if _, err := io.ReadFull(r, chunk); err != nil {
			return nil, nil, errors.New("the body ends inside a chunk")
		}
		data = append(data, chunk...)
		if line, err := lines.ReadLine(); err != nil || line != "" {
			return nil, nil, errors.New("a chunk is longer than its size")
		}
	}
	trailer, err := lines.ReadMIMEHeader()
	if err != nil && err != io.EOF {
		return nil, nil, fmt.Errorf("bad trailer: %w", err)
	}
	return data, http.Header(trailer), nil
}

// verifyChecksum checks the checksum of an upload and returns the name of its
// header, "" if there is none.
func verifyChecksum(h http.Header, data []byte) (string, error) {
	for name, sum := range map[string]hash.Hash{
		"x-amz-checksum-crc32":     crc32.NewIEEE(),
		"x-amz-checksum-crc32c":    crc32.New(crc32.MakeTable(crc32.Castagnoli)),
		"x-amz-checksum-crc64nvme": crc64.New(crc64.MakeTable(0x9a6c9329ac4bc9b5)),
		"x-amz-checksum-sha1":      sha1.New(),
		"x-amz-checksum-sha256":    sha256.New(),
	} {
		given := h.Get(name)
		if given == "" {
			continue
		}
		sum.Write(data)
		if base64.StdEncoding.EncodeToString(sum.Sum(nil)) != given {
			return "", fmt.Errorf("The %s you specified did not match the calculated checksum.", strings.ToUpper(strings.TrimPrefix(name, "x-amz-checksum-")))
		}
		return name, nil
	}
	return "", nil
}
