/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/config_mill.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/config_mill_private.h"
#include "agent/config_options.h"
#include "base/secret.h"
#include "base/units.h"
#include "buffer/ledger.h"
#include "buffer/store_s3.h"
#include "mill/command.h"
#include "mill/ssh.h"

#define WHERE_MAX (UNITS_NAME_MAX + 32) /* bytes of `machine "mill"` */

/* Reading */

/* For calloc, which may give NULL for none. */
static size_t room(const config_setting_t *setting, size_t most)
{
	size_t n = (size_t)config_setting_length(setting);
	return (n < most ? n : most) + 1;
}

/* The members that are groups with names; of those that are too many the first is told. */
static int read_members(struct settings *s, const config_setting_t *setting, const char *what, unsigned most,
                        struct config_mill *mill,
                        int (*read)(struct settings *s, const config_setting_t *member, struct config_mill *mill))
{
	unsigned n = (unsigned)config_setting_length(setting);
	int r = 0;
	for (unsigned i = 0; i < n && i <= most && r == 0; i++) {
		const config_setting_t *member = config_setting_get_elem(setting, i);
		if (i == most)
			settings_mistake(s, member, "%s \"%.80s\" is one too many; up to %u are taken", what,
			                 config_setting_name(member), most);
		else if (settings_is_name(s, member, what) &&
		         settings_is_group(s, member, config_setting_name(setting)))
			r = read(s, member, mill);
	}
	return r;
}

static int read_machine(struct settings *s, const config_setting_t *setting, struct config_mill *mill)
{
	struct config_machine *machine = &mill->machines[mill->n_machines++];
	size_t mistakes = s->mistakes;
	char where[WHERE_MAX];
	struct err err;
	machine->name = strdup(config_setting_name(setting));
	if (!machine->name)
		return -ENOMEM;
	snprintf(where, sizeof where, "machine \"%s\"", machine->name);
	const struct settings_group group = { .where = where,
		                              .options = { machine_options },
		                              .targets = { &machine->settings } };
	int r = option_defaults(machine_options, &machine->settings);
	if (r == 0)
		r = settings_read(s, setting, &group);
	if (r == 0 && s->mistakes == mistakes && machine_check(&machine->settings, &err) < 0)
		settings_mistake(s, setting, "%s: %s", where, err.text);
	return r;
}

int config_read_machines(struct settings *s, const config_setting_t *setting, void *arg)
{
	struct config_mill *mill = ((struct config *)arg)->mill;
	if (!settings_is_group(s, setting, NULL))
		return 0;
	mill->machines = calloc(room(setting, CONFIG_MACHINES_MAX), sizeof *mill->machines);
	return mill->machines ? read_members(s, setting, "machine", CONFIG_MACHINES_MAX, mill, read_machine) : -ENOMEM;
}

/* NULL: what the group names is none, and that is told. */
static const struct driver_ops *find_driver(struct settings *s, const config_setting_t *group, const char *where)
{
	const config_setting_t *setting = config_setting_get_member(group, "driver");
	const char *kind = setting ? config_setting_get_string(setting) : driver_ssh.kind;
	const char *kinds[SETTINGS_GROUP_MAX] = { "" };
	size_t n = 0;
	if (!kind)
		settings_mistake(s, setting, "\"driver\" in %s wants text in quotes, such as \"%s\"", where,
		                 driver_ssh.kind);
	for (; kind && n < SETTINGS_GROUP_MAX && driver_kinds[n]; n++) {
		if (strcmp(driver_kinds[n]->kind, kind) == 0)
			return driver_kinds[n];
		kinds[n] = driver_kinds[n]->kind;
	}
	if (kind)
		settings_unknown(s, setting, "driver", kind, where, kinds, n);
	return NULL;
}

static int read_job_settings(struct settings *s, const config_setting_t *setting, const char *where,
                             struct config_job *job)
{
	static const struct settings_section sections[] = { { "driver", NULL }, { NULL, NULL } };
	int r = option_defaults(config_job_options, job);
	if (r < 0)
		return r;
	job->driver = find_driver(s, setting, where);
	if (job->driver) {
		job->settings = calloc(1, job->driver->settings_size);
		r = job->settings ? option_defaults(job->driver->options, job->settings) : -ENOMEM;
	}
	const struct settings_group group = { .where = where,
		                              .options = { config_job_options,
		                                           job->driver ? job->driver->options : NULL },
		                              .targets = { job, job->settings },
		                              .sections = sections,
		                              .any = !job->driver };
	return r < 0 ? r : settings_read(s, setting, &group);
}

static int read_job(struct settings *s, const config_setting_t *setting, struct config_mill *mill)
{
	struct config_job *job = &mill->jobs[mill->n_jobs++];
	char where[WHERE_MAX];
	job->name = strdup(config_setting_name(setting));
	if (!job->name)
		return -ENOMEM;
	snprintf(where, sizeof where, "job \"%s\"", job->name);
	return read_job_settings(s, setting, where, job);
}

int config_read_jobs(struct settings *s, const config_setting_t *setting, void *arg)
{
	struct config_mill *mill = ((struct config *)arg)->mill;
	if (!settings_is_group(s, setting, NULL))
		return 0;
	mill->jobs = calloc(room(setting, LEDGER_JOBS), sizeof *mill->jobs);
	return mill->jobs ? read_members(s, setting, "job", LEDGER_JOBS, mill, read_job) : -ENOMEM;
}

/* What jobs say of the rest of the file */

/* A job that is read; what it says wrongly, as far as that is told already, is NULL in it and yet in its group. */
struct draft {
	struct settings *s;
	const struct config *config;
	const config_setting_t *group;
	struct config_job *job;
	const struct config_store *store; /* NULL: not found */
	char where[WHERE_MAX];
};

static const config_setting_t *setting_of(const struct draft *d, const char *name)
{
	return config_setting_get_member(d->group, name);
}

static int check_machine(const struct draft *d)
{
	const config_setting_t *setting = setting_of(d, "machine");
	const struct config_machine *machine = NULL;
	size_t n;
	const char **known = settings_names(d->s, "machines", &n);
	bool by_ssh = d->job->driver == &driver_ssh;
	if (!known)
		return -ENOMEM;
	if (!setting && by_ssh)
		settings_mistake(d->s, d->group,
		                 "%s has no machine, and driver = \"ssh\" wants one; add machine = \"%.80s\"", d->where,
		                 n > 0 ? known[0] : "...");
	else if (d->job->machine && n == 0)
		settings_mistake(d->s, setting,
		                 "unknown machine \"%.80s\" in %s; add it: machines = { %.80s = { ... } }",
		                 d->job->machine, d->where, d->job->machine);
	else if (d->job->machine && settings_is_known(d->s, setting, "machine", d->job->machine, d->where, known, n))
		machine = config_find_machine(d->config->mill, d->job->machine);
	free(known);
	/* what machine_check says of a key stands at the machine already */
	if (by_ssh && machine && !machine->settings.key && machine_check(&machine->settings, NULL) == 0)
		settings_mistake(d->s, setting,
		                 "%s runs on machine \"%s\", which has no key for driver = \"ssh\"; add key = "
		                 "\"file:PATH\" there",
		                 d->where, machine->name);
	return 0;
}

static const struct config_store *find_store(const struct config *config, const char *name)
{
	for (size_t i = 0; name && i < config->n_stores; i++)
		if (strcmp(config->stores[i]->name, name) == 0)
			return config->stores[i];
	return NULL;
}

/* Fills in the only store where the job names none. */
static int complete_store(struct draft *d)
{
	const config_setting_t *setting = setting_of(d, "store");
	size_t n;
	int r = 0;
	const char **known = settings_names(d->s, "stores", &n);
	if (!known)
		return -ENOMEM;
	if (n == 0 && d->config->n_stores > 0)
		known[n++] = d->config->stores[0]->name; /* the embedded one */
	if (n > 0 && d->job->store) {                    /* without any, `stores` is no group, which is told already */
		settings_is_known(d->s, setting, "store", d->job->store, d->where, known, n);
	} else if (n == 1 && !setting) {
		d->job->store = strdup(known[0]);
		r = d->job->store ? 0 : -ENOMEM;
	} else if (n > 1 && !setting) {
		settings_mistake(d->s, d->group, "%s has no store, and there are %zu; add store = \"%.80s\"", d->where,
		                 n, known[0]);
	}
	free(known);
	d->store = find_store(d->config, d->job->store);
	return r;
}

static int copy(const char **ret_text, const char *text)
{
	*ret_text = text ? strdup(text) : NULL;
	return text && !*ret_text ? -ENOMEM : 0;
}

static int copy_s3(struct manifest_store *there, const struct s3_settings *settings)
{
	int r = copy(&there->endpoint, settings->endpoint);
	if (r == 0)
		r = copy(&there->region, settings->region);
	if (r == 0)
		r = copy(&there->bucket, settings->bucket);
	return r < 0 ? r : copy(&there->prefix, settings->prefix);
}

static int complete_there(const struct draft *d)
{
	const config_setting_t *setting = setting_of(d, "path_there");
	const struct config_store *store = d->store;
	if (!store || !store->kind)
		return 0;
	bool is_file = store->kind == &store_kind_file;
	if (is_file && !setting)
		settings_mistake(d->s, d->group,
		                 "%s has no path_there; store \"%s\" is a folder here: add path_there = \"/...\", "
		                 "where the machine finds it",
		                 d->where, store->name);
	else if (!is_file && setting)
		settings_mistake(d->s, setting,
		                 "\"path_there\" in %s: store \"%s\" is no folder but of kind \"%s\"; leave it out",
		                 d->where, store->name, store->kind->kind);
	struct manifest_store *there = &d->job->there;
	int r = copy(&there->kind, store->kind->kind);
	if (r < 0)
		return r;
	return is_file ? copy(&there->path, d->job->path_there) : copy_s3(there, store->settings);
}

static bool goes_to(const struct config_source *source, const char *store)
{
	for (size_t i = 0; source->stores.names && i < source->stores.n; i++)
		if (strcmp(source->stores.names[i], store) == 0)
			return true;
	return !source->stores.names;
}

static int check_sources(const struct draft *d, const config_setting_t *setting)
{
	const struct config *config = d->config;
	const struct option_names *list = &d->job->sources;
	size_t n;
	const char **known = settings_names(d->s, "sources", &n);
	if (!known)
		return -ENOMEM;
	known[n++] = UNITS_POLLS;
	if (list->names && list->n == 0)
		settings_mistake(
		        d->s, setting,
		        "\"sources\" in %s is empty; name a source, or leave it out for all that go to its store",
		        d->where);
	for (size_t i = 0; i < list->n; i++) {
		settings_is_known(d->s, setting, "source", list->names[i], d->where, known, n);
		for (size_t k = 0; d->store && k < config->n_sources; k++)
			if (strcmp(config->sources[k]->name, list->names[i]) == 0 &&
			    !goes_to(config->sources[k], d->store->name))
				settings_mistake(d->s, setting,
				                 "\"sources\" in %s: source \"%s\" does not go to store \"%s\"; name "
				                 "that in its \"stores\", or leave the source out here",
				                 d->where, list->names[i], d->store->name);
	}
	free(known);
	return 0;
}

/* All that go to its store. */
static int fill_sources(const struct draft *d)
{
	struct option_names *list = &d->job->sources;
	list->names = calloc(d->config->n_sources + 1, sizeof *list->names);
	if (!list->names)
		return -ENOMEM;
	for (size_t i = 0; d->store && i < d->config->n_sources; i++) {
		if (!goes_to(d->config->sources[i], d->store->name))
			continue;
		list->names[list->n] = strdup(d->config->sources[i]->name);
		if (!list->names[list->n])
			return -ENOMEM;
		list->n++;
	}
	return 0;
}

static int check_afters(const struct draft *d)
{
	const struct when *when = &d->job->when;
	size_t n;
	const char **known = settings_names(d->s, "jobs", &n);
	if (!known)
		return -ENOMEM;
	for (size_t i = 0; i < when->n; i++) {
		const char *name = when->conditions[i].job;
		if (when->conditions[i].kind != WHEN_AFTER)
			continue;
		if (strcmp(name, d->job->name) == 0)
			settings_mistake(d->s, setting_of(d, "when"),
			                 "\"when\" in %s: it would wait for itself; name another job behind \"after\"",
			                 d->where);
		else
			settings_is_known(d->s, setting_of(d, "when"), "job", name, d->where, known, n);
	}
	free(known);
	return 0;
}

/* Those can come true by `_polls` never; an "after" can, and beside it the job has runs. */
static void check_polls(const struct draft *d)
{
	const struct option_names *list = &d->job->sources;
	const struct when *when = &d->job->when;
	bool waits = false;
	for (size_t i = 0; i < when->n; i++)
		waits = waits || when->conditions[i].kind != WHEN_AFTER;
	if (waits && list->n == 1 && strcmp(list->names[0], UNITS_POLLS) == 0)
		settings_mistake(d->s, setting_of(d, "sources"),
		                 "\"sources\" in %s names \"%s\" alone, which makes no job due: \"when\" waits for "
		                 "others; name a source beside it, or let \"when\" be \"after JOB\"",
		                 d->where, UNITS_POLLS);
}

/* The option's check has told what is wrong with it. The grammar's spaces may be line ends, which no message has. */
static int complete_when(const struct draft *d)
{
	struct config_job *job = d->job;
	if (!job->when_text || when_parse(job->when_text, &job->when, NULL) < 0)
		return 0;
	for (char *c = job->when_text; *c; c++)
		if (*c == '\n' || *c == '\r' || *c == '\t')
			*c = ' ';
	check_polls(d);
	return check_afters(d);
}

/* A list of words with commas and spaces between, as driver = "http" has them. */
struct meaning {
	const char *name;
	const char *words;
};

static bool has_word(const char *list, const char *word, size_t len)
{
	while (*(list += strspn(list, ", "))) {
		size_t n = strcspn(list, ", ");
		if (n == len && memcmp(list, word, len) == 0)
			return true;
		list += n;
	}
	return false;
}

/* The first word of `a` that is in `b` too is told where either stands in the file. */
static void check_meanings(const struct draft *d, const struct meaning *a, const struct meaning *b)
{
	const config_setting_t *setting = setting_of(d, b->name);
	size_t len;
	for (const char *word = a->words; *(word += strspn(word, ", ")); word += len) {
		len = strcspn(word, ", ");
		if (!has_word(b->words, word, len))
			continue;
		settings_mistake(d->s, setting ? setting : setting_of(d, a->name),
		                 "\"%.*s\" is among \"%s\" and \"%s\" in %s; it can mean only one of them",
		                 (int)(len < 80 ? len : 80), word, a->name, b->name, d->where);
		return;
	}
}

/* One word that meant two things would be taken for the first that is looked at. */
static void check_words(const struct draft *d)
{
	struct meaning meanings[] = { { "running", NULL }, { "done", NULL }, { "failed", NULL } };
	size_t n = sizeof meanings / sizeof *meanings;
	for (size_t i = 0; i < n; i++) {
		const struct option *option = option_find(d->job->driver->options, meanings[i].name);
		meanings[i].words = *(char *const *)((const char *)d->job->settings + option->offset);
		for (size_t k = 0; k < i; k++)
			check_meanings(d, &meanings[k], &meanings[i]);
	}
}

static int complete_job(struct draft *d)
{
	const config_setting_t *sources = setting_of(d, "sources");
	snprintf(d->where, sizeof d->where, "job \"%s\"", d->job->name);
	int r = check_machine(d);
	if (r == 0)
		r = complete_store(d);
	if (r == 0)
		r = complete_there(d);
	if (r == 0)
		r = sources ? check_sources(d, sources) : fill_sources(d);
	if (r == 0 && d->job->driver == &driver_http)
		check_words(d);
	return r < 0 ? r : complete_when(d);
}

/* Circles of "after" */

#define CIRCLE_MAX 400 /* bytes of the names in one that are told */

static ssize_t index_of(const struct config_mill *mill, const char *name)
{
	const struct config_job *job = config_find_job(mill, name);
	return job ? job - mill->jobs : -1;
}

/* Puts the jobs by which `from` comes after `to` into path, in this order; how many, 0: it does not. */
static size_t find_way(const struct config_mill *mill, size_t from, size_t to, bool seen[LEDGER_JOBS],
                       size_t path[LEDGER_JOBS], size_t depth)
{
	const struct when *when = &mill->jobs[from].when;
	size_t n = 0;
	seen[from] = true;
	path[depth++] = from;
	for (size_t i = 0; i < when->n && n == 0; i++) {
		bool after = when->conditions[i].kind == WHEN_AFTER;
		ssize_t next = after ? index_of(mill, when->conditions[i].job) : -1;
		if (next == (ssize_t)to)
			n = depth;
		else if (next > (ssize_t)to && !seen[next]) /* one before it has told its own */
			n = find_way(mill, (size_t)next, to, seen, path, depth);
	}
	return n;
}

/* With "and" none of them would ever begin, with "or" none would ever rest. One alone is told by check_afters. */
static void check_circles(struct settings *s, const struct config_mill *mill, const config_setting_t *jobs)
{
	for (size_t i = 0; i < mill->n_jobs; i++) {
		bool seen[LEDGER_JOBS] = { false };
		size_t path[LEDGER_JOBS], len = 0;
		size_t n = find_way(mill, i, i, seen, path, 0);
		char text[CIRCLE_MAX] = "";
		for (size_t k = 0; n > 1 && k < n && len < sizeof text; k++)
			len += (size_t)snprintf(text + len, sizeof text - len, "%s after ", mill->jobs[path[k]].name);
		const config_setting_t *group = config_setting_get_member(jobs, mill->jobs[i].name);
		if (n > 1)
			settings_mistake(s, config_setting_get_member(group, "when"),
			                 "\"when\" in job \"%s\" goes in a circle, %s%s: take one \"after\" out of it",
			                 mill->jobs[i].name, text, mill->jobs[i].name);
	}
}

int config_complete_mill(struct settings *s, struct config *config)
{
	const config_setting_t *jobs = config_lookup(&s->tree, "jobs");
	int r = 0;
	for (size_t i = 0; i < config->mill->n_jobs && r == 0; i++) {
		struct config_job *job = &config->mill->jobs[i];
		struct draft draft = {
			.s = s, .config = config, .group = config_setting_get_member(jobs, job->name), .job = job
		};
		r = complete_job(&draft);
	}
	if (r == 0)
		check_circles(s, config->mill, jobs);
	return r;
}

/* Warnings */

static bool is_on_path(const char *program)
{
	const char *path = getenv("PATH");
	char file[SETTINGS_PLACE_MAX + 1];
	for (size_t len; path && *path; path += len + (path[len] == ':')) {
		len = strcspn(path, ":");
		int n = snprintf(file, sizeof file, "%.*s/%s", (int)len, path, program);
		if (len > 0 && n > 0 && (size_t)n < sizeof file && access(file, X_OK) == 0)
			return true;
	}
	return false;
}

/* Its arguments are its own matter. */
static void warn_of_command(struct settings *s, const config_setting_t *group, const char *where, const char *text)
{
	struct command command;
	if (!text || command_init(&command, text, NULL) < 0)
		return;
	const char *program = command.argv[0], *why = NULL;
	if (*program != '/')
		why = is_on_path(program) ? NULL : "it is not on PATH; write its whole path";
	else if (access(program, X_OK) < 0)
		why = errno == EACCES ? "this user may not run it (chmod +x)" : strerror(errno);
	if (why)
		settings_warn(s, config_setting_get_member(group, "command"), "\"command\" in %s: \"%.200s\": %s",
		              where, program, why);
	command_done(&command);
}

static void warn_of_machine(struct settings *s, const config_setting_t *group, const struct config_machine *machine)
{
	const struct machine_settings *m = &machine->settings;
	char where[WHERE_MAX];
	struct err err;
	snprintf(where, sizeof where, "machine \"%s\"", machine->name);
	if (m->key && ssh_check_key(m, &err) < 0)
		settings_warn(s, config_setting_get_member(group, "key"), "%s: %s", where, err.text);
	if (m->key && m->known_hosts && access(m->known_hosts, R_OK) < 0)
		settings_warn(s, config_setting_get_member(group, "known_hosts"),
		              "\"known_hosts\" in %s: %s: %s; it is to have the machine's host key", where,
		              m->known_hosts, strerror(errno));
	if (m->wake == MACHINE_EXEC)
		warn_of_command(s, group, where, m->command);
}

static void warn_of_job(struct settings *s, const config_setting_t *group, const struct config_job *job)
{
	const struct option *command = option_find(driver_exec.options, "command");
	char where[WHERE_MAX];
	snprintf(where, sizeof where, "job \"%s\"", job->name);
	if (job->driver == &driver_exec)
		warn_of_command(s, group, where, *(char *const *)((const char *)job->settings + command->offset));
}

void config_warn_of_mill(struct settings *s, const struct config *config)
{
	const config_setting_t *machines = config_lookup(&s->tree, "machines");
	const config_setting_t *jobs = config_lookup(&s->tree, "jobs");
	const struct config_mill *mill = config->mill;
	for (size_t i = 0; i < mill->n_machines; i++)
		warn_of_machine(s, config_setting_get_member(machines, mill->machines[i].name), &mill->machines[i]);
	for (size_t i = 0; i < mill->n_jobs; i++)
		warn_of_job(s, config_setting_get_member(jobs, mill->jobs[i].name), &mill->jobs[i]);
}

/* What outlives the configuration */

static const struct option there_options[] = {
	{ .name = "kind", .type = OPTION_TEXT, .offset = offsetof(struct manifest_store, kind) },
	{ .name = "endpoint", .type = OPTION_TEXT, .offset = offsetof(struct manifest_store, endpoint) },
	{ .name = "region", .type = OPTION_TEXT, .offset = offsetof(struct manifest_store, region) },
	{ .name = "bucket", .type = OPTION_TEXT, .offset = offsetof(struct manifest_store, bucket) },
	{ .name = "path", .type = OPTION_TEXT, .offset = offsetof(struct manifest_store, path) },
	{ .name = "prefix", .type = OPTION_TEXT, .offset = offsetof(struct manifest_store, prefix) },
	OPTION_END,
};

void config_count_mill(const struct config_mill *mill, char ret_text[CONFIG_COUNT_MAX])
{
	*ret_text = '\0';
	if (mill->n_machines + mill->n_jobs > 0)
		snprintf(ret_text, CONFIG_COUNT_MAX, ", machines: %zu, jobs: %zu", mill->n_machines, mill->n_jobs);
}

const struct config_machine *config_find_machine(const struct config_mill *mill, const char *name)
{
	for (size_t i = 0; i < mill->n_machines; i++)
		if (strcmp(mill->machines[i].name, name) == 0)
			return &mill->machines[i];
	return NULL;
}

const struct config_job *config_find_job(const struct config_mill *mill, const char *name)
{
	for (size_t i = 0; i < mill->n_jobs; i++)
		if (strcmp(mill->jobs[i].name, name) == 0)
			return &mill->jobs[i];
	return NULL;
}

bool config_same_machine(const struct config_machine *a, const struct config_machine *b)
{
	bool same =
	        a->secure_on && b->secure_on ? strcmp(a->secure_on, b->secure_on) == 0 : a->secure_on == b->secure_on;
	return same && option_equal(machine_options, &a->settings, &b->settings);
}

bool config_same_job(const struct config_job *a, const struct config_job *b)
{
	return a->driver == b->driver && option_equal(config_job_options, a, b) &&
	       option_equal(a->driver->options, a->settings, b->settings) &&
	       option_equal(there_options, &a->there, &b->there);
}

/* In whatever order they stand. */
bool config_same_mill(const struct config_mill *a, const struct config_mill *b)
{
	bool same = a->n_machines == b->n_machines && a->n_jobs == b->n_jobs;
	for (size_t i = 0; same && i < a->n_machines; i++) {
		const struct config_machine *other = config_find_machine(b, a->machines[i].name);
		same = other && config_same_machine(&a->machines[i], other);
	}
	for (size_t i = 0; same && i < a->n_jobs; i++) {
		const struct config_job *other = config_find_job(b, a->jobs[i].name);
		same = other && config_same_job(&a->jobs[i], other);
	}
	return same;
}

static void free_job(struct config_job *job)
{
	if (job->settings)
		option_done(job->driver->options, job->settings);
	free(job->settings);
	option_done(config_job_options, job);
	option_done(there_options, &job->there);
	free(job->name);
}

void config_free_mill(struct config_mill *mill)
{
	if (!mill)
		return;
	for (size_t i = 0; i < mill->n_machines; i++) {
		option_done(machine_options, &mill->machines[i].settings);
		secret_free(mill->machines[i].secure_on);
		free(mill->machines[i].name);
	}
	for (size_t i = 0; i < mill->n_jobs; i++)
		free_job(&mill->jobs[i]);
	free(mill->machines);
	free(mill->jobs);
	free(mill);
}
