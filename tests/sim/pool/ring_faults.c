/* The adversary. */
#include <string.h>

#include "ring.h"

static void count(struct ring *r, enum ring_fault fault)
{
	r->totals->faults[fault]++;
}

void ring_faults_collect(struct ring_host *h)
{
	static const enum hyper_sim_fault kinds[] = {HYPER_SIM_FAULT_ERROR,
		HYPER_SIM_FAULT_EFFECT_ERROR, HYPER_SIM_FAULT_LATE, HYPER_SIM_FAULT_LOST};

	for (int i = 0; i < 4; i++)
		h->ring->totals->faults[RING_FAULT_HYPER_ERROR + i] +=
			hyper_sim_faults_fired(h->hyper, kinds[i]);
}

static void die(struct ring_host *h, enum ring_death death)
{
	static const enum ring_fault faults[] = {
		RING_FAULT_KILL, RING_FAULT_UNSYNCED, RING_FAULT_POWER};

	if (h->life == RING_DOWN || h->death_due)
		return;
	count(h->ring, faults[death]);
	if (h->index == 0)
		count(h->ring, RING_FAULT_MASTER_DIED);
	h->death_due = true;
	h->death = death;
}

bool ring_faults_point(void *arg, const char *point, const struct uuid *vm)
{
	struct ring_host *h = arg;

	(void)vm;
	if (h->dead_at_point)
		return true;
	if (!h->ring->faults_on || h->die_in == 0 || --h->die_in > 0)
		return false;
	ring_note(h->ring, "host%d fault: dies at %s", h->index + 1, point);
	count(h->ring, RING_FAULT_POINT);
	h->dead_at_point = true;
	die(h, (enum ring_death)prng_below(&h->ring->fault_prng, 3));
	return true;
}

static void inject(struct ring_host *h, enum hyper_sim_fault fault, struct prng *p)
{
	static const enum hyper_call calls[] = {HYPER_CALL_NONE, HYPER_CALL_NONE,
		HYPER_CALL_CREATE, HYPER_CALL_RESTORE, HYPER_CALL_SAVE, HYPER_CALL_RESUME,
		HYPER_CALL_DESTROY, HYPER_CALL_DESTROY, HYPER_CALL_PAUSE,
		HYPER_CALL_UNPAUSE, HYPER_CALL_UNPAUSE, HYPER_CALL_REQUEST_SHUTDOWN,
		HYPER_CALL_SET_TARGET, HYPER_CALL_ATTACH_VBD, HYPER_CALL_DETACH_VBD,
		HYPER_CALL_RELABEL, HYPER_CALL_LIST, HYPER_CALL_INFO};
	enum hyper_call call = calls[prng_below(p, sizeof calls / sizeof calls[0])];

	ring_note(h->ring, "host%d fault: next %s: %s", h->index + 1,
		hyper_call_name(call), hyper_sim_fault_name(fault));
	hyper_sim_inject(h->hyper, call, fault, 1 + (uint32_t)prng_below(p, 2),
		prng_range(p, 1000, 20000000));
}

static void storage_breaks(struct ring *r, enum ring_fault fault, struct prng *p)
{
	struct storage_sim_faults f = {0};
	uint32_t ppm = (uint32_t)prng_range(p, 50000, 500000);

	if (fault == RING_FAULT_STORAGE_FAIL)
		f.fail_ppm = ppm;
	else
		f.fail_after_ppm = ppm;
	storage_sim_set_faults(r->bytes, &f);
	count(r, fault);
}

static void strike_links(struct ring *r, enum ring_fault fault, struct prng *p)
{
	int a = (int)prng_below(p, RING_HOSTS);
	int b = (a + 1 + (int)prng_below(p, 2)) % RING_HOSTS;

	switch (fault) {
	case RING_FAULT_LINK_CUT:
		ring_link_cut(r, a, b, prng_range(p, 50, 20000));
		break;
	case RING_FAULT_LINK_RESET:
		if (!r->ways[a][b].up)
			return;
		ring_link_reset(r, a, b);
		break;
	case RING_FAULT_STREAM_CUT:
		if (!ring_stream_cut(r, p))
			return;
		break;
	default:
		if (!ring_stream_reset(r, p))
			return;
	}
	ring_note(r, "fault: %s host%d host%d", ring_fault_name(fault), a + 1, b + 1);
	count(r, fault);
}

static void strike(struct ring *r, enum ring_fault fault, struct prng *p)
{
	struct ring_host *h = &r->hosts[prng_below(p, RING_HOSTS)];

	switch (fault) {
	case RING_FAULT_LINK_CUT:
	case RING_FAULT_LINK_RESET:
	case RING_FAULT_STREAM_CUT:
	case RING_FAULT_STREAM_RESET:
		strike_links(r, fault, p);
		return;
	case RING_FAULT_POWER:
		die(h, RING_POWER);
		return;
	case RING_FAULT_KILL:
		die(h, RING_KILL);
		return;
	case RING_FAULT_UNSYNCED:
		die(h, RING_UNSYNCED);
		return;
	case RING_FAULT_POINT:
		if (h->life != RING_DOWN && h->die_in == 0)
			h->die_in = 1 + (int)prng_below(p, 12);
		return;
	case RING_FAULT_MASTER_DIED:
		die(&r->hosts[0], (enum ring_death)prng_below(p, 3));
		return;
	case RING_FAULT_HYPER_ERROR:
	case RING_FAULT_HYPER_EFFECT_ERROR:
	case RING_FAULT_HYPER_LATE:
	case RING_FAULT_HYPER_LOST:
		if (h->hyper)
			inject(h,
				HYPER_SIM_FAULT_ERROR + (fault - RING_FAULT_HYPER_ERROR),
				p);
		return;
	case RING_FAULT_STORAGE_FAIL:
	case RING_FAULT_STORAGE_AFTER:
		storage_breaks(r, fault, p);
		return;
	case RING_FAULT_DISK_SYNC:
		disk_sim_inject(h->medium, DISK_SIM_FAIL_SYNC, prng_below(p, 12));
		count(r, fault);
		return;
	case RING_FAULT_MESSAGES_LOST:
	case RING_FAULT_COUNT:
		return;
	}
}

static void faults_turn(void *arg)
{
	struct ring *r = arg;
	struct prng *p = &r->fault_prng;
	enum ring_fault fault;

	do
		fault = (enum ring_fault)prng_below(p, RING_FAULT_COUNT);
	while (!((r->faults >> fault) & 1));
	timer_start_ms(&r->fault, prng_range(p, 1, 2 * r->fault_every_ms));
	strike(r, fault, p);
}

static void faults_heal(void *arg)
{
	struct ring *r = arg;

	storage_sim_set_faults(r->bytes, &(struct storage_sim_faults){0});
	timer_start_ms(&r->heal, prng_range(&r->fault_prng, 1000, 10000));
}

void ring_faults_start(struct ring *r)
{
	timer_init(&r->fault, r->loop, "ring.fault", faults_turn, r);
	timer_init(&r->heal, r->loop, "ring.heal", faults_heal, r);
	if (!r->faults)
		return;
	r->faults_on = true;
	timer_start_ms(&r->fault, 10);
	timer_start_ms(&r->heal, 5000);
}

void ring_faults_stop(struct ring *r)
{
	r->faults_on = false;
	timer_stop(&r->fault);
	timer_stop(&r->heal);
	storage_sim_set_faults(r->bytes, &(struct storage_sim_faults){0});
	for (int i = 0; i < RING_HOSTS; i++) {
		struct ring_host *h = &r->hosts[i];

		h->die_in = 0;
		disk_sim_inject(h->medium, DISK_SIM_NONE, 0);
		for (int c = 0; h->hyper && c < HYPER_CALL_COUNT; c++)
			hyper_sim_inject(
				h->hyper, (enum hyper_call)c, HYPER_SIM_FAULT_NONE, 0, 0);
		for (int b = 0; b < RING_HOSTS; b++)
			r->cut_until_us[i][b] = 0;
	}
	for (size_t i = 0; i < RING_STREAMS; i++)
		r->streams[i].cut_until_us = 0;
}
