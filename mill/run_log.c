/* SPDX-License-Identifier: Apache-2.0 */
#include "mill/run_log.h"

#include <errno.h>
#include <string.h>

static int on_part(void *arg, const void *data, size_t len)
{
	struct run_log *log = arg;

	return bytes_add(&log->packed, data, len);
}

int run_log_open(struct run_log *log)
{
	log->bytes = 0;
	log->tail_len = 0;
	/* The last piece may be one that does not compress at all. */
	bytes_init(&log->packed, RUN_LOG_PACKED_MAX + 2 * RUN_LOG_PIECE);
	return pack_init(&log->pack, on_part, log);
}

static void keep_tail(struct run_log *log, const unsigned char *data, size_t len)
{
	size_t new = len < LEDGER_LOG ? len : LEDGER_LOG;
	size_t old = log->tail_len < LEDGER_LOG - new ? log->tail_len : LEDGER_LOG - new;

	memmove(log->tail, log->tail + log->tail_len - old, old);
	memcpy(log->tail + old, data + len - new, new);
	log->tail_len = old + new;
}

static int add(struct run_log *log, const void *data, size_t len)
{
	log->bytes += len;
	keep_tail(log, data, len);
	return pack_write(&log->pack, data, len);
}

int run_log_add(struct run_log *log, const void *data, size_t len)
{
	static const char rest[] = "\n[the rest of the log is on the machine]\n";
	int r;

	if (log->bytes + len <= RUN_LOG_MAX && log->packed.len < RUN_LOG_PACKED_MAX)
		return add(log, data, len);
	r = add(log, rest, strlen(rest));
	return r < 0 ? r : -ENOBUFS;
}

int run_log_finish(struct run_log *log)
{
	uint8_t ignored[SHA256_SIZE];

	return pack_finish(&log->pack, ignored);
}

void run_log_done(struct run_log *log)
{
	pack_done(&log->pack);
	bytes_done(&log->packed);
}
