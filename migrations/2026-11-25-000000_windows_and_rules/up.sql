-- Boards of every window and scope. `carry_over` is in millionths. `closed_from` is where the chain of closed periods
-- begins, if somebody has asked for one, and `reopened` how often an admin has asked for the board anew. A deleted board
-- keeps its row, so that its revision never comes again.
ALTER TABLE boards ADD COLUMN half_life_ms BIGINT;
ALTER TABLE boards ADD COLUMN category TEXT;
ALTER TABLE boards ADD COLUMN brand TEXT;
ALTER TABLE boards ADD COLUMN carry_over BIGINT NOT NULL DEFAULT 0;
ALTER TABLE boards ADD COLUMN closed_from TIMESTAMPTZ;
ALTER TABLE boards ADD COLUMN reopened BIGINT NOT NULL DEFAULT 0;
ALTER TABLE boards ADD COLUMN deleted BOOLEAN NOT NULL DEFAULT FALSE;
UPDATE boards SET carry_over = 300000, revision = revision + 1 WHERE id = 'daily';
INSERT INTO boards (id, title, time_window, half_life_ms, time_zone, revision) VALUES
    ('hourly', 'Hourly', 'HOUR', NULL, 'UTC', 1),
    ('weekly', 'Weekly', 'WEEK', NULL, 'UTC', 1),
    ('monthly', 'Monthly', 'MONTH', NULL, 'UTC', 1),
    ('all-time', 'All time', 'ALL_TIME', NULL, 'UTC', 1),
    ('trending', 'Trending', 'HALF_LIFE', 3600000, 'UTC', 1);

-- `hours` is a JSON list. `cancels` is the version of the rule that this row takes back.
ALTER TABLE weight_rules ADD COLUMN from_at TIMESTAMPTZ;
ALTER TABLE weight_rules ADD COLUMN until_at TIMESTAMPTZ;
ALTER TABLE weight_rules ADD COLUMN hours TEXT;
ALTER TABLE weight_rules ADD COLUMN cancels INTEGER;
CREATE UNIQUE INDEX weight_rules_by_cancelled ON weight_rules (cancels) WHERE cancels IS NOT NULL;

-- Every decision about a product. `boost` is in millionths. Versions are shared with weight_rules.
CREATE TABLE product_rules (
    version INTEGER NOT NULL PRIMARY KEY,
    product_id TEXT COLLATE "binary" NOT NULL,
    board TEXT COLLATE "binary",
    excluded BOOLEAN NOT NULL,
    boost BIGINT,
    until_at TIMESTAMPTZ,
    created_by TEXT NOT NULL,
    created_at TIMESTAMPTZ NOT NULL,
    note TEXT NOT NULL
);

-- What one product was counted for, for explanations.
CREATE INDEX activity_by_product ON activity (product_id, bucket);

-- Under which rules a period was closed.
ALTER TABLE closed_periods ADD COLUMN rules_version INTEGER NOT NULL DEFAULT 0;
CREATE INDEX closed_periods_by_end ON closed_periods (board, ends_at);
CREATE INDEX period_results_by_product ON period_results (board, period, product_id);

-- What admins have done. `before` and `after` are JSON.
CREATE TABLE audit_log (
    id BIGINT NOT NULL PRIMARY KEY,
    at TIMESTAMPTZ NOT NULL,
    actor TEXT NOT NULL,
    action TEXT NOT NULL,
    target TEXT NOT NULL,
    before TEXT,
    after TEXT,
    note TEXT
);

-- One row: the newest version of rules, and the newest entry of the audit log. Whoever changes something as an admin takes
-- this row first, so that such changes come one after the other.
CREATE TABLE versions (
    id SMALLINT NOT NULL PRIMARY KEY CHECK (id = 1),
    rules INTEGER NOT NULL,
    audit BIGINT NOT NULL
);
INSERT INTO versions (id, rules, audit) SELECT 1, COALESCE(MAX(version), 0), 0 FROM weight_rules;

-- The newest first.
CREATE INDEX dead_letters_by_position ON dead_letters (epoch, seq, partition, id);
