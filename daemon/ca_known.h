/*
 * Which hosts have a certificate of the pool's next CA. A signature takes a while to
 * check, so what was found is remembered for as long as host and CA have the same
 * certificates, and one look checks a few at most. Knows nothing but the database.
 */
#ifndef REEVE_DAEMON_CA_KNOWN_H
#define REEVE_DAEMON_CA_KNOWN_H

#include "pool/db/db.h"

struct ca_known;

enum ca_known_verdict {
	CA_KNOWN_LACKS,
	CA_KNOWN_HAS,
	CA_KNOWN_NOT_YET, /* has to be checked, and no check is left */
};

int ca_known_new(struct ca_known **out, uint64_t seed) RV_MUST_CHECK;
void ca_known_free(struct ca_known *k); /* NULL-safe */

/* Of a host's row; `checks`: how many may still be made, less those that were. */
enum ca_known_verdict ca_known_ask(
	struct ca_known *k, const struct db *db, const struct row *host, int *checks);

/* No change of the CA is under way: nothing need be remembered. */
void ca_known_forget(struct ca_known *k);

#endif
