/* SPDX-License-Identifier: Apache-2.0 */
#include "base/utf8.h"

static bool continues(unsigned char byte)
{
	return (byte & 0xc0) == 0x80;
}

size_t utf8_decode(const void *text, size_t len, uint32_t *ret_code)
{
	static const uint32_t least[] = { 0, 0, 0x80, 0x800, 0x10000 };
	const unsigned char *from = text;
	size_t n = *from < 0x80 ? 1 : *from >= 0xf0 ? 4 : *from >= 0xe0 ? 3 : 2;
	uint32_t code = n == 1 ? *from : *from & (0x7fU >> n);
	if (n > len || *from >= 0xf8 || continues(*from))
		return 0;
	for (size_t i = 1; i < n; i++) {
		if (!continues(from[i]))
			return 0;
		code = code << 6 | (from[i] & 0x3f);
	}
	bool surrogate = code >= 0xd800 && code <= 0xdfff;
	if (code < least[n] || surrogate || code > 0x10ffff)
		return 0;
	if (ret_code)
		*ret_code = code;
	return n;
}

bool utf8_breaks_line(uint32_t code)
{
	return code < 0x20 || (code >= 0x7f && code < 0xa0) || code == 0x2028 || code == 0x2029;
}

size_t utf8_cut(const char *text, size_t len)
{
	for (size_t back = 0; back < UTF8_MAX - 1 && len > 0 && continues((unsigned char)text[len]); back++)
		len--;
	return len;
}
