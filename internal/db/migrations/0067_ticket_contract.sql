-- tako: level 1, tx
-- What may be expected of the agent that a script was sent to, and whether it has answered
-- the start: agents of other makes must not be asked about one that is still arriving.
ALTER TABLE ticket ADD COLUMN contract TEXT NOT NULL DEFAULT '';
ALTER TABLE ticket ADD COLUMN answered BIGINT NOT NULL DEFAULT 0;
