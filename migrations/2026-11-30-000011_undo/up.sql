-- What the refused entry counted, for the entry of the journal that takes it back. Not there in older rows.
ALTER TABLE rejections ADD COLUMN signal SMALLINT;
ALTER TABLE rejections ADD COLUMN product_id TEXT COLLATE "binary";
ALTER TABLE rejections ADD COLUMN count BIGINT;
ALTER TABLE rejections ADD COLUMN occurred_at TIMESTAMPTZ;
