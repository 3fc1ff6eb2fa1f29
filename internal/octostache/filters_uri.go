package octostache

import (
	"net"
	"net/url"
	"strconv"
	"strings"
	"unicode/utf8"
)

// uri is an absolute address, taken apart as .NET's Uri does it.
type uri struct {
	scheme, user, host, port, path, query, fragment string
	hasHost                                         bool
	unc                                             bool
}

// uriPart takes the name of a part. Unlike other filters it reports bad input in its result.
func uriPart(f *filtering) (string, bool, error) {
	if !f.has {
		return "", false, nil
	}
	if len(f.opts) == 0 {
		return "[UriPart error: no argument given]", true, nil
	}
	name := f.opts[0]
	get := uriGetter(name)
	if get == nil {
		return "[UriPart " + name + " error: argument '" + name + "' not supported]", true, nil
	}
	u, absolute, ok := parseURI(f.in)
	switch {
	case !ok:
		return f.in, true, nil
	case fold(name) == "ISABSOLUTEURI":
		return truth(absolute), true, nil
	case !absolute:
		return "[UriPart " + name + " error: This operation is not supported for a relative URI.]", true, nil
	}
	return get(u), true, nil
}

func uriGetter(name string) func(*uri) string {
	switch fold(name) {
	case "ABSOLUTEPATH", "PATH":
		if fold(name) == "PATH" {
			return (*uri).localPath
		}
		return func(u *uri) string { return u.path }
	case "ABSOLUTEURI":
		return (*uri).String
	case "AUTHORITY":
		return (*uri).authority
	case "DNSSAFEHOST":
		return func(u *uri) string { return strings.Trim(u.host, "[]") }
	case "FRAGMENT":
		return func(u *uri) string { return u.fragment }
	case "HOST":
		return func(u *uri) string { return u.host }
	case "HOSTANDPORT":
		return func(u *uri) string {
			if u.port == "" && defaultPort(u.scheme) == "" {
				return u.host
			}
			return u.host + ":" + u.anyPort()
		}
	case "HOSTNAMETYPE":
		return (*uri).hostType
	case "ISABSOLUTEURI":
		return func(*uri) string { return "true" }
	case "ISDEFAULTPORT":
		return func(u *uri) string { return truth(u.port == "") }
	case "ISFILE":
		return func(u *uri) string { return truth(u.scheme == "file") }
	case "ISLOOPBACK":
		return (*uri).loopback
	case "ISUNC":
		return func(u *uri) string { return truth(u.unc) }
	case "PATHANDQUERY":
		return func(u *uri) string { return u.path + u.query }
	case "PORT":
		return (*uri).anyPort
	case "QUERY":
		return func(u *uri) string { return u.query }
	case "SCHEME":
		return func(u *uri) string { return u.scheme }
	case "SCHEMEANDSERVER":
		return func(u *uri) string { return u.scheme + "://" + u.authority() }
	case "USERINFO":
		return func(u *uri) string { return u.user }
	}
	return nil
}

// parseURI reads an address. A text that can be neither an absolute nor a
// relative one is not ok. Rooted paths are relative, as on Windows.
func parseURI(s string) (u *uri, absolute, ok bool) {
	s = strings.TrimSpace(s)
	switch {
	case len(s) >= 3 && isLetter(s[0]) && s[1] == ':' && (s[2] == '\\' || s[2] == '/'):
		return &uri{scheme: "file", hasHost: true, path: "/" + escapePath(strings.ReplaceAll(s, `\`, "/"))}, true, true
	case strings.HasPrefix(s, `\\`) && len(s) > 2:
		host, path, _ := strings.Cut(strings.ReplaceAll(s[2:], `\`, "/"), "/")
		return &uri{scheme: "file", host: strings.ToLower(host), hasHost: true, unc: true, path: "/" + escapePath(path)}, true, true
	}
	scheme, rest, found := strings.Cut(s, ":")
	if !found || !validScheme(scheme) {
		return nil, false, true
	}
	u = &uri{scheme: strings.ToLower(scheme)}
	if i := strings.IndexByte(rest, '#'); i >= 0 {
		u.fragment = escapePath(rest[i:])
		rest = rest[:i]
	}
	if i := strings.IndexByte(rest, '?'); i >= 0 {
		u.query = escapePath(rest[i:])
		rest = rest[:i]
	}
	after, slashes := strings.CutPrefix(rest, "//")
	if !slashes {
		if defaultPort(u.scheme) != "" { // http:x is no address
			return nil, false, false
		}
		u.path = escapePath(rest)
		return u, true, true
	}
	u.hasHost = true
	auth, path := after, ""
	if i := strings.IndexByte(after, '/'); i >= 0 {
		auth, path = after[:i], after[i:]
	}
	if i := strings.LastIndexByte(auth, '@'); i >= 0 {
		u.user, auth = auth[:i], auth[i+1:]
	}
	host, port := auth, ""
	if i := strings.LastIndexByte(auth, ':'); i > strings.LastIndexByte(auth, ']') {
		host, port = auth[:i], auth[i+1:]
	}
	if port != "" {
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil {
			return nil, false, false
		}
		port = strconv.FormatUint(n, 10)
	}
	if host == "" && u.scheme != "file" || strings.ContainsAny(host, " \\<>\"^`{|}") {
		return nil, false, false
	}
	if u.host = strings.ToLower(host); port != defaultPort(u.scheme) {
		u.port = port
	}
	u.unc = u.scheme == "file" && u.host != ""
	if u.path = escapePath(path); u.path == "" {
		u.path = "/"
	}
	return u, true, true
}

func isLetter(c byte) bool { return 'a' <= c|0x20 && c|0x20 <= 'z' }

func validScheme(s string) bool {
	if s == "" || !isLetter(s[0]) {
		return false
	}
	for i := range len(s) {
		if c := s[i]; !isLetter(c) && !isDigit(c) && c != '+' && c != '-' && c != '.' {
			return false
		}
	}
	return true
}

func defaultPort(scheme string) string {
	switch scheme {
	case "http", "ws":
		return "80"
	case "https", "wss":
		return "443"
	case "ftp":
		return "21"
	case "gopher":
		return "70"
	case "nntp":
		return "119"
	case "ldap":
		return "389"
	case "telnet":
		return "23"
	case "net.tcp":
		return "808"
	}
	return ""
}

// escapePath escapes what must not be in an address, but keeps what is escaped.
func escapePath(s string) string {
	const keep = "-._~:/?#[]@!$&'()*+,;="
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		_, err := url.PathUnescape(s[i:min(i+3, len(s))])
		switch c := s[i]; {
		case c == '%' && err == nil:
			b.WriteByte(c)
		case c >= utf8.RuneSelf || c == '%':
			b.WriteString(percentEncode(s[i:i+1], ""))
		default:
			b.WriteString(percentEncode(s[i:i+1], keep))
		}
	}
	return b.String()
}

func (u *uri) authority() string {
	if u.port == "" {
		return u.host
	}
	return u.host + ":" + u.port
}

func (u *uri) anyPort() string {
	if u.port != "" {
		return u.port
	}
	if p := defaultPort(u.scheme); p != "" {
		return p
	}
	return "-1"
}

func (u *uri) String() string {
	var b strings.Builder
	b.WriteString(u.scheme + ":")
	if u.hasHost {
		b.WriteString("//")
		if u.user != "" {
			b.WriteString(u.user + "@")
		}
		b.WriteString(u.authority())
	}
	b.WriteString(u.path + u.query + u.fragment)
	return b.String()
}

func (u *uri) localPath() string {
	path := u.path
	if plain, err := url.PathUnescape(path); err == nil {
		path = plain
	}
	switch {
	case u.unc:
		return `\\` + u.host + strings.ReplaceAll(path, "/", `\`)
	case u.scheme == "file" && len(path) > 2 && path[0] == '/' && isLetter(path[1]) && path[2] == ':':
		return strings.ReplaceAll(path[1:], "/", `\`)
	}
	return path
}

func (u *uri) hostType() string {
	switch ip := net.ParseIP(strings.Trim(u.host, "[]")); {
	case !u.hasHost:
		return "Unknown"
	case u.host == "":
		return "Basic"
	case ip == nil:
		return "Dns"
	case strings.HasPrefix(u.host, "["):
		return "IPv6"
	default:
		return "IPv4"
	}
}

func (u *uri) loopback() string {
	if u.host == "" {
		return truth(u.scheme == "file")
	}
	ip := net.ParseIP(strings.Trim(u.host, "[]"))
	return truth(u.host == "localhost" || u.host == "loopback" || ip != nil && ip.IsLoopback())
}
