-- tako: level 1, tx
-- At most one row: the database is a copy of another installation's, parent, and no
-- server starts on it but one whose data directory says that it is in quarantine.
-- instance is the installation id of the copy.
CREATE TABLE quarantine (
    id       BIGINT NOT NULL PRIMARY KEY,
    instance TEXT   NOT NULL,
    parent   TEXT   NOT NULL,
    created  BIGINT NOT NULL
);
