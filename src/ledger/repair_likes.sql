-- Sets likes to what the last event of each user and product says, where they say otherwise; gives whose they were.
WITH
ranked AS (
    SELECT
        user_id, product_id, count, occurred_at, recorded_at, epoch, seq,
        ROW_NUMBER() OVER (PARTITION BY user_id, product_id ORDER BY epoch DESC, seq DESC) AS place
    FROM events
    WHERE id >= 'like:' AND id < 'like;' AND signal = 1 AND user_id IS NOT NULL
)
INSERT INTO likes (user_id, product_id, liked, liked_at, epoch, seq)
SELECT user_id, product_id, count > 0, CASE WHEN count > 0 THEN occurred_at ELSE recorded_at END, epoch, seq
FROM ranked
WHERE place = 1
ON CONFLICT (user_id, product_id) DO UPDATE
SET liked = EXCLUDED.liked, liked_at = EXCLUDED.liked_at, epoch = EXCLUDED.epoch, seq = EXCLUDED.seq
WHERE likes.liked <> EXCLUDED.liked OR likes.epoch <> EXCLUDED.epoch OR likes.seq <> EXCLUDED.seq
RETURNING user_id
