/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A reader for the few elements of an S3 answer that matter: it finds an element by its name and gives its text. No
 * general XML: neither comments, CDATA nor elements within elements of their own name stand in what an S3 sends. Pure;
 * any thread.
 */
#ifndef BUFFER_S3_XML_H
#define BUFFER_S3_XML_H

#include <stdbool.h>
#include <stddef.h>

struct s3_span {
	const char *at;
	size_t len;
};

/* The content of the first element `name` in `in`, and (unless NULL) what stands behind it; false: none that ends. */
bool s3_xml_find(struct s3_span in, const char *name, struct s3_span *ret_content, struct s3_span *ret_behind);

/*
 * Content that is text, its entities decoded to UTF-8, with a NUL; cut where it does not fit into size (at least 1).
 * Returns the length of all of it, without NUL.
 */
size_t s3_xml_text(struct s3_span content, char *ret_text, size_t size);

#endif
