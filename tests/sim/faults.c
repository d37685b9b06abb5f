#include "faults.h"

#include <stdlib.h>
#include <string.h>

#include "look.h"

enum { SIM_GHOST_KIB = 4096, GHOST_BLIND_MS = 200 };

static void count(enum sim_fault fault)
{
	trail_get()->totals.faults[fault]++;
}

/* --- the hypervisor --- */

static void inject(struct sim_host *h, enum hyper_sim_fault fault, struct prng *p)
{
	static const enum hyper_call calls[] = {HYPER_CALL_NONE, HYPER_CALL_NONE,
		HYPER_CALL_CREATE, HYPER_CALL_CREATE, HYPER_CALL_RESTORE, HYPER_CALL_SAVE,
		HYPER_CALL_RESUME, HYPER_CALL_DESTROY, HYPER_CALL_DESTROY,
		HYPER_CALL_PAUSE, HYPER_CALL_UNPAUSE, HYPER_CALL_UNPAUSE,
		HYPER_CALL_REQUEST_SHUTDOWN, HYPER_CALL_SET_TARGET, HYPER_CALL_SET_MAXMEM,
		HYPER_CALL_ATTACH_VBD, HYPER_CALL_DETACH_VBD, HYPER_CALL_ATTACH_VIF,
		HYPER_CALL_DETACH_VIF, HYPER_CALL_HOST, HYPER_CALL_LIST, HYPER_CALL_INFO};
	enum hyper_call call = calls[prng_below(p, sizeof calls / sizeof calls[0])];
	uint32_t times = 1 + (uint32_t)prng_below(p, 3);

	sim_note("%s fault: next %u %s: %s", h->name, times, hyper_call_name(call),
		hyper_sim_fault_name(fault));
	hyper_sim_inject(h->hyper, call, fault, times, prng_range(p, 1000, 40000000));
}

void faults_collect(struct sim_host *h)
{
	struct sim_totals *t = &trail_get()->totals;

	t->faults[SIM_FAULT_HYPER_ERROR] +=
		hyper_sim_faults_fired(h->hyper, HYPER_SIM_FAULT_ERROR);
	t->faults[SIM_FAULT_HYPER_EFFECT_ERROR] +=
		hyper_sim_faults_fired(h->hyper, HYPER_SIM_FAULT_EFFECT_ERROR);
	t->faults[SIM_FAULT_HYPER_LATE] +=
		hyper_sim_faults_fired(h->hyper, HYPER_SIM_FAULT_LATE);
	t->faults[SIM_FAULT_HYPER_LOST] +=
		hyper_sim_faults_fired(h->hyper, HYPER_SIM_FAULT_LOST);
	t->faults[SIM_FAULT_HYPER_CRASH] +=
		hyper_sim_faults_fired(h->hyper, HYPER_SIM_FAULT_CRASH);
}

static void guest_changes(struct sim_host *h, enum sim_fault fault, struct prng *p)
{
	const struct row *vm = host_any_vm(h, p);
	struct hyper_sim_guest g = h->hyper_config.guest;
	struct uuid uuid;

	if (!vm)
		return;
	uuid = row_uuid(vm);
	if (fault == SIM_FAULT_GUEST_DEAF) {
		g.ignores_shutdown = prng_below(p, 2);
		g.ignores_suspend = !g.ignores_shutdown || prng_below(p, 2);
	} else {
		g.feature_balloon = true;
		g.balloon = (enum hyper_sim_balloon)prng_range(
			p, HYPER_SIM_BALLOON_SLOW, HYPER_SIM_BALLOON_OVERSHOOT);
		g.balloon_overshoot_kib = 1024;
		g.stuck_period_us = 4000000;
		g.stuck_for_us = 2000000;
	}
	sim_note("%s fault: %s %s", h->name, sim_fault_name(fault), row_name(vm));
	if (hyper_sim_set_guest(h->hyper, &uuid, &g) == 0)
		count(fault);
}

static void guest_ends(struct sim_host *h, enum sim_fault fault, struct prng *p)
{
	const struct row *vm = host_any_vm(h, p);
	enum hyper_reason reason = HYPER_REASON_POWEROFF;
	struct uuid uuid;

	if (!vm)
		return;
	uuid = row_uuid(vm);
	if (fault == SIM_FAULT_GUEST_REBOOT)
		reason = HYPER_REASON_REBOOT;
	else if (fault == SIM_FAULT_GUEST_CRASH)
		reason = prng_below(p, 4) ? HYPER_REASON_CRASH : HYPER_REASON_WATCHDOG;
	if (hyper_sim_end_guest(h->hyper, &uuid, reason))
		return;
	sim_note("%s fault: %s %s", h->name, sim_fault_name(fault), row_name(vm));
	count(fault);
}

static void ghost(struct sim_host *h)
{
	struct hyper_domain_id id;

	if (hyper_sim_make_ghost(h->hyper, "ghost", SIM_GHOST_KIB, &id))
		return;
	/* What it took may have been promised; until the daemon has looked. */
	h->ghost_until_us = INT64_MAX;
	h->meddled = true;
	sim_note("%s fault: ghost, domain %u", h->name, id.domid);
	count(SIM_FAULT_GHOST);
}

static void xl_destroy(struct sim_host *h, struct prng *p)
{
	struct hyper_domain domains[SIM_MAX_DOMAINS];
	size_t n = look_domains(h->hyper, domains, SIM_MAX_DOMAINS), i;

	if (n == 0)
		return;
	i = (size_t)prng_below(p, n);
	if (hyper_sim_destroy_behind(h->hyper, domains[i].id.domid))
		return;
	h->meddled = true;
	sim_note("%s fault: xl destroy %u (%s)", h->name, domains[i].id.domid,
		domains[i].name);
	count(SIM_FAULT_XL_DESTROY);
}

/* --- ports and disk --- */

static void storage_breaks(struct sim_host *h, enum sim_fault fault, struct prng *p)
{
	struct storage_sim_faults f = {0};
	uint32_t ppm = (uint32_t)prng_range(p, 50000, 900000);

	switch (fault) {
	case SIM_FAULT_STORAGE_FAIL:
		f.fail_ppm = ppm;
		break;
	case SIM_FAULT_STORAGE_AFTER:
		f.fail_after_ppm = ppm;
		break;
	default:
		f.hang_ppm = ppm / 4;
		f.hang_us = prng_range(p, 100000, 150000000);
	}
	storage_sim_set_faults(h->bytes, &f);
}

static void net_breaks(struct sim_host *h, enum sim_fault fault, struct prng *p)
{
	uint32_t ppm = (uint32_t)prng_range(p, 100000, 900000);

	net_sim_set_faults(h->net, fault == SIM_FAULT_NET_FAIL ? ppm : 0,
		fault == SIM_FAULT_NET_AFTER ? ppm : 0,
		fault == SIM_FAULT_NET_HANG ? ppm / 4 : 0);
}

static void disk_breaks(struct sim_host *h, enum sim_fault fault, struct prng *p)
{
	static const enum disk_sim_fault kinds[] = {
		DISK_SIM_FAIL_STEP, DISK_SIM_FAIL_WRITE, DISK_SIM_FAIL_SYNC};

	disk_sim_inject(h->medium, kinds[fault - SIM_FAULT_DISK_STEP], prng_below(p, 12));
}

static void disk_slows(struct sim_host *h, int64_t us)
{
	for (int i = 0; i < DISK_LANE_COUNT; i++)
		if (h->disk->lanes[i])
			worker_sim_set_delay(h->disk->lanes[i], 50 + us / 2, 500 + us);
}

/* --- dying --- */

static enum sim_death any_death(struct prng *p)
{
	static const enum sim_death deaths[] = {
		SIM_KILL, SIM_KILL, SIM_KILL_UNSYNCED, SIM_POWER};

	return deaths[prng_below(p, 4)];
}

static bool enabled(const struct sim_world *w, enum sim_fault fault)
{
	return w->profile.fault_every_ms &&
	       (w->profile.faults[fault / 32] >> (fault % 32)) & 1;
}

static void plan_death(struct sim_host *h, enum sim_fault fault, struct prng *p)
{
	if (h->kill_in)
		return;
	h->kill_in = 1 + prng_below(p, 400);
	h->death = fault == SIM_FAULT_DAEMON_KILL	? SIM_KILL
		   : fault == SIM_FAULT_DAEMON_UNSYNCED ? SIM_KILL_UNSYNCED
							: SIM_POWER;
}

static void plan_point(struct sim_host *h, struct prng *p)
{
	struct sim_world *w = h->world;

	if (h->die_at >= 0)
		return;
	h->die_at = w->profile.favourite_point >= 0 && prng_below(p, 3)
			    ? w->profile.favourite_point
			    : (int)prng_below(p, SIM_POINT_COUNT);
	h->die_skip = (int)prng_below(p, 3);
}

bool faults_point(void *arg, const char *point, const struct uuid *vm)
{
	struct sim_host *h = arg;
	int at = sim_point_by_name(point);

	(void)vm;
	if (at < 0)
		sim_fail("crash point %s is not listed in tests/sim/trail.h", point);
	if (h->dead_at_point)
		return true;
	trail_get()->totals.passed[at]++;
	if (!h->world->faults_on || at != h->die_at || h->die_skip-- > 0)
		return false;
	sim_note("%s fault: dies at %s", h->name, point);
	trail_get()->totals.points[at]++;
	count(SIM_FAULT_DAEMON_POINT);
	h->dead_at_point = true;
	host_die(h, any_death(&h->world->fault_prng));
	return true;
}

void faults_event(struct sim_host *h)
{
	if (h->kill_in == 0 || --h->kill_in > 0 || h->death_due)
		return;
	count(h->death == SIM_KILL		? SIM_FAULT_DAEMON_KILL
		: h->death == SIM_KILL_UNSYNCED ? SIM_FAULT_DAEMON_UNSYNCED
						: SIM_FAULT_HOST_POWER);
	host_die(h, h->death);
}

void faults_host_up(struct sim_host *h)
{
	struct sim_world *w = h->world;
	struct prng *p = &w->fault_prng;

	h->ghost_until_us = 0;
	if (!w->faults_on)
		return;
	/* Now and then it dies again while it recovers. */
	for (int f = SIM_FAULT_DAEMON_KILL; f <= SIM_FAULT_HOST_POWER; f++)
		if (enabled(w, (enum sim_fault)f) && prng_below(p, 6) == 0)
			plan_death(h, (enum sim_fault)f, p);
	if (w->profile.favourite_point >= 0 && w->profile.fault_every_ms)
		plan_point(h, p);
}

/* --- at random --- */

static void heal_host(struct sim_host *h)
{
	storage_sim_set_faults(h->bytes, &(struct storage_sim_faults){0});
	storage_sim_set_hung(h->bytes, h->sr, UUID_NONE, false);
	disk_sim_set_capacity(h->medium, UINT64_MAX);
	if (h->life == SIM_DOWN)
		return;
	net_sim_set_faults(h->net, 0, 0, 0);
	hyper_sim_set_stored(h->hyper, true);
	disk_slows(h, 0);
}

static void faults_heal(void *arg)
{
	struct sim_world *w = arg;

	sim_note("--- healed");
	for (int i = 0; i < w->host_count; i++)
		heal_host(&w->hosts[i]);
	timer_start_ms(&w->heal, prng_range(&w->fault_prng, 1000, 40000));
}

static void strike_live(struct sim_host *h, enum sim_fault fault, struct prng *p)
{
	switch (fault) {
	case SIM_FAULT_HYPER_ERROR:
		inject(h, HYPER_SIM_FAULT_ERROR, p);
		return; /* counted when it fires */
	case SIM_FAULT_HYPER_EFFECT_ERROR:
		inject(h, HYPER_SIM_FAULT_EFFECT_ERROR, p);
		return;
	case SIM_FAULT_HYPER_LATE:
		inject(h, HYPER_SIM_FAULT_LATE, p);
		return;
	case SIM_FAULT_HYPER_LOST:
		inject(h, HYPER_SIM_FAULT_LOST, p);
		return;
	case SIM_FAULT_HYPER_CRASH:
		inject(h, HYPER_SIM_FAULT_CRASH, p);
		return;
	case SIM_FAULT_GUEST_DEAF:
	case SIM_FAULT_GUEST_STUCK:
		guest_changes(h, fault, p);
		return;
	case SIM_FAULT_GUEST_POWEROFF:
	case SIM_FAULT_GUEST_REBOOT:
	case SIM_FAULT_GUEST_CRASH:
		guest_ends(h, fault, p);
		return;
	case SIM_FAULT_GHOST:
		ghost(h);
		return;
	case SIM_FAULT_XL_DESTROY:
		xl_destroy(h, p);
		return;
	case SIM_FAULT_STORED_LOST:
		hyper_sim_set_stored(h->hyper, false);
		break;
	case SIM_FAULT_NET_FAIL:
	case SIM_FAULT_NET_AFTER:
	case SIM_FAULT_NET_HANG:
		net_breaks(h, fault, p);
		h->net_broke = true;
		break;
	case SIM_FAULT_DISK_SLOW:
		disk_slows(h, prng_range(p, 1000, 300000));
		break;
	case SIM_FAULT_DAEMON_KILL:
	case SIM_FAULT_DAEMON_UNSYNCED:
	case SIM_FAULT_HOST_POWER:
		plan_death(h, fault, p);
		return;
	case SIM_FAULT_DAEMON_POINT:
		plan_point(h, p);
		return;
	default:
		return;
	}
	sim_note("%s fault: %s", h->name, sim_fault_name(fault));
	count(fault);
}

/* Those that work on what outlives the daemon. */
static bool strike_lasting(struct sim_host *h, enum sim_fault fault, struct prng *p)
{
	switch (fault) {
	case SIM_FAULT_STORAGE_FAIL:
	case SIM_FAULT_STORAGE_AFTER:
	case SIM_FAULT_STORAGE_HANG:
		storage_breaks(h, fault, p);
		h->storage_broke = true;
		break;
	case SIM_FAULT_SR_HUNG:
		storage_sim_set_hung(h->bytes, h->sr, UUID_NONE, true);
		h->storage_broke = true;
		break;
	case SIM_FAULT_DISK_STEP:
	case SIM_FAULT_DISK_WRITE:
	case SIM_FAULT_DISK_SYNC:
		disk_breaks(h, fault, p);
		break;
	case SIM_FAULT_DISK_FULL:
		disk_sim_set_capacity(
			h->medium, disk_sim_used(h->medium) + prng_below(p, 200000));
		break;
	default:
		return false;
	}
	sim_note("%s fault: %s", h->name, sim_fault_name(fault));
	count(fault);
	return true;
}

static void faults_turn(void *arg)
{
	struct sim_world *w = arg;
	struct prng *p = &w->fault_prng;
	struct sim_host *h = &w->hosts[prng_below(p, (uint64_t)w->host_count)];
	enum sim_fault fault = (enum sim_fault)prng_below(p, SIM_FAULT_COUNT);

	if (!enabled(w, fault)) {
		timer_start_ms(&w->fault, 1);
		return;
	}
	timer_start_ms(&w->fault, prng_range(p, 1, 2 * w->profile.fault_every_ms));
	if (!strike_lasting(h, fault, p) && h->life != SIM_DOWN)
		strike_live(h, fault, p);
}

void faults_start(struct sim_world *w)
{
	timer_init(&w->fault, w->loop, "sim.fault", faults_turn, w);
	timer_init(&w->heal, w->loop, "sim.heal", faults_heal, w);
	if (!w->profile.fault_every_ms || !(w->profile.faults[0] | w->profile.faults[1]))
		return;
	w->faults_on = true;
	timer_start_ms(&w->fault, 10);
	timer_start_ms(&w->heal, 15000);
	for (int i = 0; i < w->host_count; i++)
		if (w->profile.favourite_point >= 0)
			plan_point(&w->hosts[i], &w->fault_prng);
}

void faults_stop(struct sim_world *w)
{
	struct hyper_sim_guest friendly;

	w->faults_on = false;
	timer_stop(&w->fault);
	timer_stop(&w->heal);
	hyper_sim_guest_init(&friendly);
	for (int i = 0; i < w->host_count; i++) {
		struct sim_host *h = &w->hosts[i];

		heal_host(h);
		disk_sim_inject(h->medium, DISK_SIM_NONE, 0);
		h->kill_in = 0;
		h->die_at = -1;
		for (int c = 0; h->hyper && c < HYPER_CALL_COUNT; c++)
			hyper_sim_inject(
				h->hyper, (enum hyper_call)c, HYPER_SIM_FAULT_NONE, 0, 0);
	}
}
