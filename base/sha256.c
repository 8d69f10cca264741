/* SPDX-License-Identifier: Apache-2.0 */
#include "base/sha256.h"

#include <assert.h>
#include <stdbool.h>
#include <stdlib.h>

/* Only a broken crypto library fails here, and a wrong digest would name objects wrongly for ever: better to die. */
static void must(psa_status_t status)
{
	if (status != PSA_SUCCESS)
		abort();
}

void sha256_init(struct sha256 *h)
{
	static bool ready;
	if (!ready) {
		must(psa_crypto_init());
		ready = true;
	}
	h->operation = psa_hash_operation_init();
	must(psa_hash_setup(&h->operation, PSA_ALG_SHA_256));
}

void sha256_add(struct sha256 *h, const void *data, size_t len)
{
	if (len > 0)
		must(psa_hash_update(&h->operation, data, len));
}

void sha256_finish(struct sha256 *h, uint8_t digest[SHA256_SIZE])
{
	size_t len;
	must(psa_hash_finish(&h->operation, digest, SHA256_SIZE, &len));
}

void sha256_drop(struct sha256 *h)
{
	must(psa_hash_abort(&h->operation));
}

const char *sha256_hex(const uint8_t digest[SHA256_SIZE], int digits, char *text)
{
	assert(digits >= 0 && digits <= 2 * SHA256_SIZE);
	for (int i = 0; i < digits; i++)
		text[i] = "0123456789abcdef"[i % 2 ? digest[i / 2] & 15 : digest[i / 2] >> 4];
	text[digits] = '\0';
	return text;
}
