-- Entries that the engine has taken and the ledger has not: rejected, or dead-lettered. A row stands until the engine is
-- corrected: the user's likes are forgotten, the event is remembered as the ledger has it, or not at all.
CREATE TABLE rejections (
    partition SMALLINT NOT NULL,
    epoch BIGINT NOT NULL,
    seq BIGINT NOT NULL,
    event_id TEXT COLLATE "binary" NOT NULL,
    user_id TEXT COLLATE "binary",
    reverses TEXT COLLATE "binary",
    PRIMARY KEY (partition, epoch, seq)
);
