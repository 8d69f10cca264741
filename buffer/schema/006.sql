-- A delivered object that a job is still to have: written with its delivery, one row for each job that wants it.
CREATE TABLE due (
    id        INTEGER PRIMARY KEY,  -- the batch's id << 8 | the job's number in table job
    key       TEXT NOT NULL,        -- in the store, its prefix included
    source    TEXT NOT NULL,
    day       INTEGER NOT NULL,     -- UTC days since 1970
    first     INTEGER NOT NULL,     -- seq
    last      INTEGER NOT NULL,
    bytes     INTEGER NOT NULL,
    sha256    BLOB NOT NULL,
    delivered INTEGER NOT NULL,     -- wall
    run       TEXT NOT NULL,        -- whose manifest names it; '': none yet
    crc       INTEGER NOT NULL
);

CREATE TABLE job (
    id   INTEGER PRIMARY KEY,       -- 0 to 255, given once and never to another name
    name TEXT NOT NULL,
    cron INTEGER NOT NULL,          -- wall; its `when` was looked at up to then, so that no hour is missed or comes twice
    crc  INTEGER NOT NULL
);

-- A run from the moment that it is due to its end; the newest of each job are kept.
CREATE TABLE run (
    id       TEXT PRIMARY KEY,
    job      TEXT NOT NULL,
    state    INTEGER NOT NULL,      -- enum ledger_state
    attempt  INTEGER NOT NULL,      -- from 1; 0: never started
    created  INTEGER NOT NULL,      -- wall, as all that follow; 0: not yet
    written  INTEGER NOT NULL,      -- its manifest is in the store
    ready    INTEGER NOT NULL,      -- the machine answers
    started  INTEGER NOT NULL,      -- the last attempt
    ended    INTEGER NOT NULL,
    objects  INTEGER NOT NULL,
    records  INTEGER NOT NULL,
    bytes    INTEGER NOT NULL,
    manifest BLOB NOT NULL,         -- SHA-256 of what is in the store; empty: not written yet
    reason   TEXT NOT NULL,         -- of the last failure
    log      BLOB NOT NULL,         -- the end of its log, up to 4 KB
    crc      INTEGER NOT NULL
);

CREATE TABLE machine (
    name   TEXT PRIMARY KEY,
    state  INTEGER NOT NULL,        -- enum ledger_machine_state
    since  INTEGER NOT NULL,        -- wall
    ours   INTEGER NOT NULL,        -- 1: this agent woke it, and may let it sleep
    reason TEXT NOT NULL,           -- of the last edge
    crc    INTEGER NOT NULL
) WITHOUT ROWID;

-- What a machine did on a UTC day; 62 days are kept.
CREATE TABLE machine_day (
    machine TEXT NOT NULL,
    day     INTEGER NOT NULL,
    wakes   INTEGER NOT NULL,
    awake   INTEGER NOT NULL,       -- milliseconds, as far as this agent knows
    crc     INTEGER NOT NULL,
    PRIMARY KEY (machine, day)
) WITHOUT ROWID;
