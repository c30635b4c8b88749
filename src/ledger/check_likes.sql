-- Compares likes with the fold of their events. Where the events of a user and product do not alternate from +1, `expected`
-- is the sum that shows it: some number other than 0 and 1.
WITH
sums AS (
    SELECT
        user_id, product_id, count,
        SUM(count) OVER (PARTITION BY user_id, product_id ORDER BY epoch, seq) AS sum_so_far
    FROM events
    WHERE id >= 'like:' AND id < 'like;' AND signal = 1 AND user_id IS NOT NULL
),
folded AS (
    SELECT
        user_id, product_id,
        CASE
            WHEN MIN(sum_so_far) < 0 THEN MIN(sum_so_far)
            WHEN MAX(sum_so_far) > 1 THEN MAX(sum_so_far)
            ELSE SUM(count)
        END AS expected,
        0 AS actual
    FROM sums
    GROUP BY user_id, product_id
),
pairs AS (
    SELECT user_id, product_id, CAST(SUM(expected) AS BIGINT) AS expected, CAST(SUM(actual) AS BIGINT) AS actual
    FROM (
        SELECT user_id, product_id, expected, actual FROM folded
        UNION ALL
        SELECT user_id, product_id, 0, CASE WHEN liked THEN 1 ELSE 0 END FROM likes
    ) AS both_sides
    GROUP BY user_id, product_id
),
totals AS (
    SELECT COUNT(*) AS checked, COUNT(CASE WHEN expected <> actual THEN 1 END) AS differing FROM pairs
),
listed AS (
    SELECT * FROM pairs WHERE expected <> actual ORDER BY user_id, product_id LIMIT {listed_max}
)
SELECT totals.checked, totals.differing, listed.product_id, listed.user_id, listed.expected, listed.actual
FROM totals
LEFT JOIN listed ON true
