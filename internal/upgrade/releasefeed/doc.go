// Package releasefeed is how a server learns which releases of Tako there are, and
// knows that nobody but the project says so.
//
// A feed is one signed document: the releases of a channel, each with the size and
// the hash of its files, the level of its schema, and from where it can be upgraded
// to. It is signed by a threshold of the keys of a Root that the server has pinned; a
// mirror or a file on a stick is as good as the project's own address. Four checks
// make that safe: enough signatures, a number that never goes back, an end of
// validity, and hashes of everything that is fetched. They are those of The Update
// Framework that matter here, in a form small enough to be read.
//
// The package is pure: documents, keys and time are values.
package releasefeed
