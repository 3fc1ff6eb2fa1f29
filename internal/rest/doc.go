// Package rest is Tako's HTTP API: compatible with Octopus Deploy's on the wire,
// one declared table of operations inside.
//
// Every operation is a [Route]: a method, a pattern, the permission it needs and
// a [Handler], which takes a [Request] and returns a value or an error. Everything
// else happens around it, in one place each: finding the route (trie.go), who
// calls, what they may, limits and deadlines (server.go), reading bodies and
// query values (body.go, query.go), and writing answers and faults (write.go).
// No handler picks a status, and none can forget a permission, because a route
// without one does not start.
//
// Declared kinds of resources need no handlers at all: kinds.go serves lists,
// reads and changes of each from its declaration. The root documents, with the
// link templates by which clients find their way, are in root.go and links.go;
// the OpenAPI document in openapi.go is made of the same table.
package rest
