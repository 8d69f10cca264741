-- The buffer's first schema. Every row carries a CRC-32 over its other columns (queue_sql.c, crc_*), because SQLite
-- does not notice a flipped byte, and says enough by itself to be salvaged without its neighbours. Times are
-- milliseconds.

-- One row: this buffer's own random id (32 hex digits).
CREATE TABLE buffer (
    id  TEXT NOT NULL,
    crc INTEGER NOT NULL
);

-- A source as of its last sealing. What was committed since stands in its newest chunk: a commit writes one row only.
CREATE TABLE source (
    id    INTEGER PRIMARY KEY,
    name  TEXT NOT NULL UNIQUE,
    seq   INTEGER NOT NULL,  -- the next record's
    fetch INTEGER NOT NULL,  -- fetches committed so far
    state BLOB NOT NULL,     -- the collector's: hash, cursor
    crc   INTEGER NOT NULL
);

-- What fetches brought and no batch holds yet. The key keeps a source's chunks together and in order without an index:
-- source.id << 40 | seq of the first record. A chunk without records only moves the source's state on; the next chunk,
-- whose first seq is the same, takes its place; so it is always its source's newest.
CREATE TABLE chunk (
    id      INTEGER PRIMARY KEY,
    source  TEXT NOT NULL,
    device  TEXT NOT NULL,
    boot    TEXT NOT NULL,     -- 8 hex digits
    records INTEGER NOT NULL,
    day     INTEGER NOT NULL,  -- UTC days since 1970 of its fetches: a batch has one day
    lines   INTEGER NOT NULL,  -- bytes of its records as object lines
    last    INTEGER NOT NULL,  -- 0: its fetch goes on in the next chunk; else 1 + clock of its first fetch
    wall    INTEGER NOT NULL,  -- arrival of its first fetch; 0 where that was not known yet (queue_stage.c)
    mono    INTEGER NOT NULL,  -- the same on the boot's own clock
    fetch   INTEGER NOT NULL,  -- number of its last fetch
    state   BLOB NOT NULL,     -- the collector's, as of its last fetch
    plain   INTEGER NOT NULL,  -- bytes of data, inflated (chunk.h)
    crc     INTEGER NOT NULL,
    data    BLOB NOT NULL
);

-- A sealed batch; immutable but for `delivered`. An id is never used again.
CREATE TABLE batch (
    id        INTEGER PRIMARY KEY AUTOINCREMENT,
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
CREATE INDEX batch_waiting ON batch (id) WHERE delivered = 0;

-- The bytes of an object, in parts of 128 KB: batch.id << 16 | number of the part from 0.
CREATE TABLE part (
    id   INTEGER PRIMARY KEY,
    crc  INTEGER NOT NULL,
    data BLOB NOT NULL
);

-- Which store has which batch, as long as some other has it not.
CREATE TABLE delivery (
    batch INTEGER NOT NULL,
    store TEXT NOT NULL,
    at    INTEGER NOT NULL,
    crc   INTEGER NOT NULL,
    PRIMARY KEY (batch, store)
) WITHOUT ROWID;

-- Where a store was when it was used first.
CREATE TABLE store (
    name  TEXT PRIMARY KEY,
    place TEXT NOT NULL,
    crc   INTEGER NOT NULL
) WITHOUT ROWID;
