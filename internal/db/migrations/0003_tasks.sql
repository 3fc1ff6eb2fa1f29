-- tako: level 1, tx
-- The task engine: the queue and its gates, journals, logs, tickets of scripts,
-- interruptions and artifacts.

-- One row per running server process; incarnation is new at each start. On
-- PostgreSQL heartbeat is the database's clock; SQLite uses file locks instead.
CREATE TABLE node (
    incarnation TEXT   NOT NULL PRIMARY KEY,
    name        TEXT   NOT NULL,
    version     TEXT   NOT NULL,
    started     BIGINT NOT NULL,
    heartbeat   BIGINT NOT NULL
);

-- What people set for a node, by its name; a node without a row has the defaults.
CREATE TABLE node_setting (
    name     TEXT   NOT NULL PRIMARY KEY,
    seq      BIGINT NOT NULL,
    capacity BIGINT NOT NULL,
    draining BIGINT NOT NULL
);

-- runnable: 1 when the task may be claimed as soon as its gates open.
-- waiting: 1 while only a person can bring it further; it then has no owner.
-- owner is a node's incarnation, '' is nobody; db_incarnation is that of the
-- database, which changes with every restore.
CREATE TABLE task (
    id             TEXT   NOT NULL PRIMARY KEY,
    seq            BIGINT NOT NULL,
    space_id       TEXT   NOT NULL,
    name           TEXT   NOT NULL,
    description    TEXT   NOT NULL,
    arguments      TEXT   NOT NULL,
    state          TEXT   NOT NULL,
    runnable       BIGINT NOT NULL,
    waiting        BIGINT NOT NULL,
    priority       BIGINT NOT NULL,
    queue_time     BIGINT NOT NULL,
    expiry         BIGINT NOT NULL,
    start_time     BIGINT NOT NULL,
    completed_time BIGINT NOT NULL,
    updated_time   BIGINT NOT NULL,
    error          TEXT   NOT NULL,
    has_warnings   BIGINT NOT NULL,
    tag            TEXT   NOT NULL,
    project_id     TEXT   NOT NULL,
    environment_id TEXT   NOT NULL,
    tenant_id      TEXT   NOT NULL,
    runbook_id     TEXT   NOT NULL,
    user_id        TEXT   NOT NULL,
    node           TEXT   NOT NULL,
    owner          TEXT   NOT NULL,
    db_incarnation TEXT   NOT NULL,
    epoch          BIGINT NOT NULL,
    resumes        BIGINT NOT NULL,
    cancel_at      BIGINT NOT NULL,
    plan           TEXT   NOT NULL,
    log_lines      BIGINT NOT NULL,
    log_bytes      BIGINT NOT NULL
);
CREATE INDEX task_queue ON task (runnable, priority, queue_time, seq);
CREATE INDEX task_by_state ON task (state, seq);
CREATE INDEX task_by_space ON task (space_id, seq);
-- Lists count tasks by state, and read no row for it.
CREATE INDEX task_listed ON task (space_id, state, project_id, environment_id, tenant_id, name);
CREATE INDEX task_by_project ON task (project_id, environment_id, seq);
CREATE INDEX task_by_owner ON task (owner);

CREATE TABLE journal (
    task  TEXT   NOT NULL,
    seq   BIGINT NOT NULL,
    epoch BIGINT NOT NULL,
    fact  TEXT   NOT NULL,
    PRIMARY KEY (task, seq)
);

CREATE TABLE slot (
    task TEXT NOT NULL PRIMARY KEY,
    node TEXT NOT NULL
);
CREATE INDEX slot_by_node ON slot (node);

CREATE TABLE tag_holder (
    tag  TEXT NOT NULL PRIMARY KEY,
    task TEXT NOT NULL
);
CREATE INDEX tag_holder_by_task ON tag_holder (task);

-- A queue per machine, in the order of id; shared rows may hold it together.
CREATE TABLE machine_lock (
    id      IDENTITY,
    machine TEXT   NOT NULL,
    task    TEXT   NOT NULL,
    unit    TEXT   NOT NULL,
    shared  BIGINT NOT NULL
);
CREATE INDEX machine_lock_by_machine ON machine_lock (machine, id);
CREATE INDEX machine_lock_by_unit ON machine_lock (task, unit);

-- What agents still have to be told about scripts: open (running), cancel, or complete.
CREATE TABLE ticket (
    ticket     TEXT   NOT NULL PRIMARY KEY,
    task       TEXT   NOT NULL,
    unit       TEXT   NOT NULL,
    agent      TEXT   NOT NULL,
    state      TEXT   NOT NULL,
    not_before BIGINT NOT NULL
);
CREATE INDEX ticket_by_task ON ticket (task);
CREATE INDEX ticket_by_state ON ticket (state, not_before);

-- How far the log of a unit's script was read, and what its parser had in hand.
CREATE TABLE unit_cursor (
    task   TEXT   NOT NULL,
    unit   TEXT   NOT NULL,
    cursor BIGINT NOT NULL,
    parser TEXT   NOT NULL,
    PRIMARY KEY (task, unit)
);

CREATE TABLE task_log (
    task      TEXT   NOT NULL,
    line_from BIGINT NOT NULL,
    lines     BIGINT NOT NULL,
    epoch     BIGINT NOT NULL,
    codec     BIGINT NOT NULL,
    data      BLOB   NOT NULL,
    PRIMARY KEY (task, line_from)
);

CREATE TABLE task_log_segment (
    task      TEXT   NOT NULL,
    line_from BIGINT NOT NULL,
    lines     BIGINT NOT NULL,
    bytes     BIGINT NOT NULL,
    sha256    TEXT   NOT NULL,
    PRIMARY KEY (task, line_from)
);

CREATE TABLE interruption (
    id               TEXT   NOT NULL PRIMARY KEY,
    seq              BIGINT NOT NULL,
    task             TEXT   NOT NULL,
    space_id         TEXT   NOT NULL,
    project_id       TEXT   NOT NULL,
    environment_id   TEXT   NOT NULL,
    tenant_id        TEXT   NOT NULL,
    kind             TEXT   NOT NULL,
    title            TEXT   NOT NULL,
    unit             TEXT   NOT NULL,
    correlation      TEXT   NOT NULL,
    created          BIGINT NOT NULL,
    pending          BIGINT NOT NULL,
    responsible_user TEXT   NOT NULL,
    body             TEXT   NOT NULL
);
CREATE INDEX interruption_by_task ON interruption (task, seq);
CREATE INDEX interruption_by_space ON interruption (space_id, pending, seq);

CREATE TABLE artifact (
    id          TEXT   NOT NULL PRIMARY KEY,
    seq         BIGINT NOT NULL,
    task        TEXT   NOT NULL,
    space_id    TEXT   NOT NULL,
    filename    TEXT   NOT NULL,
    source      TEXT   NOT NULL,
    correlation TEXT   NOT NULL,
    created     BIGINT NOT NULL,
    size        BIGINT NOT NULL,
    sha256      TEXT   NOT NULL
);
CREATE INDEX artifact_by_task ON artifact (task, seq);
CREATE INDEX artifact_by_space ON artifact (space_id, seq);

-- Answers of people, until the task's owner has put them into its journal.
CREATE TABLE answer (
    interruption TEXT   NOT NULL PRIMARY KEY,
    task         TEXT   NOT NULL,
    created      BIGINT NOT NULL,
    fact         TEXT   NOT NULL
);
CREATE INDEX answer_by_task ON answer (task, created);
