-- tako: level 1, tx
-- What is to happen at a time. A row is a schedule (of a trigger, or the server's
-- own) or, with kind 'push', a package that came and may make releases.

-- at is the next time. pending is the time that was reached and whose work is not
-- done yet, 0 when there is none; whoever holds the lease does it. fired is the
-- last time whose work is done: nothing happens for it, or before it, again.
-- progress says which parts of the work are committed, tasks what the last one queued.
CREATE TABLE due (
    id       TEXT   NOT NULL PRIMARY KEY,
    kind     TEXT   NOT NULL,
    space_id TEXT   NOT NULL,
    argument TEXT   NOT NULL,
    at       BIGINT NOT NULL,
    pending  BIGINT NOT NULL,
    lease    BIGINT NOT NULL,
    attempts BIGINT NOT NULL,
    fired    BIGINT NOT NULL,
    progress TEXT   NOT NULL,
    tasks    TEXT   NOT NULL
);
CREATE INDEX due_by_time ON due (at);
CREATE INDEX due_by_lease ON due (pending, lease);
