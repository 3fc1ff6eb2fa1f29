-- tako: level 1, tx
-- What waits for a person since the database was restored from a backup: nobody
-- knows what has become of it after the moment that the backup is of.

-- At most one row. While it is there nothing happens by itself: no schedule has its
-- effect, and no subscription is sent.
CREATE TABLE restored (
    id       BIGINT NOT NULL PRIMARY KEY,
    backup   TEXT   NOT NULL,
    instant  BIGINT NOT NULL,
    at       BIGINT NOT NULL
);

-- Tasks that were queued or under way at that moment. One that was queued is not
-- runnable; one that was under way is parked by the next process that finds it.
CREATE TABLE task_hold (
    task    TEXT   NOT NULL PRIMARY KEY,
    backup  TEXT   NOT NULL,
    instant BIGINT NOT NULL
);
