-- tako: level 1, tx
-- Who somebody is: passwords, API keys, sessions, and what was tried in vain.
-- None of it can be read back: passwords are argon2id, keys and tokens SHA-256.

CREATE TABLE user_password (
    user_id TEXT   NOT NULL PRIMARY KEY,
    hash    TEXT   NOT NULL,
    changed BIGINT NOT NULL
);

-- What users are searched by, folded.
CREATE TABLE user_search (
    user_id  TEXT   NOT NULL PRIMARY KEY,
    seq      BIGINT NOT NULL,
    username TEXT   NOT NULL,
    display  TEXT   NOT NULL,
    email    TEXT   NOT NULL
);
CREATE INDEX user_search_by_name ON user_search (username);

-- hint is the beginning of the key; expires and last_used are 0 for never.
CREATE TABLE api_key (
    id        TEXT   NOT NULL PRIMARY KEY,
    seq       BIGINT NOT NULL,
    user_id   TEXT   NOT NULL,
    hash      TEXT   NOT NULL,
    hint      TEXT   NOT NULL,
    purpose   TEXT   NOT NULL,
    created   BIGINT NOT NULL,
    expires   BIGINT NOT NULL,
    last_used BIGINT NOT NULL
);
CREATE UNIQUE INDEX api_key_by_hash ON api_key (hash);
CREATE INDEX api_key_by_user ON api_key (user_id, seq);

-- id is the hash of the token that the cookie carries. A session ends at
-- expires, or idle after last_seen; it is remembered beyond the browser's life
-- when persistent is 1.
CREATE TABLE session (
    id         TEXT   NOT NULL PRIMARY KEY,
    user_id    TEXT   NOT NULL,
    created    BIGINT NOT NULL,
    expires    BIGINT NOT NULL,
    idle       BIGINT NOT NULL,
    last_seen  BIGINT NOT NULL,
    persistent BIGINT NOT NULL,
    ip_address TEXT   NOT NULL,
    user_agent TEXT   NOT NULL
);
CREATE INDEX session_by_user ON session (user_id);
CREATE INDEX session_by_end ON session (expires);

-- Sign-ins that failed, and those under way, by who was tried and from where;
-- forgotten at until. subject is a hash: what people type into the field for
-- their name is not always their name.
CREATE TABLE sign_in_failure (
    subject TEXT   NOT NULL PRIMARY KEY,
    count   BIGINT NOT NULL,
    until   BIGINT NOT NULL
);
CREATE INDEX sign_in_failure_by_end ON sign_in_failure (until);
