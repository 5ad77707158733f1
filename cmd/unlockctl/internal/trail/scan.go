package trail

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// Sizes in bytes. CloudTrail's own records stay below 256 KiB.
const (
	scanBuffer = 128 << 10
	maxRecord  = 4 << 20
)

// ErrNoRecords says that something is JSON, but no record of CloudTrail.
var ErrNoRecords = errors.New("no CloudTrail records in it")

// Scanner finds the records in what CloudTrail delivers, without decoding them:
// that is for the few which concern the question. It takes
//
//	{"Records": [RECORD, …]}                          a delivered file
//	{"Events": [{"CloudTrailEvent": "RECORD"}, …]}    what LookupEvents answers
//	RECORD …                                          records one after another
//
// and any number of these one after another. It holds one record at a time.
type Scanner struct {
	r    io.Reader
	buf  []byte
	pos  int   // of what comes next in buf
	mark int   // from here on buf is kept; -1: from pos
	base int64 // bytes before buf

	open    []byte            // brackets to come, as they nest
	sources map[string]string // seen so far

	inside bool // an array of records or events
	events bool // of the latter
}

// NewScanner returns a Scanner that reads r.
func NewScanner(r io.Reader) *Scanner {
	s := &Scanner{buf: make([]byte, 0, scanBuffer), sources: map[string]string{}}
	s.reset(r)
	return s
}

// reset begins anew with another reader.
func (s *Scanner) reset(r io.Reader) {
	*s = Scanner{r: r, buf: s.buf[:0], open: s.open[:0], sources: s.sources, mark: -1}
}

// Raw is a record that was found. Its bytes are good until the next one is asked for.
type Raw struct {
	JSON   []byte
	Source string // its eventSource; "" if it has none
}

// Next returns the next record, or io.EOF after the last one. After another error
// there is no more to be had.
func (s *Scanner) Next() (Raw, error) {
	for {
		c, err := s.token()
		switch {
		case err == io.EOF && s.inside:
			return Raw{}, io.ErrUnexpectedEOF
		case err != nil:
			return Raw{}, err
		case s.inside && c == ',':
			s.pos++
		case s.inside && c == ']':
			s.pos++
			s.inside = false
			if err := s.rest(); err != nil {
				return Raw{}, truncated(err)
			}
		case c != '{':
			return Raw{}, s.syntax(c)
		case s.inside:
			r, err := s.object()
			if err == nil && s.events {
				return event(r.JSON)
			}
			return r, truncated(err)
		default:
			if err := s.enter(); err != nil {
				return Raw{}, truncated(err)
			}
			if !s.inside {
				r, err := s.object()
				return r, truncated(err)
			}
		}
	}
}

func truncated(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

func (s *Scanner) syntax(c byte) error {
	return fmt.Errorf("%q at byte %d is out of place", c, s.base+int64(s.pos))
}

// event takes the record out of an event of LookupEvents.
func event(data []byte) (Raw, error) {
	var e struct{ CloudTrailEvent string }
	if err := json.Unmarshal(data, &e); err != nil {
		return Raw{}, err
	}
	if e.CloudTrailEvent == "" {
		return Raw{}, ErrNoRecords
	}
	return NewScanner(bytes.NewReader([]byte(e.CloudTrailEvent))).Next()
}

// enter goes into the array of an object that has one, or stays before the object.
func (s *Scanner) enter() error {
	s.mark = s.pos
	defer func() { s.mark = -1 }()
	s.pos++
	c, err := s.token()
	if err != nil {
		return err
	}
	var name []byte
	if c == '"' {
		if name, err = s.text(); err != nil {
			return err
		}
	}
	if string(name) != "Records" && string(name) != "Events" {
		s.pos = s.mark
		return nil
	}
	s.inside, s.events = true, name[0] == 'E'
	for _, want := range []byte(":[") {
		c, err := s.token()
		if err != nil {
			return err
		}
		if c != want {
			return s.syntax(c)
		}
		s.pos++
	}
	return nil
}

// rest goes to the end of the object around an array.
func (s *Scanner) rest() error {
	for depth := 1; depth > 0; s.pos++ {
		c, err := s.token()
		if err != nil {
			return err
		}
		switch c {
		case '"':
			s.mark = s.pos
			_, err := s.text()
			s.mark = -1
			if err != nil {
				return err
			}
			s.pos--
		case '{', '[':
			depth++
		case '}', ']':
			depth--
		}
	}
	return nil
}

// object goes over an object and returns it. Of its syntax it sees to the brackets
// and strings, and to the value of eventSource.
func (s *Scanner) object() (Raw, error) {
	var r Raw
	s.mark = s.pos
	defer func() { s.mark = -1 }()
	open := s.open[:0]
	defer func() { s.open = open }()
	value, source := false, false
	for {
		if s.pos == len(s.buf) {
			if err := s.fill(); err != nil {
				return Raw{}, err
			}
		}
		switch c := s.buf[s.pos]; c {
		case '"':
			text, err := s.text()
			switch {
			case err != nil:
				return Raw{}, err
			case len(open) != 1:
			case !value:
				source = string(text) == "eventSource"
			case source:
				r.Source, source = s.intern(text), false
			}
			continue
		case ':':
			value = true
		case ',':
			value = false
		case '{', '[':
			open = append(open, c+2) // the closing one, in ASCII
		case '}', ']':
			if open[len(open)-1] != c {
				return Raw{}, s.syntax(c)
			}
			if open = open[:len(open)-1]; len(open) == 0 {
				s.pos++
				r.JSON = s.buf[s.mark:s.pos]
				return r, nil
			}
		}
		s.pos++
	}
}

// intern returns text as a string, one for all that are equal. There are as many as
// AWS has services, unless somebody forges them.
func (s *Scanner) intern(text []byte) string {
	if known, ok := s.sources[string(text)]; ok {
		return known
	}
	name := string(text)
	if len(s.sources) < 1000 {
		s.sources[name] = name
	}
	return name
}

// text goes over a string and returns what is between its quotes. Its beginning must
// be kept.
func (s *Scanner) text() ([]byte, error) {
	from := s.pos - s.mark
	s.pos++
	for {
		n := bytes.IndexByte(s.buf[s.pos:], '"')
		if n < 0 {
			s.pos = len(s.buf)
			if err := s.fill(); err != nil {
				return nil, err
			}
			continue
		}
		s.pos += n + 1
		text := s.buf[s.mark+from+1 : s.pos-1]
		slashes := 0
		for slashes < len(text) && text[len(text)-1-slashes] == '\\' {
			slashes++
		}
		if slashes%2 == 0 {
			return text, nil
		}
	}
}

// token returns the byte after white space, and stays before it.
func (s *Scanner) token() (byte, error) {
	for {
		for ; s.pos < len(s.buf); s.pos++ {
			switch c := s.buf[s.pos]; c {
			case ' ', '\n', '\r', '\t':
			default:
				return c, nil
			}
		}
		if err := s.fill(); err != nil {
			return 0, err
		}
	}
}

// fill reads more, and forgets what is not kept.
func (s *Scanner) fill() error {
	keep := s.pos
	if s.mark >= 0 {
		keep = s.mark
	}
	if len(s.buf)-keep >= maxRecord {
		return fmt.Errorf("a record of more than %d bytes", maxRecord)
	}
	left := copy(s.buf, s.buf[keep:])
	s.base += int64(keep)
	s.pos -= keep
	s.mark = min(s.mark, 0)
	s.buf = s.buf[:left]
	if left == cap(s.buf) {
		s.buf = append(make([]byte, 0, 2*left), s.buf...)
	}
	for {
		n, err := s.r.Read(s.buf[left:cap(s.buf)])
		s.buf = s.buf[:left+n]
		if n > 0 {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
