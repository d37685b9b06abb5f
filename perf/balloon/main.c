/*
 * Memory on demand: how long from a reservation to memory that is free, on the real loop
 * and clock, with simulated guests whose balloon drivers have a known speed.
 *
 * The limit is the drivers' own: a reservation of R KiB from n drivers of v KiB/s each
 * can't be met before R / (n * v). Beside it stands squeezed's rule, from its source: it
 * looks once a second, gives a guest 5 s before it is called stuck, and serves one
 * reservation at a time; that one is worked out, not run.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "perf/report.h"
#include "vm/vm_memory.h"
#include "xen/sim.h"

enum {
	MAX_GUESTS = 200,
	MAX_ROUNDS = 5,
	MAX_WAITERS = 50,
	GUEST_KIB = 1024 * 1024,
	FLOOR_KIB = 512 * 1024,	  /* dynamic-min */
	SPEED_KIB_S = 256 * 1024, /* of each driver */
	ASKED_KIB = 64 * 1024,	  /* by each waiter, or per guest */
	TICK_US = 2000,		  /* how often a moving guest is looked at */
	GIVE_UP_MS = 60 * 1000,
	DECIDED_DOMAINS = 1000,
};

struct waiter {
	struct bench *bench;
	struct vm_reservation reservation;
	double granted_s; /* 0: not yet */
};

struct bench {
	struct loop *loop;
	struct hyper *hyper;
	struct vm_memory *memory;
	struct hyper_req req;
	struct timer limit, pause;
	struct hyper_domain_id ids[MAX_GUESTS];
	struct waiter waiters[MAX_WAITERS];
	int waiting;
};

static void on_limit(void *arg)
{
	(void)arg;
	report_die("no answer within %d s", GIVE_UP_MS / 1000);
}

static void on_pause(void *arg)
{
	loop_stop(((struct bench *)arg)->loop);
}

static void on_done(void *arg, struct hyper_req *req)
{
	if (req->rc)
		report_die("%s: %s", hyper_call_name(req->call), req->error.detail);
	loop_stop(((struct bench *)arg)->loop);
}

static struct uuid numbered(unsigned n)
{
	struct uuid u = {.b = {1}};

	memcpy(u.b + 8, &n, sizeof n);
	return u;
}

/* --- a host full of guests --- */

static void make_guest(struct bench *b, int i, bool stuck)
{
	struct hyper_domain_spec spec = {
		.vm = numbered((unsigned)i + 1),
		.handle = numbered((unsigned)i + 1001),
		.generation = 1,
		.name = "guest",
		.type = HYPER_PV,
		.vcpus_max = 1,
		.static_max_kib = GUEST_KIB,
		.target_kib = GUEST_KIB,
		.kernel = "/boot/vmlinuz",
		.platform = stuck ? "sim.balloon=stuck" : NULL,
	};
	struct memctl_domain d = {
		.vm = spec.vm,
		.static_max_kib = GUEST_KIB,
		.dynamic_min_kib = FLOOR_KIB,
		.dynamic_max_kib = GUEST_KIB,
		.actual_kib = GUEST_KIB,
		.target_kib = GUEST_KIB,
		.maxmem_kib = GUEST_KIB,
		.proven = true,
		.mode = MEMCTL_RUNNING,
	};
	struct rv_error e;

	hyper_create(b->hyper, &b->req, &spec);
	loop_run(b->loop);
	b->ids[i] = b->req.id;
	hyper_unpause(b->hyper, &b->req, &b->ids[i]);
	loop_run(b->loop);
	d.domid = b->ids[i].domid;
	if (vm_memory_add(b->memory, &b->ids[i], &d, hyper_overhead_kib(b->hyper, &spec),
		    NULL, &e))
		report_die("%s", e.detail);
}

static uint64_t guest_overhead_kib(void)
{
	return hyper_xen_overhead_kib(HYPER_PV, 1, GUEST_KIB);
}

static void open_host(struct bench *b, int guests, int stuck)
{
	struct hyper_sim_config config;
	struct rv_error e;

	memset(b, 0, sizeof *b);
	hyper_sim_config_init(&config);
	config.dom0_kib = GUEST_KIB;
	/* Nothing but the guests: whatever is asked for must come from them. */
	config.memory_kib =
		config.dom0_kib + (uint64_t)guests * (GUEST_KIB + guest_overhead_kib());
	config.balloon_tick_us = TICK_US;
	config.guest.balloon_kib_per_s = SPEED_KIB_S;
	config.guest.boot_us = 0;
	if (loop_new(&b->loop, &e) || hyper_sim_new(&b->hyper, b->loop, &config, &e) ||
		vm_memory_new(&b->memory, b->loop, b->hyper, NULL, NULL, NULL))
		report_die("no simulated host: %s", e.detail);
	hyper_req_init(&b->req, on_done, b);
	timer_init(&b->limit, b->loop, "perf.limit", on_limit, b);
	timer_init(&b->pause, b->loop, "perf.pause", on_pause, b);
	timer_start_ms(&b->limit, GIVE_UP_MS);
	hyper_host(b->hyper, &b->req);
	loop_run(b->loop);
	vm_memory_sync(b->memory, b->req.host);
	for (int i = 0; i < guests; i++)
		make_guest(b, i, i < stuck);
	hyper_host(b->hyper, &b->req);
	loop_run(b->loop);
	vm_memory_sync(b->memory, b->req.host);
	/* The book of free memory settles. */
	timer_start_ms(&b->pause, 50);
	loop_run(b->loop);
}

static void close_host(struct bench *b)
{
	for (int i = 0; i < MAX_WAITERS; i++)
		vm_memory_release(&b->waiters[i].reservation);
	vm_memory_stop(b->memory);
	timer_stop(&b->limit);
	timer_stop(&b->pause);
	hyper_free(b->hyper);
	vm_memory_free(b->memory);
	loop_free(b->loop);
}

/* --- waiting for memory --- */

static void on_reserved(void *arg, uint64_t token, int rc, uint64_t short_kib)
{
	struct waiter *w = arg;

	(void)token;
	if (rc)
		report_die(
			"refused: %llu KiB are missing", (unsigned long long)short_kib);
	w->granted_s = report_now_s();
	if (--w->bench->waiting == 0)
		loop_stop(w->bench->loop);
}

/* From asking to the last of `count` grants of `kib` each, in ms. */
static double reclaim_ms(int guests, int stuck, int count, uint64_t kib)
{
	static struct bench b; /* too large for the stack */
	double began_s, last_s = 0;
	struct rv_error e;

	open_host(&b, guests, stuck);
	b.waiting = count;
	began_s = report_now_s();
	for (int i = 0; i < count; i++) {
		struct waiter *w = &b.waiters[i];
		struct uuid owner = numbered((unsigned)i + 5001);

		w->bench = &b;
		if (vm_memory_reserve(b.memory, &w->reservation, &owner, kib, on_reserved,
			    w, 0, &e))
			report_die("%s", e.detail);
	}
	loop_run(b.loop);
	for (int i = 0; i < count; i++)
		last_s = fmax(last_s, b.waiters[i].granted_s);
	close_host(&b);
	return (last_s - began_s) * 1e3;
}

/* Of several rounds the median: a noisy machine's worst is not the controller's. */
static double median_ms(
	const struct report *r, int guests, int stuck, int count, uint64_t kib)
{
	double values[MAX_ROUNDS];
	size_t rounds = r->quick ? 1 : MAX_ROUNDS;

	for (size_t i = 0; i < rounds; i++)
		values[i] = reclaim_ms(guests, stuck, count, kib);
	return report_percentile(values, rounds, 0.5);
}

static double limit_ms(int givers, double kib)
{
	return kib / ((double)givers * SPEED_KIB_S) * 1e3;
}

/* squeezed: whole steps of a second; while a guest is not yet known to be stuck it waits
 * 5 s for it; one reservation after the other. */
static double squeezed_ms(double one_limit_ms, bool stuck, int reservations)
{
	return reservations * (ceil(one_limit_ms / 1000) * 1000) + (stuck ? 5000 : 0);
}

static void measure_reclaim(struct report *r)
{
	static const int sizes[] = {1, 10, 50, MAX_GUESTS};
	double worst_ms = 0, worst_limit = 1, worst_over = -INFINITY;
	int last = r->quick ? 2 : 4;

	for (int i = 0; i < last; i++) {
		uint64_t kib = (uint64_t)sizes[i] * ASKED_KIB;
		double limit = limit_ms(sizes[i], (double)kib);
		double ms = median_ms(r, sizes[i], 0, 1, kib);

		if (ms / limit > worst_over) {
			worst_over = ms / limit;
			worst_ms = ms;
			worst_limit = limit;
		}
	}
	report_add(r, (struct report_result){.name = "reclaim_over_limit",
			      .unit = "ms",
			      .value = worst_ms,
			      .peer = "the drivers' own speed",
			      .peer_value = worst_limit,
			      .kind = REPORT_RATIO_AT_MOST,
			      .bar = 1.05 + 5 / worst_limit});
	report_add(r, (struct report_result){.name = "reclaim_excess_ms",
			      .unit = "ms",
			      .value = fmax(0, worst_ms - 1.05 * worst_limit),
			      .kind = REPORT_VALUE_AT_MOST,
			      .bar = 5});
	report_add(r, (struct report_result){.name = "reclaim_vs_squeezed",
			      .unit = "ms",
			      .value = worst_ms,
			      .peer = "squeezed's rule, worked out",
			      .peer_value = squeezed_ms(worst_limit, false, 1)});
}

static void measure_stuck(struct report *r)
{
	static const int parts[] = {20, 10, 5}; /* 5, 10, 20 % */
	double worst_ms = 0, worst_limit = 1, penalty = 0;
	int guests = r->quick ? 20 : 100;

	for (int i = 0; i < 3; i++) {
		int stuck = guests / parts[i];
		uint64_t kib = (uint64_t)guests * ASKED_KIB;
		double limit = limit_ms(guests - stuck, (double)kib);
		double ms = median_ms(r, guests, stuck, 1, kib);

		if (i == 0 || ms - limit > penalty) {
			penalty = ms - limit;
			worst_ms = ms;
			worst_limit = limit;
		}
	}
	report_add(r, (struct report_result){.name = "stuck_penalty_ms",
			      .unit = "ms",
			      .value = fmax(0, penalty - 0.05 * worst_limit),
			      .kind = REPORT_VALUE_AT_MOST,
			      .bar = 5});
	report_add(r, (struct report_result){.name = "stuck_vs_squeezed",
			      .unit = "ms",
			      .value = worst_ms,
			      .peer = "squeezed's rule, worked out",
			      .peer_value = squeezed_ms(worst_limit, true, 1)});
}

static void measure_concurrent(struct report *r)
{
	double limit = limit_ms(MAX_WAITERS, (double)MAX_WAITERS * ASKED_KIB);
	double ms = median_ms(r, MAX_WAITERS, 0, MAX_WAITERS, ASKED_KIB);

	report_add(r, (struct report_result){.name = "reservations_50_ms",
			      .unit = "ms",
			      .value = ms,
			      .peer = "the drivers' own speed",
			      .peer_value = limit,
			      .kind = REPORT_RATIO_AT_MOST,
			      .bar = 1.05 + 5 / limit});
	report_add(r, (struct report_result){.name = "reservations_50_vs_squeezed",
			      .unit = "ms",
			      .value = ms,
			      .peer = "squeezed's rule, worked out",
			      .peer_value = squeezed_ms(limit_ms(MAX_WAITERS, ASKED_KIB),
				      false, MAX_WAITERS)});
}

/* --- deciding --- */

static void measure_decision(struct report *r)
{
	struct memctl *m = memctl_new(NULL);
	size_t rounds = r->quick ? 10 : 500;
	double *us = calloc(rounds, sizeof *us);
	int64_t now_us = 1000 * 1000;
	struct rv_error e;

	if (!m || !us)
		report_die("no memory");
	for (uint32_t i = 0; i < DECIDED_DOMAINS; i++) {
		struct memctl_domain d = {.domid = i + 1,
			.vm = numbered(i + 1),
			.static_max_kib = GUEST_KIB,
			.dynamic_min_kib = FLOOR_KIB,
			.dynamic_max_kib = GUEST_KIB,
			.actual_kib = GUEST_KIB,
			.target_kib = GUEST_KIB,
			.maxmem_kib = GUEST_KIB,
			.proven = true,
			.mode = MEMCTL_RUNNING};

		if (memctl_domain_add(m, &d, NULL, &e))
			report_die("%s", e.detail);
	}
	memctl_step(m, now_us);
	/* Each time one guest has moved and somebody new waits: a decision about all. */
	for (size_t i = 0; i < rounds; i++) {
		struct uuid owner = numbered((unsigned)i + 5001);
		uint32_t domid = (uint32_t)(i % DECIDED_DOMAINS) + 1;
		double began_s;

		now_us += 2000;
		if (memctl_domain_actual(m, now_us, domid, GUEST_KIB - 1024) ||
			memctl_reserve(
				m, &owner, 64 * ASKED_KIB, now_us + 3600000000ll, &e))
			report_die("%s", e.detail);
		began_s = report_now_s();
		memctl_step(m, now_us);
		us[i] = (report_now_s() - began_s) * 1e6;
		memctl_release(m, &owner);
	}
	report_add(r, (struct report_result){.name = "decide_1000_us",
			      .unit = "us",
			      .value = report_percentile(us, rounds, 0.5),
			      .kind = REPORT_VALUE_AT_MOST,
			      .bar = 100});
	free(us);
	memctl_free(m);
}

int main(int argc, char **argv)
{
	static struct report r;

	report_begin(&r, "balloon", argc, argv);
	measure_reclaim(&r);
	measure_stuck(&r);
	measure_concurrent(&r);
	measure_decision(&r);
	return report_end(&r);
}
