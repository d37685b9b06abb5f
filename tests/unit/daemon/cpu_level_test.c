/* Who may join with which CPUs, and what the pool's level becomes. */
#include "daemon/cpu_level.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "reactor/loop.h"
#include "xen/sim.h"
#include "applied.h"

enum {
	ALL = HYPER_SIM_CPU_SSE42 | HYPER_SIM_CPU_AES | HYPER_SIM_CPU_AVX |
	      HYPER_SIM_CPU_AVX2,
	OLD = HYPER_SIM_CPU_SSE42 | HYPER_SIM_CPU_AES,
	OTHER = HYPER_SIM_CPU_SSE42 | HYPER_SIM_CPU_AVX,
};

static const struct uuid pool = {{1}}, a = {{2}}, b = {{3}}, vm = {{4}};

static struct loop *loop;
static struct hyper *hyper;
static struct db *db;
static struct txn t;

/* As the simulated driver writes it. */
static size_t policy(uint32_t features, uint8_t *out)
{
	memcpy(out, "RVSIMCPU", 8);
	for (int i = 0; i < 4; i++)
		out[8 + i] = (uint8_t)(features >> 8 * i);
	return 12;
}

static const char *text(uint32_t features)
{
	static char hex[VM_CPU_TEXT_SIZE];
	uint8_t bytes[16];

	return vm_cpu_format(bytes, policy(features, bytes), hex);
}

static void apply(void)
{
	must_apply(db, &t);
	txn_init(&t, db, 1000);
}

static void make_host(struct uuid uuid, const char *name, uint32_t features)
{
	txn_create(&t, CLASS_HOST, uuid);
	txn_set_string(&t, uuid, HOST_NAME_LABEL, name);
	txn_set_enum(&t, uuid, HOST_HYPERVISOR, HOST_HYPERVISOR_SIMULATED);
	txn_set_string(&t, uuid, HOST_CPU_POLICY, text(features));
	txn_map_put(&t, uuid, HOST_SOFTWARE_VERSION, "hypervisor-version", "4.17.0");
}

static int setup(void **state)
{
	struct hyper_sim_config config;
	struct rv_error e;

	(void)state;
	hyper_sim_config_init(&config);
	assert_int_equal(loop_new_sim(&loop, 1), 0);
	assert_int_equal(hyper_sim_new(&hyper, loop, &config, &e), 0);
	db = db_new(1);
	txn_init(&t, NULL, 1000);
	txn_create(&t, CLASS_POOL, pool);
	txn_set_string(&t, pool, POOL_CPU_POLICY, text(ALL));
	make_host(a, "alpha", ALL);
	txn_create(&t, CLASS_VM, vm);
	txn_set_string(&t, vm, VM_NAME_LABEL, "web");
	apply();
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	txn_fini(&t);
	db_free(db);
	hyper_free(hyper);
	loop_free(loop);
	return 0;
}

static const char *level(void)
{
	return db_string(db_pool(db), POOL_CPU_POLICY);
}

/* A host with these wants to join: rc, and `words` in the refusal. */
static struct vm_cpu_level joins(
	const struct cpu_level_joiner *j, int rc, const char *words)
{
	struct vm_cpu_level l;
	struct rv_error e = {0};

	assert_int_equal(cpu_level_join(hyper, db, j, &l, &e), rc);
	if (rc && !strstr(e.detail, words))
		fail_msg("no '%s' in: %s", words, e.detail);
	return l;
}

static void test_join_table(void **state)
{
	static const struct {
		uint32_t features;
		bool runs;
		const char *xen;
		bool real;
		int rc;
		const char *words;
		uint32_t lowered; /* 0: the level stays */
	} table[] = {
		{ALL, true, "4.17.0", false, 0, "", 0},
		{ALL | HYPER_SIM_CPU_SHA, true, "4.17.0", false, 0, "", 0},
		{ALL, true, "4.18.1", false, 0, "", 0},
		{OLD, false, "4.17.0", false, 0, "", OLD},
		{OLD | HYPER_SIM_CPU_SHA, false, "4.17.0", false, 0, "", OLD},
		{OLD, true, "4.17.0", false, RV_ECPU, "avx, avx2", 0},
		{OLD, true, "4.17.0", false, RV_ECPU, "VM web", 0},
		{ALL, false, "4.16.9", false, RV_EUNSUPPORTED, "4.16.9", 0},
		{ALL, false, "", false, RV_EUNSUPPORTED, "too old", 0},
		{ALL, false, "4.17.0", true, RV_ENOTALLOWED, "mix", 0},
	};
	uint8_t bytes[16], wanted[16];

	(void)state;
	for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
		struct cpu_level_joiner j = {.is_simulated = !table[i].real,
			.xen = table[i].xen,
			.policy = bytes,
			.policy_len = policy(table[i].features, bytes)};
		struct vm_cpu_level l;

		txn_set_enum(&t, vm, VM_POWER_STATE,
			table[i].runs ? VM_POWER_STATE_RUNNING : VM_POWER_STATE_HALTED);
		apply();
		l = joins(&j, table[i].rc, table[i].words);
		if (table[i].rc)
			continue;
		assert_int_equal(
			l.len, table[i].lowered ? policy(table[i].lowered, wanted) : 0);
		assert_memory_equal(l.policy, wanted, l.len);
	}
}

static void test_join_nonsense(void **state)
{
	struct cpu_level_joiner j = {.is_simulated = true,
		.xen = "4.17",
		.policy = (const uint8_t *)"nonsense",
		.policy_len = 8};

	(void)state;
	joins(&j, RV_EINVAL, "joining host");
	j.policy_len = 0;
	joins(&j, RV_EUNSUPPORTED, "too old");
	j.policy_len = HYPER_MAX_CPU_POLICY + 1;
	joins(&j, RV_EUNSUPPORTED, "too old");
	txn_set_string(&t, pool, POOL_CPU_POLICY, "");
	apply();
	j.policy_len = 8;
	joins(&j, RV_EAGAIN, "again");
}

static void look(uint32_t features)
{
	cpu_level_txn(hyper, db, &t);
	apply();
	assert_string_equal(level(), text(features));
}

static void test_level_follows_members(void **state)
{
	(void)state;
	look(ALL);
	assert_true(txn_is_empty(&t));
	make_host(b, "beta", OTHER);
	apply();
	for (int i = VM_POWER_STATE_HALTED + 1; i < VM_POWER_STATE_COUNT; i++) {
		txn_set_enum(&t, vm, VM_POWER_STATE, i);
		apply();
		look(ALL); /* it was shown more */
	}
	txn_set_enum(&t, vm, VM_POWER_STATE, VM_POWER_STATE_HALTED);
	txn_set_enum(&t, vm, VM_INTENT, VM_INTENT_START);
	apply();
	look(ALL);
	txn_set_enum(&t, vm, VM_INTENT, VM_INTENT_NONE);
	apply();
	look(OTHER);
	txn_set_string(&t, a, HOST_CPU_POLICY, text(OLD));
	apply();
	look(HYPER_SIM_CPU_SSE42);
	txn_delete(&t, CLASS_HOST, b);
	apply();
	look(OLD);				    /* raised again */
	txn_set_string(&t, a, HOST_CPU_POLICY, ""); /* not known */
	apply();
	look(OLD);
}

static void test_first_level(void **state)
{
	(void)state;
	txn_set_string(&t, pool, POOL_CPU_POLICY, "");
	txn_set_enum(&t, vm, VM_POWER_STATE, VM_POWER_STATE_RUNNING);
	apply();
	look(ALL);
}

/* --- what guests are shown --- */

static void test_shown(void **state)
{
	struct vm_cpu_level l;
	struct rv_error e = {0};
	uint8_t wanted[16];

	(void)state;
	vm_cpu_shown(db, a, &l);
	assert_int_equal(l.len, 0); /* its own */
	assert_int_equal(
		vm_cpu_offers(hyper, db_row(db, CLASS_HOST, a), db_pool(db), &e), 0);
	txn_set_string(&t, pool, POOL_CPU_POLICY, text(OLD));
	make_host(b, "beta", OTHER);
	apply();
	vm_cpu_shown(db, a, &l);
	assert_int_equal(l.len, policy(OLD, wanted));
	assert_memory_equal(l.policy, wanted, l.len);
	assert_int_equal(vm_cpu_offers(hyper, db_row(db, CLASS_HOST, b), db_pool(db), &e),
		RV_ECPU);
	assert_non_null(strstr(e.detail, "aes"));
}

static void test_booted(void **state)
{
	struct vm_op o = {.vm = vm};
	struct vm_cpu_level l;

	(void)state;
	vm_cpu_booted(db, db_row(db, CLASS_VM, vm), &l);
	assert_int_equal(l.len, 0); /* adopted, or of before */
	vm_cpu_txn_boot(&o, db, &t);
	apply();
	vm_cpu_booted(db, db_row(db, CLASS_VM, vm), &l);
	assert_int_equal(l.len, 12);
	txn_set_string(&t, pool, POOL_CPU_POLICY, text(OLD));
	apply();
	vm_cpu_booted(db, db_row(db, CLASS_VM, vm), &l);
	assert_int_equal(l.len, 0); /* it was shown another level */
}

static void test_xen_needed(void **state)
{
	const struct row *row;

	(void)state;
	assert_int_equal(vm_cpu_xen_version("4.17.5"), 4 << 16 | 17);
	assert_int_equal(vm_cpu_xen_version("unstable"), 0);
	assert_int_equal(vm_cpu_xen_needed(db, db_row(db, CLASS_VM, vm)), 0);
	vm_cpu_txn_saved(db, &t, vm, a);
	txn_set_enum(&t, vm, VM_POWER_STATE, VM_POWER_STATE_SUSPENDED);
	apply();
	row = db_row(db, CLASS_VM, vm);
	assert_int_equal(vm_cpu_xen_needed(db, row), 4 << 16 | 17);
	txn_set_enum(&t, vm, VM_POWER_STATE, VM_POWER_STATE_HALTED);
	apply();
	assert_int_equal(vm_cpu_xen_needed(db, db_row(db, CLASS_VM, vm)), 0);
}

static void test_text(void **state)
{
	static const char *const wrong[] = {"0", "0g", "0G", "FF", "zz"};
	struct vm_cpu_level l;

	(void)state;
	assert_int_equal(vm_cpu_parse(&l, "00ff"), 0);
	assert_int_equal(l.len, 2);
	assert_int_equal(l.policy[1], 0xff);
	for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
		assert_int_equal(vm_cpu_parse(&l, wrong[i]), RV_ECORRUPT);
		assert_int_equal(l.len, 0);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_join_table, setup, teardown),
		cmocka_unit_test_setup_teardown(test_join_nonsense, setup, teardown),
		cmocka_unit_test_setup_teardown(
			test_level_follows_members, setup, teardown),
		cmocka_unit_test_setup_teardown(test_first_level, setup, teardown),
		cmocka_unit_test_setup_teardown(test_shown, setup, teardown),
		cmocka_unit_test_setup_teardown(test_booted, setup, teardown),
		cmocka_unit_test_setup_teardown(test_xen_needed, setup, teardown),
		cmocka_unit_test_setup_teardown(test_text, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
