-- tako: level 1, tx
-- What everything stands on: the levels of the schema, counters for ids, change
-- counters for caches, audit events, and the generic documents.

CREATE TABLE counter (
    kind TEXT NOT NULL PRIMARY KEY,
    next BIGINT NOT NULL
);

-- The counter of a kind is the sum over its slots: writers that would wait for
-- each other's row on PostgreSQL have a slot each.
CREATE TABLE changes (
    kind    TEXT   NOT NULL,
    slot    BIGINT NOT NULL,
    counter BIGINT NOT NULL,
    PRIMARY KEY (kind, slot)
);

-- xact is the writing transaction on PostgreSQL: identities are given out before
-- commit, so a reader by id must stay below the oldest open transaction.
CREATE TABLE events (
    id               IDENTITY,
    xact             BIGINT NOT NULL,
    occurred         BIGINT NOT NULL,
    category         TEXT   NOT NULL,
    space_id         TEXT   NOT NULL,
    user_id          TEXT   NOT NULL,
    username         TEXT   NOT NULL,
    identity         TEXT   NOT NULL,
    ip_address       TEXT   NOT NULL,
    user_agent       TEXT   NOT NULL,
    message          TEXT   NOT NULL,
    refs             TEXT   NOT NULL,
    details          TEXT   NOT NULL,
    project_id       TEXT   NOT NULL,
    project_group_id TEXT   NOT NULL,
    environment_id   TEXT   NOT NULL,
    tenant_id        TEXT   NOT NULL,
    document_type    TEXT   NOT NULL
);
CREATE INDEX events_by_space ON events (space_id, id);
CREATE INDEX events_by_time ON events (occurred);

CREATE TABLE event_related (
    event_id    BIGINT NOT NULL,
    document_id TEXT   NOT NULL,
    PRIMARY KEY (document_id, event_id)
);

-- seq is the number in the id and the last key of every order. name is folded
-- (trimmed, lower case) because the databases disagree about case. deleted marks
-- what is gone for users and waits to be swept.
CREATE TABLE documents (
    kind         TEXT   NOT NULL,
    id           TEXT   NOT NULL,
    seq          BIGINT NOT NULL,
    space_id     TEXT   NOT NULL,
    name         TEXT   NOT NULL,
    slug         TEXT   NOT NULL,
    sort         BIGINT NOT NULL,
    version      BIGINT NOT NULL,
    body_version BIGINT NOT NULL,
    created      BIGINT NOT NULL,
    updated      BIGINT NOT NULL,
    updated_by   TEXT   NOT NULL,
    deleted      BIGINT NOT NULL,
    body         TEXT   NOT NULL,
    PRIMARY KEY (kind, id)
);
CREATE INDEX documents_by_name ON documents (kind, space_id, sort, name, seq);
CREATE INDEX documents_by_slug ON documents (kind, space_id, slug);

-- One row per value that a kind declares as filter; value is folded.
CREATE TABLE document_index (
    kind     TEXT NOT NULL,
    field    TEXT NOT NULL,
    space_id TEXT NOT NULL,
    value    TEXT NOT NULL,
    id       TEXT NOT NULL,
    PRIMARY KEY (kind, field, value, id)
);
CREATE INDEX document_index_by_id ON document_index (kind, id);

-- The unique fields of documents; scope is the space, or the project within it.
CREATE TABLE document_unique (
    kind  TEXT NOT NULL,
    field TEXT NOT NULL,
    scope TEXT NOT NULL,
    value TEXT NOT NULL,
    id    TEXT NOT NULL,
    PRIMARY KEY (kind, field, scope, value)
);
CREATE INDEX document_unique_by_id ON document_unique (kind, id);

-- Who refers to whom: "cannot delete, used by ...".
CREATE TABLE document_refs (
    from_kind TEXT NOT NULL,
    from_id   TEXT NOT NULL,
    field     TEXT NOT NULL,
    to_kind   TEXT NOT NULL,
    to_id     TEXT NOT NULL,
    PRIMARY KEY (from_kind, from_id, field, to_kind, to_id)
);
CREATE INDEX document_refs_by_target ON document_refs (to_kind, to_id);
