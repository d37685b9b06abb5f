/* CPU policies of real hosts: their form, and what fits where. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/prng.h"
#include "xen/real/cpu_policy.h"

enum { EAX, EBX, ECX, EDX };

static struct xen_cpu_leaf *add(struct xen_cpu_level *l, uint32_t leaf, uint32_t subleaf)
{
	struct xen_cpu_leaf *at = &l->leaves[l->leaf_count++];

	at->leaf = leaf;
	at->subleaf = subleaf;
	return at;
}

/* An Intel host with a few features. */
static void fill(struct xen_cpu_policy *p)
{
	struct xen_cpu_level *l = &p->hvm;

	memset(p, 0, sizeof *p);
	memcpy(add(l, 0, UINT32_MAX)->r,
		((uint32_t[]){0x16, 0x756e6547, 0x6c65746e, 0x49656e69}), 16);
	memcpy(add(l, 1, UINT32_MAX)->r, ((uint32_t[]){0x806ec, 0, 1u << 25 | 1, 1}), 16);
	memcpy(add(l, 7, 0)->r, ((uint32_t[]){0, 1u << 5, 0, 0}), 16);
	l->msr_count = 1;
	l->msrs[0] = (struct xen_cpu_msr){0x10a, 1};
	p->pv = *l;
}

static struct xen_cpu_policy *one, *other, *out;

static int setup(void **state)
{
	(void)state;
	one = malloc(sizeof *one);
	other = malloc(sizeof *other);
	out = malloc(sizeof *out);
	fill(one);
	fill(other);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	free(one);
	free(other);
	free(out);
	return 0;
}

static void blobs_come_back(void **state)
{
	static uint8_t blob[HYPER_MAX_CPU_POLICY], again[HYPER_MAX_CPU_POLICY];
	struct rv_error e;
	size_t len = xen_cpu_policy_write(one, blob);

	(void)state;
	assert_int_equal(xen_cpu_policy_parse(out, blob, len, &e), 0);
	assert_int_equal(xen_cpu_policy_write(out, again), len);
	assert_memory_equal(blob, again, len);
	assert_int_equal(xen_cpu_policy_check(out, one, &e), 0);
	/* Cut anywhere but between the levels it is damaged. */
	for (size_t cut = 0; cut < len; cut++) {
		int rc = xen_cpu_policy_parse(out, blob, cut, &e);

		assert_true(rc == RV_EINVAL || cut == 9 || cut == 9 + (len - 9) / 2);
	}
	assert_int_equal(
		xen_cpu_policy_parse(out, (const uint8_t *)"RVSIMCPU\1\0\0\0", 12, &e),
		RV_EINVAL);
	assert_non_null(strstr(e.detail, "simulated"));
}

static void noise_never_passes_its_bounds(void **state)
{
	static uint8_t blob[HYPER_MAX_CPU_POLICY], noise[HYPER_MAX_CPU_POLICY];
	size_t len = xen_cpu_policy_write(one, blob);
	struct prng prng;
	struct rv_error e;

	(void)state;
	prng_seed(&prng, 5);
	for (int i = 0; i < 20000; i++) {
		memcpy(noise, blob, len);
		for (int k = 0; k < 3; k++)
			noise[9 + prng_next(&prng) % (len - 9)] =
				(uint8_t)prng_next(&prng);
		if (xen_cpu_policy_parse(out, noise, len, &e) == 0) {
			assert_in_range(out->hvm.leaf_count, 0, XEN_CPU_MAX_LEAVES);
			assert_true(xen_cpu_policy_write(out, noise) <= sizeof noise);
		}
	}
}

static void missing_features_are_named(void **state)
{
	struct rv_error e;

	(void)state;
	one->hvm.leaves[1].r[ECX] &= ~(1u << 25); /* AES-NI */
	one->hvm.leaves[2].r[EBX] = 0;		  /* AVX2 */
	one->hvm.msrs[0].value = 0;		  /* RDCL_NO */
	assert_int_equal(xen_cpu_policy_check(one, other, &e), RV_ECPU);
	assert_non_null(strstr(e.detail, "aesni, avx2, rdcl-no"));
	assert_non_null(strstr(e.detail, "PVH and HVM"));
	assert_int_equal(xen_cpu_policy_check(other, one, &e), 0); /* more is no harm */
	/* And every one of hundreds is told of, if not by name. */
	other->hvm.leaves[1].r[EDX] = other->hvm.leaves[2].r[EBX] = UINT32_MAX;
	assert_int_equal(xen_cpu_policy_check(one, other, &e), RV_ECPU);
	assert_non_null(strstr(e.detail, "more"));
}

static void kinds_and_makers_must_fit(void **state)
{
	struct rv_error e;

	(void)state;
	one->pv.leaf_count = one->pv.msr_count = 0;
	assert_int_equal(xen_cpu_policy_check(one, other, &e), RV_ECPU);
	assert_non_null(strstr(e.detail, "can't run PV guests"));
	assert_int_equal(xen_cpu_policy_check(other, one, &e), 0);
	fill(one);
	memcpy(one->hvm.leaves[0].r,
		((uint32_t[]){0x10, 0x68747541, 0x444d4163, 0x69746e65}), 16);
	assert_int_equal(xen_cpu_policy_check(one, other, &e), RV_ECPU);
	assert_non_null(strstr(e.detail, "AuthenticAMD"));
	assert_non_null(strstr(e.detail, "GenuineIntel"));
	assert_int_equal(xen_cpu_policy_common(one, other, out, &e), RV_ECPU);
}

static void common_is_what_both_have(void **state)
{
	static uint8_t ab[HYPER_MAX_CPU_POLICY], ba[HYPER_MAX_CPU_POLICY];
	struct rv_error e;
	size_t len;

	(void)state;
	one->hvm.leaves[1].r[ECX] = 1u << 25 | 1u << 3;
	other->hvm.leaves[1].r[ECX] = 1u << 25 | 1u << 4;
	one->hvm.leaves[0].r[EAX] = 0x1f;
	memcpy(add(&one->hvm, 0x80000002, UINT32_MAX)->r, "Intel one       ", 16);
	memcpy(add(&other->hvm, 0x80000002, UINT32_MAX)->r, "Intel other     ", 16);
	add(&one->hvm, 0x80000008, UINT32_MAX); /* the other has no such leaf */
	assert_int_equal(xen_cpu_policy_common(one, other, out, &e), 0);
	assert_int_equal(xen_cpu_leaf_find(&out->hvm, 1, UINT32_MAX)->r[ECX], 1u << 25);
	assert_int_equal(xen_cpu_leaf_find(&out->hvm, 0, UINT32_MAX)->r[EAX], 0x16);
	assert_null(xen_cpu_leaf_find(&out->hvm, 0x80000008, UINT32_MAX));
	/* Both can run it, and it doesn't matter who is first. */
	assert_int_equal(xen_cpu_policy_check(one, out, &e), 0);
	assert_int_equal(xen_cpu_policy_check(other, out, &e), 0);
	len = xen_cpu_policy_write(out, ab);
	assert_int_equal(xen_cpu_policy_common(other, one, out, &e), 0);
	assert_int_equal(xen_cpu_policy_write(out, ba), len);
	assert_memory_equal(ab, ba, len);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(blobs_come_back, setup, teardown),
		cmocka_unit_test_setup_teardown(
			noise_never_passes_its_bounds, setup, teardown),
		cmocka_unit_test_setup_teardown(
			missing_features_are_named, setup, teardown),
		cmocka_unit_test_setup_teardown(
			kinds_and_makers_must_fit, setup, teardown),
		cmocka_unit_test_setup_teardown(
			common_is_what_both_have, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
