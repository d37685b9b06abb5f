#include "daemon/ca_known.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "base/map.h"
#include "daemon/pool_ca.h"
#include "link/ca.h"

struct known {
	struct uuid host;
	uint64_t certificate; /* its hash */
	bool has;
};

struct ca_known {
	struct map hosts;
	uint64_t seed,
		next; /* the next CA's certificate, its hash; 0: nothing is known */
};

static uint64_t hash_of(const struct ca_known *k, const char *text)
{
	return XXH3_64bits_withSeed(text, strlen(text), k->seed) | 1;
}

int ca_known_new(struct ca_known **out, uint64_t seed)
{
	struct ca_known *k = calloc(1, sizeof *k);

	*out = k;
	if (!k)
		return RV_ENOMEM;
	k->seed = seed;
	map_init(&k->hosts, seed);
	return 0;
}

void ca_known_forget(struct ca_known *k)
{
	size_t cursor = 0;
	struct known *h;

	if (!k->next)
		return;
	while ((h = map_next(&k->hosts, &cursor)))
		free(h);
	map_fini(&k->hosts);
	map_init(&k->hosts, k->seed);
	k->next = 0;
}

void ca_known_free(struct ca_known *k)
{
	if (!k)
		return;
	ca_known_forget(k);
	map_fini(&k->hosts);
	free(k);
}

/* Made where there is none; NULL: out of memory. */
static struct known *known_of(struct ca_known *k, struct uuid host)
{
	struct known *h = map_get(&k->hosts, host.b, sizeof host.b);

	if (h)
		return h;
	h = calloc(1, sizeof *h);
	if (!h)
		return NULL;
	h->host = host;
	if (!map_add(&k->hosts, h->host.b, sizeof h->host.b, h))
		return h;
	free(h);
	return NULL;
}

enum ca_known_verdict ca_known_ask(
	struct ca_known *k, const struct db *db, const struct row *host, int *checks)
{
	const char *next = pool_ca_certificate(db, POOL_CA_NEXT);
	const char *certificate = db_string(host, HOST_CERTIFICATE);
	uint64_t hash = hash_of(k, certificate);
	struct known *h;

	if (*db_string(host, HOST_CERTIFICATE_NEXT) || !*certificate)
		return CA_KNOWN_LACKS; /* or is about to have it */
	if (k->next != hash_of(k, next)) {
		ca_known_forget(k);
		k->next = hash_of(k, next);
	}
	h = known_of(k, row_uuid(host));
	if (h && h->certificate == hash)
		return h->has ? CA_KNOWN_HAS : CA_KNOWN_LACKS;
	if (!h || *checks <= 0)
		return CA_KNOWN_NOT_YET;
	(*checks)--;
	h->certificate = hash;
	h->has = ca_signed(next, certificate);
	return h->has ? CA_KNOWN_HAS : CA_KNOWN_LACKS;
}
