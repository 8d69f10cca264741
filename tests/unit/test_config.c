/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/config_box.h"

#include "agent/config_text.h"
#include "buffer/store_file.h"
#include "buffer/store_s3.h"
#include "collectors/rest.h"

static const char *host = "pi-host";

/* The linker takes this one before the C library's: the host name is the test's. */
int gethostname(char *name, size_t len)
{
	snprintf(name, len, "%s", host);
	return 0;
}

#define TWICE "stands there twice; what is behind it was not checked\n"
#define SOURCE(settings)                                                                                               \
	"sources = { parking = {\n kind = \"rest\"\n url = \"https://a.example/p\"\n" settings "\n} }\n"
#define SYNTAX                                                                                                         \
	"syntax error here or just before: a word without quotes, or a bracket or brace missing or too many; names "   \
	"are bare words like stavanger-parking, text stands in \"double quotes\"\n"
#define EVERY " every = \"1m\"\n"

#define S3(bucket)                                                                                                     \
	"kind = \"s3\" endpoint = \"http://minio.lan:9000\" bucket = \"" bucket "\" prefix = \"landing\" "             \
	"access_key = \"file:keys/access\" secret_key = \"env:LAKE_SECRET\""

static const struct {
	const char *text, *told;
} mistakes[] = {
	/* words */
	{ SOURCE(EVERY " evry = \"2m\""),
	  "FILE:5: unknown setting \"evry\" in source \"parking\"; did you mean \"every\"?\n" },
	{ "devise = \"a\"", "FILE:1: unknown setting \"devise\"; did you mean \"device\"?\n" },
	{ "\nwhat = 1",
	  "FILE:2: unknown setting \"what\"; known: buffer, batch, stores, sources, machines, jobs, device, "
	  "socket, log, clock, clock_wait\n" },
	{ "buffer = { keep = \"1h\"\nxyzzy = 1 }",
	  "FILE:1: unknown setting \"keep\" in buffer; known: path, max_size, on_full, keep_delivered\n"
	  "FILE:2: unknown setting \"xyzzy\" in buffer; known: path, max_size, on_full, keep_delivered\n" },
	{ "batch = { max_byte = 1 }", "FILE:1: unknown setting \"max_byte\" in batch; did you mean \"max_bytes\"?\n" },
	{ SOURCE(EVERY " batch = { maxage = 1 }"),
	  "FILE:5: unknown setting \"maxage\" in batch of source \"parking\"; did you mean \"max_age\"?\n" },
	{ "stores = { disk = { kind = \"file\" path = \"/d\" pth = 1 } }",
	  "FILE:1: unknown setting \"pth\" in store \"disk\"; did you mean \"path\"?\n" },

	/* types */
	{ SOURCE("every = 60"), "FILE:4: \"every\" in source \"parking\" wants a duration such as \"90s\", \"2m\" or "
	                        "\"6h\", not a number\n" },
	{ "device = 7", "FILE:1: \"device\" wants text in quotes, not a number\n" },
	{ "device = { }", "FILE:1: \"device\" wants text in quotes, not a group { ... }\n" },
	{ "clock = \"ntp\"", "FILE:1: \"clock\": \"ntp\" is not one of \"auto\", \"trust\"\n" },
	{ "clock = true", "FILE:1: \"clock\" wants \"auto\" or \"trust\", not true or false\n" },
	{ "clock_wait = 60",
	  "FILE:1: \"clock_wait\" wants a duration such as \"90s\", \"2m\" or \"6h\", not a number\n" },
	{ "clock_wait = \"8d\"",
	  "FILE:1: \"clock_wait\": \"8d\" is out of range; it must be between \"0s\" and \"7d\"\n" },
	{ "log = true", "FILE:1: \"log\" wants \"text\" or \"json\", not true or false\n" },
	{ "batch = { max_records = \"100\"\nmax_bytes = 1.5 }",
	  "FILE:1: \"max_records\" in batch wants a whole number, not text\n"
	  "FILE:2: \"max_bytes\" in batch wants a size such as \"64K\", \"8M\" or \"2G\", not a number with a "
	  "point\n" },
	{ SOURCE(EVERY "enabled = 1"),
	  "FILE:5: \"enabled\" in source \"parking\" wants true or false, not a number\n" },
	{ SOURCE(EVERY "enabled = \"yes\""),
	  "FILE:5: \"enabled\" in source \"parking\" wants true or false, not text\n" },
	{ SOURCE(EVERY "stores = \"local\""),
	  "FILE:5: \"stores\" in source \"parking\" wants an array of names such as [ \"one\", \"two\" ], not text\n" },
	{ SOURCE(EVERY "stores = ( \"local\" )"), "FILE:5: \"stores\" in source \"parking\" wants an array of names "
	                                          "such as [ \"one\", \"two\" ], not a list ( ... )\n" },
	{ SOURCE(EVERY "stores = [ 1, 2 ]"), "FILE:5: \"stores\" in source \"parking\" wants an array of names such as "
	                                     "[ \"one\", \"two\" ], not an array [ ... "
	                                     "]\n" },
	{ "sources = ( )", "FILE:1: \"sources\" wants a group, sources = { ... }, not a list ( ... )\n" },
	{ "stores = [ \"a\" ]", "FILE:1: \"stores\" wants a group, stores = { ... }, not an array [ ... ]\n" },
	{ "buffer = \"/b\"\nbatch = 5", "FILE:1: \"buffer\" wants a group, buffer = { ... }, not text\n"
	                                "FILE:2: \"batch\" wants a group, batch = { ... }, not a number\n" },
	{ "sources = { parking = \"rest\" }",
	  "FILE:1: \"parking\" in sources wants a group, parking = { ... }, not text\n" },
	{ SOURCE(EVERY "batch = \"8M\""),
	  "FILE:5: \"batch\" in source \"parking\" wants a group, batch = { ... }, not text\n" },

	{ SOURCE(EVERY "headers = \"A: b\""),
	  "FILE:5: \"headers\" in source \"parking\" wants a group of texts such as { Name = \"file:PATH\" }, not "
	  "text\n" },
	{ SOURCE(EVERY "headers = {\n A = \"one\"\n B = 5\n C = { } }"),
	  "FILE:7: \"B\" in \"headers\" in source \"parking\" wants text in quotes, not a number\n"
	  "FILE:8: \"C\" in \"headers\" in source \"parking\" wants text in quotes, not a group { ... }\n" },
	{ SOURCE(EVERY "headers = {\n X-Key = \"one\"\n x-key = \"two\" }"),
	  "FILE:7: \"x-key\" in \"headers\" in source \"parking\": the name stands there twice; capitals make no "
	  "difference\n" },
	{ "buffer = { on_full = true }",
	  "FILE:1: \"on_full\" in buffer wants \"pause\" or \"drop-oldest\", not true or false\n" },

	/* values and ranges */
	{ "buffer = { max_size = \"16777215\"\n on_full = \"drop-newest\" }",
	  "FILE:1: \"max_size\" in buffer: \"16777215\" is out of range; it must be between \"16M\" and \"1024G\"\n"
	  "FILE:2: \"on_full\" in buffer: \"drop-newest\" is not one of \"pause\", \"drop-oldest\"; did you mean "
	  "\"drop-oldest\"?\n" },
	{ "buffer = { max_size = \"1025G\" }", "FILE:1: \"max_size\" in buffer: \"1025G\" is out of range; it must be "
	                                       "between \"16M\" and \"1024G\"\n" },
	{ SOURCE(EVERY "max_record = \"33M\""), /* the default's sixteenth is 32M */
	  "FILE:5: \"max_record\" in source \"parking\": \"33M\" is over a sixteenth of the buffer's max_size, "
	  "\"512M\"; set it to at most \"32M\", or max_size to at least \"528M\"\n" },
	{ SOURCE(EVERY "max_record = 1048577\n batch = {\n max_bytes = \"9M\" }") "buffer = { max_size = \"16M\" }\n"
	                                                                          "batch = { max_bytes = 8388609 }",
	  "FILE:10: \"max_bytes\" in batch: \"8388609\" is over half of the buffer's max_size, \"16M\"; set it to at "
	  "most \"8M\", or max_size to at least \"16777218\"\n"
	  "FILE:5: \"max_record\" in source \"parking\": \"1048577\" is over a sixteenth of the buffer's max_size, "
	  "\"16M\"; set it to at most \"1M\", or max_size to at least \"16777232\"\n"
	  "FILE:7: \"max_bytes\" in batch of source \"parking\": \"9M\" is over half of the buffer's max_size, "
	  "\"16M\"; set it to at most \"8M\", or max_size to at least \"18M\"\n" },
	{ SOURCE(EVERY "max_record = \"33M\"") "buffer = {\n max_size = \"1X\" }", /* nothing is measured by that */
	  "FILE:8: \"max_size\" in buffer: \"1X\" is no size; write it in bytes, or like \"64K\", \"8M\" or "
	  "\"2G\"\n" },
	{ SOURCE("every = \"10x\""), "FILE:4: \"every\" in source \"parking\": \"10x\" is no duration; write it like "
	                             "\"90s\", \"2m\" or \"6h\"\n" },
	{ "buffer = { keep_delivered = \"366d\" }",
	  "FILE:1: \"keep_delivered\" in buffer: \"366d\" is out of range; it must be between \"0s\" and \"365d\"\n" },
	{ "batch = { max_bytes = 65535\nmax_records = 0\nmax_age = \"999ms\" }",
	  "FILE:1: \"max_bytes\" in batch: \"65535\" is out of range; it must be between \"64K\" and \"64M\"\n"
	  "FILE:2: \"max_records\" in batch: \"0\" is out of range; it must be between 1 and 10000000\n"
	  "FILE:3: \"max_age\" in batch: \"999ms\" is out of range; it must be between \"1s\" and \"7d\"\n" },
	{ "batch = { max_bytes = \"65M\"\nmax_records = 10000001\nmax_age = \"169h\" }",
	  "FILE:1: \"max_bytes\" in batch: \"65M\" is out of range; it must be between \"64K\" and \"64M\"\n"
	  "FILE:2: \"max_records\" in batch: \"10000001\" is out of range; it must be between 1 and 10000000\n"
	  "FILE:3: \"max_age\" in batch: \"169h\" is out of range; it must be between \"1s\" and \"7d\"\n" },
	{ "sources = { p = { kind = \"rest\"\nurl = \"ftp://a.example/\" } }", /* the words are the collector's */
	  "FILE:2: \"url\" in source \"p\": \"ftp://a.example/\": scheme \"ftp\" is not http or https\n" },
	{ "log = \"jsn\"", "FILE:1: \"log\": \"jsn\" is not one of \"text\", \"json\"; did you mean \"json\"?\n" },
	{ "device = \"a b\"",
	  "FILE:1: \"device\": \"a b\" is no name for a device; it has letters, digits, . _ -, up to 63\n" },
	{ "socket = \"\"\nbuffer = { path = \"\" }",
	  "FILE:1: \"socket\": the path is empty\nFILE:2: \"path\" in buffer: the path is empty\n" },
	{ "log = \"text\"\nbuffer = { path = \"~/b.db\" }",
	  "FILE:2: \"path\" in buffer: \"~/b.db\": ~ stands for nothing here; write the whole path, as in "
	  "\"/home/pi/...\"\n" },
	{ "stores = {\n a = { kind = \"file\" path = \"~pi\" } }",
	  "FILE:2: \"path\" in store \"a\": \"~pi\": ~ stands for nothing here; write the whole path, as in "
	  "\"/home/pi/...\"\n" },
	{ "log = \"text\"\nbuffer = {\n path = \"./\" }",
	  "FILE:3: \"path\" in buffer: \"DIR\" is a folder; name a file in it: \"DIR/buffer.db\"\n" },

	/* what is missing */
	{ "sources = { parking = {\n} }", "FILE:1: source \"parking\" has no kind; add kind = \"rest\"\n" },
	{ "sources = { parking = { kind = \"rest\"\n} }",
	  "FILE:1: source \"parking\" has no url; add url = \"...\"\n" },
	{ "stores = { disk = { } }", "FILE:1: store \"disk\" has no kind; add kind = \"file\"\n" },
	{ "stores = {\n disk = { kind = \"file\" } }", "FILE:2: store \"disk\" has no path; add path = \"...\"\n" },
	{ "stores = {\n lake = { kind = \"s3\" } }",
	  "FILE:2: store \"lake\" has no endpoint; add endpoint = \"...\"\n"
	  "FILE:2: store \"lake\" has no bucket; add bucket = \"...\"\n"
	  "FILE:2: store \"lake\" has no access_key; add access_key = \"file:PATH\"\n"
	  "FILE:2: store \"lake\" has no secret_key; add secret_key = \"file:PATH\"\n" },

	/* kinds, names, stores */
	{ "sources = { parking = {\n kind = \"rset\"\n whatever = 1 } }",
	  "FILE:2: unknown kind \"rset\" in source \"parking\"; did you mean \"rest\"?\n" },
	{ "sources = { parking = {\n kind = 5 } }",
	  "FILE:2: \"kind\" in source \"parking\" wants text in quotes, such as \"rest\"\n" },
	{ "stores = { lake = {\n kind = \"minio\" } }",
	  "FILE:2: unknown kind \"minio\" in store \"lake\"; known: file, s3\n" },
	{ "stores = { lake = {\n kind = \"s4\"\n bucket = 5 } }",
	  "FILE:2: unknown kind \"s4\" in store \"lake\"; did you mean \"s3\"?\n" },
	{ "stores = { lake = { " S3("one") "\n secret_kye = \"hunter2\"\n parallel = 17\n path = \"/d\" } }",
	  "FILE:2: unknown setting \"secret_kye\" in store \"lake\"; did you mean \"secret_key\"?\n"
	  "FILE:3: \"parallel\" in store \"lake\": \"17\" is out of range; it must be between 1 and 16\n"
	  "FILE:4: unknown setting \"path\" in store \"lake\"; known: kind, endpoint, region, bucket, prefix, "
	  "access_key, "
	  "secret_key, ca_file, parallel, upload_rate, timeout, virtual_host\n" },
	{ "sources = {\n Parking = { } }", "FILE:2: \"Parking\" is no name for a source; it has small letters, digits, "
	                                   "_ and -, a letter first, up to 63\n" },
	{ "stores = {\n d*sk = { } }", "FILE:2: \"d*sk\" is no name for a store; it has small letters, digits, _ and "
	                               "-, a letter first, up to 63\n" },
	{ SOURCE(EVERY "stores = [ ]"),
	  "FILE:5: \"stores\" in source \"parking\" is empty; name a store, or leave it out for all of them\n" },
	{ SOURCE(EVERY "stores = [ \"lake\" ]"),
	  "FILE:5: unknown store \"lake\" in source \"parking\"; known: local\n" },
	{ SOURCE(EVERY "stores = [ \"disc\", \"disk\" ]") "stores = { disk = { kind = \"file\" path = \"/d\" } }",
	  "FILE:5: unknown store \"disc\" in source \"parking\"; did you mean \"disk\"?\n" },
	{ SOURCE(EVERY "stores = [ \"local\", \"local\" ]"),
	  "FILE:5: \"stores\" in source \"parking\": \"local\" stands there twice\n" },
	{ "stores = {\n a = { kind = \"file\" path = \"/d\" }\n b = { kind = \"file\" path = \"/d/\" } }",
	  "FILE:3: store \"b\" has the place of store \"a\"; each needs its own\n" },
	{ "stores = {\n a = { " S3("one") " }\n b = { " S3("two") " }\n c = { " S3("one") " parallel = 4 } }",
	  "FILE:4: store \"c\" has the place of store \"a\"; each needs its own\n" },

	/* syntax, told alone; what libconfig would misread */
	{ "unknown = 1\n\nlog = = \"text\"\n", "FILE:3: " SYNTAX },
	{ "batch = {\n max_records = 5\n", "FILE:2: " SYNTAX }, /* its end is told, not what would stand behind it */
	{ "batch = {\n max_records = 5", "FILE:2: " SYNTAX },
	{ "device = \"a\nb\n\n", "FILE:3: " SYNTAX },
	{ "log = \"text\"\nlog = \"json\"\n", "FILE:2: the setting \"log\" " TWICE },
	{ "sources = {\n p = { kind = \"rest\" url = \"=\"  url = \"a\" } }", "FILE:2: the setting \"url\" " TWICE },
	{ "a = {\n url = \"a\"\n /* url = */ url : \"b\" # c = 1\n}", "FILE:3: the setting \"url\" " TWICE },
	{ "a = { b = 1 }\nc = { b = 1 } d = { b = 1 } a = { b = 1 }", "FILE:2: the setting of this line " TWICE },
	{ "/* 99999999999\n */ # \"\n// \"\nbatch = { max_records = 4294977296 }",
	  "FILE:4: the number 4294977296 is too large\n" },
	{ "a = 0xFFFFFFFF", "FILE:1: the number 0xFFFFFFFF is too large\n" },
	{ "batch = { max_records = 4294977296L }",
	  "FILE:1: \"max_records\" in batch: \"4294977296\" is out of range; it must be between 1 and 10000000\n" },
};

static void test_each_mistake_is_told_with_its_line(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof mistakes / sizeof *mistakes; i++)
		assert_told(mistakes[i].text, mistakes[i].told);
}

static void test_all_mistakes_are_told_in_the_files_order(void **state)
{
	(void)state;
	assert_told(
	        "log = 1\n"
	        "buffer = { keep_delivered = \"1w\" }\n"
	        "sources = {\n"
	        "  one = { kind = \"rest\"\n"
	        "    evry = \"1m\"\n"
	        "    every = 5\n"
	        "  }\n"
	        "  two = { kind = \"mqt\" }\n"
	        "}\n"
	        "stores = { disk = { kind = \"file\" } }\n"
	        "sokcet = \"a\"\n",
	        "FILE:1: \"log\" wants \"text\" or \"json\", not a number\n"
	        "FILE:2: \"keep_delivered\" in buffer: \"1w\" is no duration; write it like \"90s\", \"2m\" or \"6h\"\n"
	        "FILE:4: source \"one\" has no url; add url = \"...\"\n"
	        "FILE:5: unknown setting \"evry\" in source \"one\"; did you mean \"every\"?\n"
	        "FILE:6: \"every\" in source \"one\" wants a duration such as \"90s\", \"2m\" or \"6h\", not a number\n"
	        "FILE:8: unknown kind \"mqt\" in source \"two\"; known: rest\n"
	        "FILE:10: store \"disk\" has no path; add path = \"...\"\n"
	        "FILE:11: unknown setting \"sokcet\"; did you mean \"socket\"?\n");
}

static void test_defaults(void **state)
{
	(void)state;
	struct config *config = load("");
	assert_string_equal(config->path, in_folder("x.conf"));
	assert_string_equal(config->device, "pi-host");
	assert_string_equal(config->socket, "/var/lib/millrace/millrace.sock");
	assert_int_equal(config->log, LOG_TEXT);
	assert_int_equal(config->clock, CONFIG_CLOCK_AUTO);
	assert_int_equal(config->clock_wait_ms, 3600000);
	assert_string_equal(config->buffer_path, "/var/lib/millrace/buffer.db");
	assert_int_equal(config->max_size, 536870912);
	assert_int_equal(config->on_full, CONFIG_PAUSE);
	assert_int_equal(config->keep_delivered_ms, 86400000);
	assert_int_equal(config->batch.max_bytes, 8388608);
	assert_int_equal(config->batch.max_records, 100000);
	assert_int_equal(config->batch.max_age_ms, 900000);
	assert_int_equal(config->n_sources, 0);
	assert_int_equal(config->n_stores, 1);
	assert_string_equal(config->stores[0]->name, "local");
	assert_string_equal(config->stores[0]->place, "/var/lib/millrace/objects");
	assert_ptr_equal(config->stores[0]->kind, &store_kind_file);
	assert_string_equal(((struct store_file_settings *)config->stores[0]->settings)->path,
	                    "/var/lib/millrace/objects");
	assert_true(config->stores[0]->embedded);
	config_free(config);
}

static void test_defaults_of_a_source(void **state)
{
	(void)state;
	struct config *config = load("stores = { }\n" SOURCE(EVERY));
	const struct config_source *source = config->sources[0];
	const struct rest_settings *rest = source->settings;
	assert_int_equal(config->n_sources, 1);
	assert_string_equal(source->name, "parking");
	assert_ptr_equal(source->kind, &rest_ops);
	assert_true(source->enabled);
	assert_null(source->stores.names);
	assert_memory_equal(&source->batch, &config->batch, sizeof config->batch);
	assert_string_equal(rest->url, "https://a.example/p");
	assert_int_equal(rest->every_ms, 60000);
	assert_null(rest->records);
	assert_int_equal(rest->dedupe, REST_DEDUPE_BODY);
	assert_int_equal(rest->max_body, 16777216);
	assert_true(config->stores[0]->embedded); /* an empty group of stores is none */
	config_free(config);
}

static const char everything[] =
        "device = \"pi.01\"\n"
        "socket = \"/run/m.sock\"\n"
        "log = \"json\"\n"
        "clock = \"trust\" clock_wait = \"0s\"\n"
        "buffer = { path = \"/b/x.db\"  max_size = \"16M\"  on_full = \"drop-oldest\"  keep_delivered = \"0s\" }\n"
        "sources = { parking = { kind = \"rest\"  url = \"https://a.example/p\"  every = \"1m\"\n"
        "  records = \"$\"  dedupe = \"none\"  stores = [ \"b\" ]  enabled = false\n"
        "  batch = { max_records = 7 } } }\n"
        "batch = { max_bytes = 65536  max_age = \"7d\" }\n"
        "stores = { a = { kind = \"file\"  path = \"/a/\" }\n"
        "  b = { kind = \"file\"  path = \"/a/b\" } }\n";

static void test_every_setting_is_read(void **state)
{
	(void)state;
	struct config *config = load(everything);
	const struct config_source *source = config->sources[0];
	const struct rest_settings *rest = source->settings;
	assert_string_equal(config->device, "pi.01");
	assert_string_equal(config->socket, "/run/m.sock");
	assert_int_equal(config->log, LOG_JSON);
	assert_int_equal(config->clock, CONFIG_CLOCK_TRUST);
	assert_int_equal(config->clock_wait_ms, 0);
	assert_string_equal(config->buffer_path, "/b/x.db");
	assert_int_equal(config->max_size, 16777216);
	assert_int_equal(config->on_full, CONFIG_DROP_OLDEST);
	assert_int_equal(config->keep_delivered_ms, 0);
	assert_int_equal(config->batch.max_records, 100000);
	assert_int_equal(source->batch.max_bytes, 65536); /* the file's, which stands behind the source */
	assert_int_equal(source->batch.max_records, 7);
	assert_int_equal(source->batch.max_age_ms, 7 * 86400000);
	assert_false(source->enabled);
	assert_int_equal(source->stores.n, 1);
	assert_string_equal(source->stores.names[0], "b");
	assert_string_equal(rest->records, "$");
	assert_int_equal(rest->dedupe, REST_DEDUPE_NONE);
	assert_int_equal(config->n_stores, 2);
	assert_string_equal(config->stores[0]->place, "/a");
	assert_string_equal(config->stores[1]->name, "b");
	assert_string_equal(config->stores[1]->place, "/a/b");
	assert_false(config->stores[1]->embedded);
	config_free(config);
}

static void test_what_just_fits_into_the_buffer(void **state)
{
	(void)state;
	config_free(load(
	        SOURCE(EVERY "max_record = \"1M\" batch = { max_bytes = \"8M\" }") "buffer = { max_size = \"16M\" } "
	                                                                           "batch = { max_bytes = \"8M\" }"));
	config_free(load(
	        SOURCE(EVERY "max_record = \"64M\" batch = { max_bytes = \"64M\" }") "buffer = { max_size = \"1G\" }"));
}

static void test_paths_are_meant_from_the_files_folder(void **state)
{
	(void)state;
	struct config *config =
	        load("buffer = { path = \"./data/b.db\" } stores = { a = { kind = \"file\" path = \"lake/\" } }");
	assert_string_equal(config->buffer_path, in_folder("data/b.db"));
	assert_string_equal(config->socket, in_folder("data/millrace.sock"));
	assert_string_equal(config->stores[0]->place, in_folder("lake"));
	config_free(config);

	assert_int_equal(chdir(folder), 0); /* the same for a file that is named without a folder */
	char *lines = told("x.conf", 0, &config);
	assert_string_equal(config->buffer_path, in_folder("data/b.db"));
	config_free(config);
	free(lines);
	config = load("buffer = { path = \"b.db\" }");
	assert_string_equal(config->stores[0]->place, in_folder("objects"));
	config_free(config);
}

static void test_an_s3_store(void **state)
{
	(void)state;
	struct config *config = load("stores = { lake = { " S3("lake") " ca_file = \"./ca.pem\" } }");
	const struct config_store *store = config->stores[0];
	const struct s3_settings *s3 = store->settings;
	assert_ptr_equal(store->kind, &store_kind_s3);
	assert_string_equal(store->place, "http://minio.lan:9000/lake/landing");
	assert_false(store->embedded);
	assert_string_equal(s3->endpoint, "http://minio.lan:9000");
	assert_string_equal(s3->region, "us-east-1");
	assert_string_equal(s3->prefix, "landing");
	assert_string_equal(s3->ca_file, in_folder("ca.pem"));
	assert_int_equal(s3->parallel, 2);
	assert_int_equal(s3->upload_rate, 0);
	assert_int_equal(s3->timeout_ms, 60000);
	assert_false(s3->virtual_host);
	assert_memory_equal(s3->access_key, "file:", 5);
	assert_string_equal(s3->access_key + 5, in_folder("keys/access"));
	assert_string_equal(s3->secret_key, "env:LAKE_SECRET");
	assert_null(store->access_key); /* who only asks the daemon reads no secret */
	assert_null(store->secret_key);
	config_free(config);
}

static void test_secrets_are_read_for_a_run(void **state)
{
	(void)state;
	struct config *config;
	write_keys("AKIA\nnot this line\n");
	setenv("LAKE_SECRET", "hunter2", 1);
	write_file("x.conf", "stores = { disk = { kind = \"file\" path = \"/d\" } lake = { " S3("lake") " } }");
	char *lines = told_for(CONFIG_RUN, in_folder("x.conf"), 0, &config);
	assert_string_equal(lines, "");
	assert_null(config->stores[0]->secret_key);
	assert_string_equal(config->stores[1]->access_key, "AKIA");
	assert_string_equal(config->stores[1]->secret_key, "hunter2");
	config_free(config);
	free(lines);
}

static void test_secrets_that_cannot_be_read_are_mistakes(void **state)
{
	(void)state;
	static const char text[] =
	        "log = 1\nstores = { lake = { kind = \"s3\" endpoint = \"http://h\" bucket = \"lake\"\n"
	        "access_key = \"file:none\"\nsecret_key = \"env:LAKE_NONE\" } }";
	static const enum config_use uses[] = { CONFIG_RUN, CONFIG_CHECK };
	write_file("x.conf", text);
	for (size_t i = 0; i < 2; i++) {
		char *lines = told_for(uses[i], in_folder("x.conf"), -EINVAL, NULL);
		assert_string_equal(lines,
		                    "FILE:1: \"log\" wants \"text\" or \"json\", not a number\n"
		                    "FILE:3: \"access_key\" in store \"lake\": file:DIR/none: No such file or "
		                    "directory\n"
		                    "FILE:4: \"secret_key\" in store \"lake\": env:LAKE_NONE: the environment has "
		                    "no such variable\n");
		free(lines);
	}
	assert_told(text, "FILE:1: \"log\" wants \"text\" or \"json\", not a number\n");
}

/* Told by check alone, of the very file that it stands in. */
static void test_a_literal_secret_that_others_can_read(void **state)
{
	(void)state;
	static const char *const files[] = { "x.conf", "inc.conf" };
	struct config *config;
	write_keys("AKIA");
	write_file("x.conf", "stores = {\n@include \"inc.conf\"\n}\n");
	write_file("inc.conf", "lake = { kind = \"s3\" endpoint = \"http://h\" bucket = \"lake\"\n"
	                       "access_key = \"file:keys/access\"\nsecret_key = \"hunter2\" }\n");
	static const struct {
		mode_t x, inc;
		enum config_use use;
		bool told;
	} cases[] = { { 0644, 0600, CONFIG_CHECK, false },
		      { 0600, 0640, CONFIG_CHECK, true },
		      { 0600, 0604, CONFIG_CHECK, true },
		      { 0644, 0644, CONFIG_RUN, false },
		      { 0644, 0644, CONFIG_ASK, false } };
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		assert_int_equal(chmod(in_folder(files[0]), cases[i].x), 0);
		assert_int_equal(chmod(in_folder(files[1]), cases[i].inc), 0);
		char *lines = told_for(cases[i].use, in_folder("x.conf"), 0, &config);
		assert_string_equal(lines, !cases[i].told ? ""
		                                          : "DIR/inc.conf:3: warning: \"secret_key\" in store \"lake\" "
		                                            "stands in the file itself, which others can read; write "
		                                            "file:PATH or env:NAME, or chmod 600 DIR/inc.conf\n");
		config_free(config);
		free(lines);
	}
	assert_int_equal(remove(in_folder("inc.conf")), 0);
	assert_int_equal(remove(in_folder("x.conf")), 0); /* the next one is made with the mode that is usual */
}

static const struct option_pairs *headers_of(const struct config *config)
{
	return &((const struct rest_settings *)config->sources[0]->settings)->headers;
}

static void test_headers(void **state)
{
	(void)state;
	struct config *config = load(SOURCE("headers = { X-Api-Key = \"file:keys/access\"; Accept = \"text/csv\" }"));
	assert_int_equal(headers_of(config)->n, 2);
	assert_string_equal(headers_of(config)->pairs[0].name, "X-Api-Key");
	assert_memory_equal(headers_of(config)->pairs[0].reference, "file:", 5);
	assert_string_equal(headers_of(config)->pairs[0].reference + 5, in_folder("keys/access"));
	assert_null(headers_of(config)->pairs[0].value); /* who only asks the daemon reads no secret */
	assert_string_equal(headers_of(config)->pairs[1].reference, "text/csv");
	assert_null(headers_of(config)->pairs[1].value);
	config_free(config);

	write_keys("hunter2\n");
	char *lines = told_for(CONFIG_RUN, in_folder("x.conf"), 0, &config);
	assert_string_equal(lines, "");
	assert_string_equal(headers_of(config)->pairs[0].value, "hunter2");
	assert_string_equal(headers_of(config)->pairs[1].value, "text/csv");
	config_free(config);
	free(lines);
}

static void test_headers_that_cannot_be_read_are_mistakes(void **state)
{
	(void)state;
	static const char text[] =
	        SOURCE("headers = {\n A = \"env:LAKE_NONE\"\n B = \"file:none\"\n C = \"hunter\\n2\" }");
	static const enum config_use uses[] = { CONFIG_RUN, CONFIG_CHECK };
	config_free(load(text));
	for (size_t i = 0; i < 2; i++) {
		char *lines = told_for(uses[i], in_folder("x.conf"), -EINVAL, NULL);
		assert_string_equal(
		        lines,
		        "FILE:5: \"A\" in \"headers\" in source \"parking\": env:LAKE_NONE: the environment has no "
		        "such "
		        "variable\n"
		        "FILE:6: \"B\" in \"headers\" in source \"parking\": file:DIR/none: No such file or directory\n"
		        "FILE:7: \"C\" in \"headers\" in source \"parking\": (hidden): the secret has a control "
		        "character (byte 7)\n");
		free(lines);
	}
}

/* Only the first of those that are too many is told. */
static void test_headers_have_a_ceiling(void **state)
{
	(void)state;
	char text[4000] = "", headers[3500] = "";
	for (int i = 1; i <= OPTION_PAIRS_MAX + 2; i++) {
		size_t len = strlen(headers);
		snprintf(headers + len, sizeof headers - len, "H%d = \"text\"\n", i);
		snprintf(text, sizeof text, SOURCE("headers = { %s }"), headers);
		if (i == OPTION_PAIRS_MAX)
			config_free(load(text));
	}
	assert_told(text, "FILE:36: \"H33\" in \"headers\" in source \"parking\": it is one too many; up to 32 are "
	                  "taken\n");
}

/* Whether check says so depends on the name: not every header is a secret. */
static void test_a_literal_header_that_others_can_read(void **state)
{
	(void)state;
	static const struct {
		const char *header;
		enum config_use use;
		mode_t mode;
		bool told;
	} cases[] = {
		{ "X-Api-KEY = \"hunter2\"", CONFIG_CHECK, 0644, true },
		{ "authorization = \"hunter2\"", CONFIG_CHECK, 0640, true },
		{ "Cookie = \"hunter2\"", CONFIG_CHECK, 0644, true },
		{ "X-Tokens = \"hunter2\"", CONFIG_CHECK, 0644, true },
		{ "My-Secret = \"hunter2\"", CONFIG_CHECK, 0604, true },
		{ "Accept = \"text/csv\"", CONFIG_CHECK, 0644, false },
		{ "X-Api-Key = \"file:keys/access\"", CONFIG_CHECK, 0644, false },
		{ "X-Api-Key = \"hunter2\"", CONFIG_CHECK, 0600, false },
		{ "X-Api-Key = \"hunter2\"", CONFIG_RUN, 0644, false },
		{ "X-Api-Key = \"hunter2\"", CONFIG_ASK, 0644, false },
	};
	write_keys("AKIA");
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		char text[300], expected[300] = "";
		struct config *config;
		snprintf(text, sizeof text, SOURCE("headers = { %s }"), cases[i].header);
		write_file("x.conf", text);
		assert_int_equal(chmod(in_folder("x.conf"), cases[i].mode), 0);
		if (cases[i].told)
			snprintf(expected, sizeof expected,
			         "FILE:4: warning: \"%.*s\" in \"headers\" in source \"parking\" stands in the file "
			         "itself, which others can read; write file:PATH or env:NAME, or chmod 600 FILE\n",
			         (int)strcspn(cases[i].header, " "), cases[i].header);
		char *lines = told_for(cases[i].use, in_folder("x.conf"), 0, &config);
		assert_string_equal(lines, expected);
		config_free(config);
		free(lines);
	}
	assert_int_equal(remove(in_folder("x.conf")), 0);
}

static void test_a_proxys_password_that_others_can_read(void **state)
{
	(void)state;
	static const struct {
		const char *proxy;
		enum config_use use;
		mode_t mode;
		bool told;
	} cases[] = {
		{ "http://me:hunter2@proxy:3128", CONFIG_CHECK, 0644, true },
		{ "http://me:hunter2@proxy:3128", CONFIG_CHECK, 0600, false },
		{ "http://me:hunter2@proxy:3128", CONFIG_RUN, 0644, false },
		{ "http://me@proxy:3128", CONFIG_CHECK, 0644, false },
		{ "http://proxy:3128", CONFIG_CHECK, 0644, false },
		{ "", CONFIG_CHECK, 0644, false },
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		char text[300];
		struct config *config;
		snprintf(text, sizeof text, SOURCE("proxy = \"%s\""), cases[i].proxy);
		write_file("x.conf", text);
		assert_int_equal(chmod(in_folder("x.conf"), cases[i].mode), 0);
		char *lines = told_for(cases[i].use, in_folder("x.conf"), 0, &config);
		assert_string_equal(lines, !cases[i].told ? ""
		                                          : "FILE:4: warning: \"proxy\" in source \"parking\" has a "
		                                            "password, which stands in a file that others can read; "
		                                            "chmod 600 FILE\n");
		config_free(config);
		free(lines);
	}
	assert_int_equal(remove(in_folder("x.conf")), 0);
}

/* --- What a client needs --- */

static void assert_socket(const char *text, const char *expected)
{
	char *lines = NULL, *found = NULL;
	size_t len = 0;
	FILE *errors = open_memstream(&lines, &len);
	write_file("x.conf", text);
	assert_int_equal(config_find_socket(in_folder("x.conf"), errors, &found, NULL), 0);
	fclose(errors);
	assert_string_equal(lines, "");
	char *shown = neutral(found);
	assert_string_equal(shown, expected);
	free(shown);
	free(lines);
}

static void test_a_client_finds_the_socket_in_spite_of_mistakes(void **state)
{
	(void)state;
	assert_socket("", "/var/lib/millrace/millrace.sock");
	assert_socket("socket = \"run/m.sock\"", "DIR/run/m.sock");
	assert_socket("buffer = { path = \"b/b.db\" max_size = \"1\" }\nnonsense = 1\ndevice = \"a b\"",
	              "DIR/b/millrace.sock");
	assert_socket("socket = 7\nbuffer = { path = \"b.db\" }", "DIR/millrace.sock");
	assert_socket("buffer = 3\nsocket = \"m.sock\"", "DIR/m.sock");
	assert_socket("socket = \"m.sock\"\nstores = { x = { } }\nsources = { y = { kind = \"rust\" } Z = 1 }",
	              "DIR/m.sock");
}

static void test_a_client_of_a_file_that_is_none(void **state)
{
	(void)state;
	char *lines = NULL, *found = NULL;
	size_t len = 0;
	FILE *errors = open_memstream(&lines, &len);
	write_file("x.conf", "socket = \"m.sock\"\nsources = = { }\n");
	assert_int_equal(config_find_socket(in_folder("x.conf"), errors, &found, NULL), -EINVAL);
	assert_int_equal(config_find_socket(in_folder("none.conf"), errors, &found, NULL), -ENOENT);
	fclose(errors);
	assert_null(found);
	char *told = neutral(lines);
	assert_string_equal(told, "FILE:2: " SYNTAX "DIR/none.conf: no such file; name another with -c FILE\n");
	free(told);
}

/* --- Reloads --- */

static bool same_source(const char *a, const char *b)
{
	struct config *one = load_for_run(a), *two = load_for_run(b);
	bool same = config_same_source(one->sources[0], two->sources[0]);
	assert_int_equal(config_same_source(two->sources[0], one->sources[0]), same);
	config_free(one);
	config_free(two);
	return same;
}

static void test_what_makes_another_source(void **state)
{
	(void)state;
	static const char plain[] = SOURCE("headers = { A = \"env:LAKE_SECRET\" }");
	setenv("LAKE_SECRET", "hunter2", 1);
	assert_true(same_source(plain, plain));
	assert_true(same_source(plain, SOURCE("headers = { A = \"env:LAKE_SECRET\" }\n every = \"60s\"\n"
	                                      "stores = [ \"local\" ]\n batch = { max_records = 7 }")));
	assert_false(same_source(plain, SOURCE("headers = { A = \"env:LAKE_SECRET\" }\n every = \"61s\"")));
	assert_false(same_source(plain, SOURCE("headers = { A = \"env:LAKE_SECRET\" }\n enabled = false")));
	assert_false(same_source(plain, SOURCE("")));
	struct config *one = load_for_run(plain);
	setenv("LAKE_SECRET", "hunter3", 1);
	struct config *two = load_for_run(plain);
	assert_false(config_same_source(one->sources[0], two->sources[0]));
	config_free(one);
	config_free(two);
}

static bool same_store(const char *a, const char *b)
{
	struct config *one = load_for_run(a), *two = load_for_run(b);
	bool same = config_same_store(one->stores[0], two->stores[0]);
	assert_int_equal(config_same_store(two->stores[0], one->stores[0]), same);
	config_free(one);
	config_free(two);
	return same;
}

#define LAKE(more)                                                                                                     \
	"stores = { lake = { kind = \"s3\" endpoint = \"http://h\" bucket = \"lake\" access_key = "                    \
	"\"file:keys/access\"\n" more " } }"

static void test_what_makes_another_store(void **state)
{
	(void)state;
	static const char plain[] = LAKE("secret_key = \"env:LAKE_SECRET\"");
	static const char embedded[] = "buffer = { path = \"b.db\" }";
	setenv("LAKE_SECRET", "hunter2", 1);
	write_keys("AKIA");
	assert_true(same_store(plain, plain));
	assert_true(same_store(embedded, embedded));
	assert_false(same_store(plain, LAKE("secret_key = \"hunter2\"")));
	assert_false(same_store(plain, LAKE("secret_key = \"env:LAKE_SECRET\" prefix = \"p\"")));
	assert_false(same_store(plain, LAKE("secret_key = \"env:LAKE_SECRET\" parallel = 3")));
	assert_false(same_store(plain, embedded));
	assert_false(same_store(embedded, "buffer = { path = \"b.db\" } stores = { local = { kind = \"file\" "
	                                  "path = \"objects\" } }"));
	struct config *one = load_for_run(plain);
	setenv("LAKE_SECRET", "hunter3", 1);
	struct config *two = load_for_run(plain);
	assert_false(config_same_store(one->stores[0], two->stores[0]));
	setenv("LAKE_SECRET", "hunter2", 1);
	write_keys("other");
	struct config *three = load_for_run(plain);
	assert_false(config_same_store(one->stores[0], three->stores[0]));
	config_free(one);
	config_free(two);
	config_free(three);
}

#define REST(every) " kind = \"rest\"  url = \"http://h/\"  every = \"" every "\" "
#define DISK(path)  " kind = \"file\"  path = \"" path "\" "

static void test_what_is_the_same_is_kept(void **state)
{
	(void)state;
	struct config *before = load("sources = { gone = {" REST("1m") "}  same = {" REST(
	        "1m") "}\n"
	              "routed = {" REST("1m") "stores = [ \"a\" ] }  changed = {" REST(
	                      "1m") "} }\n"
	                            "stores = { x = {" DISK("/x") "}  a = {" DISK("/a") "}  b = {" DISK("/b") "} }");
	struct config *now = load("sources = { routed = {" REST(
	        "1m") "stores = [ \"b\", \"a\" ]\n"
	              "batch = { max_records = 7 } }  new = {" REST(
	                      "1m") "}\n"
	                            "changed = {" REST("2m") "}  same = {" REST(
	                                    "1m") "} }\n"
	                                          "stores = { b = {" DISK("/b2") "}  a = {" DISK("/a") "}  c = {" DISK(
	                                                  "/c") "} }");
	const struct config_source *same = before->sources[1], *routed = before->sources[2];
	const void *settings = routed->settings;
	const struct config_store *a = before->stores[1];
	config_keep(now, before);

	assert_int_equal(now->n_sources, 4);
	assert_ptr_equal(now->sources[0], routed);
	assert_ptr_equal(routed->settings, settings);
	assert_int_equal(routed->stores.n, 2); /* the routes are the new ones */
	assert_string_equal(routed->stores.names[0], "b");
	assert_int_equal(routed->batch.max_records, 7);
	assert_string_equal(now->sources[1]->name, "new");
	assert_int_equal(((struct rest_settings *)now->sources[2]->settings)->every_ms, 120000);
	assert_ptr_equal(now->sources[3], same);
	assert_int_equal(now->n_stores, 3);
	assert_string_equal(now->stores[0]->place, "/b2");
	assert_ptr_equal(now->stores[1], a);

	assert_int_equal(before->n_sources, 2);
	assert_string_equal(before->sources[0]->name, "gone");
	assert_string_equal(before->sources[1]->name, "changed");
	assert_int_equal(((struct rest_settings *)before->sources[1]->settings)->every_ms, 60000);
	assert_int_equal(before->n_stores, 2);
	assert_string_equal(before->stores[0]->name, "x");
	assert_string_equal(before->stores[1]->place, "/b");
	config_free(before);
	assert_string_equal(same->name, "same");
	config_free(now);
}

#define NAMED(name, more) name " = {" REST("1m") more "} "

static void test_what_a_reload_changes(void **state)
{
	(void)state;
	static const char plain[] = "sources = { " NAMED("a", "") NAMED("b", "") "}";
	assert_changes(plain, plain, "nothing changed");
	assert_changes(plain, "sources = { " NAMED("c", "") NAMED("b", "records = \"$\"") "}",
	               "added: source c; changed: source b; removed: source a");
	assert_changes(plain,
	               "log = \"json\" batch = { max_age = \"1m\" } buffer = { max_size = \"1G\" }"
	               "sources = { " NAMED("a", "") NAMED("b", "") "}",
	               "changed: log, buffer.max_size, batch.max_age");
	assert_changes(plain,
	               "sources = { " NAMED("a", "batch = { max_records = 7 }")
	                       NAMED("b", "stores = [ \"local\" ]") "}",
	               "changed: source a, source b");
	assert_changes("stores = { x = {" DISK("/x") "} y = {" DISK("/y") "} }",
	               "stores = { y = {" DISK("/y2") "} z = {" DISK("/z") "} }",
	               "added: store z; changed: store y; removed: store x");
}

/* As many whole names as there is room for, and how many more there are. */
static void test_many_changes(void **state)
{
	(void)state;
	static char text[64000] = "sources = { ";
	char told[CONFIG_CHANGES_MAX];
	size_t len = strlen(text);
	for (int i = 0; i < 300; i++)
		len += (size_t)snprintf(text + len, sizeof text - len, "source-number-%03d = {" REST("1m") "} ", i);
	snprintf(text + len, sizeof text - len, "}");
	struct config *none = load(""), *many = load(text);
	config_changes(many, none, told);
	assert_string_equal(told,
	                    "added: source source-number-000, source source-number-001, source source-number-002, "
	                    "source source-number-003, source source-number-004, source source-number-005 "
	                    "and 294 more");
	config_changes(none, many, told);
	assert_memory_equal(told, "removed: source source-number-000, ", 35);
	config_free(none);
	config_free(many);
}

static void test_what_is_taken_outlives_it(void **state)
{
	(void)state;
	struct config *config = load("sources = { a = {" REST("1m") "}  b = {" REST("2m") "}  c = {" REST(
	        "1m") "} }\n"
	              "stores = { x = {" DISK("/x") "}  y = {" DISK("/y") "} }");
	assert_null(config_take_source(config, "x"));
	assert_null(config_take_store(config, "a"));
	struct config_source *b = config_take_source(config, "b");
	struct config_store *y = config_take_store(config, "y");
	assert_null(config_take_source(config, "b"));
	assert_null(config_take_store(config, "y"));
	assert_int_equal(config->n_sources, 2);
	assert_string_equal(config->sources[1]->name, "c");
	assert_int_equal(config->n_stores, 1);
	config_free(config);
	assert_int_equal(((struct rest_settings *)b->settings)->every_ms, 120000);
	assert_string_equal(y->place, "/y");
	config_free_source(b);
	config_free_store(y);
	config_free_source(NULL);
	config_free_store(NULL);
}

static void test_a_long_path_is_told(void **state)
{
	(void)state;
	char text[700], name[520];
	memset(name, 'a', sizeof name);
	snprintf(text, sizeof text, "log = \"text\"\nsocket = \"/%.106s\"", name);
	config_free(load(text));
	snprintf(text, sizeof text, "log = \"text\"\nsocket = \"/%.107s\"", name);
	assert_told(text,
	            "FILE:2: the socket's path has 108 bytes, and up to 107 are possible; set socket = \"...\" to a "
	            "shorter one\n");
	snprintf(text, sizeof text, "buffer = {\n path = \"/%.100s/b.db\" }", name);
	assert_told(text,
	            "FILE:2: the socket's path has 115 bytes, and up to 107 are possible; set socket = \"...\" to a "
	            "shorter one\n");
	snprintf(text, sizeof text, "stores = {\n a = { kind = \"file\" path = \"/%.511s\" } }", name);
	assert_told(text, "FILE:2: the path has 512 bytes; up to 511 are taken\n");
}

static void test_a_host_name_that_is_no_device(void **state)
{
	(void)state;
	host = "my pi";
	config_free(load("device = \"pi\""));
	assert_told("log = \"text\"", "FILE: the host name \"my pi\" is no name for a device; set device = \"...\"\n");
	host = "pi-host";
}

static void test_a_byte_order_mark_is_skipped(void **state)
{
	(void)state;
	struct config *config = load("\xef\xbb\xbf"
	                             "device = \"bom\"");
	assert_string_equal(config->device, "bom");
	config_free(config);
	assert_told("\xef\xbb\xbf\nlog = 1\n", "FILE:2: \"log\" wants \"text\" or \"json\", not a number\n");
}

static void test_a_control_character_does_not_break_the_line(void **state)
{
	(void)state;
	assert_told("log = \"a\\n\\x1bb\"", "FILE:1: \"log\": \"a  b\" is not one of \"text\", \"json\"\n");
}

static void test_mistakes_in_an_included_file_name_it(void **state)
{
	(void)state;
	write_file("inc.conf",
	           "\nsources = { p = { kind = \"rest\" url = \"http://a\" every = \"1m\"\n evry = 1 } }\n");
	assert_told("log = \"text\"\n@include \"inc.conf\"\nlgo = 1\n",
	            "DIR/inc.conf:3: unknown setting \"evry\" in source \"p\"; did you mean \"every\"?\n"
	            "FILE:3: unknown setting \"lgo\"; did you mean \"log\"?\n");
	write_file("inc.conf", "\n\nx = = 1\n");
	assert_told("@include \"inc.conf\"", "DIR/inc.conf:3: " SYNTAX);
	write_file("inc.conf", "device = \"included\"");
	struct config *config = load("@include \"inc.conf\"\nlog = \"json\"");
	assert_string_equal(config->device, "included");
	config_free(config);
}

/* libconfig would end the process at a folder. */
static void test_what_cannot_be_included_is_told(void **state)
{
	(void)state;
	assert_int_equal(mkdir(in_folder("sub"), 0700), 0);
	write_file("inc.conf", "\n@include \"sub\"");
	assert_told("a = \"\\\"\n\"\n \t@include \"sub\"",
	            "FILE:3: included file: DIR/sub: cannot be read: Is a directory\n");
	assert_told("@include \"inc.conf\"",
	            "DIR/inc.conf:2: included file: DIR/sub: cannot be read: Is a directory\n");
	assert_told("@include \"none\"",
	            "FILE:1: included file: DIR/none: cannot be read: No such file or directory\n");
	assert_told("@include \"/etc/passwd\"",
	            "FILE:1: @include wants a name relative to the configuration's folder\n");
	assert_told("@include \"x.conf\"", "FILE:1: too many included files; 64 are taken, and 10 one in the other\n");
	config_free(load("/*\n@include \"sub\"\n*/\n#\n# @include \"none\"\n"));
}

static void test_a_file_that_cannot_be_read(void **state)
{
	(void)state;
	char *lines = told(in_folder("none.conf"), -ENOENT, NULL);
	assert_string_equal(lines, "DIR/none.conf: no such file; name another with -c FILE\n");
	free(lines);
	lines = told(folder, -EISDIR, NULL);
	assert_string_equal(lines, "DIR: cannot be read: Is a directory\n");
	free(lines);
	write_bytes("x.conf", "log\0= 1", 7);
	lines = told(in_folder("x.conf"), -EINVAL, NULL);
	assert_string_equal(lines, "FILE: holds a NUL byte; it must be a text in UTF-8\n");
	free(lines);
}

static void test_a_file_has_at_most_a_megabyte(void **state)
{
	(void)state;
	char *text = malloc(CONFIG_TEXT_MAX + 2);
	assert_non_null(text);
	memset(text, '\n', CONFIG_TEXT_MAX + 1);
	text[CONFIG_TEXT_MAX + 1] = '\0';
	config_free(load(text + 1));
	write_file("x.conf", text);
	char *lines = told(in_folder("x.conf"), -EFBIG, NULL);
	assert_string_equal(lines, "FILE: larger than 1 MB; no configuration is\n");
	free(lines);
	free(text);
}

static void test_print(void **state)
{
	(void)state;
	char *text = printed(load("buffer = { path = \"b.db\" }"));
	assert_string_equal(text, "FILE: fine: 0 sources, 1 store\n"
	                          "  store local: file DIR/objects\n"
	                          "  no source is named: nothing will be collected\n");
	free(text);
	text = printed(load(
	        "stores = { a = { kind = \"file\" path = \"/a\" } b = { kind = \"file\" path = \"/b\" } }\n"
	        "sources = { one = { kind = \"rest\" url = \"https://h.example/p?key=secret\" every = \"90s\" }\n"
	        "two = { kind = \"rest\" url = \"http://h/\" every = \"1h\" stores = [ \"b\" ] enabled = false } }"));
	assert_string_equal(text, "FILE: fine: 2 sources, 2 stores\n"
	                          "  source one: rest https://h.example/p, every 90s, to a, b\n"
	                          "  source two: rest http://h/, every 1h, to b, disabled\n"
	                          "  store a: file /a\n"
	                          "  store b: file /b\n");
	free(text);
}

static void test_json(void **state)
{
	(void)state;
	struct config *config =
	        load("device = \"pi\" buffer = { path = \"/b.db\" } batch = { max_age = \"90s\" }\n"
	             "stores = { lake = { kind = \"s3\" endpoint = \"https://h\" bucket = \"lake\" upload_rate = 1536\n"
	             "access_key = \"env:LAKE_KEY\" secret_key = \"hunter2\" }\n"
	             "disk = { kind = \"file\" path = \"/d\" } }\n"
	             "sources = { one = { kind = \"rest\" url = \"https://h/p?key=hunter2\" }\n"
	             "two = { kind = \"rest\" url = \"http://h/\" stores = [ \"disk\" ] enabled = false\n"
	             "batch = { max_records = 7 } } }");
	json_t *json = config_json(config);
	char *text = json_dumps(json, JSON_COMPACT);
	static const char rest[] =
	        "\"proxy\":\"\",\"every\":\"1m\",\"format\":\"json\",\"dedupe\":\"body\",\"timeout\":\"30s\","
	        "\"connect_timeout\":\"10s\",\"max_body\":\"16M\",\"max_record\":\"1M\","
	        "\"backoff_max\":\"5m\"";
	char *expected = NULL;
	assert_true(
	        asprintf(&expected,
	                 "{\"device\":\"pi\",\"socket\":\"/millrace.sock\",\"log\":\"text\",\"clock\":\"auto\","
	                 "\"clock_wait\":\"1h\","
	                 "\"buffer\":{\"path\":\"/"
	                 "b.db\",\"max_size\":\"512M\",\"on_full\":\"pause\",\"keep_delivered\":\"1d\"},"
	                 "\"batch\":{\"max_bytes\":\"8M\",\"max_records\":100000,\"max_age\":\"90s\"},"
	                 "\"stores\":{\"lake\":{\"kind\":\"s3\",\"endpoint\":\"https://h\",\"region\":\"us-east-1\","
	                 "\"bucket\":\"lake\",\"prefix\":\"\",\"access_key\":\"env:LAKE_KEY\",\"secret_key\":\"(hidden)"
	                 "\","
	                 "\"parallel\":2,\"upload_rate\":\"1536\",\"timeout\":\"1m\",\"virtual_host\":false},"
	                 "\"disk\":{\"kind\":\"file\",\"path\":\"/d\"}},"
	                 "\"sources\":{\"one\":{\"kind\":\"rest\",\"url\":\"https://h/p?(hidden)\",%s,\"enabled\":true,"
	                 "\"stores\":[\"lake\",\"disk\"],"
	                 "\"batch\":{\"max_bytes\":\"8M\",\"max_records\":100000,\"max_age\":\"90s\"}},"
	                 "\"two\":{\"kind\":\"rest\",\"url\":\"http://h/\",%s,\"stores\":[\"disk\"],\"enabled\":false,"
	                 "\"batch\":{\"max_bytes\":\"8M\",\"max_records\":7,\"max_age\":\"90s\"}}},"
	                 "\"machines\":{},\"jobs\":{}}",
	                 rest, rest) > 0);
	assert_string_equal(text, expected);
	free(expected);
	free(text);
	json_decref(json);
	config_free(config);
}

static char *shown(const struct config *config, const char *name)
{
	json_t *json = config_json(config);
	const json_t *source = json_object_get(json_object_get(json, "sources"), "parking");
	char *text = json_dumps(json_object_get(source, name), JSON_COMPACT | JSON_ENCODE_ANY);
	json_decref(json);
	assert_non_null(text);
	return text;
}

static void test_json_hides_what_may_be_secret(void **state)
{
	(void)state;
	struct config *config = load(SOURCE("headers = { X-Api-Key = \"env:LAKE_KEY\"; Accept = \"text/csv\" }\n"
	                                    "proxy = \"http://me:hunter2@proxy.lan:3128\""));
	char *text = shown(config, "headers");
	assert_string_equal(text, "{\"X-Api-Key\":\"env:LAKE_KEY\",\"Accept\":\"(hidden)\"}");
	free(text);
	text = shown(config, "proxy");
	assert_null(strstr(text, "hunter2"));
	assert_non_null(strstr(text, "(hidden)"));
	free(text);
	config_free(config);
	config = load(SOURCE("proxy = \"http://proxy.lan:3128\""));
	text = shown(config, "proxy");
	assert_string_equal(text, "\"http://proxy.lan:3128\"");
	free(text);
	config_free(config);
}

/* Run from the project's folder, as make does. */
static void test_the_sample_is_fine(void **state)
{
	struct config *config;
	char *lines = told(*state, 0, &config);
	assert_string_equal(lines, "");
	free(lines);
	assert_int_equal(config->n_sources, 1);
	assert_string_equal(config->sources[0]->name, "stavanger-parking");
	const struct rest_settings *rest = config->sources[0]->settings;
	assert_int_equal(rest->every_ms, 60000);
	assert_string_equal(rest->records, "$");
	config_free(config);
}

int main(void)
{
	char *sample = realpath("systemd/millrace.conf", NULL);
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_each_mistake_is_told_with_its_line),
		cmocka_unit_test(test_all_mistakes_are_told_in_the_files_order),
		cmocka_unit_test(test_defaults),
		cmocka_unit_test(test_defaults_of_a_source),
		cmocka_unit_test(test_every_setting_is_read),
		cmocka_unit_test(test_what_just_fits_into_the_buffer),
		cmocka_unit_test(test_paths_are_meant_from_the_files_folder),
		cmocka_unit_test(test_an_s3_store),
		cmocka_unit_test(test_secrets_are_read_for_a_run),
		cmocka_unit_test(test_secrets_that_cannot_be_read_are_mistakes),
		cmocka_unit_test(test_a_literal_secret_that_others_can_read),
		cmocka_unit_test(test_headers),
		cmocka_unit_test(test_headers_that_cannot_be_read_are_mistakes),
		cmocka_unit_test(test_headers_have_a_ceiling),
		cmocka_unit_test(test_a_literal_header_that_others_can_read),
		cmocka_unit_test(test_a_proxys_password_that_others_can_read),
		cmocka_unit_test(test_a_client_finds_the_socket_in_spite_of_mistakes),
		cmocka_unit_test(test_a_client_of_a_file_that_is_none),
		cmocka_unit_test(test_what_makes_another_source),
		cmocka_unit_test(test_what_makes_another_store),
		cmocka_unit_test(test_what_is_the_same_is_kept),
		cmocka_unit_test(test_what_a_reload_changes),
		cmocka_unit_test(test_many_changes),
		cmocka_unit_test(test_what_is_taken_outlives_it),
		cmocka_unit_test(test_a_long_path_is_told),
		cmocka_unit_test(test_a_host_name_that_is_no_device),
		cmocka_unit_test(test_a_byte_order_mark_is_skipped),
		cmocka_unit_test(test_a_control_character_does_not_break_the_line),
		cmocka_unit_test(test_mistakes_in_an_included_file_name_it),
		cmocka_unit_test(test_what_cannot_be_included_is_told),
		cmocka_unit_test(test_a_file_that_cannot_be_read),
		cmocka_unit_test(test_a_file_has_at_most_a_megabyte),
		cmocka_unit_test(test_print),
		cmocka_unit_test(test_json),
		cmocka_unit_test(test_json_hides_what_may_be_secret),
		cmocka_unit_test_prestate(test_the_sample_is_fine, sample ? sample : "systemd/millrace.conf"),
	};
	int failed = cmocka_run_group_tests(tests, make_folder, remove_folder);
	free(sample);
	return failed;
}
