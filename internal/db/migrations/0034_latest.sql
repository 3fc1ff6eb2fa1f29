-- tako: level 1, tx
-- What was deployed last to each place, whatever became of it. A dashboard reads
-- one row for a place, and not all deployments that there ever were.

-- created and seq are the deployment's: which of two was later is told by them.
CREATE TABLE latest_deployment (
    project_id     TEXT   NOT NULL,
    environment_id TEXT   NOT NULL,
    tenant_id      TEXT   NOT NULL,
    deployment_id  TEXT   NOT NULL,
    created        BIGINT NOT NULL,
    seq            BIGINT NOT NULL,
    PRIMARY KEY (project_id, environment_id, tenant_id)
);

INSERT INTO latest_deployment (project_id, environment_id, tenant_id, deployment_id, created, seq)
SELECT d.project_id, d.environment_id, d.tenant_id, d.id, d.created, d.seq FROM deployment d
WHERE NOT EXISTS (SELECT 1 FROM deployment l
    WHERE l.project_id = d.project_id AND l.environment_id = d.environment_id AND l.tenant_id = d.tenant_id
    AND (l.created > d.created OR l.created = d.created AND l.seq > d.seq));
