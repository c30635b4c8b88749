-- A place's points, in digits, where they lie beyond what it ranks as, which is what the column points then holds.
ALTER TABLE period_results ADD COLUMN exact TEXT;
