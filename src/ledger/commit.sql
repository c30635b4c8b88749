-- Commits batches of different partitions in one statement: all of it happens or nothing.
WITH
-- The cursors that stand where the batches begin, held until the end; in one order, so that two nodes with the same
-- partitions never wait for each other in a circle.
held AS MATERIALIZED (
    SELECT cursors.partition
    FROM cursors
    JOIN UNNEST({partitions}, {from_epochs}, {from_seqs}) AS batch (partition, epoch, seq)
        ON cursors.partition = batch.partition AND cursors.epoch = batch.epoch AND cursors.seq = batch.seq
    ORDER BY cursors.partition
    FOR UPDATE OF cursors
),
-- The lease, where this server has the ledger for itself; held until the end, as in `lease::expect_mine`.
fenced AS MATERIALIZED (
    SELECT fence FROM lease WHERE fence = {fence} FOR KEY SHARE
),
-- Everything below happens only if all cursors do, and the lease, if there is one, is ours.
gate AS MATERIALIZED (
    SELECT
        ({fence} = 0 OR EXISTS (SELECT 1 FROM fenced)) AND COUNT(*) = {batches} AS is_open, {events} AS events
    FROM held
),
moved AS (
    UPDATE cursors
    SET epoch = batch.epoch, seq = batch.seq
    FROM UNNEST({partitions}, {to_epochs}, {to_seqs}) AS batch (partition, epoch, seq)
    WHERE cursors.partition = batch.partition AND (SELECT is_open FROM gate)
),
sent AS MATERIALIZED (
    SELECT *
    FROM UNNEST(
        {ids}, {partitions}, {epochs}, {seqs}, {signals}, {products}, {users}, {counts}, {occurred}, {recorded},
        {reverses}, {as_sent}, {counted}
    ) AS sent (
        id, partition, epoch, seq, signal, product_id, user_id, count, occurred_at, recorded_at, reverses, as_sent, counted
    )
    WHERE (SELECT is_open FROM gate)
),
-- New likes, each with whether the one before it, or else the ledger, has the product liked already. Of an id that comes twice
-- the first decides. Single values are looked up one by one through the index; as joins they might be planned over whole tables.
steps AS MATERIALIZED (
    SELECT
        id, count > 0 AS liked,
        COALESCE(
            LAG(count > 0) OVER (PARTITION BY user_id, product_id ORDER BY epoch, seq),
            (SELECT likes.liked FROM likes WHERE likes.user_id = fresh.user_id AND likes.product_id = fresh.product_id),
            FALSE
        ) AS was
    FROM (
        SELECT DISTINCT ON (id) id, epoch, seq, user_id, product_id, count
        FROM sent
        WHERE signal = 1 AND STARTS_WITH(id, 'like:')
            AND (SELECT events.id FROM events WHERE events.id = sent.id) IS NULL
        ORDER BY id, epoch, seq
    ) AS fresh
),
-- The first event of an id stands, and the first reversal of an event; no producer's event has an id that belongs to nobody's;
-- and a like only where it changes something, since
-- the engine, having forgotten a key, may have taken the same like twice, and what followed it for the wrong way round.
kept AS (
    INSERT INTO events
        (id, partition, epoch, seq, signal, product_id, user_id, count, occurred_at, recorded_at, reverses)
    SELECT
        sent.id, sent.partition, sent.epoch, sent.seq, sent.signal, sent.product_id, sent.user_id, sent.count,
        sent.occurred_at, sent.recorded_at, sent.reverses
    FROM sent
    WHERE NOT EXISTS (SELECT 1 FROM steps WHERE steps.liked = steps.was AND steps.id = sent.id)
    AND (SELECT events.id FROM events WHERE events.id = sent.as_sent) IS NULL
    ON CONFLICT DO NOTHING
    RETURNING id, partition, epoch, seq, signal, product_id, user_id, count, occurred_at, recorded_at, reverses
),
-- A bucket is a quarter of an hour since 1970, as in `Bucket::containing`.
counted AS (
    INSERT INTO activity (bucket, signal, product_id, partition, count)
    SELECT
        CAST(FLOOR(EXTRACT(EPOCH FROM occurred_at) / 900) AS INTEGER), signal, product_id, partition,
        CAST(SUM(count) AS BIGINT)
    FROM kept
    GROUP BY 1, 2, 3, 4
    -- In the order of the key, so that neighbouring rows are touched one after the other.
    ORDER BY 1, 2, 3, 4
    ON CONFLICT (bucket, signal, product_id, partition) DO UPDATE SET count = activity.count + EXCLUDED.count
),
-- The last event of each user and product says how things are, unless something later is known.
liked AS (
    INSERT INTO likes (user_id, product_id, liked, liked_at, epoch, seq)
    SELECT DISTINCT ON (user_id, product_id)
        user_id, product_id, count > 0, CASE WHEN count > 0 THEN occurred_at ELSE recorded_at END, epoch, seq
    FROM kept
    WHERE STARTS_WITH(id, 'like:') AND signal = 1
    ORDER BY user_id, product_id, epoch DESC, seq DESC
    ON CONFLICT (user_id, product_id) DO UPDATE
    SET liked = EXCLUDED.liked, liked_at = EXCLUDED.liked_at, epoch = EXCLUDED.epoch, seq = EXCLUDED.seq
    WHERE (likes.epoch, likes.seq) < (EXCLUDED.epoch, EXCLUDED.seq)
),
dead_lettered AS (
    INSERT INTO dead_letters (id, partition, epoch, seq, entry, error, at)
    SELECT letter.*, {now}
    FROM UNNEST({ids}, {partitions}, {epochs}, {seqs}, {entries}, {errors}) AS letter
    WHERE (SELECT is_open FROM gate)
    -- A gap takes the position before it, where a letter may be already.
    ON CONFLICT DO NOTHING
),
-- What was rejected or dead-lettered stands in the engine as if it had been committed, until somebody corrects that.
noted AS (
    INSERT INTO rejections
        (partition, epoch, seq, event_id, user_id, reverses, signal, product_id, count, occurred_at, counted)
    SELECT
        sent.partition, sent.epoch, sent.seq, sent.id, sent.user_id, sent.reverses, sent.signal, sent.product_id,
        sent.count, sent.occurred_at, sent.counted
    FROM sent
    WHERE (SELECT COUNT(*) FROM kept) < (SELECT events FROM gate)
        AND (sent.partition, sent.epoch, sent.seq) NOT IN (SELECT partition, epoch, seq FROM kept)
    UNION ALL
    SELECT letter.*
    FROM UNNEST(
        {partitions}, {epochs}, {seqs}, {ids}, {users}, {reverses}, {signals}, {products}, {counts}, {occurred},
        {counted}
    ) AS letter
    WHERE (SELECT is_open FROM gate)
    ON CONFLICT DO NOTHING
)
-- One row; or, only where some were rejected, one for each event that was kept. What was not kept, and nothing that the ledger has
-- or was sent with it explains that, was dropped by a trigger, or for a constraint of somebody's own: then all of this fails, in a
-- way that says of the rows that they can't be stored.
SELECT
    gate.is_open, (SELECT COUNT(*) FROM kept) AS kept_count, kept.partition, kept.epoch, kept.seq,
    CASE WHEN (SELECT COUNT(*) FROM kept) < gate.events THEN (
        SELECT CAST({dropped} || sent.id AS INTEGER)
        FROM sent
        WHERE (sent.partition, sent.epoch, sent.seq) NOT IN (SELECT partition, epoch, seq FROM kept)
            AND NOT EXISTS (SELECT 1 FROM steps WHERE steps.liked = steps.was AND steps.id = sent.id)
            AND sent.id NOT IN (SELECT id FROM kept)
            AND NOT EXISTS (SELECT 1 FROM events WHERE events.id IN (sent.id, sent.as_sent))
            AND NOT EXISTS (SELECT 1 FROM kept WHERE kept.reverses = sent.reverses)
            AND NOT EXISTS (SELECT 1 FROM events WHERE events.reverses = sent.reverses)
        LIMIT 1
    ) END AS dropped
FROM gate
LEFT JOIN kept ON (SELECT COUNT(*) FROM kept) < gate.events
