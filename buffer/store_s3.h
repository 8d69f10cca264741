/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The store `s3`: MinIO and any S3. Pure: it builds signed requests and judges answers; agent/s3_call carries them
 * with base/http. What it learns (the store's clock) it keeps for the next request. Loop thread, or any one thread.
 */
#ifndef BUFFER_STORE_S3_H
#define BUFFER_STORE_S3_H

#include "base/bytes.h"
#include "base/err.h"
#include "base/option.h"
#include "buffer/queue.h"

struct s3_settings {
	char *endpoint; /* http://host[:port][/path] */
	char *region, *bucket, *prefix;
	char *access_key, *secret_key; /* references (base/secret.h) */
	char *ca_file;                 /* NULL: the system's */
	int64_t parallel;              /* uploads in flight */
	int64_t upload_rate;           /* bytes a second, 0: no limit */
	int64_t timeout_ms;            /* of one request without progress */
	bool virtual_host;             /* bucket in the host name instead of the path */
};

struct s3;

/* settings are borrowed for its life, the secrets are copied. 0 or -ENOMEM. */
int s3_new(const struct s3_settings *settings, const char *access_key, const char *secret_key, struct s3 **ret_s3);
void s3_free(struct s3 *s3); /* overwrites the secrets; NULL is fine */

/* A request ready for base/http; the caller ends it with s3_request_done. */
struct s3_request {
	const char *method;
	char *url;
	char **headers; /* "Name: value", ended by NULL; base/http sends Content-Length by itself */
};
void s3_request_done(struct s3_request *request);

/* wall_ms is this machine's time; the request is signed with the store's as far as that is known. 0 or -ENOMEM. */

/* PUT of a batch's object, by its key below the prefix. only_new: with If-None-Match: *. */
int s3_put(const struct s3 *s3, const struct batch *batch, bool only_new, int64_t wall_ms, struct s3_request *ret);

/* PUT of what is no batch, in place of what stands there. */
int s3_put_small(const struct s3 *s3, const char *key, const uint8_t sha256[SHA256_SIZE], const char *content_type,
                 int64_t wall_ms, struct s3_request *ret);

/* HEAD of an object, its checksum asked for. */
int s3_head(const struct s3 *s3, const char *key, int64_t wall_ms, struct s3_request *ret);

/* GET of an object: what audit hashes where a HEAD tells no checksum. */
int s3_get(const struct s3 *s3, const char *key, int64_t wall_ms, struct s3_request *ret);

/* PUT of the probe, <prefix>/.millrace-probe, with If-None-Match: *; its body is S3_PROBE_BODY. */
#define S3_PROBE_BODY "Millrace asked here whether this store honours If-None-Match.\n"
int s3_probe(const struct s3 *s3, int64_t wall_ms, struct s3_request *ret);

/* GET of one page (up to 1,000) of the keys below `below` ("source=parking/"); token: NULL for the first page. */
int s3_list(const struct s3 *s3, const char *below, const char *token, int64_t wall_ms, struct s3_request *ret);

/* What came back. */
struct s3_answer {
	int error;        /* base/http's, 0 where an answer came */
	const char *text; /* of the error */
	long status;
	int64_t retry_after_ms;
	const char *(*header)(void *arg, const char *name); /* NULL where it did not come */
	void *arg;
	const void *body; /* of an answer that is no object: XML; up to S3_BODY_MAX bytes of it */
	size_t body_len;
};
#define S3_BODY_MAX (1024 * 1024) /* a page of 1,000 keys is about 300 KB */

enum s3_verdict {
	S3_DONE,    /* 2xx, and it is an S3 that says so */
	S3_EXISTS,  /* 412: an object stands there already: look at it */
	S3_ABSENT,  /* 404 of a key; to a PUT no S3 says so */
	S3_AGAIN,   /* network, 5xx, 429, 409, a checksum damaged on the way: the same again after a while */
	S3_SKEWED,  /* the clocks differ; the store's is known now: the same again at once, but not twice running */
	S3_DENIED,  /* credentials, bucket, policy, region, certificate: a person must mend it; err has the remedy. With
	               the status 501: what was asked is unknown to it (after s3_probe: If-None-Match) */
	S3_FOREIGN, /* what answers there is no S3; err says what came */
};

/* Judges any answer. err says what came and, where a person is needed, what to do; never a secret. */
enum s3_verdict s3_judge(struct s3 *s3, const struct s3_answer *answer, int64_t wall_ms, struct err *err);

/*
 * After a HEAD that was S3_DONE: whether what stands there is the batch, by its size and the store's checksum; where
 * the store tells none, the one that s3_put noted beside the object counts. 0; -EEXIST: other bytes, both described.
 */
/* -ENODATA: the size is the same and the store tells no checksum: only its bytes tell (s3_get). */
int s3_same(const struct s3_answer *head, const struct batch *batch, struct err *err);

struct s3_object {
	char key[OBJECT_KEY_MAX]; /* below the prefix */
	uint64_t bytes;
};

/* Of a list's page, each object; keys that are too long for one of ours are passed over. ret_token: malloc'ed, NULL at
 * the last page. 0, -EBADMSG (no whole list; err says what is wrong), -ENOMEM, or what on_object returned. */
int s3_read_list(const struct s3 *s3, const struct s3_answer *answer,
                 int (*on_object)(void *arg, const struct s3_object *object), void *arg, char **ret_token,
                 struct err *err);

/* After a HEAD: the object's SHA-256 as the store tells it (x-amz-checksum-sha256); -ENODATA where it does not. */
int s3_checksum(const struct s3_answer *head, uint64_t *ret_bytes, uint8_t ret_sha256[SHA256_SIZE]);

#endif
