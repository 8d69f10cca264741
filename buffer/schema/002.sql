-- The books: what each store has, for ever, also when the batches are long gone from the card. Rows of one store and
-- source never overlap; those that touch and have day, device and boot in common are one row, so a source that runs well
-- has one row a day.
CREATE TABLE book (
    store  TEXT NOT NULL,
    source TEXT NOT NULL,
    first  INTEGER NOT NULL,
    last   INTEGER NOT NULL,
    day    INTEGER NOT NULL,  -- UTC days since 1970
    device TEXT NOT NULL,
    boot   TEXT NOT NULL,     -- 8 hex digits
    crc    INTEGER NOT NULL,
    PRIMARY KEY (store, source, first)
) WITHOUT ROWID;

-- What was delivered before there were books, as far as its batch is still here. Day, device and boot stand in the
-- object's key, whose other pieces have known lengths. Neighbours have the same distance between their last seq and the
-- sum of records up to it. row_crc is queue_sql.c's.
INSERT INTO book (store, source, first, last, day, device, boot, crc)
WITH
    named AS (
        SELECT store, source, first, last, object, 23 + length(source) AS at,
               length(object) - 29 - length(first) - length(last) AS dash
        FROM delivery JOIN batch ON batch.id = delivery.batch),
    parted AS (
        SELECT store, source, first, last,
               CAST(strftime('%s', substr(object, at - 11, 10)) / 86400 AS INTEGER) AS day,
               substr(object, at, dash - at) AS device,
               substr(object, dash + 1, 8) AS boot
        FROM named),
    numbered AS (
        SELECT *, last - sum(last - first + 1) OVER (PARTITION BY store, source, day, device, boot ORDER BY first)
               AS island
        FROM parted),
    merged AS (
        SELECT store, source, min(first) AS first, max(last) AS last, day, device, boot
        FROM numbered GROUP BY store, source, day, device, boot, island)
SELECT store, source, first, last, day, device, boot, row_crc(store, source, first, last, day, device, boot)
FROM merged;
