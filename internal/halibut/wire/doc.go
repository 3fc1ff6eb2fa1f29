// Package wire is what two peers of the agent protocol put on a connection.
//
// A session is a conversation in turns over one TLS connection. Control lines are
// text; a message is one BSON document in raw DEFLATE, whose last block is its only
// end; behind a message come the contents of its data streams, uncompressed. Each
// side knows at every moment whose turn it is: nothing is ever pipelined.
//
// Three rules of writing come from peers that are old or read too much at once:
// lines end by CR LF, though LF alone is understood; a message is written as stored
// blocks, the last of which carries both data and the final bit; a message and each
// part of a stream are written by themselves.
//
// Objects are encoded as the peers' serialiser does it: members under their own
// names, times as .NET has them, "$type" first where the receiver could not know
// the type otherwise (a message, a parameter, a result).
//
// Everything that is read has a bound: lines, documents, streams, and the time that
// each may take.
package wire
