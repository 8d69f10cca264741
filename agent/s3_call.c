/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/s3_call.h"

#include <errno.h>
#include <string.h>

#include "base/clock.h"

#define CONNECT_MS 10000
#define OBJECT_MAX (UINT64_C(1) << 32) /* bytes of an object that is read */

static const char *find_header(void *arg, const char *name)
{
	return http_header(arg, name);
}

static ssize_t on_body(void *arg, long status, const void *data, size_t len)
{
	struct s3_call *call = arg;
	int r;

	if (call->on_object && status == 200)
		r = call->on_object(call, data, len);
	else
		r = bytes_add(&call->body, data, len);
	return r ? HTTP_BODY_ABORT : (ssize_t)len;
}

static void on_done(void *arg, const struct http_answer *answer)
{
	struct s3_call *call = arg;
	const struct s3_answer a = {
		.error = answer->error,
		.text = answer->text,
		.status = answer->status,
		.retry_after_ms = answer->retry_after_ms,
		.header = find_header,
		.arg = (void *)answer,
		.body = call->body.data,
		.body_len = call->body.len,
	};
	enum s3_verdict verdict;

	call->transfer = NULL;
	verdict = s3_judge(call->s3, &a, clock_wall_ms(), &call->err);
	if (verdict == S3_SKEWED && call->skewed)
		verdict = S3_AGAIN;
	call->skewed = verdict == S3_SKEWED;
	call->on_judged(call, verdict, &a);
}

void s3_call_init(struct s3_call *call, struct http *http, const struct s3_settings *settings, struct s3 *s3)
{
	*call = (struct s3_call){ .http = http, .settings = settings, .s3 = s3 };
	bytes_init(&call->body, S3_BODY_MAX);
}

int s3_call_send(struct s3_call *call, int built, struct s3_request *request, uint64_t send_bytes)
{
	int r = built;

	call->err.text[0] = '\0';
	if (r < 0)
		return err_fail(&call->err, r, "no request could be made: %s", strerror(-r));
	bytes_done(&call->body);
	call->sent = 0;
	const struct http_request http = {
		.method = request->method,
		.url = request->url,
		.headers = (const char *const *)request->headers,
		.ca_file = call->settings->ca_file,
		.connect_timeout_ms = CONNECT_MS,
		.stall_ms = call->settings->timeout_ms,
		.max_body = call->on_object ? OBJECT_MAX : S3_BODY_MAX,
		.send_bytes = send_bytes,
		.send_rate = call->settings->upload_rate,
		.on_read = send_bytes ? call->on_read : NULL,
		.on_body = on_body,
		.on_done = on_done,
		.arg = call,
	};
	r = http_start(call->http, &http, &call->transfer, &call->err);
	s3_request_done(request);
	return r;
}

static ssize_t on_probe_read(void *arg, void *buffer, size_t size)
{
	struct s3_call *call = arg;
	size_t left = strlen(S3_PROBE_BODY) - call->sent;
	size_t n = left < size ? left : size;

	memcpy(buffer, &S3_PROBE_BODY[call->sent], n);
	call->sent += n;
	return (ssize_t)n;
}

int s3_call_probe(struct s3_call *call)
{
	struct s3_request request;
	int r = s3_probe(call->s3, clock_wall_ms(), &request);

	call->on_read = on_probe_read;
	return s3_call_send(call, r, &request, strlen(S3_PROBE_BODY));
}

bool s3_call_knows_no_condition(enum s3_verdict verdict, const struct s3_answer *answer)
{
	return verdict == S3_DENIED && answer->status == 501;
}

void s3_call_drop(struct s3_call *call)
{
	if (call->transfer)
		http_cancel(call->transfer);
	call->transfer = NULL;
	bytes_done(&call->body);
}
