package measure

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/binary"
	"errors"
	"fmt"
	"unicode/utf16"
)

// This file is PCR 7 (PC Client Platform Firmware Profile, section 3.3.4.8; UEFI
// Specification, section 32.4 for the lists).

// Variables are those of Secure Boot, each a file of EFI_SIGNATURE_LISTs; empty ones are
// not set.
type Variables struct {
	PK, KEK, DB, DBX []byte
}

type guid [16]byte

var (
	globalVariable = guid{0x61, 0xdf, 0xe4, 0x8b, 0xca, 0x93, 0xd2, 0x11, 0xaa, 0x0d, 0x00, 0xe0, 0x98, 0x03, 0x2b, 0x8c}
	imageSecurity  = guid{0xcb, 0xb2, 0x19, 0xd7, 0x3a, 0x3d, 0x96, 0x45, 0xa3, 0xbc, 0xda, 0xd0, 0x0e, 0x67, 0x65, 0x6f}
	certX509       = guid{0xa1, 0x59, 0xc0, 0xa5, 0xe4, 0x94, 0xa7, 0x4a, 0x87, 0xb5, 0xab, 0x15, 0x5c, 0x2b, 0xf0, 0x72}
	certSHA256     = guid{0x26, 0x16, 0xc4, 0xc1, 0x4c, 0x50, 0x92, 0x40, 0xac, 0xa9, 0x41, 0xf9, 0x36, 0x93, 0x43, 0x28}
)

// variable is UEFI_VARIABLE_DATA.
func variable(owner guid, name string, data []byte) []byte {
	text := utf16.Encode([]rune(name))
	b := bytes.Clone(owner[:])
	b = binary.LittleEndian.AppendUint64(b, uint64(len(text)))
	b = binary.LittleEndian.AppendUint64(b, uint64(len(data)))
	for _, c := range text {
		b = binary.LittleEndian.AppendUint16(b, c)
	}
	return append(b, data...)
}

// secureBoot adds what firmware measures of Secure Boot.
func (p *Prediction) secureBoot(images []*Image, vars *Variables) error {
	state, v := []byte{0}, Variables{}
	if vars != nil {
		state, v = []byte{1}, *vars
	}
	p.add(7, "SecureBoot", variable(globalVariable, "SecureBoot", state))
	p.add(7, "PK", variable(globalVariable, "PK", v.PK))
	p.add(7, "KEK", variable(globalVariable, "KEK", v.KEK))
	p.add(7, "db", variable(imageSecurity, "db", v.DB))
	p.add(7, "dbx", variable(imageSecurity, "dbx", v.DBX))
	p.add(7, "separator", make([]byte, 4))
	if vars == nil {
		return nil
	}
	list, err := signatures(v.DB)
	if err != nil {
		return fmt.Errorf("reading db: %w", err)
	}
	var seen [][]byte
	for _, i := range images {
		s, err := i.authority(list)
		if err != nil {
			return err
		}
		data := append(bytes.Clone(s.owner[:]), s.data...)
		if containsBytes(seen, data) {
			continue
		}
		seen = append(seen, data)
		p.add(7, "authority of "+i.Name, variable(imageSecurity, "db", data))
	}
	return nil
}

func containsBytes(list [][]byte, b []byte) bool {
	for _, l := range list {
		if bytes.Equal(l, b) {
			return true
		}
	}
	return false
}

// signature is an entry of a list.
type signature struct {
	kind, owner guid
	data        []byte
}

// signatures reads EFI_SIGNATURE_LISTs.
func signatures(b []byte) ([]signature, error) {
	var all []signature
	for len(b) > 0 {
		if len(b) < 28 {
			return nil, errors.New("a signature list is cut off")
		}
		size, header, each := int(le.Uint32(b[16:])), int(le.Uint32(b[20:])), int(le.Uint32(b[24:]))
		if size < 28 || size > len(b) || header > size-28 || each <= 16 || (size-28-header)%each != 0 {
			return nil, errors.New("a signature list is malformed: convert certificates with cert-to-efi-sig-list")
		}
		for e := b[28+header : size]; len(e) > 0; e = e[each:] {
			all = append(all, signature{guid(b[:16]), guid(e[:16]), e[16:each]})
		}
		b = b[size:]
	}
	return all, nil
}

// authority returns the entry of db that firmware accepts an image by.
func (i *Image) authority(db []signature) (signature, error) {
	chain, err := i.signers()
	if err != nil {
		return signature{}, fmt.Errorf("reading the signature of %s: %w", i.Name, err)
	}
	for _, s := range db {
		if s.kind != certX509 || chain == nil {
			continue
		}
		ca, err := x509.ParseCertificate(s.data)
		if err != nil {
			continue // firmware skips it, too
		}
		for _, c := range chain {
			if c.Equal(ca) || c.CheckSignatureFrom(ca) == nil {
				return s, nil
			}
		}
	}
	sum := i.Authenticode(sha256.New())
	for _, s := range db {
		if s.kind == certSHA256 && bytes.Equal(s.data, sum) {
			return s, nil
		}
	}
	return signature{}, fmt.Errorf("%s has no signature that db knows: firmware would not start it", i.Name)
}

// signers returns the certificates in an image's signature, none if it has none.
func (i *Image) signers() ([]*x509.Certificate, error) {
	c := i.certificates
	if len(c) == 0 {
		return nil, nil
	}
	const pkcs = 2
	if len(c) < 8 || le.Uint16(c[6:]) != pkcs || int(le.Uint32(c)) > len(c) || le.Uint32(c) < 8 {
		return nil, errors.New("it is not PKCS #7")
	}
	var content struct {
		Type    asn1.ObjectIdentifier
		Content asn1.RawValue `asn1:"explicit,tag:0"`
	}
	if _, err := asn1.Unmarshal(c[8:le.Uint32(c)], &content); err != nil {
		return nil, err
	}
	var signed struct {
		Version      int
		Digests      asn1.RawValue
		Content      asn1.RawValue
		Certificates asn1.RawValue `asn1:"optional,tag:0"`
		Revoked      asn1.RawValue `asn1:"optional,tag:1"`
		Signers      asn1.RawValue
	}
	if _, err := asn1.Unmarshal(content.Content.Bytes, &signed); err != nil {
		return nil, err
	}
	return x509.ParseCertificates(signed.Certificates.Bytes)
}
