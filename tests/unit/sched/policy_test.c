/* What the policies prefer, and what becomes of plugins that err. */
#include "pool.h"

static void greedy_starts_where_most_is_free(void **state)
{
	struct sched *s = sched_new(4);
	struct sched_host h;
	struct sched_request r = vm(1 * GiB, 1);

	(void)state;
	h = plain_host(1); /* much memory, busy */
	h.load.cpu_load_ppm = 900000;
	put(s, &h);
	h = plain_host(2); /* idle, little memory */
	h.load.memory_free_kib = 2 * GiB;
	put(s, &h);
	h = plain_host(3); /* half of both */
	h.load.cpu_load_ppm = 500000;
	h.load.memory_free_kib = 8 * GiB;
	put(s, &h);
	assert_int_equal(place(s, &r, &sched_greedy, 1), 3);
	sched_free(s);
}

static void greedy_spreads_starts_before_the_metrics_come(void **state)
{
	struct sched *s = sched_new(4);
	struct sched_request r = vm(2 * GiB, 2);
	unsigned hits[4] = {0};

	(void)state;
	for (unsigned i = 0; i < 4; i++) {
		struct sched_host h = plain_host(i);

		put(s, &h);
	}
	for (unsigned i = 0; i < 8; i++) {
		int at = place(s, &r, &sched_greedy, i);
		struct uuid u = id('h', (unsigned)at);

		hits[at]++;
		assert_int_equal(
			sched_host_charge(s, &u, (int64_t)r.memory_min_kib, 2, 1), 0);
	}
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(hits[i], 2);
	sched_free(s);
}

static void greedy_keeps_large_holes(void **state)
{
	struct sched *s = sched_new(4);
	struct sched_host h;
	struct sched_request r = vm(1 * GiB, 2);

	(void)state;
	h = plain_host(1);
	h.pcpus = h.vcpus_limit = 48;
	h.load.memory_total_kib = 192 * GiB;
	h.load.memory_free_kib = 150 * GiB; /* no hole of memory breaks */
	h.load.vcpus = 16;		    /* two holes of 16 */
	put(s, &h);
	h.uuid = id('h', 2);
	h.load.vcpus = 18; /* one hole of 16, one of 14 */
	put(s, &h);
	assert_int_equal(place(s, &r, &sched_greedy, 1), 2);
	sched_free(s);
}

static void conservative_fills_used_hosts(void **state)
{
	struct sched *s = sched_new(8);
	struct sched_host h;
	struct sched_request r = vm(4 * GiB, 1);

	(void)state;
	h = plain_host(1); /* empty */
	put(s, &h);
	h = plain_host(2); /* used, roomy */
	h.load.vms = 1;
	h.load.memory_free_kib = 10 * GiB;
	put(s, &h);
	h = plain_host(3); /* used, just fits */
	h.load.vms = 2;
	h.load.memory_free_kib = 5 * GiB;
	put(s, &h);
	assert_int_equal(place(s, &r, &sched_conservative, 1), 3);
	/* As full, but its VMs are old: it will stay in use. */
	h.uuid = id('h', 4);
	h.load.oldest_vm_s = h.load.in_use_s = h.load.mean_vm_s = 86400;
	put(s, &h);
	assert_int_equal(place(s, &r, &sched_conservative, 1), 4);
	/* Squeezing a used host beats opening an empty one ... */
	r.memory_min_kib = 11 * GiB;
	h = plain_host(5);
	h.load.vms = 1;
	h.load.memory_free_kib = 4 * GiB;
	h.load.memory_squeezable_kib = 8 * GiB;
	put(s, &h);
	assert_int_equal(place(s, &r, &sched_conservative, 1), 5);
	/* ... unless its CPUs are busy. */
	h.load.cpu_load_ppm = 950000;
	put(s, &h);
	assert_int_equal(place(s, &r, &sched_conservative, 1), 1);
	sched_free(s);
}

/* ---- Plugins */

static int64_t last(const struct reeve_sched_host *h, uint64_t n, uint64_t stride,
	const struct reeve_sched_request *r, uint64_t seed)
{
	const struct reeve_sched_host *end =
		(const void *)((const char *)h + (n - 1) * stride);

	(void)seed;
	assert_true(
		end->memory_free_kib + end->memory_squeezable_kib >= r->memory_min_kib);
	return (int64_t)n - 1;
}

static int64_t beyond(const struct reeve_sched_host *h, uint64_t n, uint64_t stride,
	const struct reeve_sched_request *r, uint64_t seed)
{
	(void)h, (void)stride, (void)r, (void)seed;
	return (int64_t)n;
}

static int64_t none(const struct reeve_sched_host *h, const struct reeve_sched_request *r)
{
	(void)h, (void)r;
	return INT64_MIN;
}

static void plugins_are_checked(void **state)
{
	struct sched *s = sched_new(4);
	struct sched_request r = vm(1 * GiB, 1);
	struct sched_decision d;
	struct rv_error e = {0};
	bool fell_back;
	struct reeve_sched_policy p = {.abi_version = REEVE_SCHED_ABI_VERSION,
		.struct_size = sizeof p,
		.name = "mine",
		.doc = "d",
		.decide = last};

	(void)state;
	for (unsigned i = 0; i < 4; i++) {
		struct sched_host h = plain_host(i);

		h.enabled = i < 3;
		put(s, &h);
	}
	assert_int_equal(sched_check_policy(&p, &e), 0);
	assert_int_equal(place(s, &r, &p, 1), 2);
	p.decide = beyond;
	assert_int_equal(sched_decide(s, &r, &p, 1, &d, &e), RV_EINVAL);
	assert_string_equal(
		e.detail, "scheduler mine chose host number 3 of 3, which there is not");
	assert_int_equal(sched_decide_or_fall_back(
				 s, &r, &p, &sched_greedy, 1, &d, &fell_back, &e),
		0);
	assert_true(fell_back && d.placed);
	p.decide = NULL;
	p.score = none;
	assert_int_equal(place(s, &r, &p, 1), -1);
	p.decide = last;
	assert_int_equal(sched_check_policy(&p, &e), RV_EINVAL);
	p.score = NULL;
	p.abi_version = 2;
	assert_int_equal(sched_decide_or_fall_back(
				 s, &r, &p, &sched_greedy, 1, &d, &fell_back, &e),
		0);
	assert_true(fell_back);
	assert_non_null(strstr(e.detail, "speaks policy interface 2, this daemon 1"));
	p.abi_version = 1;
	p.struct_size = 8;
	assert_int_equal(sched_check_policy(&p, &e), RV_EINVAL);
	p.struct_size = sizeof p;
	p.name = "No Good";
	assert_int_equal(sched_check_policy(&p, &e), RV_EINVAL);
	assert_ptr_equal(sched_builtin("greedy"), &sched_greedy);
	assert_ptr_equal(sched_builtin("conservative"), &sched_conservative);
	assert_null(sched_builtin("mine"));
	sched_free(s);
}

static void limits_of_the_picture(void **state)
{
	struct sched *s = sched_new(2);
	struct sched_host h = plain_host(1);
	struct rv_error e = {0};
	struct uuid u = id('h', 9);

	(void)state;
	put(s, &h);
	h = plain_host(2);
	put(s, &h);
	put(s, &h); /* again is no third */
	h = plain_host(3);
	assert_int_equal(sched_host_set(s, &h, &e), RV_ELIMIT);
	assert_int_equal(sched_host_count(s), 2);
	assert_int_equal(sched_host_load(s, &u, &h.load), RV_ENOENT);
	assert_int_equal(sched_host_charge(s, &u, 1, 1, 1), RV_ENOENT);
	sched_host_remove(s, &u);
	u = id('h', 1);
	sched_host_remove(s, &u);
	put(s, &h);
	assert_int_equal(sched_host_count(s), 2);
	sched_free(s);
	sched_free(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(greedy_starts_where_most_is_free),
		cmocka_unit_test(greedy_spreads_starts_before_the_metrics_come),
		cmocka_unit_test(greedy_keeps_large_holes),
		cmocka_unit_test(conservative_fills_used_hosts),
		cmocka_unit_test(plugins_are_checked),
		cmocka_unit_test(limits_of_the_picture),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
