-- One row: who has the ledger for itself, because its engine is one process's memory. `fence` grows with every holder, and every
-- write of a holder's checks it, so that one who has lost the lease without noticing changes nothing any more. `renewals`
-- grows while the holder lives: who wants the lease watches it, so nobody's clock is compared.
CREATE TABLE lease (
    id SMALLINT NOT NULL PRIMARY KEY CHECK (id = 1),
    -- Unique, so that a share of its key is what a write holds: a renewal need not wait for that, another holder must.
    fence BIGINT NOT NULL UNIQUE,
    renewals BIGINT NOT NULL,
    held BOOLEAN NOT NULL
);
INSERT INTO lease (id, fence, renewals, held) VALUES (1, 0, 0, FALSE);
