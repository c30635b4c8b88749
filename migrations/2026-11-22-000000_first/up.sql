-- One text for Postgres and SQLite. "binary" compares bytes: SQLite has that collation, for Postgres it is created
-- before the first migration. With it both order ids alike, and Postgres compares them without asking the locale.

-- The catalogue. A price is decimal text, exact, with its currency.
CREATE TABLE products (
    id TEXT COLLATE "binary" NOT NULL PRIMARY KEY,
    name TEXT NOT NULL,
    image_url TEXT,
    price TEXT,
    currency TEXT,
    category TEXT,
    brand TEXT,
    created_at TIMESTAMPTZ NOT NULL,
    CHECK ((price IS NULL) = (currency IS NULL))
);

-- The journal, for ever; only ever added to. No reference to products: the API lets only known ones in, and what the
-- journal holds must find its place here whatever the catalogue says.
CREATE TABLE events (
    id TEXT COLLATE "binary" NOT NULL PRIMARY KEY,
    partition SMALLINT NOT NULL,
    epoch BIGINT NOT NULL,
    seq BIGINT NOT NULL,
    signal SMALLINT NOT NULL,
    product_id TEXT COLLATE "binary" NOT NULL,
    user_id TEXT COLLATE "binary",
    count BIGINT NOT NULL,
    occurred_at TIMESTAMPTZ NOT NULL,
    recorded_at TIMESTAMPTZ NOT NULL,
    reverses TEXT COLLATE "binary"
);
-- An event is reversed once. Partial, so that the many events that reverse nothing cost nothing.
CREATE UNIQUE INDEX events_by_reversed ON events (reverses) WHERE reverses IS NOT NULL;
-- The recent answers of a user who is loaded: likes only (signal 1).
CREATE INDEX events_by_user ON events (user_id, recorded_at) WHERE signal = 1;

-- What each user's events come to for each product.
CREATE TABLE likes (
    user_id TEXT COLLATE "binary" NOT NULL,
    product_id TEXT COLLATE "binary" NOT NULL,
    liked BOOLEAN NOT NULL,
    liked_at TIMESTAMPTZ NOT NULL,
    epoch BIGINT NOT NULL,
    seq BIGINT NOT NULL,
    PRIMARY KEY (user_id, product_id)
);
CREATE INDEX likes_by_user ON likes (user_id, liked_at DESC, product_id DESC) WHERE liked;
CREATE INDEX likes_by_product ON likes (product_id, user_id) WHERE liked;

-- Net counts. The key begins with the bucket, since boards are computed from runs of buckets. Kept by partition, so that
-- partitions synced side by side never wait for each other's rows.
CREATE TABLE activity (
    bucket INTEGER NOT NULL,
    signal SMALLINT NOT NULL,
    product_id TEXT COLLATE "binary" NOT NULL,
    partition SMALLINT NOT NULL,
    count BIGINT NOT NULL,
    PRIMARY KEY (bucket, signal, product_id, partition)
);

-- How far each partition's journal has been taken over.
CREATE TABLE cursors (
    partition SMALLINT NOT NULL PRIMARY KEY,
    epoch BIGINT NOT NULL,
    seq BIGINT NOT NULL
);

-- One row.
CREATE TABLE meta (
    id SMALLINT NOT NULL PRIMARY KEY CHECK (id = 1),
    epoch BIGINT NOT NULL,
    epoch_began_at TIMESTAMPTZ NOT NULL,
    partitions SMALLINT NOT NULL
);

CREATE TABLE boards (
    id TEXT COLLATE "binary" NOT NULL PRIMARY KEY,
    title TEXT NOT NULL,
    time_window TEXT NOT NULL,
    time_zone TEXT NOT NULL,
    revision BIGINT NOT NULL
);
INSERT INTO boards (id, title, time_window, time_zone, revision) VALUES
    ('daily', 'Daily', 'DAY', 'UTC', 1),
    ('_likes', 'Likes', 'ALL_TIME', 'UTC', 1);

-- Every rule ever. `weights` is a JSON object: signal to millionths of a point. No board means every board.
CREATE TABLE weight_rules (
    version INTEGER NOT NULL PRIMARY KEY,
    board TEXT COLLATE "binary",
    weights TEXT NOT NULL,
    created_by TEXT NOT NULL,
    created_at TIMESTAMPTZ NOT NULL,
    note TEXT NOT NULL
);

-- A row for each period whose results are written, even where nothing was counted. `kept` of its places are still there.
CREATE TABLE closed_periods (
    board TEXT COLLATE "binary" NOT NULL,
    period TEXT COLLATE "binary" NOT NULL,
    starts_at TIMESTAMPTZ,
    ends_at TIMESTAMPTZ NOT NULL,
    closed_at TIMESTAMPTZ NOT NULL,
    places BIGINT NOT NULL,
    kept BIGINT NOT NULL,
    PRIMARY KEY (board, period)
);
CREATE TABLE period_results (
    board TEXT COLLATE "binary" NOT NULL,
    period TEXT COLLATE "binary" NOT NULL,
    rank BIGINT NOT NULL,
    product_id TEXT COLLATE "binary" NOT NULL,
    points BIGINT NOT NULL,
    PRIMARY KEY (board, period, rank)
);

-- Entries that can not be events, and gaps in the journal. The id is made of the position, so it needs no sequence.
CREATE TABLE dead_letters (
    id TEXT COLLATE "binary" NOT NULL PRIMARY KEY,
    partition SMALLINT NOT NULL,
    epoch BIGINT NOT NULL,
    seq BIGINT NOT NULL,
    entry TEXT NOT NULL,
    error TEXT NOT NULL,
    at TIMESTAMPTZ NOT NULL
);
