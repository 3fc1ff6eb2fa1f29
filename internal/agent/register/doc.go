// Package register has an agent make itself known to a server: the conversation over
// the REST API at whose end the server has a deployment target or a worker, and the
// agent the thumbprint that it is to trust.
//
// Addresses are taken from the links of the server's documents, so that it works with
// any server that has this API. With a registration token, which only Tako's servers
// give out, it is one request instead.
package register
