/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What pages.c (pages and rows) and pages_wal.c (frames and the verdict) share. Pages count from 1 as in the format,
 * frames from 0.
 */
#ifndef BUFFER_PAGES_PRIVATE_H
#define BUFFER_PAGES_PRIVATE_H

#include <endian.h>
#include <string.h>

#include "buffer/pages.h"

#define PAGE         4096
#define WAL_HEADER   32
#define FRAME_HEADER 24
#define FRAME        (FRAME_HEADER + PAGE)

/*
 * A WAL that began anew lies over the one before, whose frames go on behind its own: they have other salts, all that
 * they held is in the file, and they are called older.
 */
struct frame {
	uint32_t page;
	uint32_t commit;  /* pages of the file as of it; 0: its transaction goes on */
	uint32_t salt[2]; /* of an own frame the WAL's, whatever stands there */
	uint32_t last;    /* of its transaction */
	bool chained;     /* its checksum follows from the frame before it */
	bool own;
	bool unread;
};

struct pages {
	int file, wal; /* -1: missing */
	uint32_t n_pages;
	int64_t wal_size;
	bool big_endian; /* the words that the WAL's checksums are over */
	bool header;     /* the WAL's is one */
	uint32_t salt[2];
	struct frame *frames;
	uint32_t *by_page; /* frames by the number of their page, and in their order */
	size_t n_frames;
	size_t taken; /* frames that SQLite goes through until one is not right */
	size_t end;   /* those of them that belong to whole transactions */
	size_t sure;  /* those, and all before a commit that another transaction was built on: they were committed */
	enum pages_wal verdict;
	uint64_t unread;
	unsigned char *payload; /* of a row with overflow pages */
	size_t payload_capacity;
};

/* The format's numbers are big-endian. */
static inline uint32_t pages_number(const unsigned char *at)
{
	uint32_t value;

	memcpy(&value, at, sizeof value);
	return be32toh(value);
}

/* Where a frame begins. */
static inline int64_t pages_frame_at(size_t i)
{
	return WAL_HEADER + (int64_t)i * FRAME;
}

static inline bool pages_same_salt(const uint32_t a[2], const uint32_t b[2])
{
	return a[0] == b[0] && a[1] == b[1];
}

/* --- pages.c --- */

/* What the card does not give is false, and counted; bytes behind the end are zeros. */
bool pages_read_at(struct pages *p, int fd, unsigned char *ret_data, size_t len, int64_t at);
bool pages_read_page(struct pages *p, uint32_t page, unsigned char ret_page[PAGE]);

/* --- pages_wal.c --- */

/* Reads all frames, and judges. 0 or -ENOMEM. */
int pages_load_wal(struct pages *p);

/* The newest frame of the page among those up to `last` that have these salts; -1: there is none. */
int64_t pages_find_frame(const struct pages *p, uint32_t page, size_t last, const uint32_t salt[2]);

#endif
