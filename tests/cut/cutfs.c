/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cutfs MOUNTPOINT [fuse's options]: a file system in memory that forgets, when told so, what was not synced.
 *
 * Each file has the content that programs see and the content that a power cut would leave for sure; between the two
 * stand the writes since its last fsync. Folders have the same with names. A program writes a command into /.cutfs and
 * reads the answer there, JSON, with the same descriptor, at offset 0:
 *
 *     freeze [N [TEXT]]                  from now on, or from the N-th changing call on whose path holds TEXT (=TEXT:
 *                                        is TEXT), every call fails with EIO: the power is gone
 *     cut SEED strict|ordered            each unsynced change is kept, lost, torn or overtaken by later ones, as SEED
 *                                        says; all works again. strict: a name is durable by its folder's fsync alone;
 *                                        ordered: names come in their order, and any fsync brings those before it
 *     fail N once|forever EIO|ENOSPC|EROFS [TEXT]
 *                                        the N-th changing call from now on fails, or all from it on
 *     freeze off, fail off, readonly on|off, wipe (all files go), stats
 *
 * One thread: a command comes between two calls, never into one. Who wipes or cuts has ended all other users before.
 */
#define FUSE_USE_VERSION 31
#include <errno.h>
#include <fcntl.h>
#include <fuse3/fuse.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define CONTROL "/.cutfs"
#define SECTOR  512
#define BLOCK   4096
#define BLOCKS  (1 << 22)
#define REPLY   (64 * 1024)
#define TRACED  12

struct content {
	unsigned char *data;
	size_t len, capacity;
};

/* A write at `at`; without data: the file's length becomes `at`. */
struct op {
	size_t at, len;
	unsigned char *data;
};

struct entry {
	char *name;
	struct node *node;
};

struct names {
	struct entry *entries;
	size_t n, capacity;
};

struct node {
	uint64_t number;
	bool folder, reached;
	int opens;
	mode_t mode;
	char *label; /* the path that it got last */
	struct content now, kept;
	struct op *ops;
	size_t n_ops, ops_capacity;
	struct names names, names_kept;
	struct node *next;
};

/* One step of a change: the name goes (NULL) or means this node. */
struct step {
	struct node *folder;
	char *name;
	struct node *node;
};

/* A rename has two steps, and they are never torn. */
struct change {
	struct step steps[2];
	int n;
	bool followed; /* by an fsync of anything: durable in the model `ordered` */
};

enum call { CREATE, WRITE, TRUNCATE, FSYNC, FSYNC_FOLDER, LINK, UNLINK, RENAME, MKDIR, RMDIR, OTHER, CALLS };
static const char *const call_names[CALLS] = {
	[CREATE] = "create",         [WRITE] = "write", [TRUNCATE] = "truncate", [FSYNC] = "fsync",
	[FSYNC_FOLDER] = "fsyncdir", [LINK] = "link",   [UNLINK] = "unlink",     [RENAME] = "rename",
	[MKDIR] = "mkdir",           [RMDIR] = "rmdir", [OTHER] = "other",
};

/* Something that begins at the n-th call from when it was set. */
struct trigger {
	bool set;
	long left;
	char text[256];
};

static struct node *nodes, *root;
static uint64_t numbers;
static struct change *changes;
static size_t n_changes, changes_capacity;
static bool frozen, readonly;
static struct trigger freeze_at, fail_at;
static bool fail_forever;
static int fail_code;
static long counts[CALLS], since, failed, cuts;
static char trace[TRACED][128];
static unsigned traced;
static char reply[REPLY];
static size_t reply_len;

/* --- Memory: none left is the bench's end --- */

static void *need(void *p)
{
	if (!p) {
		perror("cutfs");
		abort();
	}
	return p;
}

static void *grow(void *list, size_t n, size_t *capacity, size_t size)
{
	if (n < *capacity)
		return list;
	*capacity = *capacity ? 2 * *capacity : 16;
	return need(realloc(list, *capacity * size));
}

static void set_length(struct content *c, size_t len)
{
	if (len > c->capacity) {
		size_t capacity = c->capacity ? c->capacity : BLOCK;

		while (capacity < len)
			capacity *= 2;
		c->data = need(realloc(c->data, capacity));
		c->capacity = capacity;
	}
	if (len > c->len)
		memset(c->data + c->len, 0, len - c->len);
	c->len = len;
}

static void put(struct content *c, size_t at, const unsigned char *data, size_t len)
{
	if (len == 0)
		return;
	if (at + len > c->len)
		set_length(c, at + len);
	memcpy(c->data + at, data, len);
}

/* --- Names --- */

static struct entry *find_entry(const struct names *names, const char *name, size_t len)
{
	for (size_t i = 0; i < names->n; i++)
		if (strncmp(names->entries[i].name, name, len) == 0 && names->entries[i].name[len] == '\0')
			return &names->entries[i];
	return NULL;
}

static void set_name(struct names *names, const char *name, struct node *node)
{
	struct entry *entry = find_entry(names, name, strlen(name));

	if (!entry && !node)
		return;
	if (!entry) {
		names->entries = grow(names->entries, names->n, &names->capacity, sizeof *names->entries);
		entry = &names->entries[names->n++];
		entry->name = need(strdup(name));
	}
	entry->node = node;
	if (!node) {
		free(entry->name);
		*entry = names->entries[--names->n];
	}
}

static void clear_names(struct names *names)
{
	while (names->n > 0)
		free(names->entries[--names->n].name);
}

static const char *last_part(const char *path)
{
	return strrchr(path, '/') + 1;
}

/* What stands at the first `len` bytes of a path. */
static struct node *find_to(const char *path, size_t len)
{
	struct node *node = root;
	const char *end = path + len;

	for (path++; node && path < end;) {
		size_t part = strcspn(path, "/");
		struct entry *entry = find_entry(&node->names, path, part);

		node = entry ? entry->node : NULL;
		path += part + 1;
	}
	return node;
}

static struct node *find(const char *path)
{
	return find_to(path, strlen(path));
}

static struct node *find_folder(const char *path)
{
	return find_to(path, (size_t)(last_part(path) - path) - 1);
}

static struct node *new_node(bool folder, mode_t mode)
{
	struct node *node = need(calloc(1, sizeof *node));

	node->number = ++numbers;
	node->folder = folder;
	node->mode = mode & 07777;
	node->next = nodes;
	nodes = node;
	return node;
}

static void apply_change(const struct change *change, bool kept)
{
	for (int i = 0; i < change->n; i++) {
		const struct step *step = &change->steps[i];

		set_name(kept ? &step->folder->names_kept : &step->folder->names, step->name, step->node);
	}
}

static void free_change(struct change *change)
{
	for (int i = 0; i < change->n; i++)
		free(change->steps[i].name);
}

/* A new change of up to two steps: at once for those who look, durable later. */
static void change_names(const char *path, struct node *node, const char *path2, struct node *node2)
{
	struct change *change;

	changes = grow(changes, n_changes, &changes_capacity, sizeof *changes);
	change = &changes[n_changes++];
	*change = (struct change){ .n = path2 ? 2 : 1 };
	change->steps[0] = (struct step){ find_folder(path), need(strdup(last_part(path))), node };
	if (path2)
		change->steps[1] = (struct step){ find_folder(path2), need(strdup(last_part(path2))), node2 };
	for (int i = 0; i < change->n; i++) {
		if (!change->steps[i].node)
			continue;
		free(change->steps[i].node->label);
		change->steps[i].node->label = need(strdup(i == 0 ? path : path2));
	}
	apply_change(change, false);
}

static void note_fsync(void)
{
	for (size_t i = n_changes; i > 0 && !changes[i - 1].followed; i--)
		changes[i - 1].followed = true;
}

/* A folder's names, or all that came so far (NULL). */
static void keep_names(const struct node *folder)
{
	size_t left = 0;

	for (size_t i = 0; i < n_changes; i++) {
		if (folder && changes[i].steps[0].folder != folder) {
			changes[left++] = changes[i];
			continue;
		}
		apply_change(&changes[i], true);
		free_change(&changes[i]);
	}
	n_changes = left;
}

/* --- Content --- */

static void clear_ops(struct node *node)
{
	while (node->n_ops > 0)
		free(node->ops[--node->n_ops].data);
}

static void add_op(struct node *node, size_t at, const char *data, size_t len)
{
	struct op *op;

	node->ops = grow(node->ops, node->n_ops, &node->ops_capacity, sizeof *node->ops);
	op = &node->ops[node->n_ops++];
	*op = (struct op){ .at = at, .len = len };
	if (!data) {
		set_length(&node->now, at);
		return;
	}
	op->data = need(malloc(len ? len : 1));
	memcpy(op->data, data, len);
	put(&node->now, at, op->data, len);
}

static void keep_op(struct node *node, const struct op *op)
{
	if (op->data)
		put(&node->kept, op->at, op->data, op->len);
	else
		set_length(&node->kept, op->at);
}

static void keep_content(struct node *node)
{
	for (size_t i = 0; i < node->n_ops; i++)
		keep_op(node, &node->ops[i]);
	clear_ops(node);
}

static size_t unsynced(const struct node *node)
{
	size_t bytes = 0;

	for (size_t i = 0; i < node->n_ops; i++)
		bytes += node->ops[i].data ? node->ops[i].len : 0;
	return bytes;
}

/* --- The cut --- */

enum way { LOSE_ALL, KEEP_FIRST, KEEP_SOME, SHUFFLE, WAYS };
static const char *const way_names[WAYS] = {
	[LOSE_ALL] = "all lost",
	[KEEP_FIRST] = "the first kept",
	[KEEP_SOME] = "some kept",
	[SHUFFLE] = "some kept, out of order",
};

static uint64_t chance;

/* splitmix64, https://prng.di.unimi.it/splitmix64.c */
static uint64_t draw(uint64_t below)
{
	uint64_t z = chance += 0x9e3779b97f4a7c15;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
	z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
	return (z ^ (z >> 31)) % below;
}

struct tally {
	size_t kept, torn, lost;
};

/* By sectors of the file, not of the write: what stands beside in a sector stays as it was. */
static void tear(struct node *node, const struct op *op)
{
	size_t next;

	for (size_t at = 0; at < op->len; at = next) {
		next = at + SECTOR - (op->at + at) % SECTOR;
		if (next > op->len)
			next = op->len;
		if (draw(2))
			put(&node->kept, op->at + at, op->data + at, next - at);
	}
}

static void shuffle(struct op *ops, size_t n)
{
	for (size_t i = n; i > 1; i--) {
		size_t j = draw(i);
		struct op op = ops[j];

		ops[j] = ops[i - 1];
		ops[i - 1] = op;
	}
}

/* How many of 16 are kept: nearly none, half, nearly all. */
static uint64_t draw_share(void)
{
	static const uint64_t shares[] = { 1, 8, 15 };

	return shares[draw(3)];
}

static void cut_content(struct node *node, enum way way, struct tally *tally)
{
	size_t first = way == KEEP_FIRST ? draw(node->n_ops + 1) : 0;
	uint64_t share = draw_share();

	if (way == SHUFFLE)
		shuffle(node->ops, node->n_ops);
	for (size_t i = 0; i < node->n_ops; i++) {
		const struct op *op = &node->ops[i];
		bool kept = way == KEEP_FIRST ? i < first : way != LOSE_ALL && draw(16) < share;

		if (way != LOSE_ALL && op->len > 1 && draw(3) == 0 && (kept || i == first)) {
			tear(node, op);
			tally->torn++;
		} else if (kept) {
			keep_op(node, op);
			tally->kept++;
		} else {
			tally->lost++;
		}
	}
	clear_ops(node);
	node->now.len = 0;
	put(&node->now, 0, node->kept.data, node->kept.len);
}

static void cut_names(enum way way, bool in_order, struct tally *tally)
{
	size_t first = way == LOSE_ALL ? 0 : draw(n_changes + 1);
	uint64_t share = draw_share();

	for (size_t i = 0; i < n_changes; i++) {
		bool kept = in_order || way == KEEP_FIRST ? i < first : way != LOSE_ALL && draw(16) < share;

		kept |= in_order && changes[i].followed;
		if (kept)
			apply_change(&changes[i], true);
		tally->kept += kept;
		tally->lost += !kept;
		free_change(&changes[i]);
	}
	n_changes = 0;
	for (struct node *node = nodes; node; node = node->next) {
		clear_names(&node->names);
		for (size_t i = 0; i < node->names_kept.n; i++)
			set_name(&node->names, node->names_kept.entries[i].name, node->names_kept.entries[i].node);
	}
}

static void reach(struct node *node)
{
	if (node->reached)
		return;
	node->reached = true;
	for (size_t i = 0; i < node->names.n; i++)
		reach(node->names.entries[i].node);
}

static void free_node(struct node *node)
{
	clear_ops(node);
	clear_names(&node->names);
	clear_names(&node->names_kept);
	free(node->names.entries);
	free(node->names_kept.entries);
	free(node->now.data);
	free(node->kept.data);
	free(node->ops);
	free(node->label);
	free(node);
}

/* Nothing is pending, so what no name leads to has gone; but for what a dying program still holds. */
static void collect(void)
{
	for (struct node *node = nodes; node; node = node->next)
		node->reached = false;
	for (struct node *node = nodes; node; node = node->next)
		if (node->opens > 0)
			reach(node);
	reach(root);
	for (struct node **at = &nodes; *at;) {
		struct node *node = *at;

		if (node->reached) {
			at = &node->next;
			continue;
		}
		*at = node->next;
		free_node(node);
	}
}

/* --- What the commands answer --- */

static void say(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void say(const char *format, ...)
{
	va_list args;
	int n;

	va_start(args, format);
	n = vsnprintf(reply + reply_len, REPLY - reply_len, format, args);
	va_end(args);
	if (n > 0 && reply_len + (size_t)n < REPLY)
		reply_len += (size_t)n;
}

static void say_tally(const char *what, const struct tally *tally)
{
	say("{\"what\":\"%s\",\"kept\":%zu,\"torn\":%zu,\"lost\":%zu}", what, tally->kept, tally->torn, tally->lost);
}

static void cut(uint64_t seed, bool in_order)
{
	struct tally names = { 0, 0, 0 };
	enum way way;

	chance = seed;
	way = (enum way)draw(WAYS);
	say("{\"seed\":%llu,\"model\":\"%s\",\"way\":\"%s\",\"lost\":[", (unsigned long long)seed,
	    in_order ? "ordered" : "strict", way_names[way]);
	for (struct node *node = nodes; node; node = node->next) {
		struct tally tally = { 0, 0, 0 };

		if (node->n_ops == 0)
			continue;
		cut_content(node, way, &tally);
		say_tally(node->label, &tally);
		say(",");
	}
	cut_names(way, in_order, &names);
	say_tally("names", &names);
	say("]}");
	collect();
	frozen = readonly = false;
	freeze_at.set = fail_at.set = false;
	cuts++;
}

static void wipe(void)
{
	keep_names(NULL);
	clear_names(&root->names);
	clear_names(&root->names_kept);
	collect();
	say("{}");
}

static void say_stats(void)
{
	size_t bytes = 0;

	for (const struct node *node = nodes; node; node = node->next)
		bytes += unsynced(node);
	say("{\"frozen\":%s,\"cuts\":%ld,\"unsynced\":%zu,\"changes\":%zu,\"since\":%ld,\"failed\":%ld,\"calls\":{",
	    frozen ? "true" : "false", cuts, bytes, n_changes, since, failed);
	for (int i = 0; i < CALLS; i++)
		say("%s\"%s\":%ld", i ? "," : "", call_names[i], counts[i]);
	say("},\"last\":[");
	for (unsigned i = traced > TRACED ? traced - TRACED : 0; i < traced; i++)
		say("\"%s\"%s", trace[i % TRACED], i + 1 < traced ? "," : "");
	say("]}");
}

static void set_trigger(struct trigger *trigger, long n, const char *text)
{
	*trigger = (struct trigger){ .set = true, .left = n };
	snprintf(trigger->text, sizeof trigger->text, "%s", text);
	since = 0;
	say("{}");
}

static bool command_fail(const char *text)
{
	static const struct {
		const char *name;
		int code;
	} codes[] = { { "EIO", EIO }, { "ENOSPC", ENOSPC }, { "EROFS", EROFS } };
	char how[16] = "", code[16] = "", path[256] = "";
	long n;

	if (strcmp(text, "fail off") == 0) {
		fail_at.set = false;
		say("{}");
		return true;
	}
	if (sscanf(text, "fail %ld %15s %15s %255s", &n, how, code, path) < 3)
		return false;
	for (size_t i = 0; i < sizeof codes / sizeof *codes; i++) {
		if (strcmp(codes[i].name, code) != 0)
			continue;
		fail_code = codes[i].code;
		fail_forever = strcmp(how, "forever") == 0;
		failed = 0;
		set_trigger(&fail_at, n, path);
		return true;
	}
	return false;
}

static bool command_freeze(const char *text)
{
	char path[256] = "";
	long n;

	if (strcmp(text, "freeze") == 0) {
		frozen = true;
		say("{}");
		return true;
	}
	if (strcmp(text, "freeze off") == 0) {
		freeze_at.set = false;
		say("{\"frozen\":%s}", frozen ? "true" : "false");
		return true;
	}
	if (sscanf(text, "freeze %ld %255s", &n, path) < 1)
		return false;
	set_trigger(&freeze_at, n, path);
	return true;
}

static bool command(const char *text)
{
	unsigned long long seed;
	char word[16];

	if (sscanf(text, "cut %llu %15s", &seed, word) == 2)
		cut(seed, strcmp(word, "ordered") == 0);
	else if (sscanf(text, "readonly %15s", word) == 1)
		say("{\"readonly\":%s}", (readonly = strcmp(word, "on") == 0) ? "true" : "false");
	else if (strcmp(text, "wipe") == 0)
		wipe();
	else if (strcmp(text, "stats") == 0)
		say_stats();
	else
		return command_freeze(text) || command_fail(text);
	return true;
}

static int on_command(const char *data, size_t len)
{
	char text[512];

	snprintf(text, sizeof text, "%.*s", (int)len, data);
	text[strcspn(text, "\n")] = '\0';
	reply_len = 0;
	return command(text) ? (int)len : -EINVAL;
}

/* --- What befalls a call --- */

static bool rings(struct trigger *trigger, const char *path)
{
	const char *text = trigger->text;

	if (!trigger->set || (text[0] == '=' ? strcmp(path, text + 1) != 0 : !strstr(path, text)))
		return false;
	if (trigger->left > 0)
		trigger->left--;
	return trigger->left == 0;
}

/* Before each call that changes something. */
static int judge(enum call call, const char *path, size_t at, size_t len)
{
	if (frozen)
		return -EIO;
	counts[call]++;
	since++;
	snprintf(trace[traced++ % TRACED], sizeof *trace, "%s %.80s %zu+%zu", call_names[call], path, at, len);
	if (rings(&freeze_at, path)) {
		frozen = true;
		return -EIO;
	}
	if (readonly && call != FSYNC && call != FSYNC_FOLDER)
		return -EROFS;
	if (rings(&fail_at, path)) {
		failed++;
		fail_at.set = fail_forever;
		return -fail_code;
	}
	return 0;
}

static bool is_control(const char *path)
{
	return path && strcmp(path, CONTROL) == 0;
}

static struct node *node_of(const char *path, const struct fuse_file_info *fi)
{
	return fi && fi->fh ? (struct node *)(uintptr_t)fi->fh : path ? find(path) : NULL;
}

static const char *label_of(const struct node *node)
{
	return node->label ? node->label : "/";
}

/* --- The calls --- */

static void *on_init(struct fuse_conn_info *connection, struct fuse_config *config)
{
	(void)connection;
	config->use_ino = config->hard_remove = config->nullpath_ok = config->direct_io = 1;
	config->attr_timeout = config->entry_timeout = config->negative_timeout = 0;
	return NULL;
}

static int on_getattr(const char *path, struct stat *st, struct fuse_file_info *fi)
{
	const struct node *node;

	memset(st, 0, sizeof *st);
	st->st_nlink = 1;
	st->st_blksize = BLOCK;
	if (is_control(path)) {
		st->st_mode = S_IFREG | 0600;
		st->st_ino = UINT64_MAX;
		return 0;
	}
	node = node_of(path, fi);
	if (node != root && frozen)
		return -EIO;
	if (!node)
		return -ENOENT;
	st->st_ino = node->number;
	st->st_mode = (node->folder ? S_IFDIR : S_IFREG) | node->mode;
	st->st_size = (off_t)node->now.len;
	st->st_blocks = (blkcnt_t)((node->now.len + SECTOR - 1) / SECTOR);
	return 0;
}

static int on_access(const char *path, int mask)
{
	if (is_control(path))
		return 0;
	if (frozen)
		return -EIO;
	if (!find(path))
		return -ENOENT;
	return readonly && (mask & W_OK) ? -EROFS : 0;
}

static int on_statfs(const char *path, struct statvfs *fs)
{
	bool full = fail_at.set && fail_at.left == 0 && fail_code == ENOSPC;

	(void)path;
	if (frozen)
		return -EIO;
	*fs = (struct statvfs){ .f_bsize = BLOCK, .f_frsize = BLOCK, .f_blocks = BLOCKS, .f_namemax = 255 };
	fs->f_bfree = fs->f_bavail = full ? 0 : BLOCKS / 2;
	return 0;
}

static int on_readdir(const char *path, void *buffer, fuse_fill_dir_t fill, off_t offset, struct fuse_file_info *fi,
                      enum fuse_readdir_flags flags)
{
	const struct node *node = node_of(path, fi);

	(void)offset;
	(void)flags;
	if (frozen)
		return -EIO;
	fill(buffer, ".", NULL, 0, 0);
	fill(buffer, "..", NULL, 0, 0);
	for (size_t i = 0; i < node->names.n; i++)
		fill(buffer, node->names.entries[i].name, NULL, 0, 0);
	return 0;
}

static int hold(struct node *node, struct fuse_file_info *fi)
{
	node->opens++;
	fi->fh = (uint64_t)(uintptr_t)node;
	return 0;
}

static int on_open(const char *path, struct fuse_file_info *fi)
{
	struct node *node;
	int r;

	fi->direct_io = 1;
	if (is_control(path))
		return 0;
	if (frozen)
		return -EIO;
	node = find(path);
	if (!node)
		return -ENOENT;
	if (readonly && (fi->flags & O_ACCMODE) != O_RDONLY)
		return -EROFS;
	if (fi->flags & O_TRUNC) {
		r = judge(TRUNCATE, path, 0, 0);
		if (r < 0)
			return r;
		add_op(node, 0, NULL, 0);
	}
	return hold(node, fi);
}

static int on_create(const char *path, mode_t mode, struct fuse_file_info *fi)
{
	int r = judge(CREATE, path, 0, 0);
	struct node *node;

	if (r < 0)
		return r;
	node = new_node(false, mode);
	change_names(path, node, NULL, NULL);
	fi->direct_io = 1;
	return hold(node, fi);
}

static int on_opendir(const char *path, struct fuse_file_info *fi)
{
	struct node *node = find(path);

	if (frozen)
		return -EIO;
	return node ? hold(node, fi) : -ENOENT;
}

static int on_release(const char *path, struct fuse_file_info *fi)
{
	(void)path;
	if (fi->fh)
		((struct node *)(uintptr_t)fi->fh)->opens--;
	return 0;
}

static int on_read(const char *path, char *to, size_t len, off_t at, struct fuse_file_info *fi)
{
	const struct node *node = node_of(NULL, fi);
	const unsigned char *from = node ? node->now.data : (const unsigned char *)reply;
	size_t have = node ? node->now.len : reply_len;

	(void)path;
	if (node && frozen)
		return -EIO;
	if ((size_t)at >= have)
		return 0;
	if (len > have - (size_t)at)
		len = have - (size_t)at;
	memcpy(to, from + at, len);
	return (int)len;
}

static int on_write(const char *path, const char *data, size_t len, off_t at, struct fuse_file_info *fi)
{
	struct node *node = node_of(NULL, fi);
	int r;

	(void)path;
	if (!node)
		return on_command(data, len);
	r = judge(WRITE, label_of(node), (size_t)at, len);
	if (r < 0)
		return r;
	add_op(node, (size_t)at, data, len);
	return (int)len;
}

static int on_truncate(const char *path, off_t len, struct fuse_file_info *fi)
{
	struct node *node = node_of(path, fi);
	int r;

	if (is_control(path))
		return 0;
	if (!node)
		return frozen ? -EIO : -ENOENT;
	r = judge(TRUNCATE, label_of(node), (size_t)len, 0);
	if (r == 0)
		add_op(node, (size_t)len, NULL, 0);
	return r;
}

static int on_fsync(const char *path, int datasync, struct fuse_file_info *fi)
{
	struct node *node = node_of(NULL, fi);
	int r;

	(void)path;
	(void)datasync;
	if (!node)
		return 0;
	r = judge(FSYNC, label_of(node), 0, unsynced(node));
	if (r < 0)
		return r;
	keep_content(node);
	note_fsync();
	return 0;
}

static int on_fsyncdir(const char *path, int datasync, struct fuse_file_info *fi)
{
	const struct node *node = node_of(NULL, fi);
	int r = judge(FSYNC_FOLDER, label_of(node), 0, n_changes);

	(void)path;
	(void)datasync;
	if (r == 0) {
		keep_names(node);
		note_fsync();
	}
	return r;
}

static int on_mkdir(const char *path, mode_t mode)
{
	int r = judge(MKDIR, path, 0, 0);

	if (r == 0)
		change_names(path, new_node(true, mode), NULL, NULL);
	return r;
}

static int on_unlink(const char *path)
{
	int r = judge(UNLINK, path, 0, 0);

	if (r == 0)
		change_names(path, NULL, NULL, NULL);
	return r;
}

static int on_rmdir(const char *path)
{
	const struct node *node = find(path);
	int r;

	if (node && node->names.n > 0)
		return -ENOTEMPTY;
	r = judge(RMDIR, path, 0, 0);
	if (r == 0)
		change_names(path, NULL, NULL, NULL);
	return r;
}

static int on_rename(const char *from, const char *to, unsigned flags)
{
	struct node *node = find(from), *over = find(to);
	int r;

	if (flags & ~(unsigned)RENAME_NOREPLACE)
		return -EINVAL;
	if (find_folder(from) != find_folder(to))
		return -EXDEV; /* nobody needs it here */
	if (over && (flags & RENAME_NOREPLACE))
		return -EEXIST;
	r = judge(RENAME, from, 0, 0);
	if (r == 0 && node != over)
		change_names(from, NULL, to, node);
	return r;
}

static int on_link(const char *from, const char *to)
{
	int r = judge(LINK, to, 0, 0);

	if (r == 0)
		change_names(to, find(from), NULL, NULL);
	return r;
}

static int on_chmod(const char *path, mode_t mode, struct fuse_file_info *fi)
{
	struct node *node = node_of(path, fi);
	int r = judge(OTHER, path ? path : "", 0, 0);

	if (r == 0 && node)
		node->mode = mode & 07777;
	return r;
}

static int on_chown(const char *path, uid_t uid, gid_t gid, struct fuse_file_info *fi)
{
	(void)uid;
	(void)gid;
	(void)fi;
	return judge(OTHER, path ? path : "", 0, 0);
}

static int on_utimens(const char *path, const struct timespec times[2], struct fuse_file_info *fi)
{
	(void)times;
	(void)fi;
	return judge(OTHER, path ? path : "", 0, 0);
}

static const struct fuse_operations operations = {
	.init = on_init,
	.getattr = on_getattr,
	.access = on_access,
	.statfs = on_statfs,
	.readdir = on_readdir,
	.open = on_open,
	.create = on_create,
	.opendir = on_opendir,
	.release = on_release,
	.releasedir = on_release,
	.read = on_read,
	.write = on_write,
	.truncate = on_truncate,
	.fsync = on_fsync,
	.fsyncdir = on_fsyncdir,
	.mkdir = on_mkdir,
	.unlink = on_unlink,
	.rmdir = on_rmdir,
	.rename = on_rename,
	.link = on_link,
	.chmod = on_chmod,
	.chown = on_chown,
	.utimens = on_utimens,
};

int main(int argc, char **argv)
{
	root = new_node(true, 0755);
	return fuse_main(argc, argv, &operations, NULL);
}
