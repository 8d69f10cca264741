/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One request to an S3 at a time, and its judged answer: buffer/store_s3 says what to send and what came, base/http
 * carries it. Embedded by who asks: the bearer, the audit, `check --online`. Private to agent/. Loop thread only.
 */
#ifndef AGENT_S3_CALL_H
#define AGENT_S3_CALL_H

#include "base/bytes.h"
#include "base/http.h"
#include "buffer/store_s3.h"

struct s3_call {
	/* Set once by s3_call_init, borrowed. */
	struct http *http;
	const struct s3_settings *settings;
	struct s3 *s3;

	/* Set by who asks. on_read: of a PUT (base/http.h). on_object: bytes of a 200's body; NULL: they go to `body`.
	 */
	ssize_t (*on_read)(void *call, void *buffer, size_t size);
	int (*on_object)(struct s3_call *call, const void *data, size_t len);

	/* The answer; err says what is wrong where the verdict is not one that says all is well. */
	void (*on_judged)(struct s3_call *call, enum s3_verdict verdict, const struct s3_answer *answer);

	struct http_transfer *transfer; /* NULL: none is under way */
	struct bytes body;              /* of the answer, up to S3_BODY_MAX */
	size_t sent;                    /* of the part at hand, or of the probe's body */
	bool skewed;                    /* the last answer said that the clocks differ */
	struct err err;
};

void s3_call_init(struct s3_call *call, struct http *http, const struct s3_settings *settings, struct s3 *s3);

/*
 * Sends what s3_put and its like have built (`built` is what they returned); takes the request's memory. send_bytes: of
 * a PUT's body. 0, or -errno, which call->err tells; on_judged follows then in neither case from within. S3_SKEWED is
 * told once; where the next answer says so again it is S3_AGAIN.
 */
int s3_call_send(struct s3_call *call, int built, struct s3_request *request, uint64_t send_bytes);

/* The probe (s3_probe), with its body. */
int s3_call_probe(struct s3_call *call);

/* Whether the probe's answer is that of an S3 that knows no If-None-Match at all. (A plain web server answers 501 to a
 * PUT too; that is S3_FOREIGN.) */
bool s3_call_knows_no_condition(enum s3_verdict verdict, const struct s3_answer *answer);

/* Ends what is under way without a word, and frees the memory; it may be used again. */
void s3_call_drop(struct s3_call *call);

#endif
