#include "daemon/pool_ca.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/buf.h"
#include "daemon/files.h"
#include "link/ca.h"

const char *pool_ca_certificate(const struct db *db, enum pool_ca which)
{
	return db_string(db_pool(db),
		which == POOL_CA_NOW ? POOL_CA_CERTIFICATE : POOL_CA_NEXT_CERTIFICATE);
}

enum pool_ca pool_ca_signing(const struct db *db)
{
	return *pool_ca_certificate(db, POOL_CA_NEXT) ? POOL_CA_NEXT : POOL_CA_NOW;
}

char *pool_ca_crosses(const struct db *db)
{
	const struct row *pool = db_pool(db);
	char *text;

	return asprintf(&text, "%s%s", db_string(pool, POOL_CA_CROSS_CERTIFICATE),
		       db_string(pool, POOL_CA_FORMER_CROSS_CERTIFICATES)) < 0
		       ? NULL
		       : text;
}

char *pool_ca_crosses_to_keep(const struct db *db)
{
	static const char end[] = "-----END CERTIFICATE-----\n";
	char *text = pool_ca_crosses(db), *at = text;

	for (int i = 0; i < POOL_CA_FORMER && at; i++) {
		at = strstr(at, end);
		at = at ? at + sizeof end - 1 : NULL;
	}
	if (at)
		*at = '\0';
	if (text && value_count(row_value(db_pool(db), POOL_EJECTED)) == 0)
		*text = '\0';
	return text;
}

bool pool_ca_signed(const struct db *db, const char *cert_pem)
{
	const char *next = pool_ca_certificate(db, POOL_CA_NEXT);

	return ca_signed(pool_ca_certificate(db, POOL_CA_NOW), cert_pem) ||
	       (*next && ca_signed(next, cert_pem));
}

/* `sealed` has room for half the text. */
static int unhex(const char *text, uint8_t *sealed, struct rv_error *e)
{
	size_t len = strlen(text);

	for (size_t i = 0; 2 * i < len; i++) {
		unsigned byte;

		if (len % 2 || sscanf(text + 2 * i, "%2x", &byte) != 1)
			return rv_error_set(e, RV_ECORRUPT,
				"the CA's key in the pool's record is damaged");
		sealed[i] = (uint8_t)byte;
	}
	return 0;
}

int pool_ca_open(const struct db *db, enum pool_ca which, const uint8_t *secret,
	char **key_pem, struct rv_error *e)
{
	const char *text = db_string(
		db_pool(db), which == POOL_CA_NOW ? POOL_CA_KEY : POOL_CA_NEXT_KEY);
	uint8_t fingerprint[CA_FINGERPRINT_SIZE];
	uint8_t *sealed = malloc(strlen(text) / 2 + 1);
	int rc;

	*key_pem = NULL;
	if (!sealed)
		return rv_error_set(e, RV_ENOMEM, "out of memory");
	rc = ca_fingerprint(pool_ca_certificate(db, which), fingerprint, e);
	if (!rc)
		rc = unhex(text, sealed, e);
	if (!rc)
		rc = ca_unseal(secret, fingerprint, sealed, strlen(text) / 2, key_pem, e);
	free(sealed);
	return rc;
}

int pool_ca_seal(const char *ca_pem, const char *key_pem, const uint8_t *secret,
	char **text, struct rv_error *e)
{
	uint8_t fingerprint[CA_FINGERPRINT_SIZE];
	struct buf sealed;
	int rc;

	*text = NULL;
	buf_init(&sealed, FILES_MAX_BYTES);
	rc = ca_fingerprint(ca_pem, fingerprint, e);
	if (!rc)
		rc = ca_seal(secret, fingerprint, key_pem, &sealed, e);
	if (!rc)
		*text = malloc(2 * buf_len(&sealed) + 1);
	if (!rc && !*text)
		rc = rv_error_set(e, RV_ENOMEM, "out of memory");
	if (!rc)
		bytes_hex(buf_data(&sealed), buf_len(&sealed), *text);
	buf_fini(&sealed);
	return rc;
}
