package octostache

import (
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
)

// hash makes a filter that takes an encoding of the input (utf8, unicode or
// base64) and a number of bytes to keep, in either order, and writes lower case
// hexadecimal digits.
func hash(name string) filter {
	return func(f *filtering) (string, bool, error) {
		if !f.has || len(f.opts) > 2 {
			return "", false, nil
		}
		encoding, size := "UTF8", -1
		var sized, encoded bool
		for _, o := range f.opts {
			if n, ok := parseInt32(o); ok && n > 0 && !sized {
				size, sized = int(n), true
			} else if !encoded {
				encoding, encoded = fold(o), true
			} else {
				return "", false, nil
			}
		}
		var in []byte
		var ok bool
		if encoding == "BASE64" {
			in, ok = decodeBase64(f.in)
		} else {
			in, ok = encode(f.in, encoding)
		}
		if !ok {
			return "", false, nil
		}
		var sum []byte
		switch name {
		case "MD5":
			h := md5.Sum(in)
			sum = h[:]
		case "SHA1":
			h := sha1.Sum(in)
			sum = h[:]
		case "SHA256":
			h := sha256.Sum256(in)
			sum = h[:]
		case "SHA384":
			h := sha512.Sum384(in)
			sum = h[:]
		default:
			h := sha512.Sum512(in)
			sum = h[:]
		}
		if size >= 0 && size < len(sum) {
			sum = sum[:size]
		}
		return hex.EncodeToString(sum), true, nil
	}
}
