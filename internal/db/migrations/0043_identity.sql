-- tako: level 1, tx
-- The certificate by which agents know the servers of this database, in PEM form, and
-- its private key, sealed. The key is '' once the master key was lost: then the next
-- server to start makes another certificate.
CREATE TABLE server_identity (
    id          TEXT   NOT NULL PRIMARY KEY,
    certificate TEXT   NOT NULL,
    private_key TEXT   NOT NULL,
    created     BIGINT NOT NULL
);
