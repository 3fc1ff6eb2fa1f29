-- On PostgreSQL it waits for everybody who reads the table.
ALTER TABLE documents ADD COLUMN next_note TEXT NOT NULL DEFAULT '';
