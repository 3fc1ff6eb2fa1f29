-- tako: level 1, tx
-- The queue in its order, without the tasks that are through it: what is next is
-- found at its beginning, whether there are ten behind it or ten thousand. The
-- columns after seq are those by which a task may have to be passed over, so that
-- no row is read for it.
--
-- The condition is one that task_queue does not answer, which SQLite would choose.
CREATE INDEX task_waiting ON task (priority, queue_time, seq, state, space_id, tag, expiry) WHERE runnable <> 0;
CREATE INDEX task_expiring ON task (expiry) WHERE runnable <> 0 AND expiry > 0;
