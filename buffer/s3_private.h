/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of the store `s3` share. Only buffer/store_s3.c and buffer/s3_*.c include it.
 *
 *     store_s3.c   settings, life            s3_answer.c  what an answer means
 *     s3_request.c signed requests           s3_list.c    pages of a list, objects compared
 *     s3_xml.c     elements of an answer
 */
#ifndef BUFFER_S3_PRIVATE_H
#define BUFFER_S3_PRIVATE_H

#include "buffer/s3_xml.h"
#include "buffer/store_s3.h"

struct s3 {
	const struct s3_settings *settings;
	char *access_key, *secret_key;
	char *origin; /* of the URLs: scheme, host and port */
	char *host;   /* the Host header: as sent, so as signed */
	char *path;   /* before the prefix: the endpoint's, and in path style the bucket; "" or begins with / */
	char *place;  /* for people */

	int64_t ahead_ms; /* the store's clock before this machine's, as far as it is known */
	bool skewed;      /* it was learnt from the last answer, and nothing was accepted since */
};

/* An answer's header, "" where it did not come. */
const char *s3_header(const struct s3_answer *answer, const char *name);

static inline struct s3_span s3_body(const struct s3_answer *answer)
{
	return (struct s3_span){ answer->body, answer->body ? answer->body_len : 0 };
}

#endif
