/* SPDX-License-Identifier: Apache-2.0 */
#include "api/view.h"

#include <stdlib.h>
#include <string.h>

#include "base/sha256.h"
#include "base/units.h"
#include "base/utf8.h"

enum field_type {
	FIELD_TEXT,   /* const char * */
	FIELD_INLINE, /* char[] */
	FIELD_COUNT,  /* uint64_t */
	FIELD_NUMBER, /* int64_t */
	FIELD_SIZE,   /* size_t */
	FIELD_FLAG,   /* bool */
	FIELD_TIME,   /* int64_t, wall milliseconds; 0: null */
	FIELD_DIGEST, /* uint8_t[SHA256_SIZE] */
};

struct field {
	const char *name;
	enum field_type type;
	size_t offset;
};

#define FIELD(type, of, member, name)                                                                                  \
	{                                                                                                              \
		name, FIELD_##type, offsetof(struct of, member)                                                        \
	}
#define FIELD_END                                                                                                      \
	{                                                                                                              \
		.name = NULL                                                                                           \
	}

static const struct field source_fields[] = {
	FIELD(TEXT, source_view, name, "name"),
	FIELD(TEXT, source_view, kind, "kind"),
	FIELD(TEXT, source_view, origin, "origin"),
	FIELD(TEXT, source_view, state, "state"),
	FIELD(TIME, source_view, last_answer_ms, "last_answer"),
	FIELD(TIME, source_view, last_change_ms, "last_change"),
	FIELD(TIME, source_view, next_poll_ms, "next_poll"),
	FIELD(COUNT, source_view, polls, "polls"),
	FIELD(COUNT, source_view, unchanged, "unchanged"),
	FIELD(COUNT, source_view, refused, "refused"),
	FIELD(COUNT, source_view, failed, "failed"),
	FIELD(COUNT, source_view, records, "records"),
	FIELD(COUNT, source_view, fetches, "fetches"),
	FIELD(COUNT, source_view, unsealed_records, "unsealed_records"),
	FIELD(COUNT, source_view, waiting_batches, "waiting_batches"),
	FIELD(COUNT, source_view, waiting_records, "waiting_records"),
	FIELD(COUNT, source_view, dropped_records, "dropped_records"),
	FIELD(COUNT, source_view, damaged_records, "damaged_records"),
	FIELD(TIME, source_view, oldest_ms, "oldest"),
	FIELD(TEXT, source_view, last_error, "last_error"),
	FIELD_END,
};

static const struct field store_fields[] = {
	FIELD(TEXT, store_view, name, "name"),
	FIELD(TEXT, store_view, kind, "kind"),
	FIELD(TEXT, store_view, place, "place"),
	FIELD(TEXT, store_view, state, "state"),
	FIELD(COUNT, store_view, waiting_batches, "waiting_batches"),
	FIELD(COUNT, store_view, waiting_bytes, "waiting_bytes"),
	FIELD(COUNT, store_view, parked_batches, "parked_batches"),
	FIELD(COUNT, store_view, delivered_batches, "delivered_batches"),
	FIELD(TIME, store_view, last_delivered_ms, "last_delivered"),
	FIELD(TIME, store_view, next_try_ms, "next_try"),
	FIELD(TEXT, store_view, last_error, "last_error"),
	FIELD_END,
};

static const struct field buffer_fields[] = {
	FIELD(TEXT, buffer_view, path, "path"),
	FIELD(TEXT, buffer_view, state, "state"),
	FIELD(TEXT, buffer_view, on_full, "on_full"),
	FIELD(NUMBER, buffer_view, file_bytes, "file_bytes"),
	FIELD(NUMBER, buffer_view, wal_bytes, "wal_bytes"),
	FIELD(NUMBER, buffer_view, max_bytes, "max_bytes"),
	FIELD(NUMBER, buffer_view, room_bytes, "room_bytes"),
	FIELD(COUNT, buffer_view, waiting_records, "waiting_records"),
	FIELD(COUNT, buffer_view, waiting_batches, "waiting_batches"),
	FIELD(TIME, buffer_view, oldest_ms, "oldest"),
	FIELD(TIME, buffer_view, salvaged_ms, "salvaged"),
	FIELD(TEXT, buffer_view, aside, "aside"),
	FIELD(TEXT, buffer_view, last_error, "last_error"),
	FIELD_END,
};

static const struct field clock_fields[] = {
	FIELD(TEXT, clock_view, state, "state"),
	FIELD(COUNT, clock_view, unsynced_records, "unsynced_records"),
	FIELD(TIME, clock_view, wait_until_ms, "wait_until"),
	FIELD_END,
};

static const struct field config_fields[] = {
	FIELD(TEXT, config_view, path, "path"),
	FIELD(TIME, config_view, refused_ms, "refused"),
	FIELD(TEXT, config_view, last_error, "last_error"),
	FIELD(TEXT, config_view, restart, "restart"),
	FIELD_END,
};

static const struct field rejected_fields[] = {
	FIELD(TEXT, rejected_view, source, "source"),
	FIELD(TIME, rejected_view, at_ms, "at"),
	FIELD(TEXT, rejected_view, cause, "cause"),
	FIELD(TEXT, rejected_view, text, "text"),
	FIELD(COUNT, rejected_view, bytes, "bytes"),
	FIELD(COUNT, rejected_view, start, "start"),
	FIELD_END,
};

static const struct field problem_fields[] = {
	FIELD(INLINE, problem_view, what, "what"),
	FIELD(INLINE, problem_view, remedy, "remedy"),
	FIELD_END,
};

static const struct field batch_fields[] = {
	FIELD(NUMBER, batch, id, "id"),
	FIELD(INLINE, batch, source, "source"),
	FIELD(INLINE, batch, key, "key"),
	FIELD(COUNT, batch, first_seq, "first_seq"),
	FIELD(COUNT, batch, last_seq, "last_seq"),
	FIELD(COUNT, batch, records, "records"),
	FIELD(COUNT, batch, raw_bytes, "raw_bytes"),
	FIELD(COUNT, batch, bytes, "bytes"),
	FIELD(DIGEST, batch, sha256, "sha256"),
	FIELD(TIME, batch, sealed_ms, "sealed"),
	FIELD(TIME, batch, delivered_ms, "delivered"),
	FIELD(FLAG, batch, imported, "imported"),
	FIELD(SIZE, batch, stores_done, "stores_done"),
	FIELD(SIZE, batch, stores_all, "stores_all"),
	FIELD_END,
};

static const struct field status_fields[] = {
	FIELD(TEXT, status_view, version, "version"),    FIELD(TEXT, status_view, device, "device"),
	FIELD(TEXT, status_view, boot, "boot"),          FIELD(TIME, status_view, now_ms, "now"),
	FIELD(TIME, status_view, started_ms, "started"), FIELD_END,
};

/* ret_mark (NULL: not asked): how many of its characters stand before the byte at `place`. */
static json_t *text_value(const void *data, size_t len, size_t place, size_t *ret_mark)
{
	const unsigned char *from = data;
	char *mended = malloc(len * 3 + 1), *to = mended;
	size_t mark = 0;
	if (!mended)
		return NULL;
	for (size_t at = 0, step; at < len; at += step) {
		size_t n = utf8_decode(from + at, len - at, NULL);
		step = n ? n : 1;
		memcpy(to, n ? (const char *)from + at : "\xEF\xBF\xBD", n ? n : 3);
		to += n ? n : 3;
		mark += at + step <= place;
	}
	json_t *json = json_stringn_nocheck(mended, (size_t)(to - mended));
	free(mended);
	if (ret_mark)
		*ret_mark = mark;
	return json;
}

json_t *view_text(const char *text)
{
	return view_bytes(text, text ? strlen(text) : 0);
}

json_t *view_bytes(const void *data, size_t len)
{
	return text_value(data, len, 0, NULL);
}

json_t *view_time(int64_t ms)
{
	char text[UNITS_TEXT_MAX];
	return ms ? json_string(units_time(ms, text)) : json_null();
}

static json_t *field_value(enum field_type type, const void *at)
{
	char text[SHA256_HEX];
	switch (type) {
	case FIELD_TEXT:
		return view_text(*(const char *const *)at);
	case FIELD_INLINE:
		return view_text(at);
	case FIELD_COUNT:
		return json_integer((json_int_t) * (const uint64_t *)at);
	case FIELD_NUMBER:
		return json_integer(*(const int64_t *)at);
	case FIELD_SIZE:
		return json_integer((json_int_t) * (const size_t *)at);
	case FIELD_FLAG:
		return json_boolean(*(const bool *)at);
	case FIELD_TIME:
		return view_time(*(const int64_t *)at);
	case FIELD_DIGEST:
		return json_string(sha256_hex(at, SHA256_HEX - 1, text));
	}
	return NULL;
}

static json_t *object(const struct field *fields, const void *view)
{
	json_t *json = json_object();
	for (const struct field *field = fields; json && field->name; field++)
		if (json_object_set_new(json, field->name,
		                        field_value(field->type, (const char *)view + field->offset)) < 0) {
			json_decref(json);
			json = NULL;
		}
	return json;
}

static json_t *array(const struct field *fields, const void *views, size_t n, size_t size)
{
	json_t *json = json_array();
	for (size_t i = 0; json && i < n; i++)
		if (json_array_append_new(json, object(fields, (const char *)views + i * size)) < 0) {
			json_decref(json);
			json = NULL;
		}
	return json;
}

static json_t *sources(const struct status_view *view)
{
	return array(source_fields, view->sources, view->n_sources, sizeof *view->sources);
}

static json_t *stores(const struct status_view *view)
{
	return array(store_fields, view->stores, view->n_stores, sizeof *view->stores);
}

static json_t *problems(const struct status_view *view)
{
	return array(problem_fields, view->problems, view->n_problems, sizeof *view->problems);
}

json_t *view_status(const struct status_view *view)
{
	json_t *json = object(status_fields, view);
	if (json_object_set_new(json, "ok", json_boolean(view->n_problems == 0)) < 0 ||
	    json_object_set_new(json, "problems", problems(view)) < 0 ||
	    json_object_set_new(json, "buffer", object(buffer_fields, &view->buffer)) < 0 ||
	    json_object_set_new(json, "clock", object(clock_fields, &view->clock)) < 0 ||
	    json_object_set_new(json, "config", object(config_fields, &view->config)) < 0 ||
	    json_object_set_new(json, "sources", sources(view)) < 0 ||
	    json_object_set_new(json, "stores", stores(view)) < 0) {
		json_decref(json);
		return NULL;
	}
	return json;
}

json_t *view_sources(const struct status_view *view)
{
	return json_pack("{s:o, s:o}", "now", view_time(view->now_ms), "sources", sources(view));
}

json_t *view_stores(const struct status_view *view)
{
	return json_pack("{s:o, s:o}", "now", view_time(view->now_ms), "stores", stores(view));
}

json_t *view_batches(const struct batch *batches, size_t n)
{
	return json_pack("{s:o}", "batches", array(batch_fields, batches, n, sizeof *batches));
}

/* Where the offset falls into what there is of the body. */
static json_t *mark_value(const struct rejected_view *view, size_t mark)
{
	bool inside = view->offset >= 0 && (uint64_t)view->offset >= view->start &&
	              (uint64_t)view->offset - view->start <= view->len;
	return inside ? json_integer((json_int_t)mark) : json_null();
}

json_t *view_rejected(const struct rejected_view *view)
{
	size_t mark = 0;
	json_t *json = object(rejected_fields, view);
	json_t *offset = view->offset >= 0 ? json_integer(view->offset) : json_null();
	json_t *excerpt = text_value(view->data, view->len, (size_t)((uint64_t)view->offset - view->start), &mark);
	int rc = json_object_set_new(json, "offset", offset);
	rc += json_object_set_new(json, "excerpt", excerpt);
	rc += json_object_set_new(json, "mark", mark_value(view, mark));
	if (rc < 0) {
		json_decref(json);
		return NULL;
	}
	return json;
}

void view_done(struct status_view *view)
{
	free(view->sources);
	free(view->stores);
	free(view->problems);
	view->sources = NULL;
	view->stores = NULL;
	view->problems = NULL;
	view->n_sources = view->n_stores = view->n_problems = 0;
}
