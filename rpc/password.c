#include "rpc/password.h"

#include "base/bytes.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/rand.h>
#include <stdio.h>
#include <string.h>

enum {
	SALT_BYTES = 16,
	KEY_BYTES = 32,
	COST_LN = 15,
	COST_R = 8,
	COST_P = 1,
	/* What a stored hash may ask for: 128 * r * 2^ln bytes at most. */
	COST_LN_MAX = 17,
	COST_R_MAX = 16,
	COST_P_MAX = 4,
};

static int derive(const char *password, const uint8_t salt[static SALT_BYTES], int ln,
	int r, int p, uint8_t key[static KEY_BYTES], struct rv_error *e)
{
	uint64_t n = UINT64_C(1) << ln;
	uint64_t max_memory = 128 * (uint64_t)r * (n + (uint64_t)p + 2) + (1 << 20);

	if (EVP_PBE_scrypt(password, strlen(password), salt, SALT_BYTES, n, (uint64_t)r,
		    (uint64_t)p, max_memory, key, KEY_BYTES) != 1)
		return rv_error_set(e, RV_EINTERNAL,
			"the password can't be hashed: scrypt failed (out of memory?)");
	return 0;
}

static bool from_hex(const char *text, size_t n, uint8_t *bytes)
{
	for (size_t i = 0; i < n; i++) {
		unsigned value = 0;

		for (int nibble = 0; nibble < 2; nibble++) {
			char ch = text[2 * i + (size_t)nibble];

			if (ch >= '0' && ch <= '9')
				value = value << 4 | (unsigned)(ch - '0');
			else if (ch >= 'a' && ch <= 'f')
				value = value << 4 | (unsigned)(ch - 'a' + 10);
			else
				return false;
		}
		bytes[i] = (uint8_t)value;
	}
	return true;
}

static int check_length(const char *password, struct rv_error *e)
{
	size_t len = strnlen(password, PASSWORD_MAX_BYTES + 1);

	if (len == 0)
		return rv_error_set(e, RV_EINVAL, "the password is empty");
	if (len > PASSWORD_MAX_BYTES)
		return rv_error_set(e, RV_EINVAL, "the password is longer than %d bytes",
			PASSWORD_MAX_BYTES);
	return 0;
}

int password_hash(
	const char *password, char out[static PASSWORD_HASH_SIZE], struct rv_error *e)
{
	char salt_hex[2 * SALT_BYTES + 1], key_hex[2 * KEY_BYTES + 1];
	uint8_t salt[SALT_BYTES], key[KEY_BYTES];
	int rc = check_length(password, e);

	if (rc)
		return rc;
	if (RAND_bytes(salt, sizeof salt) != 1)
		return rv_error_set(e, RV_EINTERNAL,
			"the password can't be hashed: no random numbers");
	rc = derive(password, salt, COST_LN, COST_R, COST_P, key, e);
	if (rc)
		return rc;
	bytes_hex(salt, sizeof salt, salt_hex);
	bytes_hex(key, sizeof key, key_hex);
	snprintf(out, PASSWORD_HASH_SIZE, "$scrypt$ln=%d,r=%d,p=%d$%s$%s", COST_LN,
		COST_R, COST_P, salt_hex, key_hex);
	OPENSSL_cleanse(key, sizeof key);
	return 0;
}

int password_verify(const char *password, const char *hash, struct rv_error *e)
{
	uint8_t salt[SALT_BYTES], wanted[KEY_BYTES], key[KEY_BYTES];
	int ln, r, p, at = 0, rc;
	size_t tail = 2 * SALT_BYTES + 1 + 2 * KEY_BYTES;

	if (sscanf(hash, "$scrypt$ln=%2d,r=%2d,p=%2d$%n", &ln, &r, &p, &at) != 3 ||
		at == 0 || ln < 10 || ln > COST_LN_MAX || r < 1 || r > COST_R_MAX ||
		p < 1 || p > COST_P_MAX || strlen(hash + at) != tail ||
		hash[at + 2 * SALT_BYTES] != '$' ||
		!from_hex(hash + at, SALT_BYTES, salt) ||
		!from_hex(hash + at + 2 * SALT_BYTES + 1, KEY_BYTES, wanted))
		return rv_error_set(e, RV_ECORRUPT,
			"the stored password hash can't be read; set the password anew");
	if (check_length(password, NULL) != 0)
		return rv_error_set(e, RV_EAUTH, "wrong user name or password");
	rc = derive(password, salt, ln, r, p, key, e);
	if (!rc && CRYPTO_memcmp(key, wanted, sizeof key) != 0)
		rc = rv_error_set(e, RV_EAUTH, "wrong user name or password");
	OPENSSL_cleanse(key, sizeof key);
	return rc;
}
