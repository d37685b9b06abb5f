/*
 * One-time tokens for joining a pool: `TOKEN.FINGERPRINT`, 64 hexadecimal digits each.
 * TOKEN is random and goes to a pool only after its CA, whose certificate's SHA-256 is
 * FINGERPRINT, has been recognised. The database keeps a hash, the expiry, and, once
 * used, by which request; that the first use wins is its compare-and-set.
 */
#ifndef REEVE_LINK_TOKEN_H
#define REEVE_LINK_TOKEN_H

#include "link/ca.h"

enum {
	TOKEN_SECRET_SIZE = 32,
	TOKEN_HASH_SIZE = 32,
	TOKEN_TEXT_LEN = 2 * TOKEN_SECRET_SIZE + 1 + 2 * CA_FINGERPRINT_SIZE,
	TOKEN_TEXT_SIZE = TOKEN_TEXT_LEN + 1,
};

struct token {
	uint8_t secret[TOKEN_SECRET_SIZE];
	uint8_t fingerprint[CA_FINGERPRINT_SIZE];
};

int token_new(struct token *t, const uint8_t fingerprint[static CA_FINGERPRINT_SIZE],
	struct rv_error *e) RV_MUST_CHECK;
char *token_format(const struct token *t, char text[static TOKEN_TEXT_SIZE]);
/* RV_EINVAL says what is wrong, without repeating the secret. */
int token_parse(struct token *out, const char *text, size_t len,
	struct rv_error *e) RV_MUST_CHECK;
void token_hash(const uint8_t secret[static TOKEN_SECRET_SIZE],
	uint8_t out[static TOKEN_HASH_SIZE]);

/* What the database holds of a token. */
struct token_record {
	uint8_t hash[TOKEN_HASH_SIZE];
	int64_t expires_ms; /* UTC */
	bool used;
	struct uuid used_by_request, used_by_host;
	uint8_t used_key[32]; /* ca_request_digest */
};

/* Who wants to use one. */
struct token_use {
	uint8_t secret[TOKEN_SECRET_SIZE];
	struct uuid request, host;
	uint8_t key[32];
};

enum token_verdict {
	TOKEN_FRESH,  /* record the use by compare-and-set, then grant */
	TOKEN_REPEAT, /* the same request again: grant again */
};

/* Pure; time does not depend on the secret. RV_EAUTH: not this token. RV_ETIMEDOUT:
 * expired. RV_ECONFLICT: used by another request. A repeat may come after the expiry. */
int token_judge(const struct token_record *r, const struct token_use *use, int64_t now_ms,
	enum token_verdict *verdict, struct rv_error *e) RV_MUST_CHECK;

#endif
