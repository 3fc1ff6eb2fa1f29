-- tako: level 1, tx
-- How far each subscription has come in the audit trail, and what was sent.

-- A subscription is sent over channels, 'webhook' and 'mail', each at its own pace.
-- owner is who set it up last: nothing is sent that they may not see; '' is the server
-- itself. (xact, event) is the last event that is done with, in the order in which
-- events become visible, and floor a number below which all are older (of a database
-- that was moved from another cluster). due is when there is something to do next;
-- until lease, whoever has token does it. attempts counts failures in a row, progress
-- says how far a digest is.
CREATE TABLE subscription_sender (
    subscription TEXT   NOT NULL,
    channel      TEXT   NOT NULL,
    owner        TEXT   NOT NULL,
    xact         BIGINT NOT NULL,
    event        BIGINT NOT NULL,
    floor        BIGINT NOT NULL,
    moved        BIGINT NOT NULL,
    due          BIGINT NOT NULL,
    lease        BIGINT NOT NULL,
    token        TEXT   NOT NULL,
    attempts     BIGINT NOT NULL,
    progress     TEXT   NOT NULL,
    PRIMARY KEY (subscription, channel)
);
CREATE INDEX subscription_sender_by_due ON subscription_sender (due);

-- An attempt to send something. first and last are the events that it was about.
CREATE TABLE subscription_delivery (
    id           IDENTITY,
    subscription TEXT   NOT NULL,
    channel      TEXT   NOT NULL,
    delivery     TEXT   NOT NULL,
    first        BIGINT NOT NULL,
    last         BIGINT NOT NULL,
    at           BIGINT NOT NULL,
    took         BIGINT NOT NULL,
    attempt      BIGINT NOT NULL,
    outcome      TEXT   NOT NULL,
    status       BIGINT NOT NULL,
    recipient    TEXT   NOT NULL,
    message      TEXT   NOT NULL
);
CREATE INDEX subscription_delivery_by_subscription ON subscription_delivery (subscription, id);

-- The order in which events become visible to who follows them.
CREATE INDEX events_by_visibility ON events (xact, id);
