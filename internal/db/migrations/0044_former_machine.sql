-- tako: level 1, tx
-- How deleted machines and workers are reached for as long as scripts that were begun
-- there have to be followed, ended or forgotten. endpoint is that of the document;
-- thumbprint is folded like a filter's value.
CREATE TABLE former_machine (
    id         TEXT   NOT NULL PRIMARY KEY,
    space_id   TEXT   NOT NULL,
    name       TEXT   NOT NULL,
    thumbprint TEXT   NOT NULL,
    endpoint   TEXT   NOT NULL,
    deleted    BIGINT NOT NULL
);
CREATE INDEX former_machine_by_thumbprint ON former_machine (thumbprint);
CREATE INDEX ticket_by_agent ON ticket (agent);
