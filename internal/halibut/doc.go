// Package halibut is the protocol between server and agents: calls over mutually
// trusted TLS connections, whoever dials.
//
// A Node is one end: a server or an agent. A server calls agents that listen
// (Listening) and agents that poll it (Polling, once Serve has accepted their
// connections); an agent answers with its Services, on connections that it accepts
// (Serve) or makes (Poll). The same port answers the HTTP requests by which
// programs look whether it can be reached.
//
// Certificates are self-signed. A peer is known by its thumbprint alone, and a
// polling agent by its subscription together with its thumbprint: a call for one
// pair is never given to a connection of another, whatever that claims.
//
// A call that fails says whether it may have been acted upon. ErrNotSent: it was
// not, and may be made again. ErrUnanswered: it may have been; nothing here ever
// sends it twice. A *wire.ServerError is the answer of the other side.
//
// Everything that a peer sends is bounded: what it has to do before it is trusted
// by a short time and a number of connections, everything later by Limits. What is
// refused is logged once an hour for each cause.
package halibut
