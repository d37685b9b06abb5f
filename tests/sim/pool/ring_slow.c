/*
 * What is slow: disks, whose writes take longer than an election; and a master that is
 * stopped until it was replaced, every lease that it gave is over by its own clock, and
 * its successor has given others. Only some seeds have either, drawn by a generator of
 * its own: what is added here leaves all other seeds as they were.
 */
#include "ring.h"

enum {
	DISKS_SEED = 5,	 /* of 16 */
	MASTER_SEED = 9, /* likewise */
	TURN_MS = 2500,
	LAST_MS = 1500, /* a write, at most */
	DEFAULT_MIN_US = 50,
	DEFAULT_MAX_US = 500, /* as in reactor/worker.h */
};

static void disk_delay(struct ring_host *h, int64_t min_us, int64_t max_us)
{
	for (int i = 0; h->disk && i < DISK_LANE_COUNT; i++)
		if (h->disk->lanes[i])
			worker_sim_set_delay(h->disk->lanes[i], min_us, max_us);
}

/* One at a time, until the next turn. */
static void slow_disk(struct ring *r)
{
	struct prng *p = &r->slow.prng;
	struct ring_host *h = &r->hosts[prng_below(p, (uint64_t)r->count)];

	ring_slow_heal(r);
	if (prng_below(p, 3) == 0 || !h->disk)
		return;
	ring_note(r, "host%d fault: its disk is slow", h->index + 1);
	ring_faults_count(r, RING_FAULT_DISK_SLOW);
	disk_delay(h, DEFAULT_MIN_US, prng_range(p, 1, LAST_MS) * 1000);
}

static bool is_worth_it(const struct ring *r, const struct ring_host *master)
{
	for (int i = 0; i < r->count; i++)
		if (&r->hosts[i] != master && r->hosts[i].fence.book.count)
			return true;
	return false;
}

static void stop_master(struct ring *r)
{
	struct ring_host *master = ring_host_master(r);

	if (!master || master->death_due || r->rules.most < 3 || !is_worth_it(r, master))
		return;
	ring_faults_count(r, RING_FAULT_MASTER_STOPPED);
	ring_host_freeze(master, prng_range(&r->slow.prng, 24000, 60000), false);
}

static void on_turn(void *arg)
{
	struct ring *r = arg;

	timer_start_ms(&r->slow.turn, prng_range(&r->slow.prng, 1, 2 * TURN_MS));
	if (r->seed % 16 == DISKS_SEED)
		slow_disk(r);
	else
		stop_master(r);
}

void ring_slow_heal(struct ring *r)
{
	for (int i = 0; i < r->count; i++)
		disk_delay(&r->hosts[i], DEFAULT_MIN_US, DEFAULT_MAX_US);
}

void ring_slow_start(struct ring *r)
{
	timer_init(&r->slow.turn, r->loop, "ring.slow", on_turn, r);
	prng_seed(&r->slow.prng, r->seed ^ UINT64_C(0x510e510e510e510e));
	if (r->seed % 16 == DISKS_SEED || r->seed % 16 == MASTER_SEED)
		timer_start_ms(&r->slow.turn, TURN_MS);
}

void ring_slow_stop(struct ring *r)
{
	timer_stop(&r->slow.turn);
	ring_slow_heal(r);
}
