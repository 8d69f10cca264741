/* SPDX-License-Identifier: Apache-2.0 */
#include "mill/manifest.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/units.h"

/* A member with all that stands before its value: `,"kind":`. */
static int add_text(struct bytes *json, const char *name, const char *text)
{
	json_t *value = text ? json_string(text) : json_null();
	char *dump = value ? json_dumps(value, JSON_ENCODE_ANY) : NULL;
	int rc = dump ? bytes_add_text(json, name) : text && !value ? -EILSEQ : -ENOMEM;
	if (rc == 0)
		rc = bytes_add_text(json, dump);
	free(dump);
	json_decref(value);
	return rc;
}

static int add_store(struct bytes *json, const struct manifest_store *store)
{
	const struct {
		const char *name, *value;
	} members[] = {
		{ ",\n\"store\":{\"kind\":", store->kind },
		{ ",\"endpoint\":", store->endpoint },
		{ ",\"region\":", store->region },
		{ ",\"bucket\":", store->bucket },
		{ ",\"path\":", store->path },
	};
	int rc = 0;
	for (size_t i = 0; rc == 0 && i < sizeof members / sizeof *members; i++)
		rc = add_text(json, members[i].name, members[i].value);
	return rc < 0 ? rc : bytes_add_text(json, "},\"objects\":[");
}

int manifest_begin(struct bytes *json, const struct ledger_run *run, const char *device,
                   const struct manifest_store *store)
{
	char created[UNITS_TEXT_MAX];
	bytes_clear(json);
	int rc = add_text(json, "{\"version\":1,\"run\":", run->id);
	if (rc == 0)
		rc = add_text(json, ",\"job\":", run->job);
	if (rc == 0)
		rc = add_text(json, ",\"device\":", device);
	if (rc == 0)
		rc = add_text(json, ",\"created_at\":", units_time(run->created_ms, created));
	return rc < 0 ? rc : add_store(json, store);
}

static int add_key(struct bytes *json, const struct ledger_object *object, const char *prefix)
{
	char *key;
	bool has = prefix && *prefix;
	if (asprintf(&key, "%s%s%s", has ? prefix : "", has ? "/" : "", object->key) < 0)
		return -ENOMEM;
	bool first = json->data[json->len - 1] == '[';
	int rc = add_text(json, first ? "\n{\"key\":" : ",\n{\"key\":", key);
	free(key);
	return rc;
}

int manifest_add(struct bytes *json, const struct ledger_object *object, const struct manifest_store *store)
{
	char hex[SHA256_HEX], date[UNITS_TEXT_MAX];
	size_t before = json->len;
	int rc = add_key(json, object, store->prefix);
	if (rc == 0)
		rc = bytes_printf(json, ",\"bytes\":%" PRIu64 ",\"sha256\":\"%s\"", object->bytes,
		                  sha256_hex(object->sha256, SHA256_HEX - 1, hex));
	if (rc == 0)
		rc = add_text(json, ",\"source\":", object->source);
	if (rc == 0)
		rc = bytes_printf(json,
		                  ",\"dt\":\"%s\",\"first_seq\":%" PRIu64 ",\"last_seq\":%" PRIu64
		                  ",\"records\":%" PRIu64 "}",
		                  units_date(object->day * 86400000, date), object->first_seq, object->last_seq,
		                  object->last_seq - object->first_seq + 1);
	if (rc < 0)
		json->len = before;
	return rc;
}

int manifest_end(struct bytes *json)
{
	return bytes_add_text(json, "\n]}\n");
}

void manifest_key(const struct ledger_run *run, const char *name, char ret_key[OBJECT_KEY_MAX])
{
	snprintf(ret_key, OBJECT_KEY_MAX, "_runs/%s/%s/%s", run->job, run->id, name);
}
