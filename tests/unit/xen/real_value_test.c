/* The pure parts of the real driver: xenstore's texts, labels, Xen's command line, and
 * which module fits. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "xen/real.h"
#include "xen/real/cmdline.h"
#include "xen/real/label.h"
#include "xen/real/staged.h"
#include "xen/real/value.h"

static void numbers_are_digits_alone(void **state)
{
	static const char *const bad[] = {"", "-1", "+1", " 1", "1 ", "0x10", "1e3",
		"18446744073709551616", "99999999999999999999999"};
	uint64_t n = 7;

	(void)state;
	assert_int_equal(xen_value_u64("18446744073709551615", 20, &n), 0);
	assert_true(n == UINT64_MAX);
	assert_int_equal(xen_value_u64("12\0", 3, &n), 0); /* Xen's tools write some */
	assert_int_equal(n, 12);
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
		assert_int_equal(xen_value_u64(bad[i], strlen(bad[i]), &n), RV_EINVAL);
	assert_int_equal(xen_value_u64("1\0002", 3, &n), RV_EINVAL);
	assert_int_equal(n, 12);
}

static void names_are_made_harmless(void **state)
{
	char name[HYPER_NAME_SIZE], wide[300];

	(void)state;
	xen_value_name(name, "a\"b\n\033[2J\xff", 9);
	assert_string_equal(name, "a?b??[2J?");
	memset(wide, 'x', sizeof wide);
	xen_value_name(name, wide, sizeof wide);
	assert_int_equal(strlen(name), HYPER_NAME_SIZE - 1);
	xen_value_name(name, "", 0);
	assert_string_equal(name, "");
}

static void consoles_are_ptys(void **state)
{
	static const char *const bad[] = {"/dev/pts/", "/dev/pts/../mem", "/dev/mem",
		"/dev/pts/1/2", "dev/pts/1", "/dev/pts/1234567", "/dev/pts/ptmx"};
	char path[32];

	(void)state;
	assert_int_equal(xen_value_tty("/dev/pts/12", 11, path, sizeof path), 0);
	assert_string_equal(path, "/dev/pts/12");
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
		assert_int_equal(xen_value_tty(bad[i], strlen(bad[i]), path, sizeof path),
			RV_EINVAL);
}

static void watched_paths(void **state)
{
	const char *rest = NULL;
	uint32_t domid = 0;

	(void)state;
	assert_int_equal(
		xen_value_domain_path("/local/domain/12/memory/target", &domid, &rest),
		0);
	assert_int_equal(domid, 12);
	assert_string_equal(rest, "memory/target");
	assert_int_equal(xen_value_domain_path("/local/domain/3", &domid, &rest), 0);
	assert_string_equal(rest, "");
	assert_int_equal(
		xen_value_domain_path("/local/domain/", &domid, &rest), RV_EINVAL);
	assert_int_equal(xen_value_domain_path("/local/domain/123456/x", &domid, &rest),
		RV_EINVAL);
	assert_int_equal(
		xen_value_domain_path("@releaseDomain", &domid, &rest), RV_EINVAL);
}

static void dom0_memory_is_fixed_or_not(void **state)
{
	static const char *const fixed[] = {"dom0_mem=1024M,max:1024M",
		"console=com1 dom0_mem=1G,max:1024M loglvl=all", "dom0_mem=max:512m,512M",
		"dom0_mem=524288,max:512M", "dom0_mem=2G dom0_mem=1G,max:1G"};
	static const char *const loose[] = {"", "dom0_mem=1G", "dom0_mem=max:1G",
		"dom0_mem=1G,max:2G", "dom0_mem=min:1G,max:1G", "xdom0_mem=1G,max:1G",
		"dom0_mem=10%,max:10%", "dom0_mem=1G,max:1G dom0_mem=2G",
		"dom0_mem=", "dom0_mem=-1G,max:-1G", "dom0_mem=1Gx,max:1Gx"};

	(void)state;
	for (size_t i = 0; i < sizeof fixed / sizeof fixed[0]; i++)
		if (!xen_cmdline_dom0_fixed(fixed[i]))
			fail_msg("'%s' is fixed", fixed[i]);
	for (size_t i = 0; i < sizeof loose / sizeof loose[0]; i++)
		if (xen_cmdline_dom0_fixed(loose[i]))
			fail_msg("'%s' is not fixed", loose[i]);
}

static void labels_come_back(void **state)
{
	struct prng prng;
	struct xen_label a, b;
	char text[XEN_LABEL_TEXT_SIZE], again[XEN_LABEL_TEXT_SIZE];
	struct rv_error e;
	size_t len;

	(void)state;
	prng_seed(&prng, 3);
	a = (struct xen_label){.vm = uuid_random(&prng),
		.generation = UINT64_MAX,
		.made = true,
		.type = HYPER_PVH,
		.vcpus_max = 512,
		.static_max_kib = UINT64_MAX / 1024,
		.extra_kib = 36,
		.overhead_kib = 4096};
	len = xen_label_format(&a, text);
	assert_int_equal(xen_label_parse(&b, text, len, &e), 0);
	assert_int_equal(xen_label_format(&b, again), len);
	assert_string_equal(text, again);
	assert_true(b.made && b.type == HYPER_PVH && b.generation == UINT64_MAX);
	/* A later version's words are skipped. */
	memcpy(text + len, " colour=blue", 12);
	assert_int_equal(xen_label_parse(&b, text, len + 12, &e), 0);
}

static void damaged_labels_are_told(void **state)
{
	static const char *const bad[] = {"", "vm=1", "generation=7",
		"vm=00000000-0000-0000-0000-000000000000",
		"vm=2f1e9d8c-0000-4000-8000-000000000001 made", " ",
		"vm=2f1e9d8c-0000-4000-8000-000000000001 generation=-1",
		"vm=2f1e9d8c-0000-4000-8000-000000000001 type=hpv"};
	struct xen_label l;

	(void)state;
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		struct rv_error e = {0};

		assert_int_equal(
			xen_label_parse(&l, bad[i], strlen(bad[i]), &e), RV_ECORRUPT);
		assert_non_null(strstr(e.detail, "label"));
	}
}

static void modules_must_fit(void **state)
{
	struct hyper_detection found = {
		.here = HYPER_HERE_DOM0, .version_major = 4, .version_minor = 17};
	const struct hyper_real_module good = {.abi = HYPER_REAL_ABI,
		.version_major = 4,
		.version_minor = 17,
		.reeve_version = REEVE_VERSION,
		.req_size = sizeof(struct hyper_req),
		.host_size = sizeof(struct hyper_host)};
	struct hyper_real_module m = good;
	struct rv_error e = {0};

	(void)state;
	assert_int_equal(hyper_real_module_check(&m, &found, "x.so", &e), 0);
	m.req_size++;
	assert_int_equal(
		hyper_real_module_check(&m, &found, "x.so", &e), RV_EUNSUPPORTED);
	assert_non_null(strstr(e.detail, "another build"));
	m = good;
	m.reeve_version = "0.0.1";
	assert_int_equal(
		hyper_real_module_check(&m, &found, "x.so", &e), RV_EUNSUPPORTED);
	m = good;
	found.version_minor = 20;
	assert_int_equal(
		hyper_real_module_check(&m, &found, "x.so", &e), RV_EUNSUPPORTED);
	assert_non_null(
		strstr(e.detail, "x.so is for Xen 4.17, this host runs Xen 4.20"));
}

/* What a caller lent is copied whole: its own may change right after the call. */
static void specs_are_copied(void **state)
{
	char name[] = "web1", params[] = "/srv/a.raw", mac[] = "00:16:3e:00:00:01";
	uint8_t policy[] = {1, 2, 3};
	struct hyper_vbd_spec vbds[2] = {{.devid = 51712, .params = params}, {0}};
	struct hyper_vif_spec vif = {.mac = mac};
	struct hyper_domain_spec spec = {.vm = {{1}},
		.handle = {{2}},
		.name = name,
		.type = HYPER_PVH,
		.vcpus_max = 1,
		.static_max_kib = 1024,
		.target_kib = 1024,
		.cpu_policy = policy,
		.cpu_policy_len = sizeof policy,
		.vbds = vbds,
		.vbd_count = 2,
		.vifs = &vif,
		.vif_count = 1};
	struct hyper_req req = {.call = HYPER_CALL_CREATE, .in.spec = &spec};
	struct real_staged s;
	struct rv_error e;

	(void)state;
	assert_int_equal(real_stage(&s, &req, &e), 0);
	memset(name, 0, sizeof name);
	memset(params, 0, sizeof params);
	memset(mac, 0, sizeof mac);
	memset(policy, 0, sizeof policy);
	memset(vbds, 0, sizeof vbds);
	assert_string_equal(s.spec.name, "web1");
	assert_int_equal(s.spec.vbds[0].devid, 51712);
	assert_string_equal(s.spec.vbds[0].params, "/srv/a.raw");
	assert_null(s.spec.vbds[1].params);
	assert_string_equal(s.spec.vifs[0].mac, "00:16:3e:00:00:01");
	assert_int_equal(s.spec.cpu_policy[2], 3);
	real_staged_fini(&s);
	spec.target_kib = 2048;
	assert_int_equal(real_stage(&s, &req, &e), RV_EINVAL);
	real_staged_fini(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(numbers_are_digits_alone),
		cmocka_unit_test(names_are_made_harmless),
		cmocka_unit_test(consoles_are_ptys),
		cmocka_unit_test(watched_paths),
		cmocka_unit_test(dom0_memory_is_fixed_or_not),
		cmocka_unit_test(labels_come_back),
		cmocka_unit_test(damaged_labels_are_told),
		cmocka_unit_test(modules_must_fit),
		cmocka_unit_test(specs_are_copied),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
