
-- Compares activity with the sums of the events, which `timed` gives with their buckets.
groups AS (
    SELECT
        product_id, bucket, signal, partition,
        CAST(SUM(expected) AS BIGINT) AS expected, CAST(SUM(actual) AS BIGINT) AS actual
    FROM (
        SELECT product_id, bucket, signal, partition, count AS expected, 0 AS actual FROM timed
        UNION ALL
        SELECT product_id, bucket, signal, partition, 0, count FROM activity
    ) AS both_sides
    GROUP BY product_id, bucket, signal, partition
),
totals AS (
    SELECT COUNT(*) AS checked, COUNT(CASE WHEN expected <> actual THEN 1 END) AS differing FROM groups
),
listed AS (
    SELECT * FROM groups WHERE expected <> actual ORDER BY product_id, bucket, signal, partition LIMIT {listed_max}
)
SELECT
    totals.checked, totals.differing, listed.product_id, CAST(NULL AS TEXT) AS user_id, listed.expected, listed.actual
FROM totals
LEFT JOIN listed ON true
