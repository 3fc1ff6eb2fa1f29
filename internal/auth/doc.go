// Package auth knows who somebody is and what they may do.
//
// Who: people sign in with a name and a password and get a session, whose token
// is in a cookie; programs send an API key. Passwords are kept as argon2id, keys
// and tokens as SHA-256, none of them can be read back. Both kinds of credential
// lead to a [Principal], which is cached: while no user, team, role or key
// changes, a request costs one hash and no query (see cache.go for what makes a
// cached principal stale, in this process and in others).
//
// What: roles grant permissions, teams have roles (in a space, perhaps scoped to
// projects, project groups, environments and tenants), users are in teams. Grants
// only add; nothing denies. [Access] is the sum of it for one user: a plain value,
// made by [NewAccess] and free of any database, which answers single questions
// ([Access.Can]), feeds filters of lists ([Access.Grants]) and explains itself
// ([Access.Why]).
//
// The documents of users, teams and roles belong to the store of documents; their
// declarations keep the rules about changing them. Here is what is no document,
// and what reads them together.
package auth
