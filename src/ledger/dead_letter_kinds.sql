-- How many dead letters are of which kind, which is how their errors begin; no more than so many are looked at.
WITH some_of_them AS (SELECT error FROM dead_letters LIMIT {limit})
SELECT
    COALESCE(SUM(CASE WHEN error LIKE 'stranded:%' THEN 1 ELSE 0 END), 0) AS stranded,
    COALESCE(SUM(CASE WHEN error LIKE 'lost:%' THEN 1 ELSE 0 END), 0) AS lost,
    COUNT(*) AS looked_at
FROM some_of_them
