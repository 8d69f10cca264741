/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SHA-256 through mbedTLS's PSA interface (builds with 2.28 and 3.6). Embedded; one thread at a time. psa_crypto_init
 * is called on first use, which must be on one thread: agent/ hashes the boot id before it starts a worker.
 */
#ifndef BASE_SHA256_H
#define BASE_SHA256_H

#include <psa/crypto.h>
#include <stddef.h>
#include <stdint.h>

#define SHA256_SIZE 32
#define SHA256_HEX  65 /* 64 hex digits and a NUL */

struct sha256 {
	psa_hash_operation_t operation;
};

void sha256_init(struct sha256 *h);
void sha256_add(struct sha256 *h, const void *data, size_t len);

/* Ends it; h needs a new init before it is used again. */
void sha256_finish(struct sha256 *h, uint8_t digest[SHA256_SIZE]);

/* Ends it without a result; a finished or fresh one may be dropped too. */
void sha256_drop(struct sha256 *h);

/* The first `digits` hex digits of the digest and a NUL; text has digits + 1 bytes. */
const char *sha256_hex(const uint8_t digest[SHA256_SIZE], int digits, char *text);

#endif
