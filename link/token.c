#include "link/token.h"

#include "base/bytes.h"

#include <openssl/crypto.h>
#include <openssl/sha.h>
#include <string.h>

/* So that a token's hash is no other thing's. */
static const char hash_label[] = "reeve join token v1";

static int digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

static bool get_hex(uint8_t *out, size_t len, const char *text)
{
	for (size_t i = 0; i < len; i++) {
		int high = digit(text[2 * i]), low = digit(text[2 * i + 1]);

		if (high < 0 || low < 0)
			return false;
		out[i] = (uint8_t)(high << 4 | low);
	}
	return true;
}

int token_new(struct token *t, const uint8_t fingerprint[static CA_FINGERPRINT_SIZE],
	struct rv_error *e)
{
	memcpy(t->fingerprint, fingerprint, CA_FINGERPRINT_SIZE);
	return ca_random(t->secret, sizeof t->secret, e);
}

char *token_format(const struct token *t, char text[static TOKEN_TEXT_SIZE])
{
	bytes_hex(t->secret, sizeof t->secret, text);
	text[2 * sizeof t->secret] = '.';
	bytes_hex(t->fingerprint, sizeof t->fingerprint, text + 2 * sizeof t->secret + 1);
	return text;
}

int token_parse(struct token *out, const char *text, size_t len, struct rv_error *e)
{
	if (len != TOKEN_TEXT_LEN)
		return rv_error_set(e, RV_EINVAL,
			"token: %zu characters, not %d; copy it whole", len,
			TOKEN_TEXT_LEN);
	if (text[2 * TOKEN_SECRET_SIZE] != '.')
		return rv_error_set(e, RV_EINVAL,
			"token: no dot in its middle; it is TOKEN.FINGERPRINT");
	if (!get_hex(out->secret, sizeof out->secret, text) ||
		!get_hex(out->fingerprint, sizeof out->fingerprint,
			text + 2 * TOKEN_SECRET_SIZE + 1))
		return rv_error_set(
			e, RV_EINVAL, "token: not only hexadecimal digits; copy it anew");
	return 0;
}

void token_hash(const uint8_t secret[static TOKEN_SECRET_SIZE],
	uint8_t out[static TOKEN_HASH_SIZE])
{
	uint8_t input[sizeof hash_label + TOKEN_SECRET_SIZE];

	memcpy(input, hash_label, sizeof hash_label);
	memcpy(input + sizeof hash_label, secret, TOKEN_SECRET_SIZE);
	SHA256(input, sizeof input, out);
	OPENSSL_cleanse(input, sizeof input);
}

int token_judge(const struct token_record *r, const struct token_use *use, int64_t now_ms,
	enum token_verdict *verdict, struct rv_error *e)
{
	uint8_t hash[TOKEN_HASH_SIZE];

	token_hash(use->secret, hash);
	if (CRYPTO_memcmp(hash, r->hash, sizeof hash) != 0)
		return rv_error_set(e, RV_EAUTH,
			"join: the pool knows no such token; make one with "
			"pool-join-token-create");
	if (r->used) {
		if (!uuid_eq(&r->used_by_request, &use->request) ||
			!uuid_eq(&r->used_by_host, &use->host) ||
			CRYPTO_memcmp(r->used_key, use->key, sizeof use->key) != 0)
			return rv_error_set(e, RV_ECONFLICT,
				"join: the token was used already; each admits one host");
		*verdict = TOKEN_REPEAT;
		return 0;
	}
	if (now_ms >= r->expires_ms)
		return rv_error_set(
			e, RV_ETIMEDOUT, "join: the token has expired; make a new one");
	*verdict = TOKEN_FRESH;
	return 0;
}
