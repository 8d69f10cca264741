-- What a damaged card leaves must be told apart row by row: a row of `lost` has one column more than one of `book`.
ALTER TABLE lost RENAME TO lost_before;
CREATE TABLE lost (
    store  TEXT NOT NULL,
    source TEXT NOT NULL,
    first  INTEGER NOT NULL,
    last   INTEGER NOT NULL,
    day    INTEGER NOT NULL,  -- UTC days since 1970
    device TEXT NOT NULL,
    boot   TEXT NOT NULL,     -- 8 hex digits
    at     INTEGER NOT NULL,  -- wall; the last time that something was added to it; 0: not known
    crc    INTEGER NOT NULL,
    PRIMARY KEY (store, source, first)
) WITHOUT ROWID;
INSERT INTO lost (store, source, first, last, day, device, boot, at, crc)
SELECT store, source, first, last, day, device, boot, 0,
       CASE WHEN crc = row_crc(store, source, first, last, day, device, boot)
            THEN row_crc(store, source, first, last, day, device, boot, 0) ELSE crc END
FROM lost_before;
DROP TABLE lost_before;

-- What was on the card and cannot be read any more, for ever: for every store whose book has it not. Rows of one source
-- and boot never overlap.
CREATE TABLE damage (
    source TEXT NOT NULL,
    first  INTEGER NOT NULL,
    last   INTEGER NOT NULL,  -- 0: nobody knows where it ended
    day    INTEGER NOT NULL,  -- UTC days since 1970; of the records before it
    device TEXT NOT NULL,
    boot   TEXT NOT NULL,     -- 8 hex digits; of the records before it, "" where there are none
    at     INTEGER NOT NULL,  -- wall; when it was found
    crc    INTEGER NOT NULL,
    PRIMARY KEY (source, first, boot)
) WITHOUT ROWID;

-- Of a boot whose clock came to be right after it had written records: wall minus mono from then on.
CREATE TABLE clock (
    boot       TEXT PRIMARY KEY,
    correction INTEGER NOT NULL,
    crc        INTEGER NOT NULL
) WITHOUT ROWID;

-- A batch that came from another Millrace is in no book of ours; that it came is remembered for ever.
ALTER TABLE batch ADD COLUMN imported INTEGER NOT NULL DEFAULT 0;  -- 1: it did
UPDATE batch
SET crc = row_crc(id, source, object, first, last, raw, bytes, sha256, oldest, sealed, delivered, imported)
WHERE crc = row_crc(id, source, object, first, last, raw, bytes, sha256, oldest, sealed, delivered);
CREATE TABLE imported (
    source TEXT NOT NULL,
    device TEXT NOT NULL,
    boot   TEXT NOT NULL,
    first  INTEGER NOT NULL,
    last   INTEGER NOT NULL,
    at     INTEGER NOT NULL,  -- wall
    crc    INTEGER NOT NULL,
    PRIMARY KEY (source, device, boot, first)
) WITHOUT ROWID;
