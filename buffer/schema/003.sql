-- What was dropped for want of room before a store had it, for ever: rows as in book, and like them never overlapping.
CREATE TABLE lost (
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

-- The newest refused answer of each source, for a person to look at.
CREATE TABLE rejected (
    source  TEXT NOT NULL UNIQUE,
    at      INTEGER NOT NULL,  -- wall
    cause   TEXT NOT NULL,
    text    TEXT NOT NULL,
    bytes   INTEGER NOT NULL,  -- of the body, decoded, as far as it came
    start   INTEGER NOT NULL,  -- in it, of the excerpt
    offset  INTEGER NOT NULL,  -- in it, of what is wrong; -1: of the whole
    excerpt BLOB NOT NULL,
    crc     INTEGER NOT NULL
);
