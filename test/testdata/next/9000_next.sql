-- What a next version adds, in five migrations.
CREATE TABLE next_version (
    id BIGINT NOT NULL PRIMARY KEY
);
