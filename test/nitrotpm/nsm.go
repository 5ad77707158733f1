package nitrotpm

import (
	"bytes"
	"errors"
	"time"

	"github.com/fxamacker/cbor/v2"
)

// This file is the vendor command: the index holds a request, and then its answer.

// moduleID is that of every machine.
const moduleID = "i-0123456789abcdef0-tpm0000000000000000"

const maxField = 1024

// nsm answers the vendor command: two handles, of which the first authorizes.
func (t *TPM) nsm(c *command) ([]byte, error) {
	if t.strikes("no-vendor-command") {
		return failed(rcCommandCode), nil
	}
	switch {
	case c.tag != tagSessions:
		return failed(rcAuthMissing), nil
	case !c.password():
		return failed(rcAuthMissing), nil
	case len(c.params) != 0:
		return failed(rcCommandSize), nil
	}
	// It reads and writes the index, so both have to be allowed.
	for _, check := range []struct {
		code   uint32
		params []byte
	}{{ccNVRead, readNothing}, {ccNVWrite, writeNothing}} {
		if answer, err := t.checked(c, check.code, check.params); err != nil || code(answer) != rcSuccess {
			return answer, err
		}
	}
	x := t.indices[c.handles[1]]
	if x == nil {
		return failed(rcSize), nil // too small for any document
	}
	answer, err := t.respond(x.data)
	if err != nil {
		return nil, err
	}
	if len(answer) > len(x.data) {
		answer, _ = cbor.Marshal(map[string]string{"Error": "BufferTooSmall"})
	}
	copy(x.data, answer)
	copy(x.data[len(answer):], blankData(len(x.data)))
	return c.succeeded(nil), nil
}

// respond returns the answer to a request.
func (t *TPM) respond(request []byte) ([]byte, error) {
	refuse := func(why string) ([]byte, error) { return cbor.Marshal(map[string]string{"Error": why}) }
	if t.strikes("nsm-error") {
		return refuse("InternalError")
	}
	var in map[string]struct {
		UserData  []byte `cbor:"user_data"`
		Nonce     []byte `cbor:"nonce"`
		PublicKey []byte `cbor:"public_key"`
	}
	if err := cbor.NewDecoder(bytes.NewReader(request)).Decode(&in); err != nil || len(in) != 1 {
		return refuse("InvalidOperation")
	}
	a, ok := in["Attestation"]
	if !ok {
		return refuse("InvalidOperation")
	}
	if len(a.UserData) > maxField || len(a.Nonce) > maxField || len(a.PublicKey) > maxField {
		return refuse("InputTooLarge")
	}
	pcrs, err := t.pcrs()
	if err != nil {
		return nil, err
	}
	content := Content{ModuleID: moduleID, Time: time.Now(), PCRs: pcrs, PublicKey: a.PublicKey, UserData: a.UserData, Nonce: a.Nonce}
	if t.strikes("stale") {
		content.Time = content.Time.Add(-10 * time.Minute)
	}
	document, err := t.authority.Document(content)
	if err != nil {
		return nil, err
	}
	if t.strikes("forged") {
		document[len(document)-1] ^= 1
	}
	return cbor.Marshal(map[string]map[string][]byte{"Attestation": {"document": document}})
}

// pcrs reads those of SHA-384 from swtpm, which gives at most eight at a time.
func (t *TPM) pcrs() (map[int][]byte, error) {
	const sha384, size = 0x000c, 48
	all := map[int][]byte{}
	for i := range 24 {
		b := build(tagNoSessions, ccPCRRead)
		b = be.AppendUint32(b, 1)
		b = append(be.AppendUint16(b, sha384), 3)
		selected := make([]byte, 3)
		selected[i/8] = 1 << (i % 8)
		answer, err := t.forward(sized(append(b, selected...)))
		if err != nil {
			return nil, err
		}
		if code(answer) != rcSuccess || len(answer) < size || be.Uint16(answer[len(answer)-size-2:]) != size {
			return nil, errors.New("swtpm has no PCRs of SHA-384")
		}
		all[i] = answer[len(answer)-size:]
	}
	return all, nil
}
