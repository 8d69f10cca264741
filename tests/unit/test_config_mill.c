/* SPDX-License-Identifier: Apache-2.0 */
/* The groups `machines` and `jobs`. */
#include "tests/unit/config_box.h"

#include "agent/config_mill_private.h"
#include "buffer/ledger.h"
#include "buffer/store_s3.h"

#define REST(more) " kind = \"rest\"  url = \"http://h/\"  every = \"1m\" " more
#define LAKE(more)                                                                                                     \
	"lake = { kind = \"s3\" endpoint = \"http://minio.lan:9000\" bucket = \"lake\" prefix = \"landing\" "          \
	"access_key = \"AKIA\" secret_key = \"hunter2\" " more " } "
#define DISK "disk = { kind = \"file\" path = \"/d\" } "
#define TWO  "sources = { parking = {" REST("") "} trains = {" REST("") "} }\n"

/* Each is one line; the third is the job's first. */
#define ONE_STORE  "device = \"pi\" stores = { " LAKE("") "} " TWO
#define TWO_STORES "device = \"pi\" stores = { " LAKE("") DISK "} " TWO
#define MILL(more)                                                                                                     \
	"machines = { mill = { host = \"mill.lan\" mac = \"aa:bb:cc:dd:ee:ff\" key = \"file:/k\" " more " } }\n"
#define JOB(settings) "jobs = { load = {\n" settings "\n} }\n"
#define ON_MILL       "machine = \"mill\" when = \"batches >= 6\"\n"
#define AFTER(job)    "machine = \"mill\" when = \"after " job "\""
#define BY_HTTP       "driver = \"http\" when = \"age >= 1h\"\nurl = \"http://h/\" status_url = \"http://h/\" "
#define POLLS_ALONE                                                                                                    \
	"\"sources\" in job \"load\" names \"_polls\" alone, which makes no job due: \"when\" waits for others; name " \
	"a "                                                                                                           \
	"source beside it, or let \"when\" be \"after JOB\"\n"
#define PLAIN       ONE_STORE MILL("") JOB(ON_MILL)

#define NAME_ADVICE "it has small letters, digits, _ and -, a letter first, up to 63\n"
#define GRAMMAR                                                                                                        \
	"when is \"batches >= NUMBER\", \"age >= DURATION\", \"cron MINUTE HOUR DAY MONTH WEEKDAY\" or \"after "       \
	"JOB\", joined by and, or\n"
#define KEY_FORM                                                                                                       \
	" is not \"file:\" with the key's full path, like "                                                            \
	"\"file:/etc/millrace/mill_key\"\n"
#define INTERFACE_FORM " is no name of a network interface, as `ip link` tells them: \"eth0\", up to 15 characters\n"
#define KEY_WANTED     " wants \"key\", the file of the ssh key\n"

static const struct {
	const char *text, *told;
} mistakes[] = {
	/* machines, each by itself */
	{ "machines = ( )", "FILE:1: \"machines\" wants a group, machines = { ... }, not a list ( ... )\n" },
	{ "machines = {\n mill = \"mill.lan\" }",
	  "FILE:2: \"mill\" in machines wants a group, mill = { ... }, not text\n" },
	{ "machines = {\n Mill = { } }", "FILE:2: \"Mill\" is no name for a machine; " NAME_ADVICE },
	{ "machines = {\n mill = {\n} }", "FILE:2: machine \"mill\" has no host; add host = \"...\"\n" },
	{ ONE_STORE MILL("\nwach = \"wol\""), "FILE:3: unknown setting \"wach\" in machine \"mill\"; did you mean "
	                                      "\"wake\"?\n" },
	{ ONE_STORE MILL("\nwake = \"wall\"\nidle = \"1s\""),
	  "FILE:3: \"wake\" in machine \"mill\": \"wall\" is not one of \"wol\", \"exec\", \"none\"; did you mean "
	  "\"wol\"?\n"
	  "FILE:4: \"idle\" in machine \"mill\": \"1s\" is out of range; it must be between \"10s\" and \"7d\"\n" },
	{ "machines = { mill = { host = \"h\" mac = \"aa:bb:cc:dd:ee:ff\"\nkey = \"file:mill_key\" } }",
	  "FILE:2: \"key\" in machine \"mill\": \"file:mill_key\"" KEY_FORM },
	{ "machines = { mill = { host = \"h\" mac = \"aa:bb:cc:dd:ee:ff\"\nkey = \"/etc/mill_key\" } }",
	  "FILE:2: \"key\" in machine \"mill\": \"/etc/mill_key\"" KEY_FORM },
	{ "machines = { mill = { host = \"h\" mac = \"aa:bb:cc:dd:ee:ff\"\nkey = \"env:FOO\" } }",
	  "FILE:2: \"key\" in machine \"mill\": \"env:FOO\"" KEY_FORM },
	{ ONE_STORE MILL("\ninterface = \"eth 0\""),
	  "FILE:3: \"interface\" in machine \"mill\": \"eth 0\"" INTERFACE_FORM },
	{ ONE_STORE MILL("\ninterface = \"\""), "FILE:3: \"interface\" in machine \"mill\": \"\"" INTERFACE_FORM },
	{ ONE_STORE MILL("\ninterface = \"enx0123456789abc\""),
	  "FILE:3: \"interface\" in machine \"mill\": \"enx0123456789abc\"" INTERFACE_FORM },

	/* what one of its settings makes necessary; not told where others are wrong already */
	{ "machines = {\n mill = { host = \"h\" key = \"file:/k\" } }",
	  "FILE:2: machine \"mill\": wake = \"wol\" wants \"mac\", the address of the machine's network card\n" },
	{ "machines = {\n mill = { host = \"h\" key = \"file:/k\"\n mac = \"aa\" } }",
	  "FILE:3: \"mac\" in machine \"mill\": \"aa\" is no machine's MAC address; write it like "
	  "\"aa:bb:cc:dd:ee:ff\"\n" },
	{ "machines = {\n mill = { host = \"h\" wake = \"exec\" } }",
	  "FILE:2: machine \"mill\": wake = \"exec\" wants \"command\"\n" },
	{ "machines = {\n mill = { host = \"h\" wake = \"none\" } }",
	  "FILE:2: machine \"mill\": ready = \"ssh\"" KEY_WANTED },
	{ "machines = {\n mill = { host = \"h\" wake = \"exec\" command = \"true\" ready = \"tcp\" } }",
	  "FILE:2: machine \"mill\": sleep = true, the default, wants \"key\", the file of the ssh key; or set sleep "
	  "= false\n" },

	/* jobs, each by itself */
	{ "jobs = 5", "FILE:1: \"jobs\" wants a group, jobs = { ... }, not a number\n" },
	{ "jobs = {\n load = [ \"a\" ] }",
	  "FILE:2: \"load\" in jobs wants a group, load = { ... }, not an array [ ... ]\n" },
	{ "jobs = {\n Load = { } }", "FILE:2: \"Load\" is no name for a job; " NAME_ADVICE },
	{ ONE_STORE MILL("") JOB("machine = \"mill\""), "FILE:3: job \"load\" has no when; add when = \"...\"\n" },
	{ ONE_STORE MILL("") JOB("machine = \"mill\"\nwhen = \"batches > 6\""),
	  "FILE:5: \"when\" in job \"load\": at character 9 stands \">\", where \">=\" must stand; " GRAMMAR },
	{ ONE_STORE MILL("") JOB(ON_MILL "timeout = \"999ms\"\nretries = 101"),
	  "FILE:5: \"timeout\" in job \"load\": \"999ms\" is out of range; it must be between \"1s\" and \"7d\"\n"
	  "FILE:6: \"retries\" in job \"load\": \"101\" is out of range; it must be between 0 and 100\n" },
	{ ONE_STORE MILL("") JOB(ON_MILL "timeout = \"169h\"\nretries = -1"),
	  "FILE:5: \"timeout\" in job \"load\": \"169h\" is out of range; it must be between \"1s\" and \"7d\"\n"
	  "FILE:6: \"retries\" in job \"load\": \"-1\" is out of range; it must be between 0 and 100\n" },

	/* drivers */
	{ ONE_STORE MILL("") JOB(ON_MILL "driver = \"shh\"\nanything = 1"),
	  "FILE:5: unknown driver \"shh\" in job \"load\"; did you mean \"ssh\"?\n" },
	{ ONE_STORE MILL("") JOB(ON_MILL "driver = \"mqtt\""),
	  "FILE:5: unknown driver \"mqtt\" in job \"load\"; known: ssh, exec, http\n" },
	{ ONE_STORE MILL("") JOB(ON_MILL "driver = 1"),
	  "FILE:5: \"driver\" in job \"load\" wants text in quotes, such as \"ssh\"\n" },
	{ ONE_STORE MILL("") JOB(ON_MILL "run = \"Load\""),
	  "FILE:5: \"run\" in job \"load\": \"Load\" is no job's name; it has small letters, digits, _ and -, a "
	  "letter first\n" },
	{ ONE_STORE MILL("") JOB(ON_MILL "command = \"/bin/true\""),
	  "FILE:5: unknown setting \"command\" in job \"load\"; known: driver, machine, store, sources, when, "
	  "timeout, retries, path_there, run\n" },
	{ ONE_STORE JOB("driver = \"exec\" when = \"age >= 1h\""),
	  "FILE:2: job \"load\" has no command; add command = \"...\"\n" },
	{ ONE_STORE JOB("driver = \"http\" when = \"age >= 1h\"\nurl = \"http://h/\"\nstatus_url = \"h\""),
	  "FILE:5: \"status_url\" in job \"load\": not a URL (Bad scheme); write it like \"https://host/path\"\n" },

	{ ONE_STORE JOB(BY_HTTP "done = \"success, ok\"\nfailed = \"failed ok\""),
	  "FILE:5: \"ok\" is among \"done\" and \"failed\" in job \"load\"; it can mean only one of them\n" },
	{ ONE_STORE JOB(BY_HTTP "running = \"up\"\ndone = \"up,success\"\nfailed = \"success\""),
	  "FILE:5: \"up\" is among \"running\" and \"done\" in job \"load\"; it can mean only one of them\n"
	  "FILE:6: \"success\" is among \"done\" and \"failed\" in job \"load\"; it can mean only one of them\n" },
	{ ONE_STORE JOB(BY_HTTP "\nrunning = \"failed\""), /* the other one is the default */
	  "FILE:5: \"failed\" is among \"running\" and \"failed\" in job \"load\"; it can mean only one of them\n" },

	/* its machine */
	{ ONE_STORE MILL("") JOB("when = \"age >= 1h\""),
	  "FILE:3: job \"load\" has no machine, and driver = \"ssh\" wants one; add machine = \"mill\"\n" },
	{ ONE_STORE JOB("when = \"age >= 1h\""),
	  "FILE:2: job \"load\" has no machine, and driver = \"ssh\" wants one; add machine = \"...\"\n" },
	{ ONE_STORE JOB("when = \"age >= 1h\"\nmachine = \"mill\""),
	  "FILE:4: unknown machine \"mill\" in job \"load\"; add it: machines = { mill = { ... } }\n" },
	{ ONE_STORE MILL("") JOB("when = \"age >= 1h\"\nmachine = \"mil\""),
	  "FILE:5: unknown machine \"mil\" in job \"load\"; did you mean \"mill\"?\n" },
	{ ONE_STORE MILL("") JOB("when = \"age >= 1h\"\nmachine = \"attic\" driver = \"exec\" command = \"true\""),
	  "FILE:5: unknown machine \"attic\" in job \"load\"; known: mill\n" },
	{ ONE_STORE MILL("") JOB("when = \"age >= 1h\"\nmachine = 7"),
	  "FILE:5: \"machine\" in job \"load\" wants text in quotes, not a number\n" },
	{ ONE_STORE "machines = { mill = { host = \"h\" wake = \"none\" ready = \"tcp\" } }\n" JOB(
	          "when = \"age >= 1h\"\nmachine = \"mill\""),
	  "FILE:5: job \"load\" runs on machine \"mill\", which has no key for driver = \"ssh\"; add key = "
	  "\"file:PATH\" there\n" },
	{ ONE_STORE "machines = { mill = { host = \"h\" wake = \"none\" } }\n" JOB(ON_MILL), /* told once */
	  "FILE:2: machine \"mill\": ready = \"ssh\"" KEY_WANTED },

	/* its store */
	{ TWO_STORES MILL("") JOB(ON_MILL),
	  "FILE:3: job \"load\" has no store, and there are 2; add store = \"lake\"\n" },
	{ TWO_STORES MILL("") JOB(ON_MILL "store = \"lakes\""),
	  "FILE:5: unknown store \"lakes\" in job \"load\"; did you mean \"lake\"?\n" },
	{ ONE_STORE MILL("") JOB(ON_MILL "store = 5"),
	  "FILE:5: \"store\" in job \"load\" wants text in quotes, not a number\n" },
	{ TWO_STORES MILL("") JOB(ON_MILL "store = \"disk\""),
	  "FILE:3: job \"load\" has no path_there; store \"disk\" is a folder here: add path_there = \"/...\", where "
	  "the machine finds it\n" },
	{ "device = \"pi\"\n" MILL("") JOB(ON_MILL),
	  "FILE:3: job \"load\" has no path_there; store \"local\" is a folder here: add path_there = \"/...\", where "
	  "the machine finds it\n" },
	{ "device = \"pi\"\n" MILL("") JOB(ON_MILL "store = \"lake\""),
	  "FILE:5: unknown store \"lake\" in job \"load\"; known: local\n" },
	{ TWO_STORES MILL("") JOB(ON_MILL "store = \"disk\"\npath_there = \"lake\""),
	  "FILE:6: \"path_there\" in job \"load\": \"lake\" does not begin with /; it is where the machine finds the "
	  "store, as in \"/mnt/lake\"\n" },
	{ TWO_STORES MILL("") JOB(ON_MILL "store = \"disk\"\npath_there = \"/\xff\""),
	  "FILE:6: \"path_there\" in job \"load\": the path is not UTF-8\n" },
	{ ONE_STORE MILL("") JOB(ON_MILL "path_there = \"/mnt/lake\""),
	  "FILE:5: \"path_there\" in job \"load\": store \"lake\" is no folder but of kind \"s3\"; leave it out\n" },
	{ "device = \"pi\" stores = { lake = { kind = \"s5\" } }\n" MILL("") JOB(ON_MILL "path_there = \"/mnt\""),
	  "FILE:1: unknown kind \"s5\" in store \"lake\"; did you mean \"s3\"?\n" },
	{ "device = \"pi\" stores = [ \"lake\" ]\n" MILL("") JOB(ON_MILL "store = \"lake\""),
	  "FILE:1: \"stores\" wants a group, stores = { ... }, not an array [ ... ]\n" },

	/* its sources */
	{ ONE_STORE MILL("") JOB(ON_MILL "sources = [ ]"),
	  "FILE:5: \"sources\" in job \"load\" is empty; name a source, or leave it out for all that go to its "
	  "store\n" },
	{ ONE_STORE MILL("") JOB(ON_MILL "sources = [ \"parking\", \"train\", \"ferries\" ]"),
	  "FILE:5: unknown source \"train\" in job \"load\"; did you mean \"trains\"?\n"
	  "FILE:5: unknown source \"ferries\" in job \"load\"; known: parking, trains, _polls\n" },
	{ ONE_STORE MILL("") JOB(ON_MILL "sources = [ \"_rejects\" ]"),
	  "FILE:5: \"sources\" in job \"load\": \"_rejects\" is no name of a source, nor \"_polls\"\n" },
	{ ONE_STORE MILL("") JOB(ON_MILL "sources = [ \"_polls\", \"_polls\" ]"),
	  "FILE:5: \"sources\" in job \"load\": \"_polls\" stands there twice\n" },
	{ ONE_STORE MILL("") JOB(ON_MILL "sources = \"parking\""),
	  "FILE:5: \"sources\" in job \"load\" wants an array of names such as [ \"one\", \"two\" ], not text\n" },
	{ "device = \"pi\" stores = { " LAKE("") DISK
	  "} sources = { parking = {" REST("stores = [ \"lake\" ]") "} all = {" REST("") "} }\n" MILL("")
	          JOB(ON_MILL "store = \"disk\" path_there = \"/d\"\nsources = [ \"all\", \"parking\" ]"),
	  "FILE:6: \"sources\" in job \"load\": source \"parking\" does not go to store \"disk\"; name that in its "
	  "\"stores\", or leave the source out here\n" },

	{ ONE_STORE MILL("") JOB(ON_MILL "sources = [ \"_polls\" ]"), "FILE:5: " POLLS_ALONE },
	{ ONE_STORE MILL("") JOB("machine = \"mill\" when = \"after lead or age >= 1h\"\nsources = [ \"_polls\" ]\n} "
	                         "lead = {\n" ON_MILL),
	  "FILE:5: " POLLS_ALONE },
	{ ONE_STORE MILL("") JOB("machine = \"mill\" when = \"cron 0 6 * * *\"\nsources = [ \"_polls\" ]"),
	  "FILE:5: " POLLS_ALONE },

	/* after another job */
	{ ONE_STORE MILL("") JOB("machine = \"mill\"\nwhen = \"age >= 1h or after load\""),
	  "FILE:5: \"when\" in job \"load\": it would wait for itself; name another job behind \"after\"\n" },
	{ ONE_STORE MILL("") JOB("machine = \"mill\"\nwhen = \"after lead and after report\""),
	  "FILE:5: unknown job \"lead\" in job \"load\"; did you mean \"load\"?\n"
	  "FILE:5: unknown job \"report\" in job \"load\"; known: load\n" },
	{ ONE_STORE MILL("")
	          JOB("machine = \"mill\"\nwhen = \"after lead or age >= 1h\"\n} lead = { machine = \"mill\"\n"
	              "when = \"after load\""),
	  "FILE:5: \"when\" in job \"load\" goes in a circle, load after lead after load: take one \"after\" out of "
	  "it\n" },
	{ ONE_STORE MILL("") "jobs = { a = {" AFTER("b or after d") "} b = {\n" AFTER("c") "} c = {" AFTER(
	          "d and after b") "} d = {" AFTER("e") "}\ne = {" AFTER("c") "} }",
	  "FILE:4: \"when\" in job \"b\" goes in a circle, b after c after b: take one \"after\" out of it\n"
	  "FILE:4: \"when\" in job \"c\" goes in a circle, c after d after e after c: take one \"after\" out of it\n" },
};

static void test_each_mistake_is_told_with_its_line(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof mistakes / sizeof *mistakes; i++)
		assert_told(mistakes[i].text, mistakes[i].told);
}

static void test_all_mistakes_are_told_at_once(void **state)
{
	(void)state;
	assert_told(
	        "jobs = { load = {\n"
	        "  when = \"sometimes\"\n"
	        "  machine = \"attic\"\n"
	        "  store = \"disk\"\n"
	        "  sources = [ \"ferries\" ]\n"
	        "} }\n"
	        "log = 1\n" TWO_STORES "machines = { mill = { host = \"h\" } }\n",
	        "FILE:2: \"when\" in job \"load\": at character 1 stands \"sometimes\", where batches, age, cron or "
	        "after must stand; " GRAMMAR "FILE:7: \"log\" wants \"text\" or \"json\", not a number\n"
	        "FILE:9: machine \"mill\": wake = \"wol\" wants \"mac\", the address of the machine's network card\n"
	        "FILE:3: unknown machine \"attic\" in job \"load\"; known: mill\n"
	        "FILE:1: job \"load\" has no path_there; store \"disk\" is a folder here: add path_there = \"/...\", "
	        "where the machine finds it\n"
	        "FILE:5: unknown source \"ferries\" in job \"load\"; known: parking, trains, _polls\n");
}

static void assert_ceiling(const char *groups, const char *member, int most, const char *expected)
{
	static char text[64000];
	size_t len = (size_t)snprintf(text, sizeof text, "%s%s = {\n", ONE_STORE MILL(""), groups);
	for (int i = 0; i < most + 2; i++) {
		if (i == most) {
			memcpy(text + len, "}", 2);
			config_free(load(text + (strcmp(groups, "machines") == 0 ? strlen(ONE_STORE MILL("")) : 0)));
		}
		len += (size_t)snprintf(text + len, sizeof text - len, "m%d = { %s }\n", i, member);
	}
	memcpy(text + len, "}", 2);
	assert_told(text + (strcmp(groups, "machines") == 0 ? strlen(ONE_STORE MILL("")) : 0), expected);
}

/* Of those that are too many the first is told. */
static void test_machines_and_jobs_have_a_ceiling(void **state)
{
	(void)state;
	assert_ceiling("machines", "host = \"h\" wake = \"none\" key = \"file:/k\"", CONFIG_MACHINES_MAX,
	               "FILE:18: machine \"m16\" is one too many; up to 16 are taken\n");
	assert_ceiling("jobs", ON_MILL, LEDGER_JOBS, "FILE:132: job \"m64\" is one too many; up to 64 are taken\n");
}

/* What is read */

static void assert_names(const struct option_names *list, const char *expected)
{
	char text[200] = "";
	for (size_t i = 0; i < list->n; i++) {
		size_t len = strlen(text);
		snprintf(text + len, sizeof text - len, "%s%s", i > 0 ? " " : "", list->names[i]);
	}
	assert_non_null(list->names);
	assert_string_equal(text, expected);
}

static void test_a_file_without_machines_and_jobs(void **state)
{
	(void)state;
	static const char *const texts[] = { "device = \"pi\"", "device = \"pi\" machines = { } jobs = { }" };
	for (size_t i = 0; i < 2; i++) {
		struct config *config = load(texts[i]);
		assert_int_equal(config->mill->n_machines, 0);
		assert_int_equal(config->mill->n_jobs, 0);
		config_free(config);
	}
}

static void test_every_setting_is_read(void **state)
{
	(void)state;
	struct config *config =
	        load(ONE_STORE
	             "jobs = { load = { machine = \"mill\"  driver = \"ssh\"  run = \"parking\"  store = \"lake\"\n"
	             "sources = [ \"parking\", \"_polls\" ]  when = \"batches >= 6 or\nage >= 6h\"  timeout = \"2h\"\n"
	             "retries = 0 } }\n"
	             "machines = { mill = { wake = \"wol\"  mac = \"aa:bb:cc:dd:ee:ff\"  interface = \"eth0\"\n"
	             "host = \"mill.lan\"  user = \"pi\"  key = \"file:/k\"  known_hosts = \"hosts\"\n"
	             "secure_on = \"file:keys/mill\"  idle = \"20m\"  wakes_per_day = 3  watts = 90 } }\n");
	const struct config_machine *machine = &config->mill->machines[0];
	const struct config_job *job = &config->mill->jobs[0];
	assert_int_equal(config->mill->n_machines, 1);
	assert_string_equal(machine->name, "mill");
	assert_int_equal(machine->settings.wake, MACHINE_WOL);
	assert_string_equal(machine->settings.mac, "aa:bb:cc:dd:ee:ff");
	assert_string_equal(machine->settings.host, "mill.lan");
	assert_string_equal(machine->settings.user, "pi");
	assert_string_equal(machine->settings.key, "file:/k");
	assert_string_equal(machine->settings.known_hosts, in_folder("hosts"));
	assert_string_equal(machine->settings.secure_on + 5, in_folder("keys/mill"));
	assert_null(machine->secure_on); /* who only asks the daemon reads no secret */
	assert_int_equal(machine->settings.idle_ms, 1200000);
	assert_int_equal(machine->settings.watts, 90);

	assert_int_equal(config->mill->n_jobs, 1);
	assert_string_equal(job->name, "load");
	assert_string_equal(job->machine, "mill");
	assert_ptr_equal(job->driver, &driver_ssh);
	assert_string_equal(*(char **)((char *)job->settings + option_find(driver_ssh.options, "run")->offset),
	                    "parking");
	assert_string_equal(job->store, "lake");
	assert_names(&job->sources, "parking _polls");
	assert_string_equal(job->when_text, "batches >= 6 or age >= 6h"); /* in one line */
	assert_int_equal(job->when.n, 2);
	assert_int_equal(job->when.conditions[1].age_ms, 21600000);
	assert_int_equal(job->timeout_ms, 7200000);
	assert_int_equal(job->retries, 0);
	config_free(config);
}

static void test_defaults_of_a_job(void **state)
{
	(void)state;
	struct config *config = load(PLAIN);
	const struct config_job *job = &config->mill->jobs[0];
	assert_ptr_equal(job->driver, &driver_ssh);
	assert_string_equal(job->store, "lake");
	assert_names(&job->sources, "parking trains"); /* `_polls` only where it is named */
	assert_int_equal(job->timeout_ms, 3600000);
	assert_int_equal(job->retries, 3);
	assert_null(job->path_there);
	config_free(config);
}

static void test_sources_left_out_are_those_of_the_store(void **state)
{
	(void)state;
	struct config *config = load("device = \"pi\" stores = { " LAKE("") DISK "} sources = { a = {" REST(
	        "stores = [ \"lake\" ]") "}\n"
	                                 "b = {" REST("stores = [ \"disk\", \"lake\" ]") "} c = {" REST(
	                                         "enabled = false") "}\n"
	                                                            "d = {" REST("stores = [ \"disk\" ]") "} }\n" MILL(
	                                                                    "") JOB(ON_MILL "store = \"lake\""));
	assert_names(&config->mill->jobs[0].sources, "a b c");
	config_free(config);
	config = load("device = \"pi\"\n" MILL("") JOB(ON_MILL "path_there = \"/mnt\""));
	assert_names(&config->mill->jobs[0].sources, "");
	config_free(config);
}

static void test_where_the_machine_finds_the_store(void **state)
{
	(void)state;
	struct config *config = load(PLAIN);
	const struct manifest_store *there = &config->mill->jobs[0].there;
	const struct s3_settings *s3 = config->stores[0]->settings;
	assert_string_equal(there->kind, "s3");
	assert_string_equal(there->endpoint, "http://minio.lan:9000");
	assert_string_equal(there->region, "us-east-1");
	assert_string_equal(there->bucket, "lake");
	assert_string_equal(there->prefix, "landing");
	assert_null(there->path);
	assert_ptr_not_equal(there->bucket, s3->bucket);
	config_free(config);

	static const char *const folders[] = {
		TWO_STORES MILL("") JOB(ON_MILL "store = \"disk\" path_there = \"/mnt/lake\""),
		"device = \"pi\"\n" MILL("") JOB(ON_MILL "path_there = \"/mnt/lake\""), /* the embedded one */
	};
	for (size_t i = 0; i < 2; i++) {
		config = load(folders[i]);
		there = &config->mill->jobs[0].there;
		assert_string_equal(there->kind, "file");
		assert_string_equal(there->path, "/mnt/lake");
		assert_null(there->prefix);
		assert_null(there->endpoint);
		config_free(config);
	}
}

static void test_jobs_that_need_no_machine(void **state)
{
	(void)state;
	struct config *config =
	        load(ONE_STORE "jobs = { a = { driver = \"exec\" command = \"/bin/true\" when = \"after b\" }\n"
	                       "b = { driver = \"http\" url = \"http://h/{run}\" status_url = \"http://h/{id}\"\n"
	                       "headers = { Authorization = \"env:MILL_TOKEN\" } when = \"cron 30 3 * * *\" } }\n");
	assert_ptr_equal(config->mill->jobs[0].driver, &driver_exec);
	assert_null(config->mill->jobs[0].machine);
	assert_ptr_equal(config->mill->jobs[1].driver, &driver_http);
	assert_null(config->mill->jobs[1].machine);
	config_free(config);
	config_free(load(ONE_STORE MILL("") JOB(ON_MILL "driver = \"exec\" command = \"/bin/true\"")));
}

/* Secrets */

static const struct option_pair *header_of(const struct config_job *job)
{
	const struct option *headers = option_find(driver_http.options, "headers");
	return ((struct option_pairs *)(void *)((char *)job->settings + headers->offset))->pairs;
}

#define REPORT(header)                                                                                                 \
	"jobs = { report = { driver = \"http\" url = \"http://h/\" status_url = \"http://h/\" when = \"age >= "        \
	"1h\"\nheaders = { " header " } } }\n"

static void test_secrets_are_read_for_a_run(void **state)
{
	(void)state;
	(void)mkdir(in_folder("keys"), 0700);
	write_file("keys/mill", "00:11:22:33:44:55\n");
	setenv("MILL_TOKEN", "Bearer hunter2", 1);
	struct config *config = load_for_run(ONE_STORE MILL("secure_on = \"file:keys/mill\"")
	                                             REPORT("Authorization = \"env:MILL_TOKEN\""));
	assert_string_equal(config->mill->machines[0].secure_on, "00:11:22:33:44:55");
	assert_string_equal(header_of(&config->mill->jobs[0])->value, "Bearer hunter2");
	config_free(config);
	config = load_for_run(PLAIN);
	assert_null(config->mill->machines[0].secure_on);
	config_free(config);
}

static void assert_told_for_run(const char *text, const char *expected)
{
	write_file("x.conf", text);
	char *lines = told_for(CONFIG_RUN, in_folder("x.conf"), -EINVAL, NULL);
	assert_string_equal(lines, expected);
	free(lines);
}

static void test_secrets_that_cannot_be_used_are_mistakes(void **state)
{
	(void)state;
	(void)mkdir(in_folder("keys"), 0700);
	write_file("keys/mill", "hunter2");
	assert_told_for_run(ONE_STORE MILL("\nsecure_on = \"file:none\""),
	                    "FILE:3: \"secure_on\" in machine \"mill\": file:DIR/none: No such file or directory\n");
	assert_told_for_run(ONE_STORE MILL("\nsecure_on = \"file:keys/mill\""),
	                    "FILE:3: \"secure_on\" in machine \"mill\": file:DIR/keys/mill: its value, which is not "
	                    "shown, is no SecureOn password; it is written like \"aa:bb:cc:dd:ee:ff\"\n");
	assert_told_for_run(ONE_STORE MILL("\nsecure_on = \"hunter2\""),
	                    "FILE:3: \"secure_on\" in machine \"mill\": (hidden): its value, which is not shown, is no "
	                    "SecureOn password; it is written like \"aa:bb:cc:dd:ee:ff\"\n");
	assert_told_for_run(
	        ONE_STORE REPORT("\nA = \"env:MILL_NONE\""),
	        "FILE:4: \"A\" in \"headers\" in job \"report\": env:MILL_NONE: the environment has no such "
	        "variable\n");
	config_free(load(ONE_STORE MILL("secure_on = \"hunter2\"") REPORT("A = \"env:MILL_NONE\""))); /* not read */
}

/* What check alone says, of a file of that mode. */
static void assert_warned(const char *text, mode_t mode, const char *expected)
{
	static const enum config_use silent[] = { CONFIG_ASK, CONFIG_RUN };
	struct config *config;
	write_file("x.conf", text);
	assert_int_equal(chmod(in_folder("x.conf"), mode), 0);
	char *lines = told_for(CONFIG_CHECK, in_folder("x.conf"), 0, &config);
	assert_string_equal(lines, expected);
	config_free(config);
	free(lines);
	for (size_t i = 0; i < 2; i++) {
		lines = told_for(silent[i], in_folder("x.conf"), 0, &config);
		assert_string_equal(lines, "");
		config_free(config);
		free(lines);
	}
	assert_int_equal(remove(in_folder("x.conf")), 0);
}

#define NO_STORE "device = \"pi\"\n"

static void test_secrets_in_the_file_that_others_can_read(void **state)
{
	(void)state;
	static const char text[] =
	        NO_STORE "machines = { mill = { host = \"h\" wake = \"exec\" sleep = false ready = \"tcp\"\n"
	                 "command = \"curl http://me:hunter2@plug.lan/on\"\n"
	                 "secure_on = \"00:11:22:33:44:55\" } }\n"
	                 "jobs = { report = { driver = \"http\" when = \"age >= 1h\" path_there = \"/mnt\"\n"
	                 "url = \"http://h/\" status_url = \"http://h/\"\n"
	                 "body = \"db://me:hunter2@h\"\n"
	                 "headers = { A = \"b\" Authorization = \"hunter2\" } } }\n";
	assert_warned(
	        text, 0644,
	        "FILE:3: warning: \"command\" in machine \"mill\" has a password, which stands in a file that "
	        "others can read; chmod 600 FILE\n"
	        "FILE:4: warning: \"secure_on\" in machine \"mill\" stands in the file itself, which others can "
	        "read; write file:PATH or env:NAME, or chmod 600 FILE\n"
	        "FILE:7: warning: \"body\" in job \"report\" has a password, which stands in a file that others can "
	        "read; chmod 600 FILE\n"
	        "FILE:8: warning: \"Authorization\" in \"headers\" in job \"report\" stands in the file itself, "
	        "which others can read; write file:PATH or env:NAME, or chmod 600 FILE\n");
	assert_warned(text, 0600, "");
}

/* It may be put there later, so that it is no mistake. */
static void test_a_key_that_ssh_would_not_take(void **state)
{
	(void)state;
	char text[600], *path = strdup(in_folder("keys/mill"));
	(void)mkdir(in_folder("keys"), 0700);
	(void)remove(path);
	snprintf(text, sizeof text,
	         NO_STORE "machines = { mill = { host = \"h\" wake = \"none\"\nkey = \"file:%s\" } }", path);
	assert_warned(
	        text, 0600,
	        "FILE:3: warning: machine \"mill\": the key DIR/keys/mill is not there (No such file or directory); "
	        "make one: ssh-keygen -t ed25519 -N '' -f DIR/keys/mill\n");
	write_file("keys/mill", "key");
	assert_int_equal(chmod(path, 0640), 0);
	assert_warned(text, 0600,
	              "FILE:3: warning: machine \"mill\": the key DIR/keys/mill may be read by others; type: chmod 600 "
	              "DIR/keys/mill\n");
	assert_int_equal(chmod(path, 0600), 0);
	assert_warned(text, 0600, "");
	snprintf(text, sizeof text,
	         NO_STORE "machines = { mill = { host = \"h\" wake = \"none\"\nkey = \"file:%s.pub\" } }", path);
	assert_warned(text, 0600,
	              "FILE:3: warning: machine \"mill\": DIR/keys/mill.pub is the public key; name the private one, "
	              "which stays here: DIR/keys/mill\n");
	free(path);
}

static void test_host_keys_that_are_not_there(void **state)
{
	(void)state;
	char text[600], *path = strdup(in_folder("keys/mill"));
	(void)mkdir(in_folder("keys"), 0700);
	write_file("keys/mill", "key");
	assert_int_equal(chmod(path, 0600), 0);
	snprintf(text, sizeof text,
	         NO_STORE "machines = { mill = { host = \"h\" wake = \"none\" key = \"file:%s\"\nknown_hosts = "
	                  "\"keys/none\" }\nattic = { host = \"h\" wake = \"none\" ready = \"tcp\" known_hosts = "
	                  "\"keys/none\" } }", /* which is never asked by ssh */
	         path);
	assert_warned(text, 0600,
	              "FILE:3: warning: \"known_hosts\" in machine \"mill\": DIR/keys/none: No such file or directory; "
	              "it is to have the machine's host key\n");
	*strstr(text, "none\" }") = '\0';
	strcat(text, "mill\" } }");
	assert_warned(text, 0600, "");
	free(path);
}

/* They may be put there later. */
static void test_programs_that_cannot_be_run(void **state)
{
	(void)state;
	char text[700], *path = strdup(in_folder("keys/mill"));
	static const char form[] =
	        NO_STORE "machines = { mill = { host = \"h\" wake = \"exec\" sleep = false ready = \"tcp\"\n"
	                 "command = \"%s on\" } }\n"
	                 "jobs = { copy = { driver = \"exec\" when = \"age >= 1h\" path_there = \"/mnt\"\n"
	                 "command = \"%s all\" } }\n";
	(void)mkdir(in_folder("keys"), 0700);
	write_file("keys/mill", "#!/bin/sh\n");
	assert_int_equal(chmod(path, 0644), 0);
	snprintf(text, sizeof text, form, "/nowhere/wake", path);
	assert_warned(
	        text, 0600,
	        "FILE:3: warning: \"command\" in machine \"mill\": \"/nowhere/wake\": No such file or directory\n"
	        "FILE:5: warning: \"command\" in job \"copy\": \"DIR/keys/mill\": this user may not run it (chmod "
	        "+x)\n");
	snprintf(text, sizeof text, form, "sh", "no-such-program-here");
	assert_warned(
	        text, 0600,
	        "FILE:5: warning: \"command\" in job \"copy\": \"no-such-program-here\": it is not on PATH; write "
	        "its whole path\n");
	assert_int_equal(chmod(path, 0755), 0);
	snprintf(text, sizeof text, form, path, path);
	assert_warned(text, 0600, "");
	free(path);
}

/* A file with mistakes is warned of, too, as far as it could be read. */
static void test_warnings_beside_mistakes(void **state)
{
	(void)state;
	write_file("x.conf",
	           NO_STORE "machines = { mill = { host = \"h\" } }\njobs = { a = { }\nb = { driver = \"exec\" "
	                    "path_there = \"/mnt\" when = \"age >= 1h\"\ncommand = \"/nowhere/job\" } }\n");
	char *lines = told_for(CONFIG_CHECK, in_folder("x.conf"), -EINVAL, NULL);
	assert_non_null(strstr(lines, "FILE:5: warning: \"command\" in job \"b\": \"/nowhere/job\": No such file"));
	free(lines);
}

static void assert_count(const char *text, const char *expected)
{
	char count[CONFIG_COUNT_MAX];
	struct config *config = load(text);
	config_count_mill(config->mill, count);
	assert_string_equal(count, expected);
	config_free(config);
}

/* For the log. */
static void test_how_many_there_are(void **state)
{
	(void)state;
	assert_count(ONE_STORE, "");
	assert_count(PLAIN, ", machines: 1, jobs: 1");
	assert_count(ONE_STORE JOB("driver = \"exec\" command = \"true\" when = \"age >= 1h\""),
	             ", machines: 0, jobs: 1");
}

static void test_circles_are_circles_only(void **state)
{
	(void)state;
	config_free(load(ONE_STORE MILL("") "jobs = { a = {" AFTER("b or after c") "} b = {" AFTER(
	        "c") "}\nc = {" ON_MILL "} d = {" AFTER("a and after b") "} }"));
	config_free(load(ONE_STORE MILL("") JOB(AFTER("lead") " sources = [ \"_polls\" ] } lead = {" ON_MILL)));
	config_free(load(ONE_STORE JOB(BY_HTTP "running = \"success-not-yet, run\"")));
}

/* Reloads */

static bool same_mill(const char *a, const char *b)
{
	struct config *one = load_for_run(a), *two = load_for_run(b);
	bool same = config_same_mill(one->mill, two->mill);
	assert_int_equal(config_same_mill(two->mill, one->mill), same);
	config_free(one);
	config_free(two);
	return same;
}

static void test_what_makes_another_mill(void **state)
{
	(void)state;
	static const char *const others[] = {
		ONE_STORE,
		ONE_STORE MILL(""),
		ONE_STORE MILL("watts = 90") JOB(ON_MILL),
		ONE_STORE MILL("secure_on = \"00:11:22:33:44:55\"") JOB(ON_MILL),
		ONE_STORE MILL("") JOB(ON_MILL "retries = 4"),
		ONE_STORE MILL("") JOB(ON_MILL "run = \"other\""),
		ONE_STORE MILL("") JOB(ON_MILL "sources = [ \"parking\" ]"),
		ONE_STORE MILL("") JOB("machine = \"mill\" when = \"batches >= 7\""),
		ONE_STORE MILL("") JOB(ON_MILL "driver = \"exec\" command = \"true\""),
		ONE_STORE MILL("") "jobs = { lead = {" ON_MILL "} }",
		ONE_STORE "machines = { mill = { host = \"mill.lan\" mac = \"aa:bb:cc:dd:ee:ff\" key = \"file:/k\" }\n"
		          "attic = { host = \"h\" wake = \"none\" key = \"file:/k\" } }\n" JOB(ON_MILL),
		"device = \"pi\" stores = { " LAKE("region = \"eu-1\"") "} " TWO MILL("") JOB(ON_MILL),
		"device = \"pi\" stores = { " LAKE("") "} sources = { parking = {" REST("") "} }\n" MILL("")
		        JOB(ON_MILL),
	};
	assert_true(same_mill(PLAIN, PLAIN));
	assert_true(same_mill(PLAIN,
	                      ONE_STORE MILL("idle = \"600s\"") JOB(ON_MILL "store = \"lake\"\n"
	                                                                    "sources = [ \"parking\", \"trains\" ]")));
	assert_true(
	        same_mill(PLAIN, "device = \"pi\" stores = { " LAKE("parallel = 3") "} " TWO MILL("") JOB(ON_MILL)));
	for (size_t i = 0; i < sizeof others / sizeof *others; i++)
		assert_false(same_mill(PLAIN, others[i]));
}

/* A file's order is no matter of those who work by it. */
static void test_order_makes_no_other_mill(void **state)
{
	(void)state;
	static const char a[] = "a = { driver = \"exec\" command = \"true\" when = \"age >= 1h\" } ";
	static const char b[] = "b = { driver = \"exec\" command = \"true\" when = \"age >= 2h\" } ";
	static const char m[] = "m = { host = \"m\" wake = \"none\" key = \"file:/k\" } ";
	static const char n[] = "n = { host = \"n\" wake = \"none\" key = \"file:/k\" } ";
	char one[1500], two[1500];
	snprintf(one, sizeof one, ONE_STORE "machines = { %s%s} jobs = { %s%s}", m, n, a, b);
	snprintf(two, sizeof two, ONE_STORE "machines = { %s%s} jobs = { %s%s}", n, m, b, a);
	assert_true(same_mill(one, two));
	assert_changes(one, two, "nothing changed");
}

static void test_another_secret_makes_another_mill(void **state)
{
	(void)state;
	static const char mill[] = ONE_STORE MILL("secure_on = \"env:MILL_SECURE\"");
	static const char report[] = ONE_STORE REPORT("A = \"env:MILL_TOKEN\"");
	setenv("MILL_SECURE", "00:11:22:33:44:55", 1);
	setenv("MILL_TOKEN", "one", 1);
	struct config *mill_before = load_for_run(mill), *report_before = load_for_run(report);
	assert_true(same_mill(mill, mill));
	assert_true(same_mill(report, report));
	setenv("MILL_SECURE", "00:11:22:33:44:56", 1);
	setenv("MILL_TOKEN", "two", 1);
	struct config *mill_now = load_for_run(mill), *report_now = load_for_run(report);
	assert_false(config_same_mill(mill_now->mill, mill_before->mill));
	assert_false(config_same_mill(report_now->mill, report_before->mill));
	config_free(mill_before);
	config_free(mill_now);
	config_free(report_before);
	config_free(report_now);
}

static void test_the_same_mill_is_kept(void **state)
{
	(void)state;
	struct config *before = load(PLAIN), *now = load(PLAIN "batch = { max_records = 7 }");
	struct config_mill *mill = before->mill;
	config_keep(now, before);
	assert_ptr_equal(now->mill, mill);
	assert_null(before->mill);
	config_free(before);
	assert_string_equal(mill->jobs[0].there.bucket, "lake"); /* of its own, whatever became of the store */

	before = now;
	now = load(ONE_STORE MILL("") JOB(ON_MILL "retries = 4"));
	config_keep(now, before);
	assert_ptr_equal(before->mill, mill);
	assert_int_equal(now->mill->jobs[0].retries, 4);
	config_free(before);
	config_free(now);
}

static void test_what_a_reload_changes(void **state)
{
	(void)state;
	static const char two[] =
	        ONE_STORE "machines = { mill = { host = \"mill.lan\" mac = \"aa:bb:cc:dd:ee:ff\" key = \"file:/k\" "
	                  "watts = 9 } attic = { host = \"h\" wake = \"none\" key = \"file:/k\" } }\n"
	                  "jobs = { load = { machine = \"mill\" when = \"batches >= 7\" }\n"
	                  "report = { machine = \"attic\" when = \"after load\" } }\n";
	assert_changes(PLAIN, PLAIN, "nothing changed");
	assert_changes(PLAIN, two, "added: machine attic, job report; changed: machine mill, job load");
	assert_changes(two, PLAIN, "changed: machine mill, job load; removed: machine attic, job report");
	assert_changes(ONE_STORE, PLAIN, "added: machine mill, job load");
	assert_changes(PLAIN, "device = \"pi\" stores = { " LAKE("region = \"eu-1\"") "} " TWO MILL("") JOB(ON_MILL),
	               "changed: store lake, job load");
}

/* What people see */

static void test_print(void **state)
{
	(void)state;
	char *text = printed(load("device = \"pi\" stores = { " LAKE("") "}\n" MILL(
	        "") "jobs = { load = { machine = \"mill\"\n"
	            "when = \"batches >= 6\nor age >= 6h\" }\n"
	            "report = { driver = \"exec\" command = \"true\" sources = [ \"_polls\" ] when = \"after "
	            "load\" } }"));
	assert_string_equal(text, "FILE: fine: 0 sources, 1 store, 1 machine, 2 jobs\n"
	                          "  store lake: s3 http://minio.lan:9000/lake/landing\n"
	                          "  machine mill: mill.lan, wake wol\n"
	                          "  job load: ssh on mill, of lake: nothing, when batches >= 6 or age >= 6h\n"
	                          "  job report: exec, of lake: _polls, when after load\n"
	                          "  no source is named: nothing will be collected\n");
	free(text);
	text = printed(load(PLAIN));
	assert_non_null(strstr(text, "  job load: ssh on mill, of lake: parking, trains, when batches >= 6\n"));
	free(text);
}

static void assert_json(struct config *config, const char *group, const char *expected)
{
	json_t *json = config_json(config);
	char *text = json_dumps(json_object_get(json, group), JSON_COMPACT);
	assert_string_equal(text, expected);
	free(text);
	json_decref(json);
	config_free(config);
}

static void test_json(void **state)
{
	(void)state;
	assert_json(load(ONE_STORE MILL("secure_on = \"00:11:22:33:44:55\" watts = 90")), "machines",
	            "{\"mill\":{\"wake\":\"wol\",\"mac\":\"aa:bb:cc:dd:ee:ff\",\"secure_on\":\"(hidden)\","
	            "\"host\":\"mill.lan\",\"user\":\"millrace\",\"key\":\"file:/k\",\"port\":22,\"ready\":\"ssh\","
	            "\"ready_port\":22,\"ready_timeout\":\"3m\",\"idle\":\"10m\",\"sleep\":true,\"wakes_per_day\":12,"
	            "\"watts\":90}}");
	assert_json(load(PLAIN), "jobs",
	            "{\"load\":{\"driver\":\"ssh\",\"machine\":\"mill\",\"store\":\"lake\",\"sources\":[\"parking\","
	            "\"trains\"],\"when\":\"batches >= 6\",\"timeout\":\"1h\",\"retries\":3}}");
	assert_json(load(ONE_STORE REPORT("A = \"hunter2\"; B = \"env:MILL_TOKEN\"")), "jobs",
	            "{\"report\":{\"driver\":\"http\",\"store\":\"lake\",\"sources\":[\"parking\",\"trains\"],\"when\":"
	            "\"age >= 1h\",\"timeout\":\"1h\",\"retries\":3,\"method\":\"POST\",\"url\":\"http://h/\",\"body\":"
	            "\"\",\"headers\":{\"A\":\"(hidden)\",\"B\":\"env:MILL_TOKEN\"},\"status_url\":\"http://h/\","
	            "\"status\":\"state\",\"running\":\"queued, running\",\"done\":\"success\",\"failed\":\"failed\","
	            "\"cancel_method\":\"POST\",\"cancel_body\":\"\",\"request_timeout\":\"30s\"}}");
	assert_json(load("device = \"pi\"\n" MILL("") JOB(ON_MILL "path_there = \"/mnt\"")), "jobs",
	            "{\"load\":{\"driver\":\"ssh\",\"machine\":\"mill\",\"store\":\"local\",\"sources\":[],"
	            "\"when\":\"batches >= 6\",\"timeout\":\"1h\",\"retries\":3,\"path_there\":\"/mnt\"}}");
}

/* Run from the project's folder, as make does. What the sample has of it is commented out, in groups. */
static void test_the_sample_is_fine_without_its_comments(void **state)
{
	char *text = calloc(1, 65536), line[1024];
	size_t len = 0;
	bool begun = false;
	FILE *sample = fopen(*state, "r");
	assert_non_null(text);
	assert_non_null(sample);
	while (fgets(line, sizeof line, sample)) {
		char *path_there = strstr(line, "#path_there"); /* its store is a folder */
		begun = begun || strncmp(line, "#machines = {", 13) == 0;
		if (path_there)
			*path_there = ' ';
		len += (size_t)snprintf(text + len, 65536 - len, "%s",
		                        begun && line[0] == '#' && line[1] != ' ' ? line + 1 : line);
	}
	assert_int_equal(fclose(sample), 0);
	struct config *config = load(text);
	assert_int_equal(config->mill->n_machines, 1);
	assert_int_equal(config->mill->n_jobs, 1);
	assert_names(&config->mill->jobs[0].sources, "stavanger-parking _polls");
	config_free(config);
	free(text);
}

int main(void)
{
	char *sample = realpath("systemd/millrace.conf", NULL);
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_each_mistake_is_told_with_its_line),
		cmocka_unit_test(test_all_mistakes_are_told_at_once),
		cmocka_unit_test(test_machines_and_jobs_have_a_ceiling),
		cmocka_unit_test(test_a_file_without_machines_and_jobs),
		cmocka_unit_test(test_every_setting_is_read),
		cmocka_unit_test(test_defaults_of_a_job),
		cmocka_unit_test(test_sources_left_out_are_those_of_the_store),
		cmocka_unit_test(test_where_the_machine_finds_the_store),
		cmocka_unit_test(test_jobs_that_need_no_machine),
		cmocka_unit_test(test_secrets_are_read_for_a_run),
		cmocka_unit_test(test_secrets_that_cannot_be_used_are_mistakes),
		cmocka_unit_test(test_secrets_in_the_file_that_others_can_read),
		cmocka_unit_test(test_a_key_that_ssh_would_not_take),
		cmocka_unit_test(test_host_keys_that_are_not_there),
		cmocka_unit_test(test_programs_that_cannot_be_run),
		cmocka_unit_test(test_warnings_beside_mistakes),
		cmocka_unit_test(test_how_many_there_are),
		cmocka_unit_test(test_circles_are_circles_only),
		cmocka_unit_test(test_what_makes_another_mill),
		cmocka_unit_test(test_order_makes_no_other_mill),
		cmocka_unit_test(test_another_secret_makes_another_mill),
		cmocka_unit_test(test_the_same_mill_is_kept),
		cmocka_unit_test(test_what_a_reload_changes),
		cmocka_unit_test(test_print),
		cmocka_unit_test(test_json),
		cmocka_unit_test_prestate(test_the_sample_is_fine_without_its_comments,
		                          sample ? sample : "systemd/millrace.conf"),
	};
	int failed = cmocka_run_group_tests(tests, make_folder, remove_folder);
	free(sample);
	return failed;
}
