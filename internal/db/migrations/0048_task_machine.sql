-- tako: level 1, tx
-- Which tasks have to do with a machine: those that check it, run scripts on it or
-- deploy to it.
CREATE TABLE task_machine (
    machine TEXT NOT NULL,
    task    TEXT NOT NULL,
    PRIMARY KEY (machine, task)
);
CREATE INDEX task_machine_by_task ON task_machine (task);
