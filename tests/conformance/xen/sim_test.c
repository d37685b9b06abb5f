/* The simulated driver passes the suite of all drivers, on both loops. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/units.h"
#include "xen/conformance.h"
#include "xen/sim.h"

struct bench {
	struct hyper_conformance c;
	struct hyper_sim_config config;
	char path[64]; /* real loop: the state file */
};

static void spec(void *arg, struct hyper_domain_spec *s)
{
	(void)arg;
	memset(s, 0, sizeof *s);
	s->type = HYPER_PVH;
	s->vcpus_max = 2;
	s->static_max_kib = 64 * MIB / KIB;
	s->target_kib = 48 * MIB / KIB;
	s->populate_on_demand = true;
	s->kernel = "/boot/guest";
	s->platform = "sim.working_set=1MiB sim.boot=20ms sim.suspend=5ms "
		      "sim.shutdown=5ms sim.used_ppm=100000";
}

static int restart(struct hyper_conformance *c, struct rv_error *e)
{
	struct bench *b = c->arg;

	hyper_free(c->hyper);
	c->hyper = NULL;
	return hyper_sim_new(&c->hyper, c->loop, &b->config, e);
}

static int memory_hash(void *arg, const struct uuid *vm, uint64_t *hash)
{
	struct bench *b = arg;

	return hyper_sim_memory_hash(b->c.hyper, vm, hash);
}

static int damage(void *arg, const struct uuid *vm, uint64_t *pages)
{
	struct bench *b = arg;
	struct hyper_sim_view view;
	int rc = hyper_sim_look(b->c.hyper, vm, &view);

	*pages = view.damaged_pages;
	return rc;
}

static int change(struct bench *b, const struct uuid *vm, uint64_t rate, bool deaf)
{
	struct hyper_sim_guest g;
	struct hyper_domain_spec s;
	struct rv_error e;
	int rc;

	hyper_sim_guest_init(&g);
	spec(b, &s);
	rc = hyper_sim_guest_parse(&g, s.platform, &e);
	g.dirty_pages_per_s = rate;
	g.ignores_suspend = deaf;
	return rc != 0 ? rc : hyper_sim_set_guest(b->c.hyper, vm, &g);
}

static int dirty(void *arg, const struct uuid *vm, uint64_t rate)
{
	return change(arg, vm, rate, false);
}

static int deafen(void *arg, const struct uuid *vm)
{
	return change(arg, vm, 0, true);
}

static int end_guest(void *arg, const struct uuid *vm, enum hyper_reason reason)
{
	struct bench *b = arg;

	return hyper_sim_end_guest(b->c.hyper, vm, reason);
}

static void bench_init(struct bench *b, bool real, uint64_t seed)
{
	struct rv_error e;

	memset(b, 0, sizeof *b);
	if (real)
		assert_int_equal(loop_new(&b->c.loop, &e), 0);
	else
		assert_int_equal(loop_new_sim(&b->c.loop, seed), 0);
	hyper_sim_config_init(&b->config);
	b->config.memory_kib = 2 * GIB / KIB;
	b->config.step_us = 2000;
	b->config.seed = seed;
	if (real) {
		snprintf(b->path, sizeof b->path, "/tmp/reeve-sim-host-%d", getpid());
		unlink(b->path);
		b->config.state_path = b->path;
	} else {
		assert_int_equal(
			hyper_sim_machine_new(&b->config.machine, &b->config), 0);
	}
	if (hyper_sim_new(&b->c.hyper, b->c.loop, &b->config, &e) != 0)
		fail_msg("%s", e.detail);
	b->c.arg = b;
	b->c.spec = spec;
	b->c.boot_ms = 40;
	b->c.limit_ms = 10000;
	b->c.restart = restart;
	b->c.memory_hash = memory_hash;
	b->c.damage = damage;
	b->c.dirty = dirty;
	b->c.deafen = deafen;
	b->c.end_guest = end_guest;
}

static void bench_fini(struct bench *b)
{
	hyper_free(b->c.hyper);
	hyper_sim_machine_free(b->config.machine);
	if (b->path[0] != '\0')
		unlink(b->path);
	loop_free(b->c.loop);
}

static void run_all(struct bench *b)
{
	const struct hyper_conformance_case *one = hyper_conformance_cases;
	uint32_t failed = 0;

	for (; one->name != NULL; one++) {
		struct rv_error e = {0};
		int rc = one->run(&b->c, &e);

		if (rc != 0) {
			print_error("%s: %d: %s\n", one->name, rc, e.detail);
			failed++;
		}
		if (hyper_sim_check(b->c.hyper, &e) != 0) {
			print_error("%s: %s\n", one->name, e.detail);
			failed++;
		}
	}
	assert_int_equal(failed, 0);
}

static void on_virtual_clock(void **state)
{
	struct bench b;

	(void)state;
	bench_init(&b, false, 7);
	run_all(&b);
	bench_fini(&b);
}

static void on_real_clock(void **state)
{
	struct bench b;

	(void)state;
	bench_init(&b, true, 7);
	run_all(&b);
	bench_fini(&b);
}

static uint64_t trace(uint64_t seed)
{
	struct bench b;
	uint64_t hash;

	bench_init(&b, false, seed);
	run_all(&b);
	hash = loop_sim_trace_hash(b.c.loop);
	bench_fini(&b);
	return hash;
}

static void same_seed_same_trace(void **state)
{
	uint64_t one = trace(11);

	(void)state;
	assert_true(one == trace(11));
	assert_true(one != trace(12));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(on_virtual_clock),
		cmocka_unit_test(on_real_clock),
		cmocka_unit_test(same_seed_same_trace),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
