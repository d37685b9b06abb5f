#include "daemon/lease.h"

#include <stdlib.h>
#include <time.h>

#include "daemon/fencing.h"
#include "daemon/members.h"
#include "pool/leases.h"

struct lease {
	struct daemon *daemon;
	struct leases core;
};

/* As of now, not of the callback's start: what was sent since then counts. */
static int64_t on_clock(void *arg)
{
	struct lease *l = arg;
	struct timespec t;

	if (loop_is_sim(l->daemon->loop))
		return loop_now_us(l->daemon->loop) / 1000;
	clock_gettime(CLOCK_BOOTTIME, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static int on_send(
	void *arg, const struct uuid *host, bool answer, const uint8_t *bytes, size_t len)
{
	struct members *members = ((struct lease *)arg)->daemon->members;

	return members ? members_send(members, host,
				 answer ? MEMBERS_LEASE : MEMBERS_LEASE_ASK, bytes, len)
		       : RV_ECLOSED;
}

static void on_granted(void *arg, int64_t until_ms)
{
	fencing_lease(((struct lease *)arg)->daemon->fencing, until_ms);
}

void lease_asked(
	struct lease *l, const struct uuid *from, const uint8_t *bytes, size_t len)
{
	leases_asked(&l->core, from, bytes, len);
}

void lease_answered(
	struct lease *l, const struct uuid *from, const uint8_t *bytes, size_t len)
{
	(void)from;
	leases_answered(&l->core, bytes, len);
}

int lease_may_run(void *arg, const struct uuid *host, struct rv_error *e)
{
	struct lease *l = arg;
	const struct row *row = db_row(pool_db(l->daemon->pool), CLASS_HOST, *host);

	return leases_may_run(
		&l->core, row ? row_name(row) : l->daemon->config->name_label, e);
}

int64_t lease_until_ms(const struct lease *l)
{
	return leases_until_ms(&l->core);
}

bool lease_is_over(const struct lease *l, const struct uuid *host)
{
	return leases_is_over(&l->core, host);
}

int64_t lease_over_in_ms(const struct lease *l, const struct uuid *host)
{
	return leases_over_in_ms(&l->core, host);
}

bool lease_expect(const struct lease *l, struct txn *t)
{
	return leases_expect(&l->core, t);
}

void lease_look(struct lease *l)
{
	if (l)
		leases_look(&l->core);
}

int lease_new(struct lease **out, struct daemon *d)
{
	static const struct leases_port port = {on_send, on_granted, on_clock};
	struct lease *l = calloc(1, sizeof *l);

	_Static_assert((int)LEASE_WATCHDOG_MS == (int)FENCE_WATCHDOG_MS,
		"the pool waits as long as the watchdog does");
	*out = l;
	if (!l)
		return RV_ENOMEM;
	l->daemon = d;
	leases_init(&l->core, d->loop, &port, l);
	return 0;
}

void lease_start(struct lease *l)
{
	leases_start(&l->core, l->daemon->pool, &l->daemon->host);
}

void lease_stop(struct lease *l)
{
	if (l)
		leases_stop(&l->core);
}

void lease_free(struct lease *l)
{
	if (!l)
		return;
	leases_fini(&l->core);
	free(l);
}
