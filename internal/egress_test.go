package internal_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// waysOut are what connects, or asks for addresses, past package egress; a name that
// ends in * stands for all that begin so. Those of composites may be written as
// long as they get what is named here.
var waysOut = map[string][]string{
	"net":        {"Dial*", "Dialer", "ListenUDP", "ListenPacket", "ListenMulticastUDP", "Lookup*", "Resolver", "DefaultResolver", "Resolve*"},
	"crypto/tls": {"Dial*"},
	"net/http":   {"DefaultClient", "DefaultTransport", "Get", "Head", "Post", "PostForm", "ProxyFromEnvironment"},
	"net/smtp":   {"*"},
	"net/rpc":    {"*"},
	"log/syslog": {"*"},
	"syscall":    {"Connect", "Sendto", "Sendmsg*"},

	"golang.org/x/sys/unix":   {"Connect", "Sendto", "Sendmsg*"},
	"golang.org/x/crypto/ssh": {"Dial"},
}

// composites of net/http dial by themselves unless they are told how.
var composites = map[string]string{"Client": "Transport", "Transport": "DialContext"}

// tests of the product may connect as they like.
var ofTests = []string{"apptest", "dbtest", "actiontest", "openapitest", "remotetest", "proctest", "vectortest", "sshtest", "proxytest"}

// TestOneWayOut keeps every connection that a server opens within package egress, which
// shuts a test instance in.
func TestOneWayOut(t *testing.T) {
	t.Parallel()
	files := token.NewFileSet()
	seen := 0
	for _, p := range packages(t) {
		dir := strings.TrimPrefix(p.ImportPath, module)
		if dir == "internal/egress" || strings.HasPrefix(dir, "test") || slices.ContainsFunc(ofTests, func(name string) bool { return strings.HasSuffix(dir, name) }) {
			continue
		}
		all, err := filepath.Glob(filepath.Join("..", dir, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range all { // those of other systems too
			if strings.HasSuffix(path, "_test.go") {
				continue
			}
			file, err := parser.ParseFile(files, path, nil, parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			seen++
			for _, found := range outside(files, file) {
				t.Errorf("%s; dial by egress.Dialer, egress.Through, egress.Client and egress.Proxy", found)
			}
		}
	}
	if seen < 300 {
		t.Errorf("only %d files were looked at", seen)
	}
}

// outside lists where a file goes past package egress.
func outside(files *token.FileSet, file *ast.File) (found []string) {
	imported := map[string]string{}
	for _, i := range file.Imports {
		path := strings.Trim(i.Path.Value, `"`)
		name := path[strings.LastIndexByte(path, '/')+1:]
		if i.Name != nil {
			name = i.Name.Name
		}
		if _, watched := waysOut[path]; watched {
			imported[name] = path
		}
	}
	say := func(n ast.Node, what string) {
		found = append(found, fmt.Sprintf("%s: %s", files.Position(n.Pos()), what))
	}
	of := func(e ast.Expr) (path, name string) {
		if s, ok := e.(*ast.SelectorExpr); ok {
			if x, ok := s.X.(*ast.Ident); ok {
				return imported[x.Name], s.Sel.Name
			}
		}
		return "", ""
	}
	good := map[ast.Node]bool{} // a net.Dialer that package egress gets
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.CallExpr:
			if s, ok := n.Fun.(*ast.SelectorExpr); ok && (s.Sel.Name == "Dialer" || s.Sel.Name == "Through") && len(n.Args) > 0 {
				if x, ok := s.X.(*ast.Ident); ok && x.Name == "egress" {
					if c, ok := n.Args[len(n.Args)-1].(*ast.CompositeLit); ok {
						good[c.Type] = true
					}
				}
			}
		case *ast.CompositeLit:
			path, name := of(n.Type)
			if want, ok := composites[name]; ok && path == "net/http" && !slices.ContainsFunc(n.Elts, func(e ast.Expr) bool {
				kv, ok := e.(*ast.KeyValueExpr)
				return ok && fmt.Sprint(kv.Key) == want
			}) {
				say(n, "http."+name+" without "+want)
			}
		case *ast.SelectorExpr:
			path, name := of(n)
			if !good[n] && slices.ContainsFunc(waysOut[path], func(w string) bool {
				prefix, all := strings.CutSuffix(w, "*")
				return name == w || all && strings.HasPrefix(name, prefix)
			}) {
				say(n, path+"."+name)
			}
		}
		return true
	})
	return found
}

// TestWaysOutAreFound shows that the rule sees what it is for.
func TestWaysOutAreFound(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int{
		`net.Dial("tcp", "a:1")`:                                               1,
		`(&net.Dialer{}).DialContext(ctx, "tcp", "a:1")`:                       1,
		`new(net.Dialer).DialContext(ctx, "tcp", "a:1")`:                       1,
		`egress.Dialer(net.Dialer{Timeout: 1})(ctx, "tcp", "a:1")`:             0,
		`egress.Through(p, net.Dialer{})(ctx, "tcp", "a:1")`:                   0,
		`net.LookupHost("a")`:                                                  1,
		`http.Get("http://a")`:                                                 1,
		`http.DefaultClient.Do(r)`:                                             1,
		`(&http.Client{Timeout: 1}).Do(r)`:                                     1,
		`use(http.Client{Transport: &http.Transport{}})`:                       1,
		`use(http.Client{Transport: &http.Transport{DialContext: dial}})`:      0,
		`tls.DialWithDialer(d, "tcp", "a:1", nil)`:                             1,
		`ssh.Dial("tcp", "a:22", nil)`:                                         1,
		`use(ssh.NewClientConn(conn, "a:22", nil))`:                            0,
		`use(net.JoinHostPort("a", "1"), net.Listen, http.StatusOK, net.IP{})`: 0,
	} {
		files := token.NewFileSet()
		source := "package p\nimport (\"net\"; \"net/http\"; \"crypto/tls\"; \"golang.org/x/crypto/ssh\")\nfunc f() { " + text + " }"
		file, err := parser.ParseFile(files, "p.go", source, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		if found := outside(files, file); len(found) != want {
			t.Errorf("%s: found %q, want %d", text, found, want)
		}
	}
}
