/*
 * The pool's CA as the database has it: certificate, and key encrypted with the pool's
 * secret, which each host has in a file. So every host can certify.
 */
#ifndef REEVE_DAEMON_POOL_CA_H
#define REEVE_DAEMON_POOL_CA_H

#include "base/error.h"
#include "pool/db/db.h"

/* Which one: while a CA takes over from another there are two. */
enum pool_ca { POOL_CA_NOW, POOL_CA_NEXT };

/* Its certificate; borrowed; "": there is none. */
const char *pool_ca_certificate(const struct db *db, enum pool_ca which);

/* By which certificates are signed: the next one where there is one. */
enum pool_ca pool_ca_signing(const struct db *db);

enum { POOL_CA_FORMER = 4 }; /* CA changes that an ejected host may have missed */

/* The cross certificates to show: that of the change under way, and behind it those of
 * former changes, the latest first. Returned owned; "": none; NULL: out of memory. */
char *pool_ca_crosses(const struct db *db);

/* What is to be kept of them when the change under way ends: the latest POOL_CA_FORMER.
 * Members need them no more, for they all have certificates of the next CA; a host that
 * was ejected and is away believes by them who tells it so. None where no host has been
 * ejected. As above. */
char *pool_ca_crosses_to_keep(const struct db *db);

/* Whether one of the pool's CAs signed it. */
bool pool_ca_signed(const struct db *db, const char *cert_pem);

/* The key, opened with the secret. Returned owned, for ca_key_free. RV_ECORRUPT,
 * RV_EAUTH. */
int pool_ca_open(const struct db *db, enum pool_ca which, const uint8_t *secret,
	char **key_pem, struct rv_error *e) RV_MUST_CHECK;

/* The key as the database keeps it: hexadecimal digits. Returned owned. */
int pool_ca_seal(const char *ca_pem, const char *key_pem, const uint8_t *secret,
	char **text, struct rv_error *e) RV_MUST_CHECK;

#endif
