/* SPDX-License-Identifier: Apache-2.0 */
/* Characters of UTF-8 (RFC 3629) in bytes that may be anything. Pure; any thread. */
#ifndef BASE_UTF8_H
#define BASE_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define UTF8_MAX 4 /* bytes of a character */

/*
 * How many bytes the character takes with which text begins; 0: there is none. len, from 1 on: as many bytes are there.
 * None behind the first that does not belong to it is looked at: of what a NUL ends, len may be UTF8_MAX. ret_code: its
 * number; NULL: not asked for.
 */
size_t utf8_decode(const void *text, size_t len, uint32_t *ret_code);

/* Control characters and Unicode's own ends of lines and paragraphs, of which a line must have none. */
bool utf8_breaks_line(uint32_t code);

/* len or a little less: where text, which goes on there, can be cut between two characters. */
size_t utf8_cut(const char *text, size_t len);

#endif
