/* SPDX-License-Identifier: Apache-2.0 */
#include "buffer/s3_xml.h"

#include <stdint.h>
#include <string.h>

#define NAME_MAX_LEN   32 /* of the elements that are looked for */
#define ENTITY_MAX_LEN 10 /* &#x10FFFF; */

static struct s3_span behind(struct s3_span in, const char *at)
{
	return (struct s3_span){ at, (size_t)(in.at + in.len - at) };
}

/* Behind the next `<name` that is the whole name; NULL: none. */
static const char *find_start(struct s3_span in, const char *name)
{
	size_t len = strlen(name);
	const char *at, *end = in.at + in.len;

	while ((at = memchr(in.at, '<', in.len))) {
		in = behind(in, at + 1);
		if (in.len > len && memcmp(in.at, name, len) == 0 && strchr("> \t\r\n/", in.at[len]) && in.at[len])
			return in.at + len < end ? in.at + len : NULL;
	}
	return NULL;
}

bool s3_xml_find(struct s3_span in, const char *name, struct s3_span *ret_content, struct s3_span *ret_behind)
{
	char close[NAME_MAX_LEN + 4];
	const char *at = in.len > 0 ? find_start(in, name) : NULL;
	const char *open_end = at ? memchr(at, '>', behind(in, at).len) : NULL;
	const char *end;
	size_t len = strlen(name);

	if (!open_end || len > NAME_MAX_LEN)
		return false;
	if (open_end[-1] == '/') {
		*ret_content = (struct s3_span){ open_end, 0 };
		if (ret_behind)
			*ret_behind = behind(in, open_end + 1);
		return true;
	}
	memcpy(close, "</", 2);
	memcpy(close + 2, name, len);
	memcpy(close + 2 + len, ">", 2);
	end = memmem(open_end + 1, behind(in, open_end + 1).len, close, len + 3);
	if (!end)
		return false;
	*ret_content = (struct s3_span){ open_end + 1, (size_t)(end - open_end - 1) };
	if (ret_behind)
		*ret_behind = behind(in, end + len + 3);
	return true;
}

static size_t encode_utf8(uint32_t c, char ret[4])
{
	static const unsigned char lead[] = { 0, 0, 0xc0, 0xe0, 0xf0 };
	size_t n = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;

	if (n == 1)
		ret[0] = (char)c;
	for (size_t i = n; n > 1 && i-- > 0; c >>= 6)
		ret[i] = (char)(i ? 0x80 | (c & 0x3f) : lead[n] | c);
	return n;
}

/* The number within &#…; or 0. */
static uint32_t parse_number(const char *at, size_t len)
{
	uint32_t base = 10, value = 0;

	if (len > 0 && (*at == 'x' || *at == 'X')) {
		base = 16;
		at++;
		len--;
	}
	for (; len > 0; at++, len--) {
		char c = *at;
		uint32_t digit = c >= '0' && c <= '9'   ? (uint32_t)(c - '0')
		                 : c >= 'a' && c <= 'f' ? (uint32_t)(c - 'a' + 10)
		                 : c >= 'A' && c <= 'F' ? (uint32_t)(c - 'A' + 10)
		                                        : 16;
		if (digit >= base || value > 0x10ffff)
			return 0;
		value = value * base + digit;
	}
	return value > 0x10ffff || (value >= 0xd800 && value <= 0xdfff) ? 0 : value;
}

/* What stands at an &: its character into ret, and how many bytes it took; an & that begins no entity is itself. */
static size_t decode_entity(const char *at, size_t left, char ret[4], size_t *ret_len)
{
	static const struct {
		const char *name;
		char c;
	} named[] = { { "lt", '<' }, { "gt", '>' }, { "amp", '&' }, { "quot", '"' }, { "apos", '\'' } };
	const char *end = memchr(at, ';', left < ENTITY_MAX_LEN ? left : ENTITY_MAX_LEN);
	size_t len = end ? (size_t)(end - at) - 1 : 0;
	uint32_t c = len > 1 && at[1] == '#' ? parse_number(at + 2, len - 1) : 0;

	for (size_t i = 0; end && c == 0 && i < sizeof named / sizeof *named; i++)
		if (strlen(named[i].name) == len && memcmp(at + 1, named[i].name, len) == 0)
			c = (unsigned char)named[i].c;
	if (c == 0) {
		ret[0] = '&';
		*ret_len = 1;
		return 1;
	}
	*ret_len = encode_utf8(c, ret);
	return len + 2;
}

size_t s3_xml_text(struct s3_span content, char *ret_text, size_t size)
{
	size_t total = 0, kept = 0;

	for (size_t i = 0; i < content.len;) {
		char piece[4] = { content.at[i] };
		size_t n = 1;

		i += *piece == '&' ? decode_entity(content.at + i, content.len - i, piece, &n) : 1;
		if (total + n < size) {
			memcpy(ret_text + total, piece, n);
			kept = total + n;
		}
		total += n;
	}
	ret_text[kept] = '\0';
	return total;
}
