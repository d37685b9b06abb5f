/* Messages between daemon and helper: what is written is read, all else is refused. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "xen/real/helper_wire.h"

static const struct hyper_vbd_spec vbds[] = {
	{.devid = 51712, .device = "xvda", .backend = "phy", .params = "/dev/vg/root"},
	{.devid = 51728,
		.device = "xvdb",
		.backend = "qdisk",
		.params = "/srv/b.qcow2",
		.read_only = true,
		.cdrom = true},
};

static const struct hyper_vif_spec vifs[] = {
	{.devid = 0,
		.mac = "00:16:3e:00:00:01",
		.backend = "bridge",
		.bridge = "br0",
		.mtu = 9000},
};

static const uint8_t policy[] = {0, 1, 2, 255, 0, 7};

static struct hyper_domain_spec spec_make(void)
{
	return (struct hyper_domain_spec){
		.vm = {{1}},
		.handle = {{2}},
		.name = "web1",
		.type = HYPER_PVH,
		.vcpus_max = 4,
		.vcpus_online = 2,
		.static_max_kib = 1 << 20,
		.target_kib = 1 << 19,
		.populate_on_demand = true,
		.kernel = "/boot/vmlinuz",
		.ramdisk = "/boot/initrd.img",
		.cmdline = "root=/dev/xvda ro \xc3\xa4",
		.cpu_policy = policy,
		.cpu_policy_len = sizeof policy,
		.vbds = vbds,
		.vbd_count = 2,
		.vifs = vifs,
		.vif_count = 1,
		.console = true,
		.on_reboot = HYPER_ON_EXIT_RESTART,
		.on_crash = HYPER_ON_EXIT_PRESERVE,
		.platform = "tsc_mode=native",
	};
}

static struct helper_request *request_make(void)
{
	struct helper_request *r = calloc(1, sizeof *r);
	struct hyper_domain_spec spec = spec_make();
	struct rv_error e = {0};

	assert_non_null(r);
	r->version = HELPER_WIRE_VERSION;
	r->call = HYPER_CALL_CREATE;
	r->handle = spec.handle;
	r->domid = HYPER_DOMID_ANY;
	r->has_domain = true;
	memcpy(r->scripts, "/usr/lib/reeve", 15);
	memcpy(r->file, "/srv/vms/x.raw", 15);
	r->file_at = 4096;
	r->file_size = UINT64_C(1) << 40;
	r->vm = spec.vm;
	r->vm_type = HYPER_PVH;
	r->vm_actual_kib = 1 << 19;
	r->vm_extra_kib = 36;
	assert_int_equal(helper_domain_take(&r->domain, &spec, &e), 0);
	return r;
}

static void encode(struct buf *b, const struct helper_message *m)
{
	struct rv_error e = {0};

	buf_init(b, HELPER_WIRE_MAX * 2);
	if (helper_wire_encode(b, m, &e) != 0)
		fail_msg("%s", e.detail);
}

static void a_request_arrives_whole(void **state)
{
	struct helper_request *sent = request_make(), *got = calloc(1, sizeof *got);
	struct helper_message m = {.kind = HELPER_REQUEST, .request = sent};
	struct rv_error e = {0};
	struct buf b;

	(void)state;
	assert_non_null(got);
	encode(&b, &m);
	m = (struct helper_message){.request = got};
	if (helper_wire_decode(&m, buf_data(&b), buf_len(&b), &e) != 0)
		fail_msg("%s", e.detail);
	assert_int_equal(m.kind, HELPER_REQUEST);
	assert_memory_equal(got, sent, sizeof *got);
	assert_string_equal(got->domain.cmdline, "root=/dev/xvda ro \xc3\xa4");
	assert_int_equal(got->domain.vcpus_online, 2);
	assert_true(got->domain.vbds[1].cdrom && got->domain.vbds[1].read_only);
	assert_int_equal(got->domain.vifs[0].mtu, 9000);
	assert_int_equal(got->domain.cpu_policy_len, sizeof policy);
	/* One who takes no requests refuses them. */
	m.request = NULL;
	assert_int_equal(
		helper_wire_decode(&m, buf_data(&b), buf_len(&b), &e), RV_EPROTO);
	buf_fini(&b);
	free(sent);
	free(got);
}

static void small_messages_arrive(void **state)
{
	struct helper_message sent[] = {
		{.kind = HELPER_VERDICT, .verdict = HYPER_PRECOPY_ABORT},
		{.kind = HELPER_PRECOPY, .precopy = {3, 1000, 50, 20, 123456}},
		{.kind = HELPER_SUSPENDED},
		{.kind = HELPER_WRITTEN, .written = UINT64_C(5) << 40},
		{.kind = HELPER_RESULT,
			.result = {RV_EMEMORY, "no room", 7, true, true, "/dev/pts/3",
				UINT64_C(3) << 33, 36}},
	};
	struct helper_message got;
	struct rv_error e = {0};
	struct buf b;

	(void)state;
	for (size_t i = 0; i < sizeof sent / sizeof *sent; i++) {
		encode(&b, &sent[i]);
		memset(&got, 0, sizeof got);
		assert_int_equal(
			helper_wire_decode(&got, buf_data(&b), buf_len(&b), &e), 0);
		assert_int_equal(got.kind, sent[i].kind);
		assert_int_equal(got.verdict, sent[i].verdict);
		assert_int_equal(got.written, sent[i].written);
		assert_int_equal(got.result.file_bytes, sent[i].result.file_bytes);
		assert_int_equal(got.result.extra_kib, sent[i].result.extra_kib);
		assert_memory_equal(&got.precopy, &sent[i].precopy, sizeof got.precopy);
		assert_int_equal(got.result.rc, sent[i].result.rc);
		assert_string_equal(got.result.detail, sent[i].result.detail);
		assert_string_equal(got.result.console, sent[i].result.console);
		assert_int_equal(got.result.domid, sent[i].result.domid);
		assert_true(got.result.left == sent[i].result.left &&
			    got.result.suspended == sent[i].result.suspended);
		buf_fini(&b);
	}
}

static int decode(const char *bytes, size_t len)
{
	struct helper_message m = {0};
	struct rv_error e = {0};

	return helper_wire_decode(&m, (const uint8_t *)bytes, len, &e);
}

#define REFUSED(bytes) assert_int_equal(decode(bytes, sizeof bytes - 1), RV_EPROTO)

static void malformed_ones_are_refused(void **state)
{
	(void)state;
	/* A verdict as it must be: {"kind": 2, "verdict": 1}. */
	assert_int_equal(decode("\x82\xa4kind\x02\xa7verdict\x01", 16), 0);
	REFUSED("\x82\xa4kind\x02\xa7verdict\x03");		   /* out of range */
	REFUSED("\x82\xa4kind\x02\xa7verdict\xff");		   /* negative */
	REFUSED("\x82\xa4kind\x02\xa7verdict\xc3");		   /* another type */
	REFUSED("\x81\xa4kind\x02");				   /* a key is missing */
	REFUSED("\x83\xa4kind\x02\xa7verdict\x01\xa1x\x01");	   /* one too many */
	REFUSED("\x82\xa4kind\x02\xa7Verdict\x01");		   /* unknown */
	REFUSED("\x83\xa4kind\x02\xa7verdict\x01\xa7verdict\x01"); /* twice */
	REFUSED("\x82\xa4kind\x09\xa7verdict\x01");		   /* unknown kind */
	REFUSED("\x82\xa4kind\x02\xa7verdict");			   /* cut off */
	REFUSED("\x92\x02\x01");
	REFUSED("\x02");
	REFUSED("\x80");
}

static void what_does_not_fit_is_refused(void **state)
{
	struct helper_domain *d = calloc(1, sizeof *d);
	struct hyper_domain_spec spec = spec_make();
	struct rv_error e = {0};
	char *longer = malloc(HELPER_CMDLINE_SIZE + 1);

	(void)state;
	assert_non_null(d);
	assert_non_null(longer);
	memset(longer, 'x', HELPER_CMDLINE_SIZE);
	longer[HELPER_CMDLINE_SIZE] = '\0';
	spec.cmdline = longer;
	assert_int_equal(helper_domain_take(d, &spec, &e), RV_EINVAL);
	assert_non_null(strstr(e.detail, "command line"));
	spec.cmdline = longer + 1;
	assert_int_equal(helper_domain_take(d, &spec, &e), 0);
	spec.name = "\xff";
	assert_int_equal(helper_domain_take(d, &spec, &e), RV_EINVAL);
	spec = spec_make();
	spec.vbd_count = HYPER_MAX_VBDS + 1;
	assert_int_equal(helper_domain_take(d, &spec, &e), RV_ELIMIT);
	spec = spec_make();
	spec.vcpus_max = 0;
	assert_int_equal(helper_domain_take(d, &spec, &e), RV_EINVAL);
	free(longer);
	free(d);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_request_arrives_whole),
		cmocka_unit_test(small_messages_arrive),
		cmocka_unit_test(malformed_ones_are_refused),
		cmocka_unit_test(what_does_not_fit_is_refused),
	};

	return cmocka_run_group_tests_name("xen/helper_wire", tests, NULL, NULL);
}
