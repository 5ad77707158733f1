package trail

import (
	"bufio"
	"context"
	"crypto/sha256"
	"errors"
	"hash"
	"io"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/klauspost/compress/gzip"
)

// Read is what became of one file.
type Read struct {
	Bucket  string // as in File
	Name    string
	Records int      // that were found, also before an error
	Hash    [32]byte // SHA-256 of the content, uncompressed
	Err     error    // why the rest of it, or all, could not be read
}

// Progress counts what was read so far. It may be looked at while ReadAll runs.
type Progress struct {
	Bytes, Records atomic.Int64 // compressed bytes
}

// ReadAll reads files with all processors and calls each for every record, from
// several goroutines at once; what it gets is good until it returns. The results are
// in the order of the files. Only the end of ctx is an error; what is wrong with a
// file is in its result.
func ReadAll(ctx context.Context, files []File, each func(Raw), p *Progress) ([]Read, error) {
	results := make([]Read, len(files))
	var next atomic.Int64
	var workers sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		workers.Go(func() {
			w := worker{scanner: NewScanner(nil), sum: sha256.New(), progress: p}
			for ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= len(files) {
					return
				}
				results[i] = w.read(ctx, &files[i], each)
			}
		})
	}
	workers.Wait()
	return results, context.Cause(ctx)
}

// worker keeps its buffers from file to file.
type worker struct {
	scanner  *Scanner
	zip      gzip.Reader
	in       *bufio.Reader
	sum      hash.Hash
	progress *Progress
}

func (w *worker) read(ctx context.Context, f *File, each func(Raw)) Read {
	r := Read{Bucket: f.Bucket, Name: f.Name}
	content, _, err := f.Open(ctx)
	if err != nil {
		r.Err = err
		return r
	}
	defer content.Close()
	plain, err := w.plain(content)
	if err != nil {
		r.Err = truncated(err)
		return r
	}
	w.sum.Reset()
	w.scanner.reset(io.TeeReader(plain, w.sum))
	for {
		record, err := w.scanner.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			r.Err = err
			break
		}
		if record.Source == "" && r.Err == nil {
			r.Err = ErrNoRecords
		}
		r.Records++
		w.progress.Records.Add(1)
		each(record)
	}
	if r.Err == nil || errors.Is(r.Err, ErrNoRecords) {
		w.sum.Sum(r.Hash[:0])
	}
	return r
}

// plain returns the content without its compression, if it has one.
func (w *worker) plain(content io.Reader) (io.Reader, error) {
	counted := &counter{content, &w.progress.Bytes}
	if w.in == nil {
		w.in = bufio.NewReaderSize(counted, 64<<10)
	} else {
		w.in.Reset(counted)
	}
	magic, err := w.in.Peek(2)
	if err != nil || magic[0] != 0x1f || magic[1] != 0x8b {
		return w.in, nil // an empty file has no records
	}
	if err := w.zip.Reset(w.in); err != nil {
		return nil, err
	}
	return &w.zip, nil
}

// counter counts what is read through it.
type counter struct {
	r io.Reader
	n *atomic.Int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n.Add(int64(n))
	return n, err
}
