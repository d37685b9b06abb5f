/*
 * Password hashes: scrypt by OpenSSL, written "$scrypt$ln=15,r=8,p=1$SALT$HASH" with salt
 * and hash in hex. Hashing takes about 0.1 s and 32 MiB on purpose: call it on a worker.
 */
#ifndef REEVE_RPC_PASSWORD_H
#define REEVE_RPC_PASSWORD_H

#include "base/error.h"

enum { PASSWORD_HASH_SIZE = 160, PASSWORD_MAX_BYTES = 512 };

/* RV_EINVAL: empty or longer than PASSWORD_MAX_BYTES. RV_EINTERNAL: OpenSSL failed. */
int password_hash(const char *password, char out[static PASSWORD_HASH_SIZE],
	struct rv_error *e) RV_MUST_CHECK;

/* 0, or RV_EAUTH for a wrong password; RV_ECORRUPT for a hash that can't be read (or asks
 * for more than this program grants). Compares in constant time. */
int password_verify(
	const char *password, const char *hash, struct rv_error *e) RV_MUST_CHECK;

#endif
