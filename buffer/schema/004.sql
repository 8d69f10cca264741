-- Fewer pages in each sealing and delivery. That an id of a batch is never used again is remembered by the row of its
-- source, which is written with it anyway, and not by AUTOINCREMENT's table; and what waits is looked for once, at the
-- start, which takes no index.
ALTER TABLE source ADD COLUMN batch INTEGER NOT NULL DEFAULT 0;  -- no id above it was used before its last sealing
UPDATE source SET batch = used, crc = row_crc(id, name, seq, fetch, state, used)
FROM (SELECT ifnull((SELECT seq FROM sqlite_sequence WHERE name = 'batch'), 0) AS used)
WHERE crc = row_crc(id, name, seq, fetch, state);  -- a damaged row stays one

ALTER TABLE batch RENAME TO batch_before;
DROP INDEX batch_waiting;
CREATE TABLE batch (
    id        INTEGER PRIMARY KEY,
    source    TEXT NOT NULL,
    object    TEXT NOT NULL,     -- its key below the store's prefix
    first     INTEGER NOT NULL,
    last      INTEGER NOT NULL,
    raw       INTEGER NOT NULL,  -- bytes of its lines
    bytes     INTEGER NOT NULL,  -- of its object
    sha256    BLOB NOT NULL,
    oldest    INTEGER NOT NULL,  -- wall time of its first record
    sealed    INTEGER NOT NULL,
    delivered INTEGER NOT NULL,  -- when the last of its stores had it; 0: not yet
    crc       INTEGER NOT NULL
);
INSERT INTO batch (id, source, object, first, last, raw, bytes, sha256, oldest, sealed, delivered, crc)
SELECT id, source, object, first, last, raw, bytes, sha256, oldest, sealed, delivered, crc FROM batch_before;
DROP TABLE batch_before;
