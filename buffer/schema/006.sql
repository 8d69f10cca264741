-- A delivered object that a job is to have: written with its delivery, one row for each job that wants it, and deleted
-- with the end of its run. Nothing changes it in between: which rows a run has stands in the run.
CREATE TABLE due (
    job       TEXT NOT NULL,
    n         INTEGER NOT NULL,  -- in the order of delivery; of a job never used again
    store     TEXT NOT NULL,     -- where it was delivered
    object    TEXT NOT NULL,     -- its key below the store's prefix: source, day and seqs stand in it
    bytes     INTEGER NOT NULL,
    sha256    BLOB NOT NULL,
    delivered INTEGER NOT NULL,  -- wall
    crc       INTEGER NOT NULL,
    PRIMARY KEY (job, n)
) WITHOUT ROWID;

-- A job from the first row that it is due on; what is due for it and above `taken` waits for its next run.
CREATE TABLE job (
    name   TEXT PRIMARY KEY,
    taken  INTEGER NOT NULL,  -- due.n: all up to it are in runs, or gone
    cron   INTEGER NOT NULL,  -- wall; its cron was looked at up to then, so that no hour is missed or comes twice
    missed INTEGER NOT NULL,  -- objects that are in no row of due, because there were too many
    crc    INTEGER NOT NULL
) WITHOUT ROWID;

-- A run from the moment that it is due; of each job the newest that have ended are kept.
CREATE TABLE run (
    id       TEXT PRIMARY KEY,
    job      TEXT NOT NULL,
    store    TEXT NOT NULL,     -- where its objects are
    first    INTEGER NOT NULL,  -- due.n of its objects, of this job, from here
    last     INTEGER NOT NULL,  -- to here; below first: it has none
    edge     INTEGER NOT NULL,  -- how often it was written: of two versions that damage leaves the higher one counts
    state    INTEGER NOT NULL,  -- enum ledger_state
    attempt  INTEGER NOT NULL,  -- from 1; 0: never started
    created  INTEGER NOT NULL,  -- wall, as all that follow; 0: not yet
    written  INTEGER NOT NULL,  -- its manifest is in the store
    ready    INTEGER NOT NULL,  -- the machine answers
    started  INTEGER NOT NULL,  -- the last attempt
    ended    INTEGER NOT NULL,
    objects  INTEGER NOT NULL,
    records  INTEGER NOT NULL,
    bytes    INTEGER NOT NULL,
    counted  INTEGER NOT NULL,  -- attempts before somebody asked for others: those after them are counted
    manifest BLOB NOT NULL,     -- SHA-256 of what is in the store; zeros: not written yet
    reason   TEXT NOT NULL,     -- of the last failure
    remote   TEXT NOT NULL,     -- the id that the other side gave the attempt; '': none
    place    TEXT NOT NULL,     -- where the last attempt was started: driver and machine
    log      BLOB NOT NULL,     -- the end of its log, up to 4 KB
    crc      INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE machine (
    name   TEXT PRIMARY KEY,
    state  INTEGER NOT NULL,  -- enum ledger_machine_state
    since  INTEGER NOT NULL,  -- wall
    ours   INTEGER NOT NULL,  -- 1: this agent woke it, and may let it sleep
    reason TEXT NOT NULL,     -- of the last edge
    awake  TEXT NOT NULL,     -- what it said last of its being awake: the same until it slept; '': not known
    crc    INTEGER NOT NULL
) WITHOUT ROWID;

-- What a machine did on a UTC day; of each the newest are kept. The day comes first so that what a damaged card leaves
-- can be told from a row of job.
CREATE TABLE machine_day (
    day     INTEGER NOT NULL,
    machine TEXT NOT NULL,
    wakes   INTEGER NOT NULL,
    awake   INTEGER NOT NULL,  -- milliseconds, as far as this agent knows
    crc     INTEGER NOT NULL,
    PRIMARY KEY (day, machine)
) WITHOUT ROWID;
