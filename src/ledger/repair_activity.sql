-- Sets activity to the sums of the events, which `timed` gives with their buckets, where it is otherwise.
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
)
INSERT INTO activity (bucket, signal, product_id, partition, count)
SELECT bucket, signal, product_id, partition, expected
FROM groups
WHERE expected <> actual
ON CONFLICT (bucket, signal, product_id, partition) DO UPDATE SET count = EXCLUDED.count
