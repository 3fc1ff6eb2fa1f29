package octostache_test

import (
	"strings"
	"testing"
	"time"

	"github.com/takodeploy/tako/internal/octostache"
)

// TestFilters applies "| filter" to an input; want "" with ok false means that it cannot be used.
func TestFilters(t *testing.T) {
	t.Parallel()
	const no = "\x00" // the filter leaves the reference
	tests := []struct{ in, filter, want string }{
		{"Grüße", "ToUpper", "GRÜßE"},
		{"Grüße", "ToUpper x", no},
		{"a\tb\\\"/é", "JsonEscape", `a\tb\\\"/é`},
		{"<'/&\">", "HtmlEscape", "&lt;&apos;&#x2F;&amp;&quot;&gt;"},
		{"<'/&\">", "XmlEscape", "&lt;&apos;/&amp;&quot;&gt;"},
		{"<", "XmlEscape x", no},
		{"a'\n\nb\r\nc", "YamlSingleQuoteEscape", "a''\n\n\nb\r\n\r\nc"},
		{"\x01é😀~", "YamlDoubleQuoteEscape", `\u0001\u00e9\ud83d\ude00~`},
		{" a \n b ", "PropertiesKeyEscape", `\ a\ \n\ b\ `},
		{"÷üÿĀ", "PropertiesValueEscape", `÷ü\u00ff\u0100`},
		{"ä b?&%[]", "UriEscape", "%C3%A4%20b?&%25[]"},
		{"ä b?&", "UriDataEscape", "%C3%A4%20b%3F%26"},
		{"_yeah!_", "Markdown", "<p><em>yeah!</em></p>\n\n"},
		{"~~a~~ ~b~ ^c^ ++d++ ==e== 1+1=2 ~~~", "MarkdownToHtml", "<p><del>a</del> <sub>b</sub> <sup>c</sup> <ins>d</ins> <mark>e</mark> 1+1=2 ~~~</p>\n\n"},
		{"<b>x</b> www.example.org", "Markdown", "<p><b>x</b> <a href=\"http://www.example.org\">www.example.org</a></p>\n\n"},
		{"é", "ToBase64", "w6k="},
		{"é", "ToBase64 Unicode", "6QA="},
		{"é", "ToBase64 ascii", no},
		{"w6k=", "FromBase64", "é"},
		{" 6Q A= ", "FromBase64 unicode", "é"},
		{"w6k", "FromBase64", no},
		{"abc", "Substring 1 1", "b"},
		{"abc", "Substring 1 9", "bc"},
		{"abc", "Substring 9", "abc"},
		{"abc", "Substring 4 1", no},
		{"😀bc", "Substring 2 1", "b"},
		{"abc", "Truncate 2", "ab..."},
		{"abc", "Truncate 2 - x", no},
		{" x ", "Trim END", " x"},
		{" x ", "Trim both", no},
		{"a\nb", "Indent /2", "a\n  b"},
		{"a\nb", "Indent 256/3", "256/3a\n256/3b"},
		{"ab", `Replace "(?<=a)b" "[$0]"`, "a[b]"},
		{"a-b", `Replace "(?<x>a)-(b)" "${x}${2}$1$$$9${y}"`, "aab$$9${y}"},
		{"abc", "Replace \"b\" \"<$`$&$'$_$+>\"", "a<abcabcb>c"},
		{"aa", `Replace "(" x`, no},
		{"", `Replace "^" x`, "x"},
		{"ab\nab", `Replace "(?m)^a" x`, "xb\nxb"},
		{"abab", `Match "^(ab)\1$"`, "true"},
		{"abc", "Contains d", "false"},
		{"abc", "StartsWith a b", no},
		{"a", "Md5 3 base64", no},
		{"", "Sha1 Base64 2", "da39"},
		{"1.2.3-rc.1+x", "VersionPreReleaseCounter", "1"},
		{"1.2", "VersionRevision", "0"},
		{"v 1 . 2 . 3 . 4 -b_1.2", "VersionRevision", "4"},
		{"v 1 . 2 . 3 . 4 -b_1.2", "VersionPreReleaseCounter", "1.2"},
		{"1.0a1", "VersionPreRelease", "0a1"},
		{"1beta", "VersionMajor", "0"},
		{"1.2147483648", "VersionMajor", no},
		{"1.2.3-hi there", "VersionMajor", no},
		{"", "VersionMajor", no},

		{"https://u:p@Example.org:8443/a%20b/ü?q=1#f", "UriPart AbsoluteUri", "https://u:p@example.org:8443/a%20b/%C3%BC?q=1#f"},
		{"https://u:p@Example.org:8443/a%20b/ü?q=1#f", "UriPart Path", "/a b/ü"},
		{"https://u:p@Example.org:8443/a%20b/ü?q=1#f", "UriPart SchemeAndServer", "https://example.org:8443"},
		{"https://example.org", "UriPart HostAndPort", "example.org:443"},
		{"https://example.org:443", "UriPart Authority", "example.org"},
		{"http://[::1]/", "UriPart DnsSafeHost", "::1"},
		{"http://[::1]/", "UriPart HostNameType", "IPv6"},
		{"http://127.0.0.1", "UriPart IsLoopback", "true"},
		{`C:\a b\c`, "UriPart AbsoluteUri", "file:///C:/a%20b/c"},
		{`C:\a b\c`, "UriPart Path", `C:\a b\c`},
		{`\\srv\share`, "UriPart IsUnc", "true"},
		{"/docs", "UriPart Host", "[UriPart Host error: This operation is not supported for a relative URI.]"},
		{"/docs", "UriPart IsAbsoluteUri", "false"},
		{"http://", "UriPart Host", "http://"},
		{"x", "UriPart", "[UriPart error: no argument given]"},

		{"1234567.891", "Format N", "1,234,567.89"},
		{"-1234.5", "Format C", "(¤1,234.50)"},
		{"0.5", "Format P0", "50 %"},
		{"0.125", "Format F2", "0.13"},
		{"23.40", "Format G", "23.40"},
		{"1234.5", "Format E2", "1.23E+003"},
		{"1234.5", "Format e", "1.234500e+003"},
		{"42", "Format D5", no},
		{"42", "Format Int32 D5", "00042"},
		{"-1", "Format Int X", "FFFFFFFF"},
		{"255", "Format int x4", "00ff"},
		{"1.5", "Format Int32 D", no},
		{"23.4", "Format Double C", "¤23.40"},
		{"1e20", "Format Double G", "1E+20"},
		{"0.1", "Format Double F20", "0.10000000000000000555"},
		{"2.5", "Format Double F0", "3"},
		{"-0.001", "Format Double F2", "-0.00"},
		{"-0.001", "Format F2", "0.00"},
		{"123456", "Format G3", "1.23E+05"},
		{"1234.567", `Format \"#,##0.00\"`, "1,234.57"},
		{"1234567.891", `Format \"#,##0.0\"`, "1,234,567.9"},
		{"0.5", `Format \"0.##%\"`, "50%"},
		{"7", "Format 000", "007"},
		{"-7", `Format "000;(0);zero"`, "(7)"},
		{"0", `Format "000;(0);zero"`, "zero"},
		{"1234567", `Format "0,,.00"`, "1.23"},
		{"1234.5", `Format \"0.0##e+00\"`, "1.235e+03"},
		{"12", `Format \"000.0 'kg' \#\"`, "012.0 kg #"},
		{"x", "Format C", no},
		{"1", "Format", no},

		{"2030/05/22 09:05:00", "Format d", "05/22/2030"},
		{"2030-05-22T09:05:07.1234567Z", "Format O", "2030-05-22T09:05:07.1234567+00:00"},
		{"2030-05-22T09:05:07.1234567Z", "Format Date O", "2030-05-22T09:05:07.1234567+00:00"},
		{"2030-05-22 09:05", "Format Date O", "2030-05-22T09:05:00.0000000"},
		{"2030-05-22 09:05+02:00", "Format DateTimeOffset O", "2030-05-22T09:05:00.0000000+02:00"},
		{"2030-05-22 09:05+02:00", "Format R", "Wed, 22 May 2030 07:05:00 GMT"},
		{"2030-05-22 09:05+02:00", "Format Date s", "2030-05-22T07:05:00"},
		{"Wed, 22 May 2030 21:05:00 GMT", `Format "dddd d MMMM yy h:mm tt zzz"`, "Wednesday 22 May 30 9:05 PM +00:00"},
		{"5/2/2030 9:05 PM", `Format "yyyy-MM-dd HH:mm:ss.FFF"`, "2030-05-02 21:05:00"},
		{"May 2, 2030", `Format "yyyyMMdd 'at' \H %H"`, "20300502 at H 0"},
		{"12:30", `Format "yyyy-MM-dd HH"`, "2030-05-22 12"},
		{"2030-02-30", "Format d", no},
		{":\xaeaZ", "Format d", no},
		{"2030-05-22", "Format Date Q", no},
		{"2030-05-22", "Format Stamp d", no},

		{"2030-05-22 09:05:00", "AddHours 2", "2030-05-22T11:05:00.0000000"},
		{"2030-05-22T09:05:00Z", `AddDays "0.5"`, "2030-05-22T21:05:00.0000000Z"},
		{"2030-05-22T09:05:00+02:00", "AddMinutes -10", "2030-05-22T08:55:00.0000000+02:00"},
		{"2030-01-31", "AddMonths 1", "2030-02-28T00:00:00.0000000"},
		{"2030-01-31", "AddWeeks 1", "2030-02-07T00:00:00.0000000"},
		{"2030-01-31", `AddSeconds "0.0000001"`, "2030-01-31T00:00:00.0000001"},
		{"2030-01-31", "AddDays 1000000000", no},
		{"2030-01-31", "AddDays 9999999", no},
		{"hello", "AddDays 1", no},
		{"x", "NowDate", no},
	}
	for _, tt := range tests {
		t.Run(tt.filter, func(t *testing.T) {
			t.Parallel()
			r := vars("in", tt.in).Evaluate("#{in | " + tt.filter + "}")
			switch {
			case r.Err != nil:
				t.Errorf("%q | %s: %v", tt.in, tt.filter, r.Err)
			case tt.want == no && len(r.Missing) == 0:
				t.Errorf("%q | %s = %q, want it left alone", tt.in, tt.filter, r.Text)
			case tt.want != no && (r.Text != tt.want || len(r.Missing) > 0):
				t.Errorf("%q | %s = %q, want %q", tt.in, tt.filter, r.Text, tt.want)
			}
		})
	}
}

func TestNow(t *testing.T) {
	t.Parallel()
	opts := testOptions()
	opts.Now = time.Date(2030, 1, 2, 23, 4, 5, 0, time.FixedZone("", 5400))
	v := octostache.NewVariables(opts)
	for template, want := range map[string]string{
		"#{ | NowDate}":                           "2030-01-02T23:04:05.0000000",
		"#{ | NowDateUtc}":                        "2030-01-02T21:34:05.0000000Z",
		`#{ | NowDate "HH:mm zzz"}`:               "23:04 +01:30",
		"#{ | NowDateUtc | AddHours 2}":           "2030-01-02T23:34:05.0000000Z",
		"#{ | NowDate | Format DateTimeOffset O}": "2030-01-02T23:04:05.0000000+01:30",
		"#{|NowDate Q}":                           "#{ | NowDate \"Q\"}",
	} {
		if got := v.Evaluate(template).Text; got != want {
			t.Errorf("%s = %q, want %q", template, got, want)
		}
	}
}

func TestTruthy(t *testing.T) {
	t.Parallel()
	for s, want := range map[string]bool{
		"": false, "0": false, " no ": false, "FALSE": false, "\tFalse\n": false,
		" ": true, " 0": true, "00": true, "off": true, "null": true, "true": true,
	} {
		if got := octostache.Truthy(s); got != want {
			t.Errorf("Truthy(%q) = %v", s, got)
		}
		if got := strings.Contains(vars("v", s).Evaluate("#{if v}y#{/if}").Text, "y"); got != want {
			t.Errorf("if %q = %v", s, got)
		}
	}
}
