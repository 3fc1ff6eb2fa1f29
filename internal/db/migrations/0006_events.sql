-- tako: level 1, tx
-- What each event is about, for the pages of the audit trail.

CREATE INDEX event_related_by_event ON event_related (event_id);
