-- tako: level 1, tx
-- Tokens by which agents register themselves.

-- hash is SHA-256 of the token, which nobody has but who was given it. kind is what
-- machines become: 'machines' or 'workers'; scope says the rest, as JSON. user_id is
-- who made it: machines are registered with that user's permissions.
CREATE TABLE registration_token (
    id       TEXT   NOT NULL PRIMARY KEY,
    seq      BIGINT NOT NULL,
    space_id TEXT   NOT NULL,
    kind     TEXT   NOT NULL,
    hash     TEXT   NOT NULL,
    hint     TEXT   NOT NULL,
    scope    TEXT   NOT NULL,
    user_id  TEXT   NOT NULL,
    created  BIGINT NOT NULL,
    expires  BIGINT NOT NULL,
    uses     BIGINT NOT NULL,
    used     BIGINT NOT NULL
);
CREATE UNIQUE INDEX registration_token_by_hash ON registration_token (hash);
CREATE INDEX registration_token_by_space ON registration_token (space_id, kind, seq);

-- The agents that a token has registered: one that asks again has its machine already.
CREATE TABLE registration_use (
    token_id   TEXT   NOT NULL,
    thumbprint TEXT   NOT NULL,
    machine_id TEXT   NOT NULL,
    at         BIGINT NOT NULL,
    PRIMARY KEY (token_id, thumbprint)
);
