/*
 * Leases: pool/leases.c of each host, whose requests and answers go over the ring's
 * links, and what is true about them: until when each host may act by the clock of the
 * ring alone. And the gate: what a daemon asks of its hypervisor is watched.
 */
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "ring.h"
#include "vm/vm_protect.h"

/* Clocks are read in whole ms, which are not the ring's; and of a clock that is one in a
 * hundred too fast the true time is known to one in ten thousand: 6 ms in a minute. */
enum { ROUND_US = 10000 };

/* CLOCK_BOOTTIME of each machine: begun at another time, and a little too fast or slow.
 */
int64_t ring_lease_clock_ms(const struct ring_host *h)
{
	int64_t us = loop_now_us(h->ring->loop);

	return h->clock_ahead_ms + (us + us / 1000000 * h->clock_ppm +
					   us % 1000000 * h->clock_ppm / 1000000) /
					   1000;
}

/* How long that many ms of its clock are in truth. */
int64_t ring_lease_true_us(const struct ring_host *h, int64_t ms)
{
	return ms * 1000 - ms * h->clock_ppm / 1000;
}

static int64_t on_clock(void *arg)
{
	return ring_lease_clock_ms(arg);
}

/* --- what is true --- */

static void truth_asked(struct ring_host *h, uint64_t nonce)
{
	struct ring_asked *a = &h->asked[h->asked_next++ % RING_ASKED];

	*a = (struct ring_asked){nonce, loop_now_us(h->ring->loop)};
}

/* The master answers: from now on the host may act until then, once it hears of it. */
static void truth_answered(struct ring_host *h, uint64_t nonce, int64_t length_ms)
{
	for (unsigned i = 0; i < RING_ASKED; i++) {
		int64_t until = h->asked[i].sent_us + ring_lease_true_us(h, length_ms);

		if (h->asked[i].nonce == nonce && until > h->lease_true_us)
			h->lease_true_us = until;
	}
}

bool ring_lease_is_over(const struct ring_host *h)
{
	return loop_now_us(h->ring->loop) > h->lease_true_us + ROUND_US;
}

/* --- the port --- */

static int on_send(
	void *arg, const struct uuid *host, bool answer, const uint8_t *bytes, size_t len)
{
	struct ring_host *h = arg, *to = ring_host_of(h->ring, host);

	if (!to)
		return RV_ENOENT;
	if (!answer)
		truth_asked(h, bytes_get_le64(bytes));
	else
		truth_answered(
			to, bytes_get_le64(bytes), (int64_t)bytes_get_le64(bytes + 8));
	return ring_link_send(&h->messenger, host,
		(enum pool_message)(answer ? RING_LEASE_ANSWER : RING_LEASE_ASK), bytes,
		len);
}

static void on_granted(void *arg, int64_t until_ms)
{
	struct ring_host *h = arg;
	struct ring *r = h->ring;
	int64_t in_us = ring_lease_true_us(h, until_ms - ring_lease_clock_ms(h));
	int64_t until = loop_now_us(r->loop) + in_us;

	/* Its own request it did not send. */
	if (h->leases.leads && until > h->lease_true_us)
		h->lease_true_us = until;
	if (until > h->lease_true_us + ROUND_US)
		ring_fail(r, "host%d counts its lease to %.3f s, it ends at %.3f s",
			h->index + 1, (double)until / 1e6,
			(double)h->lease_true_us / 1e6);
	r->totals->ha[RING_HA_GRANT]++;
	ring_fence_lease(h, until_ms);
}

void ring_lease_deliver(struct ring_host *h, const struct uuid *from, unsigned type,
	const uint8_t *bytes, size_t len)
{
	if (type == RING_LEASE_ASK)
		leases_asked(&h->leases, from, bytes, len);
	else
		leases_answered(&h->leases, bytes, len);
}

/* --- the gate --- */

int ring_lease_may_run(void *arg, const struct uuid *host, struct rv_error *e)
{
	struct ring_host *h = arg;
	int rc = leases_may_run(&h->leases, "here", e);

	(void)host;
	if (rc)
		h->ring->totals->ha[RING_HA_REFUSED]++;
	return rc;
}

static const struct row *row_of_domain(
	const struct ring_host *h, const struct hyper_domain_id *id)
{
	const struct db *db = pool_db(h->pool);

	for (const struct row *vm = NULL; (vm = db_next(db, CLASS_VM, vm));) {
		struct uuid handle = db_ref(vm, VM_DOMAIN_HANDLE);

		if (uuid_eq(&handle, &id->handle))
			return vm;
	}
	return NULL;
}

/* Nothing is let run under a lease that is over; a guest that was suspended for a save
 * goes on all the same, unless the pool might start it elsewhere. */
void ring_lease_submit(struct hyper *hyper, struct hyper_req *req)
{
	struct ring_host *h = CONTAINER_OF(hyper->ops, struct ring_host, hyper_ops);
	const struct row *vm = NULL;

	if (req->call == HYPER_CALL_RESUME)
		vm = row_of_domain(h, &req->id);
	if ((req->call == HYPER_CALL_CREATE || req->call == HYPER_CALL_RESTORE ||
		    req->call == HYPER_CALL_UNPAUSE || (vm && vm_is_protected(vm))) &&
		ring_lease_is_over(h))
		ring_fail(h->ring, "host%d: %s, and its lease is over since %.3f s",
			h->index + 1, hyper_call_name(req->call),
			(double)h->lease_true_us / 1e6);
	h->hyper_submit(hyper, req);
}

/* --- a life --- */

void ring_lease_boot(struct ring_host *h)
{
	static const struct leases_port port = {on_send, on_granted, on_clock};

	leases_init(&h->leases, h->ring->loop, &port, h);
	h->leasing = true;
}

void ring_lease_gone(struct ring_host *h)
{
	if (h->leasing)
		leases_fini(&h->leases);
	h->leasing = false;
}

bool ring_lease_at_rest(struct ring_host *h, char *why, size_t size)
{
	struct rv_error e;

	if (leases_may_run(&h->leases, "here", &e) == 0)
		return true;
	snprintf(why, size, "host%d: %s", h->index + 1, e.detail);
	return false;
}
