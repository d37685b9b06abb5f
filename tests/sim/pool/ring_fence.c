/*
 * A simulated reeve-fenced with its watchdog on each host, which decides as the real one
 * does (fence/guard.c) and goes on when reeved is stopped or gone; and what reeved tells
 * it and records of it, as daemon/fencing.c does (vm/vm_protect.c decides).
 */
#include <stdlib.h>
#include <string.h>

#include "ring.h"
#include "vm/vm_op.h"
#include "vm/vm_protect.h"

enum { TICK_MS = 300, FAIL_AGAIN_MS = 200, GRACE_US = 20 * 1000000 };

static int64_t now_us(const struct ring_host *h)
{
	return loop_now_us(h->ring->loop);
}

/* --- reeve-fenced --- */

static void act_later(struct ring_host *h, int64_t at_ms)
{
	int64_t in_ms = at_ms - ring_lease_clock_ms(h);

	if (at_ms == INT64_MAX)
		timer_stop(&h->fence.act);
	else /* clocks are not the ring's: look again, and see */
		timer_start_us(
			&h->fence.act, ring_lease_true_us(h, in_ms > 0 ? in_ms : 1));
}

static void fence(struct ring_host *h, const struct fence_domain *d, bool destroy)
{
	hyper_sim_fence(h->machine, h->hyper, d->domid, &d->handle, destroy, now_us(h));
	if (!h->hyper)
		ring_host_last_fenced(h, &d->handle, destroy);
}

static bool carry_out(struct ring_host *h, enum guard_act act, uint32_t i)
{
	struct ring_fence *f = &h->fence;
	const struct guarded *g = &f->book.domains[i];

	switch (act) {
	case GUARD_QUIET:
		/* The longest that Xen's watchdog may take is what everybody waits for.
		 */
		timer_start_us(&f->bite, ring_lease_true_us(h, LEASE_WATCHDOG_MS) - 1000);
		return true;
	case GUARD_OFF:
		timer_stop(&f->bite);
		return true;
	case GUARD_STOP:
		if (now_us(h) < f->fails_us && !f->hangs)
			return false;
		ring_note(h->ring, "host%d: fenced stops domain %u", h->index + 1,
			g->domain.domid);
		fence(h, &g->domain, false);
		return true;
	default:
		if (now_us(h) < f->fails_us && !f->hangs)
			return false;
		f->ending = g->domain;
		timer_start_us(&f->ended, now_us(h) < f->fails_us
						  ? f->fails_us - now_us(h)
						  : prng_range(&h->prng, 1000, 50000));
		return true;
	}
}

static void act(struct ring_host *h)
{
	struct ring_fence *f = &h->fence;
	int64_t now_ms, at_ms;
	enum guard_act what;
	uint32_t i = 0;

	while (f->up && !h->asleep) {
		bool done;

		now_ms = ring_lease_clock_ms(h);
		what = guard_book_next(&f->book, now_ms, &i, &at_ms);
		if (what == GUARD_WAIT) {
			act_later(h, at_ms);
			return;
		}
		done = carry_out(h, what, i);
		guard_book_did(&f->book, what, i, done, now_ms);
	}
}

static void on_ended(void *arg)
{
	struct ring_host *h = arg;
	struct ring_fence *f = &h->fence;

	if (h->asleep) {
		timer_start_ms(&f->ended, 100);
		return;
	}
	ring_note(h->ring, "host%d: fenced has destroyed domain %u", h->index + 1,
		f->ending.domid);
	fence(h, &f->ending, true);
	h->ring->totals->ha[RING_HA_FENCED]++;
	guard_book_destroyed(&f->book, &f->ending, true, ring_lease_clock_ms(h));
	act(h);
}

static void on_act(void *arg)
{
	act(arg);
}

static void on_bite(void *arg)
{
	struct ring_host *h = arg;

	ring_note(h->ring, "host%d: the watchdog restarts it", h->index + 1);
	h->ring->totals->ha[RING_HA_BITTEN]++;
	ring_host_power(h);
}

static void on_again(void *arg)
{
	struct ring_host *h = arg;

	h->fence.up = true;
	guard_book_init(&h->fence.book, timer_active(&h->fence.bite));
	ring_note(h->ring, "host%d: fenced is there", h->index + 1);
}

void ring_fence_kill(struct ring_host *h, int64_t ms)
{
	struct ring_fence *f = &h->fence;

	if (!f->up || h->asleep)
		return;
	ring_note(h->ring, "host%d fault: fenced dies for %d ms", h->index + 1, (int)ms);
	f->up = f->told = false;
	timer_stop(&f->act);
	timer_stop(&f->ended);
	timer_start_ms(&f->again, ms);
}

/* Power was lost, or the watchdog bit: nothing of it is left. */
void ring_fence_power(struct ring_host *h)
{
	struct ring_fence *f = &h->fence;

	timer_stop(&f->bite);
	timer_stop(&f->act);
	timer_stop(&f->ended);
	timer_stop(&f->again);
	f->fails_us = 0;
	f->told = false;
	on_again(h);
}

bool ring_fence_works(const struct ring_host *h)
{
	return h->fence.up && now_us(h) >= h->fence.fails_us;
}

/* Xen's watchdog stands still while the machine sleeps, the clock of leases does not. */
void ring_fence_sleep(struct ring_host *h, bool asleep)
{
	struct ring_fence *f = &h->fence;

	if (asleep) {
		f->bite_left_us =
			timer_active(&f->bite) ? f->bite.due_us - now_us(h) : -1;
		timer_stop(&f->bite);
		timer_stop(&f->act);
		return;
	}
	if (f->bite_left_us >= 0)
		timer_start_us(&f->bite, f->bite_left_us);
	act(h);
}

/* --- reeved --- */

static bool domain_of(const struct row *vm, struct fence_domain *d)
{
	struct hyper_domain_id id;

	if (!vm_recorded(vm, &id) || id.domid > FENCE_MAX_DOMID)
		return false;
	*d = (struct fence_domain){.domid = id.domid, .handle = id.handle};
	return true;
}

static bool is_guarded(const struct ring_fence *f, const struct fence_domain *d)
{
	for (uint32_t i = 0; f->told && i < f->sent.count; i++)
		if (f->sent.domains[i].domid == d->domid &&
			uuid_eq(&f->sent.domains[i].handle, &d->handle))
			return true;
	return false;
}

/* It has been found, at this start, which database is this day's. */
static bool is_current(const struct ring_host *h)
{
	return h->pool && h->life > RING_JOINING && db_pool(pool_db(h->pool)) &&
	       !h->dead_at_point && !h->death_due;
}

static void say_list(struct ring_host *h)
{
	const struct db *db = pool_db(h->pool);
	struct ring_fence *f = &h->fence;
	struct fence_message *m = &f->next;
	struct fence_domain d;
	struct rv_error e;

	m->count = 0;
	for (const struct row *vm = NULL;
		(vm = db_next_ref(db, VM_RESIDENT_ON, h->uuid, vm));)
		if (vm_is_to_be_guarded(db, vm) && domain_of(vm, &d))
			m->domains[m->count++] = d;
	if (f->told && m->count == f->sent.count &&
		memcmp(m->domains, f->sent.domains, m->count * sizeof *m->domains) == 0)
		return;
	f->sent.count = m->count;
	memcpy(f->sent.domains, m->domains, m->count * sizeof *m->domains);
	m->seq = ++f->sent.seq;
	f->told = guard_book_list(&f->book, m, ring_lease_clock_ms(h), &e) == 0;
	act(h);
}

static void on_recorded(struct pool_commit *c)
{
	CONTAINER_OF(c, struct ring_host, fence.commit)->fence.committing = false;
}

static void record(struct ring_host *h)
{
	const struct db *db = pool_db(h->pool);
	struct ring_fence *f = &h->fence;
	int64_t now_ms = ring_lease_clock_ms(h);
	bool lost = f->lost_us && now_us(h) >= f->lost_us + GRACE_US, changed = false;
	struct rv_error e;
	struct txn t;

	if (f->committing || !pool_can_commit(h->pool))
		return;
	txn_init(&t, db, loop_wall_ms(h->ring->loop));
	for (const struct row *vm = NULL;
		(vm = db_next_ref(db, VM_RESIDENT_ON, h->uuid, vm));) {
		struct fence_domain d;
		bool guarded = f->up && leases_until_ms(&h->leases) > now_ms &&
			       domain_of(vm, &d) && is_guarded(f, &d);

		changed |= vm_arm_txn(db, vm, h->uuid, guarded, lost, &t);
	}
	if (!changed) {
		txn_fini(&t);
		return;
	}
	memset(&f->commit, 0, sizeof f->commit);
	f->commit.essential = true;
	f->committing = !pool_commit(h->pool, &f->commit, &t, on_recorded, &e);
}

static void look(struct ring_host *h)
{
	struct ring_fence *f = &h->fence;

	if (!is_current(h))
		return;
	if (f->up) {
		f->lost_us = 0;
		say_list(h);
	} else if (!f->lost_us) {
		f->lost_us = now_us(h);
	}
	record(h);
}

/* Told with each lease, and to one that was started anew. */
static void say_lease(struct ring_host *h)
{
	int64_t until_ms = leases_until_ms(&h->leases);
	struct rv_error e;

	if (h->fence.up && until_ms &&
		guard_book_lease(&h->fence.book, until_ms, ring_lease_clock_ms(h), &e) ==
			0)
		act(h);
}

void ring_fence_lease(struct ring_host *h, int64_t until_ms)
{
	(void)until_ms;
	say_lease(h);
	look(h);
}

static void on_tick(void *arg)
{
	struct ring_host *h = arg;

	timer_start_ms(&h->fence.tick, TICK_MS);
	if (!h->fence.told)
		say_lease(h);
	look(h);
}

/* --- a life --- */

void ring_fence_boot(struct ring_host *h)
{
	h->fence.told = h->fence.committing = false;
	h->fence.lost_us = 0;
	timer_start_ms(&h->fence.tick, TICK_MS);
}

void ring_fence_gone(struct ring_host *h)
{
	timer_stop(&h->fence.tick);
	h->fence.committing = false;
}

void ring_fence_init(struct ring_host *h)
{
	struct ring_fence *f = &h->fence;
	struct loop *l = h->ring->loop;
	int before;

	timer_init(&f->act, l, "ring.fenced", on_act, h);
	timer_init(&f->ended, l, "ring.fenced.ended", on_ended, h);
	timer_init(&f->bite, l, "ring.watchdog", on_bite, h);
	timer_init(&f->again, l, "ring.fenced.again", on_again, h);
	before = loop_sim_as(l, ring_host_who(h));
	timer_init(&f->tick, l, "ring.fencing", on_tick, h);
	loop_sim_as(l, before);
	on_again(h);
}

void ring_fence_fini(struct ring_host *h)
{
	timer_stop(&h->fence.act);
	timer_stop(&h->fence.ended);
	timer_stop(&h->fence.bite);
	timer_stop(&h->fence.again);
}

bool ring_fence_at_rest(struct ring_host *h, char *why, size_t size)
{
	const struct db *db = pool_db(h->pool);

	for (const struct row *vm = NULL;
		(vm = db_next_ref(db, VM_RESIDENT_ON, h->uuid, vm));)
		if (vm_is_armed(db, vm) != vm_wants_guard(db, vm)) {
			snprintf(why, size, "host%d: VM %s is %sarmed", h->index + 1,
				row_name(vm), vm_is_armed(db, vm) ? "" : "not ");
			return false;
		}
	return true;
}
