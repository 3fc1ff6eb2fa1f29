package certificate

import (
	"encoding/asn1"
	"math/big"
)

// maxRounds bounds how often a PKCS#12 file may have its password hashed. Tools use
// two thousand to some hundred thousand; a file could ask for billions, which would
// keep a processor busy for hours.
const maxRounds = 1_000_000

// tooManyRounds reports whether a file asks for more rounds than that: wherever the
// parameters of a password's hash stand, the number follows the salt.
func tooManyRounds(der []byte, depth int) bool {
	const deepest = 24
	salted := false
	for len(der) > 0 && depth < deepest {
		var v asn1.RawValue
		rest, err := asn1.Unmarshal(der, &v)
		if err != nil {
			return false // not of this form, or no file at all
		}
		octets := v.Class == asn1.ClassUniversal && v.Tag == asn1.TagOctetString
		if salted && v.Class == asn1.ClassUniversal && v.Tag == asn1.TagInteger {
			if n := new(big.Int).SetBytes(v.Bytes); n.Cmp(big.NewInt(maxRounds)) > 0 {
				return true
			}
		}
		if (v.IsCompound || octets) && tooManyRounds(v.Bytes, depth+1) {
			return true
		}
		salted, der = octets, rest
	}
	return false
}
