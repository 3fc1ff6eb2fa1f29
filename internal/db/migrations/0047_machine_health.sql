-- tako: level 1, tx
-- What the last health check of a machine has found, beside what its document says.
-- kind is 'machines' or 'workers'. away is since when the machine is not available, 0
-- while it is. version is that of its agent, log a JSON list of texts.
CREATE TABLE machine_health (
    machine  TEXT   NOT NULL PRIMARY KEY,
    kind     TEXT   NOT NULL,
    space_id TEXT   NOT NULL,
    task     TEXT   NOT NULL,
    checked  BIGINT NOT NULL,
    away     BIGINT NOT NULL,
    version  TEXT   NOT NULL,
    log      TEXT   NOT NULL
);
CREATE INDEX machine_health_by_space ON machine_health (space_id);
