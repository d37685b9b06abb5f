/* Each filter, alone, with the words that a person reads. */
#include "pool.h"

static struct sched *one_host(const struct sched_host *h)
{
	struct sched *s = sched_new(100);

	assert_non_null(s);
	put(s, h);
	return s;
}

/* The host refuses, says why, and isn't chosen. */
static void refuses(
	const struct sched_host *h, const struct sched_request *r, const char *words)
{
	struct sched *s = one_host(h);

	assert_string_equal(reason(s, r, 1), words);
	assert_int_equal(place(s, r, &sched_greedy, 1), -1);
	assert_int_equal(place(s, r, &sched_conservative, 1), -1);
	sched_free(s);
}

static void hosts_that_are_away(void **state)
{
	struct sched_host h = plain_host(1);
	struct sched_request r = vm(1 * GiB, 1);

	(void)state;
	h.enabled = false;
	refuses(&h, &r, "host h1: is disabled (HOST_DISABLED)");
	h.live = false;
	refuses(&h, &r, "host h1: does not answer (HOST_NOT_LIVE)");
	h = plain_host(1);
	h.clock_ok = false;
	r.needs_clock = true;
	refuses(&h, &r,
		"host h1: its clock differs too much from the pool's (CLOCK_SKEW)");
}

static void cpus(void **state)
{
	struct sched_host h = plain_host(1);
	struct sched_request r = vm(1 * GiB, 9);

	(void)state;
	refuses(&h, &r, "host h1: needs 9 CPUs, has 8 (HOST_NOT_ENOUGH_PCPUS)");
	h.vcpus_limit = 10;
	h.load.vcpus = 7;
	r.vcpus = 4;
	refuses(&h, &r,
		"host h1: needs 4 vCPUs, has 3 left below its limit "
		"(HOST_NOT_ENOUGH_PCPUS)");
	r.vcpus = 1;
	h.features.w[3] = 5;
	r.features.w[3] = 7;
	refuses(&h, &r,
		"host h1: its CPUs lack features that the VM is shown "
		"(VM_INCOMPATIBLE_WITH_THIS_HOST)");
	r.features.w[3] = 5;
	r.min_xen_version = 4 << 16 | 19;
	refuses(&h, &r,
		"host h1: runs Xen 4.17, the VM needs 4.19 or newer "
		"(VM_HOST_INCOMPATIBLE_VERSION)");
}

static void storage_and_networks(void **state)
{
	struct sched_host h = plain_host(1);
	struct sched_request r = vm(1 * GiB, 1);
	const struct uuid have[] = {id('s', 1), id('s', 2), id('n', 1)};
	const struct uuid srs[] = {id('s', 2), id('s', 3), id('s', 4)};
	const struct uuid nets[] = {id('n', 1), id('n', 2)};

	(void)state;
	h.srs = have;
	h.n_srs = 2;
	h.networks = &have[2];
	h.n_networks = 1;
	r.srs = srs;
	r.n_srs = 3;
	refuses(&h, &r,
		"host h1: SR sr3 is not attached there, nor are 1 others "
		"(VM_REQUIRES_SR)");
	r.n_srs = 1;
	r.networks = nets;
	r.n_networks = 2;
	refuses(&h, &r,
		"host h1: network net2 is not attached there (VM_REQUIRES_NETWORK)");
}

static void memory_counts_squeezing(void **state)
{
	struct sched_host h = plain_host(1);
	struct sched_request r = vm(4 * GiB, 1);
	struct sched_decision d;
	struct sched *s;

	(void)state;
	h.load.memory_free_kib = 2 * GiB;
	h.load.memory_promised_kib = GiB / 4;
	h.load.memory_reserve_kib = GiB / 4;
	h.load.memory_squeezable_kib = 1 * GiB;
	refuses(&h, &r,
		"host h1: needs 4GiB, has 1.5GiB free and 1GiB that squeezing could free "
		"(HOST_NOT_ENOUGH_FREE_MEMORY)");
	h.load.memory_squeezable_kib = 5 * GiB / 2;
	s = one_host(&h);
	assert_int_equal(sched_decide(s, &r, &sched_greedy, 0, &d, NULL), 0);
	assert_int_equal(d.squeeze_kib, 5 * GiB / 2);
	r.memory_min_kib += 1;
	assert_int_equal(sched_decide(s, &r, &sched_greedy, 0, &d, NULL), RV_ENOHOST);
	sched_free(s);
	/* A reserve beyond what is free eats what squeezing gives. */
	h.load.memory_reserve_kib = 3 * GiB;
	h.load.memory_promised_kib = 0;
	r.memory_min_kib = 3 * GiB / 2 + 1;
	refuses(&h, &r,
		"host h1: needs 1.5GiB, has 0B free and 1.5GiB that squeezing could free "
		"(HOST_NOT_ENOUGH_FREE_MEMORY)");
}

static void absurd_metrics(void **state)
{
	struct sched_host h = plain_host(1);
	struct sched_request r = vm(1 * GiB, 1);

	(void)state;
	h.load.memory_total_kib = h.load.memory_free_kib = 0;
	refuses(&h, &r,
		"host h1: has just started and not told its memory yet "
		"(HOST_METRICS_IMPLAUSIBLE)");
	h = plain_host(1);
	h.load.memory_free_kib = 17 * GiB;
	refuses(&h, &r,
		"host h1: reports impossible memory figures, not used until they recover "
		"(HOST_METRICS_IMPLAUSIBLE)");
	h.load.memory_free_kib = UINT64_MAX;
	h.load.memory_total_kib = UINT64_MAX;
	h.load.memory_squeezable_kib = UINT64_MAX;
	refuses(&h, &r,
		"host h1: reports impossible memory figures, not used until they recover "
		"(HOST_METRICS_IMPLAUSIBLE)");
}

static void wishes_and_exclusions(void **state)
{
	struct sched *s = sched_new(10);
	struct sched_request r = vm(1 * GiB, 1);
	struct sched_exclusion out[] = {
		{.host = id('h', 1),
			.what = SCHED_EXCLUDED_ANTI_AFFINE,
			.because = id('v', 7)},
		{.host = id('h', 2), .what = SCHED_EXCLUDED_REFUSED},
	};
	struct uuid only[] = {id('h', 1), id('h', 2)};
	struct uuid unknown = id('h', 77);
	struct sched_decision d;
	struct rv_error e = {0};

	(void)state;
	for (unsigned i = 1; i <= 3; i++) {
		struct sched_host h = plain_host(i);

		h.load.memory_free_kib = i * GiB;
		put(s, &h);
	}
	assert_int_equal(place(s, &r, &sched_greedy, 1), 3);
	r.affinity = id('h', 1);
	assert_int_equal(place(s, &r, &sched_greedy, 1), 1);
	r.memory_min_kib = 2 * GiB; /* the preferred one can't */
	assert_int_equal(place(s, &r, &sched_greedy, 1), 3);
	r.affinity = UUID_NONE;
	r.on = id('h', 2);
	assert_int_equal(place(s, &r, &sched_greedy, 1), 2);
	assert_string_equal(reason(s, &r, 3), "host h3: another host was named with on=");
	r.on = unknown;
	assert_int_equal(sched_decide(s, &r, &sched_greedy, 1, &d, &e), RV_ENOENT);
	r = vm(1 * GiB, 1);
	r.exclude = out;
	r.n_exclude = 2;
	r.only = only;
	r.n_only = 2;
	assert_int_equal(place(s, &r, &sched_greedy, 1), -1);
	assert_string_equal(reason(s, &r, 1),
		"host h1: must be kept apart from VM v7, which is there "
		"(VM_VIOLATES_PLACEMENT_RULES)");
	assert_string_equal(reason(s, &r, 2),
		"host h2: just refused to reserve the memory "
		"(VM_VIOLATES_PLACEMENT_RULES)");
	assert_string_equal(reason(s, &r, 3),
		"host h3: is not among the hosts that the VM must run on "
		"(VM_VIOLATES_PLACEMENT_RULES)");
	/* It starts none, and says why. */
	out[0].what = SCHED_EXCLUDED_HOST;
	out[0].words = "saved domains. To mend it: restore them";
	r.n_exclude = 1;
	assert_int_equal(place(s, &r, &sched_greedy, 1), 2);
	assert_string_equal(reason(s, &r, 1),
		"host h1: starts no VM: saved domains. To mend it: restore them");
	/* A preference is no filter. */
	r = vm(1 * GiB, 1);
	r.avoid = &only[0];
	r.n_avoid = 1;
	r.only = only;
	r.n_only = 2;
	assert_int_equal(place(s, &r, &sched_conservative, 1), 2);
	r.n_only = 1;
	assert_int_equal(place(s, &r, &sched_conservative, 1), 1);
	sched_free(s);
}

static void old_metrics_come_last(void **state)
{
	struct sched *s = sched_new(10);
	struct sched_host h = plain_host(1);
	struct sched_request r = vm(4 * GiB, 1);

	(void)state;
	h.load.stale = true;
	put(s, &h);
	h = plain_host(2);
	h.load.memory_free_kib = 1 * GiB;
	h.load.memory_squeezable_kib = 4 * GiB;
	h.load.vms = 1;
	put(s, &h);
	assert_int_equal(place(s, &r, &sched_greedy, 1), 2);
	r.memory_min_kib = 8 * GiB;
	assert_int_equal(place(s, &r, &sched_greedy, 1), 1);
	sched_free(s);
}

static void the_refusal_names_the_nearest(void **state)
{
	struct sched *s = sched_new(10);
	struct sched_request r = vm(15 * GiB, 1);
	struct sched_reason why[4];
	struct sched_decision d;
	struct rv_error e = {0};
	char buf[32];
	size_t n;

	(void)state;
	for (unsigned i = 1; i <= 4; i++) {
		struct sched_host h = plain_host(i);

		h.load.memory_free_kib = i * GiB;
		h.enabled = i != 4;
		put(s, &h);
	}
	assert_int_equal(
		sched_explain(s, &r, &sched_greedy, 1, &d, why, 4, &n, &e), RV_ENOHOST);
	assert_int_equal(n, 4);
	assert_int_equal(sched_refuse(why, n, name, buf, &e), RV_ENOHOST);
	assert_string_equal(e.detail,
		"no host can run it; host h3: needs 15GiB, has 3GiB free "
		"(HOST_NOT_ENOUGH_FREE_MEMORY) and 2 more for that reason; host h4: is "
		"disabled (HOST_DISABLED)");
	r.on = id('h', 2);
	assert_int_equal(
		sched_explain(s, &r, &sched_greedy, 1, &d, why, 4, &n, &e), RV_ENOHOST);
	assert_int_equal(sched_refuse(why, n, name, buf, &e), RV_EMEMORY);
	assert_string_equal(e.detail,
		"host h2: needs 15GiB, has 2GiB free (HOST_NOT_ENOUGH_FREE_MEMORY)");
	assert_int_equal(
		sched_explain(s, &r, &sched_greedy, 1, &d, why, 3, &n, &e), RV_EPARAM);
	sched_free(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(hosts_that_are_away),
		cmocka_unit_test(cpus),
		cmocka_unit_test(storage_and_networks),
		cmocka_unit_test(memory_counts_squeezing),
		cmocka_unit_test(absurd_metrics),
		cmocka_unit_test(wishes_and_exclusions),
		cmocka_unit_test(old_metrics_come_last),
		cmocka_unit_test(the_refusal_names_the_nearest),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
