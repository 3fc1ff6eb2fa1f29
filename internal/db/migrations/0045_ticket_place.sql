-- tako: level 1, tx
-- Where a script runs, for people: who cancels a deployment is told where it may go on.
ALTER TABLE ticket ADD COLUMN place TEXT NOT NULL DEFAULT '';
