/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One step function per state; each takes the bytes it can and returns where the next begins, or NULL after a failure.
 * Nothing looks ahead, so a text is judged alike however it is cut into pieces: what a skip_... function takes at one
 * go lies whole within the piece, and before anything that is wrong it stops, for the steps to judge. A record that
 * lies within one piece is handed out where it lies; only one that goes over the end of a piece, or has line breaks in
 * it, is copied. A text of lines is fed line by line, without the LFs, so that no step needs to know of them.
 */
#include "collectors/split.h"

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"

#define NO_DEPTH (SPLIT_MAX_DEPTH + 1)

enum cause { CAUSE_NONE, NOT_JSON, NOT_UTF_8, TRUNCATED, TOO_DEEP, RECORD_TOO_LARGE, NO_RECORDS, EMPTY };

static const struct {
	const char *word;
	const char *phrase;
	int code;
} causes[] = {
	[NOT_JSON] = { "not-json", "not JSON", -EBADMSG },
	[NOT_UTF_8] = { "not-utf-8", "not UTF-8", -EBADMSG },
	[TRUNCATED] = { "truncated", "truncated", -EBADMSG },
	[TOO_DEEP] = { "too-deep", "nested too deep", -EBADMSG },
	[RECORD_TOO_LARGE] = { "record-too-large", "record too large", -EMSGSIZE },
	[NO_RECORDS] = { "no-records", "no records", -EBADMSG },
	[EMPTY] = { "empty", "empty answer", -EBADMSG },
};

enum state {
	STATE_START,       /* nothing came yet */
	STATE_BOM,         /* within a byte order mark */
	STATE_VALUE,       /* a value must come */
	STATE_FIRST_VALUE, /* after [ */
	STATE_KEY,         /* after , in an object */
	STATE_FIRST_KEY,   /* after { */
	STATE_COLON,       /* after a key */
	STATE_STRING,      /* within a string or key */
	STATE_UTF_8,       /* within a character of several bytes */
	STATE_ESCAPE,      /* after a backslash */
	STATE_HEX,         /* after \u */
	STATE_NUMBER,      /* within a number */
	STATE_LITERAL,     /* within true, false, null */
	STATE_AFTER,       /* after a value within an array or object */
	STATE_DONE,        /* after the text's one value */
};

struct key {
	const char *text;
	size_t len;
};

struct split {
	enum state state;
	unsigned depth;
	bool in_object;                         /* the innermost one that is open */
	uint64_t objects[SPLIT_MAX_DEPTH / 64]; /* one bit per level: is it an object? */

	/* where the current token stands */
	bool is_key;         /* the string is a key */
	unsigned tail;       /* of the UTF-8 character: index into tails */
	unsigned hex_left;   /* digits of \u still to come */
	unsigned unit;       /* its UTF-16 code unit so far */
	unsigned number;     /* index into number_steps */
	const char *literal; /* what is left of it, or of the byte order mark */

	/* the path */
	char *path;       /* NULL: the whole text is one record */
	size_t key_count; /* 0: "$" */
	size_t level;     /* objects open that lie on the path; the deepest is at depth `level` */
	bool comparing;   /* the key at hand agreed with keys[level - 1] so far */
	size_t compared;  /* bytes of it */
	unsigned high;    /* the high surrogate that the last escape left open, or 0 */
	bool on_path;     /* the value that comes is on the path */
	bool found;

	bool lines; /* each line is a text */

	/* records */
	unsigned record_depth;     /* values at this depth are records; NO_DEPTH: none now */
	const unsigned char *from; /* where in this piece the record at hand begins or goes on; NULL outside of one */
	uint64_t record_offset;
	bool breaks;         /* there may be line breaks from `from` on */
	struct bytes record; /* what came of it in earlier pieces */
	size_t max_record;
	split_on_record on_record;
	void *arg;

	const unsigned char *piece; /* the bytes at hand */
	uint64_t piece_offset;
	struct err *err; /* the caller's, while it waits */
	enum cause cause;
	uint64_t wrong_offset; /* what is wrong begins there */
	int code;              /* of the failure, or 0 */

	struct key keys[];
};

/* Failures */

static uint64_t offset_of(const struct split *s, const unsigned char *p)
{
	return s->piece_offset + (uint64_t)(p - s->piece);
}

__attribute__((format(printf, 4, 5))) static const unsigned char *fail_at(struct split *s, enum cause cause,
                                                                          uint64_t offset, const char *format, ...)
{
	char detail[ERR_MAX];
	va_list args;

	va_start(args, format);
	vsnprintf(detail, sizeof detail, format, args);
	va_end(args);
	s->cause = cause;
	s->wrong_offset = offset;
	s->code = causes[cause].code;
	err_fail(s->err, s->code, "%s at offset %llu: %s", causes[cause].phrase, (unsigned long long)offset, detail);
	return NULL;
}

static const unsigned char *fail_too_large(struct split *s)
{
	return fail_at(
	        s, RECORD_TOO_LARGE, s->record_offset + s->max_record,
	        "the record that begins at offset %llu has more than %zu bytes; raise max_record, where such ones "
	        "are meant",
	        (unsigned long long)s->record_offset, s->max_record);
}

static size_t record_length(const struct split *s, const unsigned char *p)
{
	return s->record.len + (size_t)(p - s->from);
}

/* A record that was too large before p is told first: in smaller pieces that would have come to light first. */
static const unsigned char *refuse(struct split *s, enum cause cause, const unsigned char *p, const char *what)
{
	if (s->from && record_length(s, p) > s->max_record)
		return fail_too_large(s);
	return fail_at(s, cause, offset_of(s, p), "%s", what);
}

/* The byte at p cannot stand where `expected` must. */
static const unsigned char *refuse_byte(struct split *s, const unsigned char *p, const char *expected)
{
	enum cause cause = NOT_JSON;
	char what[128];

	/* bytes that begin no character of UTF-8 */
	if ((*p >= 0x80 && *p < 0xc2) || *p > 0xf4)
		cause = NOT_UTF_8;
	if (*p > 0x20 && *p < 0x7f)
		snprintf(what, sizeof what, "expected %s, found '%c'", expected, *p);
	else
		snprintf(what, sizeof what, "expected %s, found byte 0x%02x", expected, *p);
	return refuse(s, cause, p, what);
}

/* Records */

static void record_begin(struct split *s, const unsigned char *p)
{
	bytes_clear(&s->record);
	s->from = p;
	s->record_offset = offset_of(s, p);
	s->breaks = false;
}

static void blank(unsigned char *p, const unsigned char *end, char c)
{
	while ((p = memchr(p, c, (size_t)(end - p))))
		*p++ = ' ';
}

/* Moves what the record has in this piece, up to p, into its buffer. */
static const unsigned char *record_keep(struct split *s, const unsigned char *p)
{
	size_t before = s->record.len;

	if (record_length(s, p) > s->max_record)
		return fail_too_large(s);
	s->code = bytes_add(&s->record, s->from, (size_t)(p - s->from));
	if (s->code) {
		err_fail(s->err, s->code, "no memory for the record at offset %llu",
		         (unsigned long long)s->record_offset);
		return NULL;
	}
	s->from = p;
	/* within valid JSON these stand between tokens only */
	if (s->breaks) {
		blank(s->record.data + before, s->record.data + s->record.len, '\n');
		blank(s->record.data + before, s->record.data + s->record.len, '\r');
	}
	s->breaks = false;
	return p;
}

/* p is behind the record's last byte. */
static const unsigned char *record_end(struct split *s, const unsigned char *p)
{
	const unsigned char *data = s->from;
	size_t len = record_length(s, p);

	if (len > s->max_record)
		return fail_too_large(s);
	if (s->record.len || s->breaks) {
		if (!record_keep(s, p))
			return NULL;
		data = s->record.data;
	}
	s->from = NULL;
	s->code = s->on_record(s->arg, data, len);
	return s->code ? NULL : p;
}

/* The path */

/* Compares a run of the key's bytes, escapes decoded. */
static void compare(struct split *s, const void *data, size_t len)
{
	const struct key *key = &s->keys[s->level - 1];

	if (!len || !s->comparing)
		return;
	if (s->high || len > key->len - s->compared || memcmp(key->text + s->compared, data, len) != 0)
		s->comparing = false;
	else
		s->compared += len;
}

static size_t encode_utf_8(unsigned point, unsigned char out[4])
{
	if (point < 0x80) {
		out[0] = (unsigned char)point;
		return 1;
	}
	size_t len = point < 0x800 ? 2 : point < 0x10000 ? 3 : 4;

	for (size_t i = len - 1; i > 0; i--, point >>= 6)
		out[i] = (unsigned char)(0x80 | (point & 0x3f));
	out[0] = (unsigned char)((0xf00 >> len) | point);
	return len;
}

/* Compares what \u gave: half a surrogate pair waits for the other half; alone it is equal to nothing. */
static void compare_unit(struct split *s)
{
	unsigned char utf_8[4];
	unsigned point = s->unit;

	if (s->unit >= 0xd800 && s->unit < 0xdc00 && !s->high) {
		s->high = s->unit;
		return;
	}
	if (s->unit >= 0xdc00 && s->unit < 0xe000 && s->high) {
		point = 0x10000 + ((s->high - 0xd800) << 10) + (s->unit - 0xdc00);
		s->high = 0;
	} else if (s->unit >= 0xd800 && s->unit < 0xe000) {
		s->comparing = false;
	}
	compare(s, utf_8, encode_utf_8(point, utf_8));
}

/* The value that begins at p is on the path: at its end, where the array of records must be, or on the way there. */
static const unsigned char *value_on_path(struct split *s, const unsigned char *p)
{
	s->on_path = false;
	if (s->level < s->key_count) {
		if (*p == '{')
			s->level++;
		return p;
	}
	if (s->found)
		return fail_at(s, NO_RECORDS, offset_of(s, p), "records = \"%s\" stands in the text twice", s->path);
	if (*p != '[')
		return fail_at(s, NO_RECORDS, offset_of(s, p), "what stands at records = \"%s\" is no array", s->path);
	s->found = true;
	s->record_depth = s->depth + 1;
	return p;
}

/* Eight bytes at a time */

#define EACH_BYTE(c) (UINT64_C(0x0101010101010101) * (c))

/* The first byte becomes the lowest on any machine. */
static inline uint64_t load_eight(const unsigned char *p)
{
	uint64_t eight;

	memcpy(&eight, p, 8);
	return le64toh(eight);
}

static inline unsigned first_byte(uint64_t high_bits)
{
	return (unsigned)__builtin_ctzll(high_bits) / 8;
}

/* In both masks below a carry or borrow may invent high bits, but only above the first that is right. */

static inline uint64_t other_than_digits(uint64_t eight)
{
	eight ^= EACH_BYTE('0');
	return (eight | (eight + EACH_BYTE(0x76))) & EACH_BYTE(0x80);
}

static inline uint64_t other_than_plain(uint64_t eight)
{
	uint64_t quote = (eight ^ EACH_BYTE('"')) - EACH_BYTE(1);
	uint64_t backslash = (eight ^ EACH_BYTE('\\')) - EACH_BYTE(1);
	uint64_t control = eight - EACH_BYTE(0x20);

	return (quote | backslash | control | eight) & EACH_BYTE(0x80);
}

static inline const unsigned char *skip_digits(const unsigned char *p, const unsigned char *end)
{
	for (; end - p >= 8; p += 8) {
		uint64_t others = other_than_digits(load_eight(p));

		if (others)
			return p + first_byte(others);
	}
	while (p < end && *p >= '0' && *p <= '9')
		p++;
	return p;
}

/* White space, nesting, and the ends of values */

static inline const unsigned char *skip_white(struct split *s, const unsigned char *p, const unsigned char *end)
{
	/* the common case, worth a test of its own */
	if (p == end || *p > ' ')
		return p;
	for (; p < end && *p <= ' '; p++) {
		if (*p == '\n' || *p == '\r')
			s->breaks = true;
		else if (*p != ' ' && *p != '\t')
			break;
	}
	return p;
}

/* A value ended just before p. */
static inline const unsigned char *value_end(struct split *s, const unsigned char *p)
{
	s->state = s->depth ? STATE_AFTER : STATE_DONE;
	return s->depth == s->record_depth ? record_end(s, p) : p;
}

static inline const unsigned char *open_at(struct split *s, const unsigned char *p, bool object)
{
	uint64_t *word = &s->objects[s->depth / 64 % (SPLIT_MAX_DEPTH / 64)];
	uint64_t bit = (uint64_t)1 << s->depth % 64;

	if (s->depth == SPLIT_MAX_DEPTH)
		return refuse(s, TOO_DEEP, p, "more than 512 arrays and objects, one in the other");
	*word = object ? *word | bit : *word & ~bit;
	s->depth++;
	s->in_object = object;
	s->state = object ? STATE_FIRST_KEY : STATE_FIRST_VALUE;
	return p + 1;
}

static inline const unsigned char *close_at(struct split *s, const unsigned char *p)
{
	if (s->depth == s->level)
		s->level--;
	if (s->depth == s->record_depth)
		s->record_depth = NO_DEPTH;
	s->depth--;
	if (s->depth)
		s->in_object = s->objects[(s->depth - 1) / 64] >> (s->depth - 1) % 64 & 1;
	return value_end(s, p + 1);
}

/* Strings */

/* What a byte means within a string; those from TAIL_1 on begin a character of several bytes. */
enum { PLAIN, QUOTE, BACKSLASH, CONTROL, STRAY, TAIL_1, TAIL_2, TAIL_3, TAIL_E0, TAIL_ED, TAIL_F0, TAIL_F4 };

static const unsigned char string_bytes[256] = {
	[0x00 ... 0x1f] = CONTROL, ['"'] = QUOTE,    ['\\'] = BACKSLASH,       [0x80 ... 0xc1] = STRAY,
	[0xc2 ... 0xdf] = TAIL_1,  [0xe0] = TAIL_E0, [0xe1 ... 0xec] = TAIL_2, [0xed] = TAIL_ED,
	[0xee ... 0xef] = TAIL_2,  [0xf0] = TAIL_F0, [0xf1 ... 0xf3] = TAIL_3, [0xf4] = TAIL_F4,
	[0xf5 ... 0xff] = STRAY,
};

/* The byte that must come, and what must come after it (RFC 3629: nothing overlong, no surrogates, no more than
 * U+10FFFF). */
static const struct {
	unsigned char low, high, next;
} tails[] = {
	[TAIL_1] = { 0x80, 0xbf, PLAIN },   [TAIL_2] = { 0x80, 0xbf, TAIL_1 },  [TAIL_3] = { 0x80, 0xbf, TAIL_2 },
	[TAIL_E0] = { 0xa0, 0xbf, TAIL_1 }, [TAIL_ED] = { 0x80, 0x9f, TAIL_1 }, [TAIL_F0] = { 0x90, 0xbf, TAIL_2 },
	[TAIL_F4] = { 0x80, 0x8f, TAIL_2 },
};

static const char escapes[256] = {
	['"'] = '"', ['\\'] = '\\', ['/'] = '/', ['b'] = '\b', ['f'] = '\f', ['n'] = '\n', ['r'] = '\r', ['t'] = '\t'
};

static inline const unsigned char *skip_plain(const unsigned char *p, const unsigned char *end)
{
	for (; end - p >= 8; p += 8) {
		uint64_t others = other_than_plain(load_eight(p));

		if (others)
			return p + first_byte(others);
	}
	while (p < end && string_bytes[*p] == PLAIN)
		p++;
	return p;
}

static inline bool is_hex(unsigned char c)
{
	return (c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'f');
}

static inline const unsigned char *skip_escape(const unsigned char *p, const unsigned char *end)
{
	if (end - p >= 2 && escapes[p[1]])
		return p + 2;
	if (end - p >= 6 && p[1] == 'u' && is_hex(p[2]) && is_hex(p[3]) && is_hex(p[4]) && is_hex(p[5]))
		return p + 6;
	return p;
}

/* One of several bytes. */
static inline const unsigned char *skip_character(const unsigned char *p, const unsigned char *end)
{
	unsigned tail = string_bytes[*p];

	if (tail < TAIL_1)
		return p;
	for (const unsigned char *next = p + 1; next < end; next++) {
		if (*next < tails[tail].low || *next > tails[tail].high)
			return p;
		tail = tails[tail].next;
		if (tail == PLAIN)
			return next + 1;
	}
	return p;
}

static inline const unsigned char *skip_characters(const unsigned char *p, const unsigned char *end)
{
	for (;;) {
		const unsigned char *run = skip_plain(p, end);

		if (run == end || *run == '"')
			return run;
		p = *run == '\\' ? skip_escape(run, end) : skip_character(run, end);
		if (p == run)
			return p;
	}
}

/* A colon and a value follow a key so often that they are not left to the next turn of the loop. */
static const unsigned char *step_colon(struct split *s, const unsigned char *p, const unsigned char *end);

/* p is behind the closing quote. */
static inline const unsigned char *string_end(struct split *s, const unsigned char *p, const unsigned char *end)
{
	if (!s->is_key)
		return value_end(s, p);
	if (s->comparing)
		s->on_path = !s->high && s->compared == s->keys[s->level - 1].len;
	s->comparing = false;
	s->state = STATE_COLON;
	return step_colon(s, p, end);
}

static const unsigned char *step_string(struct split *s, const unsigned char *p, const unsigned char *end)
{
	const unsigned char *run = p;
	unsigned kind;

	p = s->comparing ? skip_plain(p, end) : skip_characters(p, end);
	if (s->comparing)
		compare(s, run, (size_t)(p - run));
	s->state = STATE_STRING;
	if (p == end)
		return p;
	if (*p == '"')
		return string_end(s, p + 1, end);
	kind = string_bytes[*p];
	if (kind == CONTROL)
		return refuse(s, NOT_JSON, p, "a raw control character in a string");
	if (kind == STRAY)
		return refuse(s, NOT_UTF_8, p, "a byte that begins no character");
	if (kind == BACKSLASH) {
		s->state = STATE_ESCAPE;
		return p + 1;
	}
	if (s->comparing)
		compare(s, p, 1);
	s->tail = kind;
	s->state = STATE_UTF_8;
	return p + 1;
}

static const unsigned char *step_utf_8(struct split *s, const unsigned char *p, const unsigned char *end)
{
	const unsigned char *run = p;
	unsigned tail = s->tail;

	for (; p < end && tail; p++) {
		if (*p < tails[tail].low || *p > tails[tail].high)
			return refuse(s, NOT_UTF_8, p, "a byte that cannot go on with the character before it");
		tail = tails[tail].next;
	}
	if (s->comparing)
		compare(s, run, (size_t)(p - run));
	s->tail = tail;
	if (!tail)
		s->state = STATE_STRING;
	return p;
}

static const unsigned char *step_escape(struct split *s, const unsigned char *p, const unsigned char *end)
{
	(void)end;
	if (*p == 'u') {
		s->hex_left = 4;
		s->unit = 0;
		s->state = STATE_HEX;
		return p + 1;
	}
	if (!escapes[*p])
		return refuse_byte(s, p, "one of \"\\/bfnrtu after the backslash");
	if (s->comparing)
		compare(s, &escapes[*p], 1);
	s->state = STATE_STRING;
	return p + 1;
}

static const unsigned char *step_hex(struct split *s, const unsigned char *p, const unsigned char *end)
{
	for (; p < end && s->hex_left; p++, s->hex_left--) {
		unsigned char lower = *p | 0x20;

		if (*p >= '0' && *p <= '9')
			s->unit = s->unit << 4 | (unsigned)(*p - '0');
		else if (lower >= 'a' && lower <= 'f')
			s->unit = s->unit << 4 | (unsigned)(lower - 'a' + 10);
		else
			return refuse_byte(s, p, "four hex digits after \\u");
	}
	if (s->hex_left)
		return p;
	if (s->comparing)
		compare_unit(s);
	s->state = STATE_STRING;
	return p;
}

/* Numbers and literals */

enum { NUMBER_END, MINUS, ZERO, WHOLE, POINT, FRACTION, EXPONENT, SIGN, POWER };
enum { OTHER, DIGIT_0, DIGIT, DOT, LETTER_E, PLUS, DASH, NUMBER_BYTES };

static const unsigned char number_bytes[256] = {
	['0'] = DIGIT_0,  ['1' ... '9'] = DIGIT, ['.'] = DOT,  ['e'] = LETTER_E,
	['E'] = LETTER_E, ['+'] = PLUS,          ['-'] = DASH,
};

static const unsigned char number_steps[][NUMBER_BYTES] = {
	[MINUS] = { [DIGIT_0] = ZERO, [DIGIT] = WHOLE },
	[ZERO] = { [DOT] = POINT, [LETTER_E] = EXPONENT },
	[WHOLE] = { [DIGIT_0] = WHOLE, [DIGIT] = WHOLE, [DOT] = POINT, [LETTER_E] = EXPONENT },
	[POINT] = { [DIGIT_0] = FRACTION, [DIGIT] = FRACTION },
	[FRACTION] = { [DIGIT_0] = FRACTION, [DIGIT] = FRACTION, [LETTER_E] = EXPONENT },
	[EXPONENT] = { [DIGIT_0] = POWER, [DIGIT] = POWER, [PLUS] = SIGN, [DASH] = SIGN },
	[SIGN] = { [DIGIT_0] = POWER, [DIGIT] = POWER },
	[POWER] = { [DIGIT_0] = POWER, [DIGIT] = POWER },
};

static bool number_may_end(unsigned number)
{
	return number == ZERO || number == WHOLE || number == FRACTION || number == POWER;
}

static const unsigned char *step_number(struct split *s, const unsigned char *p, const unsigned char *end)
{
	unsigned number = s->number;

	for (; p < end; p++) {
		unsigned next = number_steps[number][number_bytes[*p]];

		if (next == NUMBER_END) {
			if (!number_may_end(number))
				return refuse_byte(s, p, number == EXPONENT ? "a digit or a sign" : "a digit");
			return value_end(s, p);
		}
		number = next;
	}
	s->number = number;
	s->state = STATE_NUMBER;
	return p;
}

static const unsigned char *step_literal(struct split *s, const unsigned char *p, const unsigned char *end)
{
	s->state = STATE_LITERAL;
	for (; p < end && *s->literal; p++, s->literal++)
		if (*p != (unsigned char)*s->literal)
			return refuse_byte(s, p, "true, false or null");
	return *s->literal ? p : value_end(s, p);
}

/* Between tokens */

static const unsigned char *refuse_value(struct split *s, const unsigned char *p)
{
	if (!s->depth && *p == '<')
		return refuse(s, NOT_JSON, p,
		              s->lines ? "the line begins with '<': it looks like HTML or XML"
		                       : "the text begins with '<': it looks like HTML or XML");
	return refuse_byte(s, p, "a value");
}

/* Behind a number that ends before end; NULL where it does not or is wrong. */
static inline const unsigned char *skip_number(const unsigned char *p, const unsigned char *end)
{
	const unsigned char *digits = p + (*p == '-');

	p = skip_digits(digits, end);
	if (p == digits || (*digits == '0' && p - digits > 1))
		return NULL;
	if (p < end && *p == '.') {
		digits = p + 1;
		p = skip_digits(digits, end);
		if (p == digits)
			return NULL;
	}
	if (p < end && (*p | 0x20) == 'e') {
		digits = p + 1;
		digits += digits < end && (*digits == '+' || *digits == '-');
		p = skip_digits(digits, end);
		if (p == digits)
			return NULL;
	}
	return p < end ? p : NULL;
}

static const unsigned char *begin_number(struct split *s, const unsigned char *p, const unsigned char *end)
{
	const unsigned char *behind = skip_number(p, end);

	if (behind)
		return value_end(s, behind);
	s->number = number_steps[MINUS][number_bytes[*p]];
	if (*p == '-')
		s->number = MINUS;
	return step_number(s, p + 1, end);
}

static inline const unsigned char *begin_literal(struct split *s, const unsigned char *p, const unsigned char *end,
                                                 const char *literal)
{
	size_t len = strlen(literal);

	s->literal = literal + 1;
	if ((size_t)(end - p) >= len && memcmp(p, literal, len) == 0)
		return value_end(s, p + len);
	return step_literal(s, p + 1, end);
}

enum { NO_VALUE, A_STRING, AN_OBJECT, AN_ARRAY, A_NUMBER, A_TRUE, A_FALSE, A_NULL };

static const unsigned char first_bytes[256] = {
	['"'] = A_STRING,         ['{'] = AN_OBJECT, ['['] = AN_ARRAY, ['-'] = A_NUMBER,
	['0' ... '9'] = A_NUMBER, ['t'] = A_TRUE,    ['f'] = A_FALSE,  ['n'] = A_NULL,
};

static const unsigned char *step_value(struct split *s, const unsigned char *p, const unsigned char *end)
{
	unsigned kind;

	p = skip_white(s, p, end);
	if (p == end)
		return p;
	kind = first_bytes[*p];
	if (kind == NO_VALUE)
		return refuse_value(s, p);
	if (s->on_path && !value_on_path(s, p))
		return NULL;
	if (s->depth == s->record_depth)
		record_begin(s, p);
	switch (kind) {
	case A_STRING:
		s->is_key = false;
		return step_string(s, p + 1, end);
	case A_NUMBER:
		return begin_number(s, p, end);
	case AN_OBJECT:
		return open_at(s, p, true);
	case AN_ARRAY:
		return open_at(s, p, false);
	case A_TRUE:
		return begin_literal(s, p, end, "true");
	case A_FALSE:
		return begin_literal(s, p, end, "false");
	default:
		return begin_literal(s, p, end, "null");
	}
}

static const unsigned char *step_first_value(struct split *s, const unsigned char *p, const unsigned char *end)
{
	p = skip_white(s, p, end);
	if (p == end)
		return p;
	if (*p == ']')
		return close_at(s, p);
	s->state = STATE_VALUE;
	return step_value(s, p, end);
}

static const unsigned char *step_key(struct split *s, const unsigned char *p, const unsigned char *end)
{
	p = skip_white(s, p, end);
	if (p == end)
		return p;
	if (*p != '"')
		return refuse_byte(s, p, "a key in quotes");
	s->is_key = true;
	s->comparing = s->depth == s->level;
	s->compared = 0;
	s->high = 0;
	return step_string(s, p + 1, end);
}

static const unsigned char *step_first_key(struct split *s, const unsigned char *p, const unsigned char *end)
{
	p = skip_white(s, p, end);
	if (p == end)
		return p;
	if (*p == '}')
		return close_at(s, p);
	s->state = STATE_KEY;
	return step_key(s, p, end);
}

static const unsigned char *step_colon(struct split *s, const unsigned char *p, const unsigned char *end)
{
	p = skip_white(s, p, end);
	if (p == end)
		return p;
	if (*p != ':')
		return refuse_byte(s, p, "':' after a key");
	s->state = STATE_VALUE;
	return step_value(s, p + 1, end);
}

static const unsigned char *step_after(struct split *s, const unsigned char *p, const unsigned char *end)
{
	p = skip_white(s, p, end);
	if (p == end)
		return p;
	if (*p == ',') {
		s->state = s->in_object ? STATE_KEY : STATE_VALUE;
		return s->in_object ? step_key(s, p + 1, end) : step_value(s, p + 1, end);
	}
	if (*p == (s->in_object ? '}' : ']'))
		return close_at(s, p);
	return refuse_byte(s, p, s->in_object ? "',' or '}'" : "',' or ']'");
}

static const unsigned char *step_done(struct split *s, const unsigned char *p, const unsigned char *end)
{
	p = skip_white(s, p, end);
	if (p == end)
		return p;
	return refuse_byte(s, p,
	                   s->lines ? "nothing more after the line's value" : "nothing more after the text's value");
}

static const unsigned char *step_start(struct split *s, const unsigned char *p, const unsigned char *end)
{
	(void)end;
	s->state = STATE_VALUE;
	if (*p != 0xef)
		return p;
	s->literal = "\xbb\xbf";
	s->state = STATE_BOM;
	return p + 1;
}

static const unsigned char *step_bom(struct split *s, const unsigned char *p, const unsigned char *end)
{
	for (; p < end && *s->literal; p++, s->literal++)
		if (*p != (unsigned char)*s->literal)
			return refuse(s, NOT_JSON, p, "expected the rest of a byte order mark");
	if (!*s->literal)
		s->state = STATE_VALUE;
	return p;
}

static const unsigned char *(*const steps[])(struct split *, const unsigned char *, const unsigned char *) = {
	[STATE_START] = step_start,     [STATE_BOM] = step_bom,
	[STATE_VALUE] = step_value,     [STATE_FIRST_VALUE] = step_first_value,
	[STATE_KEY] = step_key,         [STATE_FIRST_KEY] = step_first_key,
	[STATE_COLON] = step_colon,     [STATE_STRING] = step_string,
	[STATE_UTF_8] = step_utf_8,     [STATE_ESCAPE] = step_escape,
	[STATE_HEX] = step_hex,         [STATE_NUMBER] = step_number,
	[STATE_LITERAL] = step_literal, [STATE_AFTER] = step_after,
	[STATE_DONE] = step_done,
};

/* Public functions */

/* As other tools write it: "data[0].x", "$[*]". */
static bool has_index(const char *path)
{
	const char *bracket = strchr(path, '[');

	return bracket && strchr(bracket, ']') && strchr("0123456789*]", bracket[1]);
}

int split_check_path(const char *path, struct err *err)
{
	if (!path || strcmp(path, "$") == 0)
		return 0;
	if (!*path)
		return err_fail(err, -EINVAL, "an empty path; \"$\" is an array that is the whole text");
	if (strncmp(path, "$.", 2) == 0)
		return err_fail(err, -EINVAL, "\"%s\" is no path; without the \"$.\" it is one", path);
	if (has_index(path))
		return err_fail(
		        err, -EINVAL,
		        "\"%s\" goes into an array: a path goes through keys alone, as \"data.stations\", to the "
		        "array whose elements are the records",
		        path);
	if (*path == '.' || path[strlen(path) - 1] == '.' || strstr(path, ".."))
		return err_fail(err, -EINVAL, "\"%s\" is no path: a key in it is empty", path);
	return 0;
}

static size_t count_keys(const char *path)
{
	size_t count = 1;

	if (!path || strcmp(path, "$") == 0)
		return 0;
	for (; *path; path++)
		count += *path == '.';
	return count;
}

static void cut_keys(struct split *s)
{
	const char *text = s->path;

	for (size_t i = 0; i < s->key_count; i++) {
		s->keys[i] = (struct key){ .text = text, .len = strcspn(text, ".") };
		text += s->keys[i].len + 1;
	}
}

/* One whose whole text is one record; NULL for want of memory. */
static struct split *new_splitter(size_t key_count, size_t max_record, split_on_record on_record, void *arg)
{
	struct split *s = calloc(1, sizeof *s + key_count * sizeof *s->keys);

	if (!s)
		return NULL;
	bytes_init(&s->record, max_record);
	s->max_record = max_record;
	s->on_record = on_record;
	s->arg = arg;
	s->key_count = key_count;
	return s;
}

int split_new(const char *path, size_t max_record, split_on_record on_record, void *arg, struct split **ret_split,
              struct err *err)
{
	int rc = split_check_path(path, err);
	struct split *s;

	if (rc)
		return rc;
	s = new_splitter(count_keys(path), max_record, on_record, arg);
	if (s && path) {
		s->on_path = true;
		s->record_depth = NO_DEPTH;
		s->path = strdup(path);
	}
	if (!s || (path && !s->path)) {
		split_free(s);
		return err_fail(err, -ENOMEM, "no memory for a splitter");
	}
	cut_keys(s);
	*ret_split = s;
	return 0;
}

int split_new_lines(size_t max_record, split_on_record on_record, void *arg, struct split **ret_split)
{
	struct split *s = new_splitter(0, max_record, on_record, arg);

	if (!s)
		return -ENOMEM;
	s->lines = true;
	*ret_split = s;
	return 0;
}

void split_free(struct split *split)
{
	if (!split)
		return;
	bytes_done(&split->record);
	free(split->path);
	free(split);
}

static void take_piece(struct split *s, const unsigned char *piece, struct err *err)
{
	assert(!s->code);
	s->err = err;
	s->piece = piece;
	if (s->from)
		s->from = piece;
}

static const unsigned char *take_text(struct split *s, const unsigned char *p, const unsigned char *end)
{
	while (p && p < end)
		p = steps[s->state](s, p, end);
	return p;
}

/* Only what follows tells that a number has ended. */
static bool number_at_end(const struct split *s)
{
	return s->state == STATE_NUMBER && !s->depth && number_may_end(s->number);
}

/* The line at hand ends at p, before its LF if it has one. */
static const unsigned char *end_line(struct split *s, const unsigned char *p, enum cause cause, const char *what)
{
	if (number_at_end(s) && !value_end(s, p))
		return NULL;
	if (s->state != STATE_DONE && s->state != STATE_START && (s->state != STATE_VALUE || s->depth))
		return refuse(s, cause, p, what);
	s->state = STATE_VALUE;
	return p;
}

static const unsigned char *take_lines(struct split *s, const unsigned char *p, const unsigned char *end)
{
	while (p && p < end) {
		const unsigned char *feed = memchr(p, '\n', (size_t)(end - p));

		p = take_text(s, p, feed ? feed : end);
		if (p && feed)
			p = end_line(s, p, NOT_JSON, "the line ends before its value does; is it format = \"json\"?");
		if (p && feed)
			p++;
	}
	return p;
}

int split_feed(struct split *split, const void *data, size_t len, struct err *err)
{
	const unsigned char *p = data;
	const unsigned char *end = p + len;

	if (!len)
		return 0;
	take_piece(split, p, err);
	p = split->lines ? take_lines(split, p, end) : take_text(split, p, end);
	if (p && split->from)
		p = record_keep(split, end);
	split->piece_offset += len;
	return p ? 0 : split->code;
}

int split_finish(struct split *split, struct err *err)
{
	struct split *s = split;
	const unsigned char *p = (const unsigned char *)"";

	take_piece(s, p, err);
	if (s->lines) {
		end_line(s, p, TRUNCATED, "the text ends before its last line's value does");
		return s->code;
	}
	if (number_at_end(s) && !value_end(s, p))
		return s->code;
	if (s->state == STATE_START || (s->state == STATE_VALUE && !s->depth))
		refuse(s, EMPTY, p, "no JSON text, at most white space");
	else if (s->state != STATE_DONE)
		refuse(s, TRUNCATED, p, "the text ends before its value does");
	else if (s->path && !s->found)
		fail_at(s, NO_RECORDS, offset_of(s, p), "nothing stands at records = \"%s\"", s->path);
	return s->code;
}

uint64_t split_offset(const struct split *split)
{
	return split->cause == CAUSE_NONE ? split->piece_offset : split->wrong_offset;
}

const char *split_cause(const struct split *split)
{
	return causes[split->cause].word;
}
