-- tako: level 1, tx
-- What each user wants to see on the dashboard of a space.

CREATE TABLE dashboard_configuration (
    user_id  TEXT NOT NULL,
    space_id TEXT NOT NULL,
    body     TEXT NOT NULL,
    PRIMARY KEY (user_id, space_id)
);
