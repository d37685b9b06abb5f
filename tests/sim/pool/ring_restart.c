/*
 * Protected VMs of hosts that are lost: let go of and started elsewhere by the master, as
 * daemon/restart.c does (vm/vm_protect.c decides).
 */
#include <stdio.h>
#include <string.h>

#include "ring.h"
#include "vm/vm_protect.h"

enum { LOOK_MS = 1000, GIVE_UP = 2 };

static int64_t now_ms(const struct ring *r)
{
	return loop_now_us(r->loop) / 1000;
}

static struct ring_vm *vm_of(struct ring *r, const struct row *row)
{
	struct uuid uuid = row_uuid(row);

	for (int i = 0; i < RING_VMS; i++)
		if (uuid_eq(&r->vms[i].uuid, &uuid))
			return &r->vms[i];
	ring_fail(r, "VM %s, which nobody made", row_name(row));
}

/* --- letting go --- */

/* By the ring's own clock: its lease, the watchdog's time and the margin are over, but
 * for what the two clocks may differ by. */
static bool is_early(const struct ring_host *lost)
{
	int64_t wait_us = (LEASE_WATCHDOG_MS + LEASE_MARGIN_MS) * INT64_C(1000);

	return loop_now_us(lost->ring->loop) - lost->lease_true_us <
	       wait_us - wait_us / 10;
}

/* A master that was replaced without noticing may believe what is no more so; its entry
 * comes to nothing. */
static void on_released(struct pool_commit *c)
{
	struct ring_host *h = CONTAINER_OF(c, struct ring_host, restarts.release);

	h->restarts.releasing = false;
	if (c->rc)
		return;
	if (h->restarts.early)
		ring_fail(h->ring,
			"host%d has let VMs go before their host's lease, the watchdog's "
			"time and the margin were over",
			h->index + 1);
	h->ring->totals->ha[RING_HA_RELEASED]++;
}

static void release_host(struct ring_host *h, const struct row *row)
{
	const struct db *db = pool_db(h->pool);
	struct ring *r = h->ring;
	struct uuid uuid = row_uuid(row);
	struct vm_release v;
	struct rv_error e;
	struct txn t;

	txn_init(&t, db, loop_wall_ms(r->loop));
	vm_release_txn(db, row, uuid_random(&h->prng), loop_wall_ms(r->loop), &v, &t);
	if (!v.freed_count || !leases_expect(&h->leases, &t)) {
		txn_fini(&t);
		return;
	}
	ring_note(r, "host%d lets go of %u VMs of host%d", h->index + 1, v.freed_count,
		ring_host_of(r, &uuid)->index + 1);
	h->restarts.early = is_early(ring_host_of(r, &uuid));
	memset(&h->restarts.release, 0, sizeof h->restarts.release);
	h->restarts.release.essential = true;
	h->restarts.releasing =
		!pool_commit(h->pool, &h->restarts.release, &t, on_released, &e);
}

/* --- asking for the start --- */

static void refuse(
	struct ring_host *h, struct ring_vm *v, const struct uuid *task, const char *why)
{
	struct ring_refused *f = &h->restarts.refused[v - h->ring->vms];

	ring_note(h->ring, "host%d: %s is not started again: %s", h->index + 1, v->name,
		why);
	*f = (struct ring_refused){.task = *task, .at_ms = now_ms(h->ring)};
	snprintf(f->why, sizeof f->why, "%.*s", (int)sizeof f->why - 1, why);
}

static void on_accepted(void *arg, int rc, const struct rv_error *e)
{
	struct ring_ask *a = arg;

	if (rc && a->host->pool)
		ring_note(a->host->ring, "the start again is refused: %s", e->detail);
	ring_ask_free(a);
}

static void ask_start(struct ring_host *h, const struct row *row, bool resume)
{
	struct ring *r = h->ring;
	struct ring_vm *v = vm_of(r, row);
	struct uuid task = db_ref(row, VM_HA_RESTART_TASK), where;
	struct vm_op_args args = {.vm = v->uuid, .user = "fencing"};
	struct ring_host *to;
	struct ring_ask *a;
	struct rv_error e = {0};
	int before, rc;

	if (!ring_host_up(h))
		return;
	if (vm_place_explain(h->mgr, &v->uuid, NULL, &where, &e)) {
		refuse(h, v, &task, e.detail);
		return;
	}
	to = ring_host_of(r, &where);
	/* It is forwarded there, if there is a way. */
	if (!ring_host_up(to) || (to != h && (!r->ways[h->index][to->index].up ||
						     !r->ways[to->index][h->index].up)))
		return;
	args.on = where;
	a = ring_ask_new(to);
	before = loop_sim_as(r->loop, ring_host_who(to));
	rc = vm_op_start(to->mgr, resume ? VM_OP_RESUME : VM_OP_START, &args, task,
		on_accepted, a, &e);
	loop_sim_as(r->loop, before);
	if (!rc)
		return;
	ring_ask_free(a);
	refuse(h, v, &task, e.detail);
}

/* --- what came of it --- */

static void on_settled(struct pool_commit *c)
{
	CONTAINER_OF(c, struct ring_host, restarts.settle)->restarts.settling = false;
}

static void settle(struct ring_host *h, const struct row *row, struct uuid task)
{
	struct ring *r = h->ring;
	struct rv_error e;
	struct txn t;

	txn_init(&t, pool_db(h->pool), loop_wall_ms(r->loop));
	vm_restart_txn(row, task, &t);
	memset(&h->restarts.settle, 0, sizeof h->restarts.settle);
	h->restarts.settling =
		!pool_commit(h->pool, &h->restarts.settle, &t, on_settled, &e);
}

/* At the end an admin looks after those that no host has room for. */
static void give_up(struct ring_host *h, const struct row *row)
{
	struct ring_vm *v = vm_of(h->ring, row);
	struct rv_error e;
	struct txn t;

	if (h->ring->faults_on || !h->ring->quiet || ++v->refusals < GIVE_UP)
		return;
	ring_note(h->ring, "nobody takes %s: it is protected no more", v->name);
	v->refusals = 0;
	txn_init(&t, pool_db(h->pool), loop_wall_ms(h->ring->loop));
	txn_set_enum(&t, v->uuid, VM_HA_RESTART_PRIORITY, VM_RESTART_PRIORITY_NONE);
	memset(&h->restarts.settle, 0, sizeof h->restarts.settle);
	h->restarts.settling =
		!pool_commit(h->pool, &h->restarts.settle, &t, on_settled, &e);
	h->ring->totals->ha[RING_HA_GIVEN_UP]++;
}

static void look_at(struct ring_host *h, const struct row *row)
{
	struct ring *r = h->ring;
	struct ring_vm *v = vm_of(r, row);
	struct uuid task = db_ref(row, VM_HA_RESTART_TASK);
	const struct ring_refused *f = &h->restarts.refused[v - r->vms];
	struct vm_restart_refusal refusal = {now_ms(r) - f->at_ms, f->why};
	struct vm_restart_step step = vm_restart_look(pool_db(h->pool), row,
		uuid_eq(&f->task, &task) ? &refusal : NULL, loop_wall_ms(r->loop));

	if (step.what == VM_RESTART_ASK) {
		ask_start(h, row, step.resume);
		return;
	}
	if (step.what == VM_RESTART_WAIT || h->restarts.settling)
		return;
	if (step.what == VM_RESTART_STARTED)
		r->totals->ha[step.resume ? RING_HA_RESUMED : RING_HA_RESTARTED]++;
	if (step.what == VM_RESTART_FAILED)
		give_up(h, row);
	if (h->restarts.settling)
		return;
	settle(h, row,
		step.what == VM_RESTART_FAILED && step.again ? uuid_random(&h->prng)
							     : UUID_NONE);
}

static void on_look(void *arg)
{
	struct ring_host *h = arg;
	const struct db *db;

	timer_start_ms(&h->restarts.look, LOOK_MS);
	if (h->life <= RING_JOINING || h->dead_at_point || h->death_due ||
		!pool_is_master(h->pool))
		return;
	db = pool_db(h->pool);
	for (const struct row *host = NULL;
		!h->restarts.releasing && (host = db_next(db, CLASS_HOST, host));) {
		struct uuid uuid = row_uuid(host);

		if (!uuid_eq(&uuid, &h->uuid) && leases_is_over(&h->leases, &uuid))
			release_host(h, host);
	}
	for (const struct row *vm = NULL; (vm = db_next(db, CLASS_VM, vm));) {
		struct uuid task = db_ref(vm, VM_HA_RESTART_TASK);

		if (!uuid_is_none(&task))
			look_at(h, vm);
	}
}

/* --- a life --- */

void ring_restart_boot(struct ring_host *h)
{
	timer_start_ms(&h->restarts.look, LOOK_MS);
}

void ring_restart_gone(struct ring_host *h)
{
	timer_stop(&h->restarts.look);
	h->restarts.releasing = h->restarts.settling = false;
	memset(h->restarts.refused, 0, sizeof h->restarts.refused);
}

void ring_restart_init(struct ring_host *h)
{
	int before = loop_sim_as(h->ring->loop, ring_host_who(h));

	timer_init(&h->restarts.look, h->ring->loop, "ring.restart.look", on_look, h);
	loop_sim_as(h->ring->loop, before);
}
