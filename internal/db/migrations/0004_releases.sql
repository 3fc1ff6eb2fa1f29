-- tako: level 1, tx
-- Releases, their deployments, and what is where.

-- version_key sorts as versions do; version_folded makes them unique in a project.
CREATE TABLE release (
    id             TEXT   NOT NULL PRIMARY KEY,
    seq            BIGINT NOT NULL,
    space_id       TEXT   NOT NULL,
    project_id     TEXT   NOT NULL,
    channel_id     TEXT   NOT NULL,
    version        TEXT   NOT NULL,
    version_folded TEXT   NOT NULL,
    version_key    TEXT   NOT NULL,
    created        BIGINT NOT NULL,
    body           TEXT   NOT NULL
);
CREATE UNIQUE INDEX release_by_version ON release (project_id, version_folded);
CREATE INDEX release_by_order ON release (project_id, version_key);
CREATE INDEX release_by_project ON release (project_id, created, seq);
CREATE INDEX release_by_channel ON release (channel_id, created, seq);
CREATE INDEX release_by_space ON release (space_id, created, seq);

-- Why a release must not go further. status is Unresolved or Resolved.
CREATE TABLE release_defect (
    id         TEXT   NOT NULL PRIMARY KEY,
    seq        BIGINT NOT NULL,
    release_id TEXT   NOT NULL,
    status     TEXT   NOT NULL,
    created    BIGINT NOT NULL,
    body       TEXT   NOT NULL
);
CREATE INDEX release_defect_by_release ON release_defect (release_id, status, seq);

-- tenant_id is '' where no tenant was deployed for. state is '' until the task
-- has ended, and then the task's: tasks are forgotten before deployments are.
CREATE TABLE deployment (
    id             TEXT   NOT NULL PRIMARY KEY,
    seq            BIGINT NOT NULL,
    space_id       TEXT   NOT NULL,
    project_id     TEXT   NOT NULL,
    release_id     TEXT   NOT NULL,
    channel_id     TEXT   NOT NULL,
    environment_id TEXT   NOT NULL,
    tenant_id      TEXT   NOT NULL,
    task_id        TEXT   NOT NULL,
    created        BIGINT NOT NULL,
    completed      BIGINT NOT NULL,
    state          TEXT   NOT NULL,
    body           TEXT   NOT NULL
);
CREATE INDEX deployment_by_release ON deployment (release_id, created, seq);
CREATE INDEX deployment_by_place ON deployment (project_id, environment_id, tenant_id, created, seq);
CREATE INDEX deployment_by_task ON deployment (task_id);
CREATE INDEX deployment_by_channel ON deployment (channel_id);
CREATE INDEX deployment_by_space ON deployment (space_id, created, seq);

-- The variables of a deployment or a runbook's run, frozen: which snapshots it
-- takes them from, and those that it has to itself. owner is the deployment.
CREATE TABLE manifest (
    id    TEXT NOT NULL PRIMARY KEY,
    owner TEXT NOT NULL,
    body  TEXT NOT NULL
);
CREATE INDEX manifest_by_owner ON manifest (owner);

-- What is where: the last successful deployment of each place.
CREATE TABLE current_release (
    project_id     TEXT   NOT NULL,
    environment_id TEXT   NOT NULL,
    tenant_id      TEXT   NOT NULL,
    release_id     TEXT   NOT NULL,
    deployment_id  TEXT   NOT NULL,
    completed      BIGINT NOT NULL,
    PRIMARY KEY (project_id, environment_id, tenant_id)
);
CREATE INDEX current_release_by_release ON current_release (release_id);

-- Which snapshots a release has or once had; its deployments still read those.
CREATE TABLE snapshot_use (
    owner    TEXT NOT NULL,
    snapshot TEXT NOT NULL,
    PRIMARY KEY (owner, snapshot)
);
CREATE INDEX snapshot_use_by_snapshot ON snapshot_use (snapshot);
