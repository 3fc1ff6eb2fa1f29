-- What a next version adds. It fails where there is more than one spoiled environment, as
-- migrations do on data that nobody thought of.
CREATE TABLE next_version (
    id BIGINT NOT NULL PRIMARY KEY
);
INSERT INTO next_version (id) SELECT 1 FROM documents WHERE kind = 'environments' AND deleted = 0 AND lower(name) LIKE 'spoiled %';
