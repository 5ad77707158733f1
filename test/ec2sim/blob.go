package ec2sim

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"maps"
	"slices"
)

// A ciphertext blob names its key, as KMS's do, in a format of our own:
//
//	4 bytes   01 02 02 00, with which real blobs begin ("AQICA…" in base64)
//	1 byte    length of the key id
//	n bytes   key id
//	12 bytes  nonce
//	rest      AES-256-GCM of the plaintext, with tag
//
// The additional data is all before the nonce, then the encryption context:
// its pairs sorted by key, each string after its length in 4 bytes, big-endian.
var blobMagic = []byte{1, 2, 2, 0}

// seal encrypts plaintext into a blob.
func (k *key) seal(plaintext []byte, context map[string]string) []byte {
	head := append(slices.Clone(blobMagic), byte(len(k.id)))
	head = append(head, k.id...)
	gcm := k.gcm()
	nonce := make([]byte, gcm.NonceSize())
	rand.Read(nonce)
	return gcm.Seal(append(slices.Clone(head), nonce...), nonce, plaintext, additionalData(head, context))
}

// open decrypts a blob that names k.
func (k *key) open(blob []byte, context map[string]string) ([]byte, error) {
	gcm := k.gcm()
	n := len(blobMagic) + 1 + len(k.id)
	if len(blob) < n+gcm.NonceSize() {
		return nil, errors.New("the blob is too short")
	}
	nonce := blob[n : n+gcm.NonceSize()]
	return gcm.Open(nil, nonce, blob[n+gcm.NonceSize():], additionalData(blob[:n], context))
}

func (k *key) gcm() cipher.AEAD {
	block, err := aes.NewCipher(k.material[:])
	if err != nil {
		panic(err) // 32 bytes are an AES-256 key
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		panic(err) // AES has the block size of GCM
	}
	return gcm
}

// blobKeyID returns the id of the key in a blob, false if it is not a blob.
func blobKeyID(blob []byte) (string, bool) {
	n := len(blobMagic)
	if len(blob) <= n || !slices.Equal(blob[:n], blobMagic) || len(blob) < n+1+int(blob[n]) {
		return "", false
	}
	return string(blob[n+1 : n+1+int(blob[n])]), true
}

func additionalData(head []byte, context map[string]string) []byte {
	data := slices.Clone(head)
	for _, k := range slices.Sorted(maps.Keys(context)) {
		for _, s := range []string{k, context[k]} {
			data = binary.BigEndian.AppendUint32(data, uint32(len(s)))
			data = append(data, s...)
		}
	}
	return data
}
