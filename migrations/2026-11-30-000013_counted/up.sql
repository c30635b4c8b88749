-- Whether boards have counted the refused entry, so that it must be taken back. Not there in older rows: of these, all but likes.
ALTER TABLE rejections ADD COLUMN counted BOOLEAN;
