/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The command line: takes the options that all commands share, does what works without a daemon (run, check, an audit
 * where none runs), and hands the rest to cli/ with the daemon's socket.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "agent/agent.h"
#include "agent/audit.h"
#include "agent/config.h"
#include "agent/export.h"
#include "agent/online.h"
#include "agent/opening.h"
#include "base/units.h"
#include "cli/answer.h"
#include "cli/cli.h"
#include "cli/client.h"

struct globals {
	const char *config;
	const char *socket;
	bool help, version;
};

static const char help_text[] =
        "millrace " MILLRACE_VERSION ": collects feeds, keeps them safe, delivers them to a store\n"
        "\n"
        "usage: millrace [-c FILE] [--socket PATH] COMMAND ...\n"
        "\n"
        "  run                         collect and deliver until SIGTERM; SIGHUP reads the configuration again\n"
        "  check [--online]            tell every mistake of the configuration, and of the buffer's folder;\n"
        "                              --online: ask the stores\n";

static const char help_options[] =
        "\n"
        "  -c FILE                     the configuration [" CONFIG_PATH "]\n"
        "  --socket PATH               the daemon's socket [the configuration's]\n"
        "  -h, --help, help            this text\n"
        "  -V, --version, version      the version alone\n"
        "\n"
        "exit status: 0 done, 1 something needs a person, 64 usage, 65 bad data, 69 daemon or store out of reach,\n"
        "             73 buffer's folder missing or forbidden, 75 buffer in use, 78 configuration\n";

static int usage(const char *format, const char *word)
{
	fputs("millrace: ", stderr);
	fprintf(stderr, format, word);
	fputs("; see millrace --help\n", stderr);
	return CLI_USAGE;
}

/* `--socket PATH` or `--socket=PATH`; -1 where the value is missing, 0 where it is another word, else words used. */
static int take_value(char **argv, const char *name, const char **ret_value)
{
	size_t len = strlen(name);

	if (strncmp(argv[0], name, len) != 0)
		return 0;
	if (name[1] == '-' && argv[0][len] == '=') {
		*ret_value = argv[0] + len + 1;
		return 1;
	}
	if (argv[0][len])
		return 0;
	*ret_value = argv[1];
	return argv[1] ? 2 : -1;
}

/* Takes the shared options out of argv, wherever they stand; returns what is left, or -1 with a word on stderr. */
static int take_globals(int argc, char **argv, struct globals *ret_globals)
{
	int kept = 0;

	for (int i = 1; i < argc;) {
		int used = take_value(&argv[i], "-c", &ret_globals->config);

		if (used == 0)
			used = take_value(&argv[i], "--socket", &ret_globals->socket);
		if (used < 0) {
			usage("%s wants a path", argv[i]);
			return -1;
		}
		if (used == 0 && (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0))
			used = ret_globals->help = true;
		else if (used == 0 && (strcmp(argv[i], "--version") == 0 || strcmp(argv[i], "-V") == 0))
			used = ret_globals->version = true;
		if (used == 0)
			argv[kept++] = argv[i++];
		i += used;
	}
	argv[kept] = NULL;
	return kept;
}

static int command_run(const char *path)
{
	struct config *config;

	return config_load(path, CONFIG_RUN, stderr, &config) < 0 ? CLI_CONFIG : agent_run(config);
}

/* What `run` would say of the buffer's folder, if this user started it. */
static int check_buffer(const struct config *config)
{
	struct err err;
	int r = queue_check_path(config->buffer_path, &err);

	if (r == 0)
		return CLI_OK;
	fprintf(stderr, "%s: %s\n", config->buffer_place, err.text);
	return opening_status(r);
}

static int command_check(const char *path, bool online)
{
	struct config *config;
	int status;

	if (config_load(path, CONFIG_CHECK, stderr, &config) < 0)
		return CLI_CONFIG;
	status = check_buffer(config);
	if (status == CLI_OK)
		config_print(config, stdout);
	if (status == CLI_OK && online)
		status = online_check(config, stdout, stderr);
	config_free(config);
	return status;
}

static int command_client(const struct globals *globals, const char *path, int argc, char **argv)
{
	char *socket_path;
	int status = cli_check(argc, argv);

	if (status != CLI_OK)
		return status;
	if (globals->socket)
		return cli_run(globals->socket, argc, argv);
	if (config_find_socket(path, stderr, &socket_path, NULL) < 0)
		return CLI_CONFIG;
	status = cli_run(socket_path, argc, argv);
	free(socket_path);
	return status;
}

/* Whether a daemon may be there: it is not where there is no socket, or nobody listens on it. */
static bool has_daemon(const char *socket_path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd, r;

	if (strlen(socket_path) >= sizeof address.sun_path)
		return true; /* cli/ says what is wrong with it */
	memcpy(address.sun_path, socket_path, strlen(socket_path) + 1);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return true;
	r = connect(fd, (const struct sockaddr *)&address, sizeof address) < 0 ? -errno : 0;
	close(fd);
	return r != -ENOENT && r != -ECONNREFUSED;
}

/*
 * Where the file names a socket, the daemon there may have another buffer than the file: that of a dead card's copy.
 * One that is not there, or that nobody can tell from the other, is no reason to do without the daemon.
 */
static bool is_other_buffer(const char *socket_path, const char *daemons, const char *named)
{
	struct stat a, b;
	bool there = stat(named, &b) == 0;

	if (strcmp(daemons, named) == 0 || (!there && errno != ENOENT) || (stat(daemons, &a) < 0 && errno != ENOENT) ||
	    (there && stat(daemons, &a) == 0 && a.st_dev == b.st_dev && a.st_ino == b.st_ino))
		return false;
	fprintf(stderr,
	        "millrace: the daemon at %s has the buffer \"%s\"; the configuration names \"%s\", which is %s\n",
	        socket_path, daemons, named, there ? "read without it" : "not there");
	return there;
}

static bool has_daemon_of(const char *socket_path, const char *buffer)
{
	const char *path;
	struct err ignored;
	json_t *status;
	bool other;

	if (!has_daemon(socket_path))
		return false;
	if (client_ask(socket_path, "GET", "/v1/status", NULL, &status, &ignored) != CLI_OK)
		return true; /* it will say itself what its trouble is */
	path = answer_text(json_object_get(status, "buffer"), "path");
	other = *path && is_other_buffer(socket_path, path, buffer);
	json_decref(status);
	return !other;
}

/*
 * Who does what works with and without a daemon: the one at *ret_socket (to be freed), or, NULL, nobody. --socket alone
 * asks for that daemon. CLI_OK or CLI_CONFIG.
 */
static int find_daemon(const struct globals *globals, const char *path, char **ret_socket)
{
	char *socket_path, *buffer;

	if (globals->socket && (!globals->config || has_daemon(globals->socket))) {
		*ret_socket = strdup(globals->socket);
		return *ret_socket ? CLI_OK : CLI_CONFIG;
	}
	*ret_socket = NULL;
	if (globals->socket)
		return CLI_OK;
	if (config_find_socket(path, stderr, &socket_path, &buffer) < 0)
		return CLI_CONFIG;
	if (has_daemon_of(socket_path, buffer))
		*ret_socket = socket_path;
	else
		free(socket_path);
	free(buffer);
	return CLI_OK;
}

static int audit_alone(const char *path, int argc, char **argv)
{
	struct config *config;
	int64_t since_day;
	bool repair, json;
	int status = cli_audit_options(argc, argv, &since_day, &repair, &json);

	if (status != CLI_OK)
		return status;
	if (config_load(path, CONFIG_RUN, stderr, &config) < 0)
		return CLI_CONFIG;
	status = audit_offline(config, since_day, repair, json);
	config_free(config);
	return status;
}

static int command_audit(const struct globals *globals, const char *path, int argc, char **argv)
{
	char *socket_path;
	int status = cli_check(argc, argv);

	if (status == CLI_OK)
		status = find_daemon(globals, path, &socket_path);
	if (status != CLI_OK)
		return status;
	status = socket_path ? cli_run(socket_path, argc, argv) : audit_alone(path, argc, argv);
	free(socket_path);
	return status;
}

static int export_from_file(const char *path, const char *folder, bool json)
{
	struct config *config;
	int status;

	if (config_load(path, CONFIG_ASK, stderr, &config) < 0)
		return CLI_CONFIG;
	status = export_alone(config, folder, json);
	config_free(config);
	return status;
}

static int command_export(const struct globals *globals, const char *path, int argc, char **argv)
{
	const char *folder;
	char *socket_path;
	bool json;
	int status = cli_export_options(argc, argv, &folder, &json);

	if (status == CLI_OK)
		status = find_daemon(globals, path, &socket_path);
	if (status != CLI_OK)
		return status;
	status = socket_path ? export_by_daemon(socket_path, folder, json) : export_from_file(path, folder, json);
	free(socket_path);
	return status;
}

/* A word that is no command: which one was meant. */
static int refuse_command(const char *word)
{
	static const char *const known[] = {
		"run",   "check",  "status", "show", "tail",  "poll",   "flush", "audit",
		"retry", "export", "import", "wake", "start", "cancel", "help",  "version"
	};
	const char *nearest = units_nearest(word, known, sizeof known / sizeof *known);

	fprintf(stderr, "millrace: unknown command \"%s\"; %s%s%ssee millrace --help\n", word,
	        nearest ? "did you mean \"" : "", nearest ? nearest : "", nearest ? "\"? Else " : "");
	return CLI_USAGE;
}

int main(int argc, char **argv)
{
	struct globals globals = { 0 };
	const char *path;
	bool online;

	argc = take_globals(argc, argv, &globals);
	if (argc < 0)
		return CLI_USAGE;
	globals.help |= argc > 0 && strcmp(argv[0], "help") == 0;
	globals.version |= argc > 0 && strcmp(argv[0], "version") == 0;
	if (globals.help || globals.version) {
		if (globals.version)
			puts("millrace " MILLRACE_VERSION);
		else
			printf("%s%s%s", help_text, cli_help, help_options);
		return CLI_OK;
	}
	if (argc == 0)
		return usage("%s", "a command is missing");
	path = globals.config ? globals.config : CONFIG_PATH;
	if (strcmp(argv[0], "audit") == 0)
		return command_audit(&globals, path, argc, argv);
	if (strcmp(argv[0], "export") == 0)
		return command_export(&globals, path, argc, argv);
	if (cli_knows(argv[0]))
		return command_client(&globals, path, argc, argv);
	if (strcmp(argv[0], "run") != 0 && strcmp(argv[0], "check") != 0)
		return refuse_command(argv[0]);
	online = strcmp(argv[0], "check") == 0 && argc > 1 && strcmp(argv[1], "--online") == 0;
	if (argc > 1 + online)
		return usage("unexpected argument \"%s\"", argv[1 + online]);
	return strcmp(argv[0], "run") == 0 ? command_run(path) : command_check(path, online);
}
