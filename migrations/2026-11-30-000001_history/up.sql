-- A random number, drawn whenever an epoch begins and kept by the engine as well. By it a ledger that was restored from an
-- older copy, or is a copy of another, is told from the one that the engine works for. NULL until the next epoch begins.
ALTER TABLE meta ADD COLUMN history BIGINT;

-- The servers that work in the epoch: each counts its row up once a second. A server whose engine has nothing of the epoch
-- sees by it whether others go on with another engine. `engine` names the engine, and `at` is this database's clock.
CREATE TABLE heartbeats (
    node TEXT COLLATE "binary" NOT NULL PRIMARY KEY,
    engine TEXT NOT NULL,
    epoch BIGINT NOT NULL,
    beats BIGINT NOT NULL,
    at TIMESTAMPTZ NOT NULL
);
ALTER TABLE meta DROP COLUMN beats;
