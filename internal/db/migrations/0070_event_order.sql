-- tako: level 1, tx
-- Events are followed by their numbers on both databases, and xact and floor mean nothing
-- any more. Who followed them on PostgreSQL in the order of its transactions goes on
-- before the first one that was not sent: some after it may be sent twice. So may be a
-- digest that is under way.
UPDATE subscription_sender SET event = COALESCE(
    (SELECT min(e.id) - 1 FROM events e WHERE (e.xact, e.id) > (subscription_sender.xact, subscription_sender.event) AND e.id > subscription_sender.floor),
    (SELECT max(e.id) FROM events e WHERE e.id > subscription_sender.event),
    event);
UPDATE subscription_sender SET xact = 0, floor = 0, progress = '';
