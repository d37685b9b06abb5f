/* The adversary. */
#include <string.h>

#include "ring.h"

void ring_faults_count(struct ring *r, enum ring_fault fault)
{
	r->totals->faults[fault]++;
}

void ring_faults_collect(struct ring_host *h)
{
	static const enum hyper_sim_fault kinds[] = {HYPER_SIM_FAULT_ERROR,
		HYPER_SIM_FAULT_EFFECT_ERROR, HYPER_SIM_FAULT_LATE, HYPER_SIM_FAULT_LOST,
		HYPER_SIM_FAULT_CRASH};

	for (int i = 0; i < 5; i++)
		h->ring->totals->faults[RING_FAULT_HYPER_ERROR + i] +=
			hyper_sim_faults_fired(h->hyper, kinds[i]);
}

void ring_faults_die(struct ring_host *h, enum ring_death death)
{
	static const enum ring_fault faults[] = {
		RING_FAULT_KILL, RING_FAULT_UNSYNCED, RING_FAULT_POWER};

	/* A machine that sleeps can lose its power alone. */
	if (h->life == RING_DOWN || h->death_due || (h->asleep && death != RING_POWER))
		return;
	ring_faults_count(h->ring, faults[death]);
	if (h->pool && pool_is_master(h->pool))
		ring_faults_count(h->ring, RING_FAULT_MASTER_DIED);
	h->death_due = true;
	h->death = death;
}

void ring_faults_inject(struct ring_host *h, enum hyper_call call,
	enum hyper_sim_fault fault, uint32_t n, int64_t delay_us)
{
	if (!h->hyper)
		return;
	ring_note(h->ring, "host%d fault: next %s: %s", h->index + 1,
		hyper_call_name(call), hyper_sim_fault_name(fault));
	hyper_sim_inject(h->hyper, call, fault, n, delay_us);
}

static void hyper_breaks(struct ring_host *h, enum hyper_sim_fault fault, struct prng *p)
{
	static const enum hyper_call calls[] = {HYPER_CALL_NONE, HYPER_CALL_NONE,
		HYPER_CALL_CREATE, HYPER_CALL_RESTORE, HYPER_CALL_SAVE, HYPER_CALL_RESUME,
		HYPER_CALL_DESTROY, HYPER_CALL_DESTROY, HYPER_CALL_PAUSE,
		HYPER_CALL_UNPAUSE, HYPER_CALL_UNPAUSE, HYPER_CALL_REQUEST_SHUTDOWN,
		HYPER_CALL_SET_TARGET, HYPER_CALL_ATTACH_VBD, HYPER_CALL_DETACH_VBD,
		HYPER_CALL_RELABEL, HYPER_CALL_LIST, HYPER_CALL_INFO};
	enum hyper_call call = calls[prng_below(p, sizeof calls / sizeof calls[0])];

	ring_faults_inject(h, call, fault, 1 + (uint32_t)prng_below(p, 2),
		prng_range(p, 1000, 20000000));
}

void ring_faults_guest_ends(struct ring_host *h, const struct uuid *vm, struct prng *p)
{
	static const enum hyper_reason reasons[] = {HYPER_REASON_POWEROFF,
		HYPER_REASON_REBOOT, HYPER_REASON_CRASH, HYPER_REASON_WATCHDOG};

	/* A guest that stands still can't. */
	if (h->hyper && hyper_sim_end_guest(h->hyper, vm, reasons[prng_below(p, 4)]))
		return;
	ring_faults_count(h->ring, RING_FAULT_GUEST_ENDED);
	for (int i = 0; i < RING_VMS; i++)
		if (uuid_eq(&h->ring->vms[i].uuid, vm))
			h->ring->vms[i].guest_ended = true;
}

/* --- storage, network, the log's disk --- */

static void storage_breaks(struct ring *r, enum ring_fault fault, struct prng *p)
{
	struct storage_sim_faults f = {0};
	uint32_t ppm = (uint32_t)prng_range(p, 50000, 500000);
	struct ring_host *h = &r->hosts[prng_below(p, (uint64_t)r->count)];

	if (fault == RING_FAULT_STORAGE_FAIL) {
		f.fail_ppm = ppm;
	} else if (fault == RING_FAULT_STORAGE_AFTER) {
		f.fail_after_ppm = ppm;
	} else if (fault == RING_FAULT_STORAGE_HANG) {
		f.hang_ppm = ppm / 4;
		f.hang_us = prng_range(p, 100000, 150000000);
	} else {
		storage_sim_set_hung(
			r->bytes, r->sr, prng_below(p, 2) ? h->uuid : UUID_NONE, true);
		r->sr_hung = true;
	}
	if (fault != RING_FAULT_SR_HUNG)
		storage_sim_set_faults(r->bytes, &f);
	ring_faults_count(r, fault);
}

static void net_breaks(struct ring_host *h, enum ring_fault fault, struct prng *p)
{
	uint32_t ppm = (uint32_t)prng_range(p, 100000, 900000);

	if (!h->net)
		return;
	net_sim_set_faults(h->net, fault == RING_FAULT_NET_FAIL ? ppm : 0,
		fault == RING_FAULT_NET_AFTER ? ppm : 0,
		fault == RING_FAULT_NET_HANG ? ppm / 4 : 0);
	ring_faults_count(h->ring, fault);
}

void ring_faults_disk_full(struct ring_host *h)
{
	ring_note(h->ring, "host%d fault: its disk is full", h->index + 1);
	disk_sim_set_capacity(h->medium,
		disk_sim_used(h->medium) + prng_below(&h->ring->fault_prng, 2000));
	ring_faults_count(h->ring, RING_FAULT_DISK_FULL);
}

static void disk_breaks(struct ring_host *h, enum ring_fault fault, struct prng *p)
{
	static const enum disk_sim_fault kinds[] = {
		DISK_SIM_FAIL_STEP, DISK_SIM_FAIL_WRITE, DISK_SIM_FAIL_SYNC};

	ring_note(h->ring, "host%d fault: %s", h->index + 1, ring_fault_name(fault));
	disk_sim_inject(
		h->medium, kinds[fault - RING_FAULT_DISK_STEP], prng_below(p, 12));
	ring_faults_count(h->ring, fault);
}

/* --- links --- */

/* Nothing passes from any host of one group to any of the other. */
static void split(struct ring *r, unsigned group, bool one_way, int64_t ms)
{
	for (int a = 0; a < r->count; a++)
		for (int b = 0; b < r->count; b++) {
			bool here = (group >> a) & 1, there = (group >> b) & 1;

			if (here && !there)
				ring_link_cut(r, a, b, ms);
			if (!here && there && !one_way)
				ring_link_cut(r, a, b, ms);
		}
}

static bool strike_links(struct ring *r, enum ring_fault fault, struct prng *p)
{
	int a = (int)prng_below(p, (uint64_t)r->count);
	int b = (a + 1 + (int)prng_below(p, (uint64_t)r->count - 1)) % r->count;
	int64_t ms = prng_range(p, 50, 20000);
	struct ring_host *master = ring_host_master(r);

	switch (fault) {
	case RING_FAULT_LINK_CUT:
		ring_link_cut(r, a, b, ms);
		ring_link_cut(r, b, a, ms);
		return true;
	case RING_FAULT_LINK_CUT_ONE_WAY:
		ring_link_cut(r, a, b, ms);
		return true;
	case RING_FAULT_LINK_RESET:
		if (!r->ways[a][b].up)
			return false;
		ring_link_reset(r, a, b);
		return true;
	case RING_FAULT_LINK_SLOW:
		ring_link_slow(r, a, b, ms, prng_range(p, 5, 1000));
		ring_link_slow(r, b, a, ms, prng_range(p, 5, 1000));
		return true;
	case RING_FAULT_PARTITION:
	case RING_FAULT_PARTITION_ONE_WAY:
		split(r, 1 + (unsigned)prng_below(p, (1U << r->count) - 2),
			fault == RING_FAULT_PARTITION_ONE_WAY, ms);
		return true;
	case RING_FAULT_MASTER_ISOLATED:
		if (!master)
			return false;
		split(r, 1U << master->index, prng_below(p, 3) == 0, ms);
		return true;
	default:
		return false;
	}
}

static bool strike_stream(struct ring *r, enum ring_fault fault, struct prng *p)
{
	struct ring_stream *s = ring_stream_last(r);
	int64_t ms = prng_range(p, 10, 40000);
	int end = (int)prng_below(p, 2);

	if (!s)
		return false;
	switch (fault) {
	case RING_FAULT_STREAM_CUT:
		ring_stream_cut(r, s, 0, ms);
		ring_stream_cut(r, s, 1, ms);
		return true;
	case RING_FAULT_STREAM_CUT_ONE_WAY:
		ring_stream_cut(r, s, end, ms);
		return true;
	case RING_FAULT_STREAM_SLOW:
		stream_sim_set(s->link, 1000, 200000, prng_range(p, 2000, 1 << 20));
		return true;
	default:
		stream_sim_reset(s->link);
		return true;
	}
}

/* --- hosts that leases are for --- */

static void cut_off(struct ring *r, int host, bool one_way, int64_t ms)
{
	bool out = prng_below(&r->fault_prng, 2);

	for (int i = 0; i < r->count; i++) {
		if (i == host)
			continue;
		if (out || !one_way)
			ring_link_cut(r, host, i, ms);
		if (!out || !one_way)
			ring_link_cut(r, i, host, ms);
	}
}

void ring_faults_freeze(struct ring_host *h, unsigned one_in)
{
	struct ring *r = h->ring;

	if (!r->faults_on || !((r->faults >> RING_FAULT_FROZEN) & 1) || h->death_due ||
		ring_host_frozen(h) || prng_below(&r->fault_prng, one_in))
		return;
	ring_faults_count(r, RING_FAULT_FROZEN);
	ring_host_freeze(h, prng_range(&r->fault_prng, 11000, 40000), false);
}

/* Whether somebody waits for this host's lease and all that it guarded to end. */
static bool is_waited_for(const struct ring_host *h)
{
	for (int i = 0; i < RING_VMS && ring_lease_is_over(h); i++)
		if (uuid_eq(&h->ring->vms[i].on, &h->uuid))
			return true;
	return false;
}

static bool strike_wait(struct ring *r, struct prng *p)
{
	struct ring_host *master = ring_host_master(r);

	for (int i = 0; master && i < r->count; i++) {
		struct ring_host *h = &r->hosts[i];

		if (h == master)
			continue;
		if (is_waited_for(h)) {
			ring_faults_die(master, (enum ring_death)prng_below(p, 2));
			return true;
		}
		/* The next time one is. */
		if (h->fence.book.count && prng_below(p, 2))
			cut_off(r, i, false, 60000);
	}
	return false;
}

/* For longer than a lease lasts, and than anybody waits, or not quite so long. */
static bool strike_lease(struct ring *r, enum ring_fault fault, struct prng *p)
{
	struct ring_host *h = &r->hosts[prng_below(p, (uint64_t)r->count)];
	int64_t ms = prng_range(p, 1000, prng_below(p, 2) ? 12000 : 60000);

	/* One that guards something is worth more. */
	for (int i = 0; i < r->count && !h->fence.book.count; i++)
		h = &r->hosts[(h->index + 1) % r->count];
	switch (fault) {
	case RING_FAULT_HOST_CUT:
	case RING_FAULT_HOST_CUT_ONE_WAY:
		cut_off(r, h->index, fault == RING_FAULT_HOST_CUT_ONE_WAY, ms);
		return true;
	case RING_FAULT_FROZEN:
	case RING_FAULT_ASLEEP:
		if (h->life == RING_DOWN || h->death_due || ring_host_frozen(h))
			return false;
		/* Xen's watchdog sleeps, too: nothing else would end what fenced can't
		 * (docs/fencing.md). */
		if (fault == RING_FAULT_ASLEEP && !ring_fence_works(h))
			return false;
		ring_host_freeze(h, ms, fault == RING_FAULT_ASLEEP);
		return true;
	case RING_FAULT_FENCE_FAILS:
		if (h->asleep)
			return false;
		/* When it is needed, and for longer than anybody waits. */
		if (prng_below(p, 2)) {
			ms = prng_range(p, 45000, 60000);
			cut_off(r, h->index, false, ms);
		}
		h->fence.fails_us = loop_now_us(r->loop) + ms * 1000;
		h->fence.hangs = prng_below(p, 3) == 0;
		ring_note(
			r, "host%d fault: fenced fails for %d ms", h->index + 1, (int)ms);
		return true;
	case RING_FAULT_FENCE_DIES:
		if (!h->fence.up || h->asleep)
			return false;
		ring_fence_kill(h, ms / 3);
		return true;
	default:
		return strike_wait(r, p);
	}
}

/* --- the master, clocks --- */

static void moved(void *arg, int rc)
{
	struct ring *r = arg;

	ring_note(r, "transfer of leadership: %s", rv_error_symbol(rc));
	if (rc == 0)
		ring_faults_count(r, RING_FAULT_MASTER_MOVED);
}

static void move_master(struct ring *r, struct prng *p)
{
	struct ring_host *master = ring_host_master(r);
	struct rlog_member servers[2 * RING_HOSTS];
	struct rv_error e;
	uint64_t to = 0;
	int n;

	if (!master || r->rules.most == 1)
		return;
	n = rlog_members(pool_log(master->pool), servers, 2 * RING_HOSTS);
	if (n > 0 && prng_below(p, 3))
		to = servers[prng_below(p, (uint64_t)n)].id;
	ring_note(r, "host%d is to hand leadership to server %d", master->index + 1,
		(int)to);
	if (pool_designate(master->pool, to, moved, r, &e))
		ring_note(r, "refused: %s", e.detail);
}

/* All hosts' clocks: what is measured by them must not matter. */
static void jump(struct ring *r, struct prng *p)
{
	int64_t ms = prng_range(p, -3600 * 1000, 3600 * 1000);

	/* Finished tasks are kept for a day. */
	if (r->jumped_ms + ms > 6 * 3600 * 1000 || r->jumped_ms + ms < -6 * 3600 * 1000)
		ms = -ms;
	r->jumped_ms += ms;
	loop_sim_set_wall_ms(r->loop, loop_wall_ms(r->loop) + ms);
	ring_note(r, "the clock jumps by %lld s", (long long)ms / 1000);
	ring_faults_count(r, RING_FAULT_CLOCK_JUMP);
}

/* --- at random --- */

static void strike_host(struct ring *r, enum ring_fault fault, struct prng *p)
{
	struct ring_host *h = &r->hosts[prng_below(p, (uint64_t)r->count)];
	struct ring_host *master = ring_host_master(r);

	switch (fault) {
	case RING_FAULT_POWER:
		ring_faults_die(h, RING_POWER);
		return;
	case RING_FAULT_KILL:
		ring_faults_die(h, RING_KILL);
		return;
	case RING_FAULT_UNSYNCED:
		ring_faults_die(h, RING_UNSYNCED);
		return;
	case RING_FAULT_MASTER_DIED:
		if (master)
			ring_faults_die(master, (enum ring_death)prng_below(p, 3));
		return;
	case RING_FAULT_HYPER_ERROR:
	case RING_FAULT_HYPER_EFFECT_ERROR:
	case RING_FAULT_HYPER_LATE:
	case RING_FAULT_HYPER_LOST:
	case RING_FAULT_HYPER_CRASH:
		hyper_breaks(
			h, HYPER_SIM_FAULT_ERROR + (fault - RING_FAULT_HYPER_ERROR), p);
		return;
	case RING_FAULT_GUEST_ENDED:
		ring_faults_guest_ends(h, &r->vms[prng_below(p, RING_VMS)].uuid, p);
		return;
	case RING_FAULT_NET_FAIL:
	case RING_FAULT_NET_AFTER:
	case RING_FAULT_NET_HANG:
		net_breaks(h, fault, p);
		return;
	case RING_FAULT_DISK_STEP:
	case RING_FAULT_DISK_WRITE:
	case RING_FAULT_DISK_SYNC:
		disk_breaks(h, fault, p);
		return;
	case RING_FAULT_DISK_FULL:
		ring_faults_disk_full(h);
		return;
	default:
		return;
	}
}

static void strike(struct ring *r, enum ring_fault fault, struct prng *p)
{
	bool struck = false;

	switch (fault) {
	case RING_FAULT_STREAM_CUT:
	case RING_FAULT_STREAM_CUT_ONE_WAY:
	case RING_FAULT_STREAM_RESET:
	case RING_FAULT_STREAM_SLOW:
		struck = strike_stream(r, fault, p);
		break;
	case RING_FAULT_STORAGE_FAIL:
	case RING_FAULT_STORAGE_AFTER:
	case RING_FAULT_STORAGE_HANG:
	case RING_FAULT_SR_HUNG:
		storage_breaks(r, fault, p);
		break;
	case RING_FAULT_MASTER_MOVED:
		move_master(r, p);
		return;
	case RING_FAULT_DEMOTED:
	case RING_FAULT_REMOVED:
	case RING_FAULT_DISCARD:
		ring_learn_unsettle(r, fault);
		return;
	case RING_FAULT_LEARNER: /* are aimed */
	case RING_FAULT_CHANGE_MASTER:
		return;
	case RING_FAULT_HOST_CUT:
	case RING_FAULT_HOST_CUT_ONE_WAY:
	case RING_FAULT_FROZEN:
	case RING_FAULT_ASLEEP:
	case RING_FAULT_FENCE_FAILS:
	case RING_FAULT_FENCE_DIES:
	case RING_FAULT_WAIT_MASTER:
		if (!strike_lease(r, fault, p))
			return;
		struck = true;
		break;
	case RING_FAULT_CLOCK_JUMP:
		jump(r, p);
		return;
	default:
		if (r->count > 1)
			struck = strike_links(r, fault, p);
	}
	if (!struck) {
		strike_host(r, fault, p);
		return;
	}
	ring_note(r, "fault: %s", ring_fault_name(fault));
	ring_faults_count(r, fault);
}

static void faults_turn(void *arg)
{
	struct ring *r = arg;
	struct prng *p = &r->fault_prng;
	enum ring_fault fault;

	do
		fault = (enum ring_fault)prng_below(p, RING_FAULT_DRAWN);
	while (!((r->faults >> fault) & 1));
	timer_start_ms(&r->fault, prng_range(p, 1, 2 * r->fault_every_ms));
	strike(r, fault, p);
}

static void heal_all(struct ring *r)
{
	storage_sim_set_faults(r->bytes, &(struct storage_sim_faults){0});
	for (int i = 0; r->sr_hung && i < r->count; i++)
		storage_sim_set_hung(r->bytes, r->sr, r->hosts[i].uuid, false);
	if (r->sr_hung)
		storage_sim_set_hung(r->bytes, r->sr, UUID_NONE, false);
	r->sr_hung = false;
	for (int i = 0; i < r->count; i++) {
		disk_sim_set_capacity(r->hosts[i].medium, UINT64_MAX);
		if (r->hosts[i].net)
			net_sim_set_faults(r->hosts[i].net, 0, 0, 0);
	}
}

static void faults_heal(void *arg)
{
	struct ring *r = arg;

	heal_all(r);
	timer_start_ms(&r->heal, prng_range(&r->fault_prng, 1000, 10000));
}

void ring_faults_start(struct ring *r)
{
	timer_init(&r->fault, r->loop, "ring.fault", faults_turn, r);
	timer_init(&r->heal, r->loop, "ring.heal", faults_heal, r);
	if (!r->faults)
		return;
	r->faults_on = true;
	ring_aim_start(r);
	ring_learn_start(r);
	ring_slow_start(r);
	timer_start_ms(&r->fault, 10);
	timer_start_ms(&r->heal, 5000);
}

void ring_faults_stop(struct ring *r)
{
	r->faults_on = false;
	timer_stop(&r->fault);
	timer_stop(&r->heal);
	ring_aim_stop(r);
	ring_slow_stop(r);
	heal_all(r);
	for (int i = 0; i < r->count; i++) {
		struct ring_host *h = &r->hosts[i];

		disk_sim_inject(h->medium, DISK_SIM_NONE, 0);
		h->fence.fails_us = 0;
		for (int c = 0; h->hyper && c < HYPER_CALL_COUNT; c++)
			hyper_sim_inject(
				h->hyper, (enum hyper_call)c, HYPER_SIM_FAULT_NONE, 0, 0);
	}
	for (size_t i = 0; i < RING_STREAMS; i++)
		if (r->streams[i].link)
			stream_sim_set(r->streams[i].link, 50, 400, 100 << 20);
	ring_link_heal(r);
}
