package luks2

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sort"
	"strings"

	"unlock/internal/dm"
)

// metadata is the validated copy of the JSON area.
type metadata struct {
	keyslots     []keyslot // by id
	tokens       []Token   // by id
	segment      segment
	digest       digest // of the segment's volume key
	flags        []string
	keyslotsSize int64 // bytes
	notes        []string
}

// Priorities of keyslots.
const (
	priorityIgnore = iota // never tried unless asked for
	priorityNormal
	priorityPrefer
)

type keyslot struct {
	id       int
	priority uint32
	keySize  int // bytes of the volume key
	kdf      kdf
	afHash   string
	offset   int64       // bytes, of the key material
	size     int64       // bytes
	cipher   *cipherSpec // of the material
	areaKey  int         // bytes of the key that encrypts the material
	broken   error       // why it cannot be opened; nil if it can
	bound    bool        // holds the key of the segment
}

// Token is a token as it is on disk. Nothing in it is authenticated.
type Token struct {
	ID       int
	Type     string
	Keyslots []int
	Raw      json.RawMessage // the whole object
}

type segment struct {
	cipher     *cipherSpec
	offset     int64 // bytes
	size       int64 // bytes
	ivOffset   uint64
	sectorSize int // bytes
}

type digest struct {
	id   int
	kdf  kdf    // pbkdf2
	want []byte // as many bytes as the hash has, or convertedDigest
}

// convertedDigest is the length in bytes that LUKS1 gives digests whatever their
// hash; cryptsetup convert leaves it so.
const convertedDigest = 20

// What to do about volumes that are sound and not supported.
const (
	resume    = "finish the re-encryption with cryptsetup reencrypt --resume-only"
	integrity = "volumes with integrity protection are not opened by unlock; cryptsetup opens them"
	opal      = "disks that encrypt by themselves are not opened by unlock; cryptsetup opens them"
	// HashAdvice is for volumes with a digest or keyslots in an unknown hash.
	HashAdvice = "this volume's hash is not one that unlock knows; cryptsetup opens it"
	// DetachedAdvice is for headers of which the data lie elsewhere.
	DetachedAdvice = "volumes whose header is detached from their data are not opened by unlock; cryptsetup opens them"

	foreignLayout = "cryptsetup luksDump shows what is on this volume, which unlock does not open"
)

// requirementAdvice is for what a header says a program must know to open it.
func requirementAdvice(mandatory []json.RawMessage) string {
	for _, raw := range mandatory {
		switch name := string(raw); {
		case strings.Contains(name, "reencrypt"):
			return resume
		case strings.Contains(name, "opal"):
			return opal
		}
	}
	return foreignLayout
}

// parseMetadata validates the JSON text of a header of headerSize bytes per copy
// on a device of devSize bytes. A keyslot that is sound as far as the format goes
// but cannot be opened here is marked broken; everything else that is wrong, or
// right and not supported, is an error.
func parseMetadata(doc object, headerSize, devSize int64, lim Limits) (metadata, error) {
	var m metadata
	var err error
	root := scope{doc, "metadata", &err}

	m.config(root.sub("config"), headerSize)
	root.each("keyslots", maxKeyslots, func(id int, s scope) { m.keyslots = append(m.keyslots, parseKeyslot(id, s, lim)) })
	sort.Slice(m.keyslots, func(i, j int) bool { return m.keyslots[i].id < m.keyslots[j].id })
	root.each("tokens", maxKeyslots, func(id int, s scope) { m.tokens = append(m.tokens, m.token(id, s)) })
	sort.Slice(m.tokens, func(i, j int) bool { return m.tokens[i].ID < m.tokens[j].ID })
	segments := 0
	root.each("segments", maxKeyslots, func(id int, s scope) {
		segments++
		if id != 0 {
			s.refuse(foreignLayout, "more than one segment: re-encryption or a layout of another program; not supported")
		}
		m.segment = parseSegment(s, devSize)
	})
	if segments == 0 {
		root.fail("no segment")
	}
	m.digests(root, lim)
	if err != nil {
		return m, err
	}
	if err := m.areas(headerSize); err != nil {
		return m, err
	}
	return m, nil
}

func (m *metadata) config(s scope, headerSize int64) {
	if n := s.bytes("json_size"); n != headerSize-binSize {
		s.fail("json_size %d does not belong to a header of %d bytes", n, headerSize)
	}
	m.keyslotsSize = s.bytes("keyslots_size")
	if m.keyslotsSize%alignment != 0 || m.keyslotsSize > maxAreas {
		s.fail("keyslots_size %d is not a multiple of %d up to %d", m.keyslotsSize, alignment, maxAreas)
	}
	if s.has("flags") {
		var flags []string
		s.into("flags", &flags, "an array of strings")
		for _, f := range flags {
			switch {
			case !dm.KnownFlag(f):
				m.notes = append(m.notes, fmt.Sprintf("unknown persistent flag %.40q is ignored", f))
			case !slices.Contains(m.flags, f):
				m.flags = append(m.flags, f)
			}
		}
	}
	if s.has("requirements") {
		r := s.sub("requirements")
		var mandatory []json.RawMessage
		if r.has("mandatory") {
			r.into("mandatory", &mandatory, "an array")
		}
		if len(mandatory) > 0 {
			r.refuse(requirementAdvice(mandatory), "needs %.80s, which is not supported", mandatory)
		}
	}
}

func parseKeyslot(id int, s scope, lim Limits) keyslot {
	k := keyslot{id: id, priority: priorityNormal, keySize: int(s.uint("key_size"))}
	typ := s.str("type")
	if s.has("priority") {
		if k.priority = s.uint("priority"); k.priority > priorityPrefer {
			s.fail("priority %d is none of 0, 1, 2", k.priority)
		}
	}
	area := s.sub("area")
	areaType := area.str("type")
	k.offset, k.size = area.bytes("offset"), area.bytes("size")
	if k.keySize == 0 {
		s.fail("key_size is 0")
	}
	switch typ {
	case "luks2":
	case "reencrypt":
		s.refuse(resume, "re-encryption is under way; finish it with cryptsetup reencrypt --resume-only")
		return k
	default:
		k.broken = fmt.Errorf("keyslot type %.40q is unknown", typ)
		return k
	}
	encryption := area.str("encryption")
	k.areaKey = int(area.uint("key_size"))
	af := s.sub("af")
	afType, afStripes := af.str("type"), af.uint("stripes")
	k.afHash = af.str("hash")
	var unusable error
	k.kdf, unusable = parseKDF(s.sub("kdf"), lim)

	k.cipher = findCipher(encryption)
	need := int64(k.keySize) * stripes
	switch {
	case unusable != nil:
		k.broken = unusable
	case areaType != "raw" || k.cipher == nil:
		k.broken = fmt.Errorf("key material is encrypted by %.40q, not %s", encryption, strings.Join(Ciphers(), ", "))
	case k.keySize != 16 && k.keySize != 32 && k.keySize != 64:
		k.broken = fmt.Errorf("volume key of %d bytes, not 16, 32 or 64", k.keySize)
	case k.cipher.takes(k.areaKey) != nil:
		k.broken = fmt.Errorf("key of %d bytes for the key material, not %d or %d", k.areaKey, k.cipher.keySizes[0], k.cipher.keySizes[1])
	case afType != "luks1" || afStripes != stripes:
		k.broken = fmt.Errorf("key is split by %.40q into %d stripes, not by luks1 into %d", afType, afStripes, stripes)
	case newHash(k.afHash) == nil:
		k.broken = fmt.Errorf("key is split with the unknown hash %.40q", k.afHash)
	case k.size < need:
		k.broken = fmt.Errorf("key area of %d bytes, too small for %d", k.size, need)
	}
	return k
}

func (m *metadata) hasKeyslot(id int) bool {
	return slices.ContainsFunc(m.keyslots, func(k keyslot) bool { return k.id == id })
}

// keyslotIDs reads the array "keyslots", all of which must exist.
func (m *metadata) keyslotIDs(s scope) []int {
	ids := s.ids("keyslots", maxKeyslots)
	for _, id := range ids {
		if !m.hasKeyslot(id) {
			s.fail("keyslot %d does not exist", id)
		}
	}
	return ids
}

func (m *metadata) token(id int, s scope) Token {
	t := Token{ID: id, Type: s.str("type"), Keyslots: m.keyslotIDs(s), Raw: s.encode()}
	switch {
	case t.Type == "":
		s.fail("type is empty")
	case t.Type == "luks2-keyring":
		if s.str("key_description"); len(s.object) != 3 {
			s.fail("luks2-keyring token with %d members, not 3", len(s.object))
		}
	case strings.HasPrefix(t.Type, "luks2-"):
		s.fail("type %.40q is reserved", t.Type)
	}
	return t
}

func parseSegment(s scope, devSize int64) segment {
	g := segment{offset: s.bytes("offset")}
	switch t := s.str("type"); {
	case strings.HasPrefix(t, "hw-opal"):
		s.refuse(opal, "type %.40q is not crypt: the disk encrypts by itself (OPAL)", t)
	case t != "crypt":
		s.refuse(foreignLayout, "type %.40q is not crypt", t)
	}
	if s.has("integrity") {
		s.refuse(integrity, "integrity protection is not supported")
	}
	name := s.str("encryption")
	if g.cipher = findCipher(name); g.cipher == nil {
		s.refuse(cipherAdvice(name), "encryption %s", otherCiphers(name))
	}
	if s.has("flags") {
		var flags []string
		if s.into("flags", &flags, "an array of strings"); len(flags) > 0 {
			s.refuse(resume, "flags %.80q belong to re-encryption, which is not supported", flags)
		}
	}
	g.ivOffset = s.u64("iv_tweak")
	g.sectorSize = int(s.uint("sector_size"))
	switch g.sectorSize {
	case 512, 1024, 2048, 4096:
	default:
		s.fail("sector_size %d is none of 512, 1024, 2048, 4096", g.sectorSize)
		return g
	}
	if g.offset == 0 {
		s.refuse(DetachedAdvice, "data at byte 0 begin inside the key areas: a detached header")
	}
	if g.offset%int64(g.sectorSize) != 0 || g.offset >= devSize {
		s.fail("data at byte %d of a device of %d bytes, with sectors of %d", g.offset, devSize, g.sectorSize)
		return g
	}
	if s.str("size") == "dynamic" {
		g.size = devSize - g.offset
	} else if g.size = s.bytes("size"); g.size > devSize-g.offset {
		s.fail("data of %d bytes from byte %d do not fit on a device of %d bytes", g.size, g.offset, devSize)
	}
	if g.size <= 0 || g.size%int64(g.sectorSize) != 0 {
		s.fail("data of %d bytes, which is not a number of sectors of %d", g.size, g.sectorSize)
	}
	return g
}

// digests finds the digest of the segment's key and says which keyslots hold it.
func (m *metadata) digests(root scope, lim Limits) {
	found := false
	owner := map[int]int{}
	root.each("digests", maxDigests, func(id int, s scope) {
		typ := s.str("type")
		keyslots := m.keyslotIDs(s)
		for _, k := range keyslots {
			if other, ok := owner[k]; ok {
				s.fail("keyslot %d belongs to digest %d too", k, other)
			}
			owner[k] = id
		}
		segments := s.ids("segments", maxKeyslots)
		if slices.ContainsFunc(segments, func(g int) bool { return g != 0 }) {
			s.fail("names a segment that does not exist")
		}
		if len(segments) == 0 {
			return // of a key that is not the volume's
		}
		if found {
			s.fail("the segment has another digest already")
		}
		found = true
		if typ != "pbkdf2" {
			s.fail("type %.40q is not pbkdf2", typ)
		}
		d := digest{id: id, want: s.base64("digest")}
		d.kdf.name, d.kdf.hash = typ, s.str("hash")
		d.kdf.iterations, d.kdf.salt = s.uint("iterations"), s.base64("salt")
		if err := d.kdf.check(lim); newHash(d.kdf.hash) == nil {
			s.refuse(HashAdvice, "%v", err)
		} else if err != nil {
			s.fail("%v", err)
		} else if n := newHash(d.kdf.hash)().Size(); len(d.want) != n && len(d.want) != convertedDigest {
			s.fail("digest of %d bytes, %s gives %d", len(d.want), d.kdf.hash, n)
		}
		m.digest = d
		for i := range m.keyslots {
			k := &m.keyslots[i]
			k.bound = slices.Contains(keyslots, k.id)
			if c := m.segment.cipher; k.bound && k.broken == nil && c != nil && c.takes(k.keySize) != nil {
				k.broken = fmt.Errorf("volume key %w", c.takes(k.keySize))
			}
		}
	})
	if !found {
		root.fail("the segment has no digest: no key could be verified")
	}
	for _, k := range m.keyslots {
		if _, ok := owner[k.id]; !ok {
			root.fail("keyslot %d has no digest", k.id)
		}
	}
}

// byOffset returns the keyslots in the order of their areas.
func (m *metadata) byOffset() []keyslot {
	used := slices.Clone(m.keyslots)
	sort.Slice(used, func(i, j int) bool { return used[i].offset < used[j].offset })
	return used
}

// areas checks that headers, key areas and data do not overlap.
func (m *metadata) areas(headerSize int64) error {
	start := 2 * headerSize
	end := start + m.keyslotsSize
	if end > m.segment.offset {
		return fmt.Errorf("metadata: data at byte %d begin inside the key areas, which end at byte %d", m.segment.offset, end)
	}
	for _, k := range m.byOffset() {
		if k.offset < start || k.size <= 0 || k.offset > end || k.size > end-k.offset {
			return fmt.Errorf("metadata: key area of keyslot %d, %d bytes from byte %d, is outside bytes %d to %d or overlaps another", k.id, k.size, k.offset, start, end)
		}
		start = k.offset + k.size
	}
	return nil
}

// freeArea returns the first gap of size bytes among the key areas.
func (m *metadata) freeArea(headerSize, size int64) (int64, error) {
	at := 2 * headerSize
	for _, k := range m.byOffset() {
		if k.offset-at >= size {
			break
		}
		at = roundUp(k.offset + k.size)
	}
	if at+size > 2*headerSize+m.keyslotsSize {
		return 0, errors.New("no room for another keyslot")
	}
	return at, nil
}

func roundUp(n int64) int64 { return (n + alignment - 1) / alignment * alignment }

// freeID returns the lowest id below limit that taken does not hold.
func freeID(limit int, taken func(id int) bool) (int, error) {
	for id := range limit {
		if !taken(id) {
			return id, nil
		}
	}
	return 0, fmt.Errorf("all %d ids are in use", limit)
}
