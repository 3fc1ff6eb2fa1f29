-- tako: level 1, tx
-- Tasks that a unit of another task has started and waits for: at most one for
-- each attempt of a unit.
CREATE TABLE task_child (
    parent TEXT NOT NULL,
    unit   TEXT NOT NULL,
    child  TEXT NOT NULL,
    PRIMARY KEY (parent, unit)
);
CREATE UNIQUE INDEX task_child_by_child ON task_child (child);
