package secret

import (
	"errors"
	"strings"
)

// Bech32 (BIP 173) is how age writes keys.

const bech32Digits = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"

func bech32Sum(prefix string, digits []byte) uint32 {
	sum := uint32(1)
	step := func(v byte) {
		top := sum >> 25
		sum = (sum&0x1ffffff)<<5 ^ uint32(v)
		for i, g := range [...]uint32{0x3b6a57b2, 0x26508e6d, 0x1ea119fa, 0x3d4233dd, 0x2a1462b3} {
			if top>>i&1 == 1 {
				sum ^= g
			}
		}
	}
	for i := range len(prefix) {
		step(prefix[i] >> 5)
	}
	step(0)
	for i := range len(prefix) {
		step(prefix[i] & 31)
	}
	for _, d := range digits {
		step(d)
	}
	return sum
}

// encodeBech32 writes raw behind a prefix in lower case.
func encodeBech32(prefix string, raw []byte) string {
	var digits []byte
	acc, bits := uint32(0), 0
	for _, b := range raw {
		acc, bits = acc<<8|uint32(b), bits+8
		for bits >= 5 {
			bits -= 5
			digits = append(digits, byte(acc>>bits&31))
		}
	}
	if bits > 0 {
		digits = append(digits, byte(acc<<(5-bits)&31))
	}
	sum := bech32Sum(prefix, append(append([]byte(nil), digits...), 0, 0, 0, 0, 0, 0)) ^ 1
	for i := 5; i >= 0; i-- {
		digits = append(digits, byte(sum>>(5*i)&31))
	}
	var out strings.Builder
	out.WriteString(prefix + "1")
	for _, d := range digits {
		_ = out.WriteByte(bech32Digits[d]) // never fails
	}
	return out.String()
}

// decodeBech32 reads what encodeBech32 wrote, in upper or lower case.
func decodeBech32(text string) (prefix string, raw []byte, err error) {
	text = strings.ToLower(text)
	at := strings.LastIndexByte(text, '1')
	if at < 0 || len(text)-at < 7 {
		return "", nil, errors.New("no bech32")
	}
	prefix = text[:at]
	var digits []byte
	for i := at + 1; i < len(text); i++ {
		d := strings.IndexByte(bech32Digits, text[i])
		if d < 0 {
			return "", nil, errors.New("a character that bech32 has not")
		}
		digits = append(digits, byte(d))
	}
	if bech32Sum(prefix, digits) != 1 {
		return "", nil, errors.New("the checksum does not fit")
	}
	acc, bits := uint32(0), 0
	for _, d := range digits[:len(digits)-6] {
		acc, bits = acc<<5|uint32(d), bits+5
		if bits >= 8 {
			bits -= 8
			raw = append(raw, byte(acc>>bits))
		}
	}
	return prefix, raw, nil
}
