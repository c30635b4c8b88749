-- Grows while some server works in the epoch, by one a second for each. So a server whose Redis was left behind in an older
-- epoch can tell whether others have gone on with another Redis, without comparing anybody's clocks.
ALTER TABLE meta ADD COLUMN beats BIGINT NOT NULL DEFAULT 0;
