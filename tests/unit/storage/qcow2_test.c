#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "storage/qcow2.h"

struct image {
	uint8_t head[QCOW2_HEADER_BYTES];
	size_t len;
	uint64_t size;
};

/* What qemu-img makes with these options. */
static void make(struct image *im, const char *options)
{
	char path[] = "/tmp/reeve-qcow2-XXXXXX", command[300];
	int fd = mkstemp(path);
	assert_true(fd >= 0);
	close(fd);
	snprintf(command, sizeof command, "qemu-img create -q -f qcow2 %s '%s' 5G",
		options, path);
	assert_int_equal(system(command), 0);
	FILE *f = fopen(path, "r");
	im->len = fread(im->head, 1, sizeof im->head, f);
	fseek(f, 0, SEEK_END);
	im->size = (uint64_t)ftell(f);
	fclose(f);
	unlink(path);
}

static int check(const struct image *im)
{
	struct qcow2_info info;
	return qcow2_check(im->head, im->len, im->size, &info, NULL);
}

static void test_good(void **state)
{
	static const char *const options[] = {"", "-o compat=0.10", "-o cluster_size=2M",
		"-o cluster_size=512", "-o extended_l2=on", "-o compression_type=zstd",
		"-o lazy_refcounts=on", "-o refcount_bits=64",
		"-o preallocation=metadata"};
	(void)state;
	for (size_t i = 0; i < sizeof options / sizeof options[0]; i++) {
		struct image im;
		struct qcow2_info info;
		struct rv_error e = {0};
		make(&im, options[i]);
		int rc = qcow2_check(im.head, im.len, im.size, &info, &e);
		if (rc)
			print_error("%s: %s\n", options[i], e.detail);
		assert_int_equal(rc, 0);
		assert_true(info.virtual_size == UINT64_C(5) << 30);
	}
}

static void test_refused(void **state)
{
	struct image im;
	(void)state;
	make(&im, "-u -b /etc/shadow -F raw");
	assert_int_equal(check(&im), RV_ENOTALLOWED);
	make(&im, "-u -b 'json:{\"driver\":\"raw\"}' -F raw");
	assert_int_equal(check(&im), RV_ENOTALLOWED);
	/* Not by qemu-img: it measures the CPU to choose LUKS's rounds, and fails on a
	 * busy machine. */
	make(&im, "");
	im.head[35] = 2; /* crypt_method: LUKS */
	assert_int_equal(check(&im), RV_ENOTALLOWED);
}

/* Each field alone, changed for the worse. */
static void test_fields(void **state)
{
	static const struct {
		size_t at;
		uint8_t value;
	} changes[] = {{0, 'q'}, {7, 4}, {7, 1}, {15, 1}, {19, 1}, {23, 8}, {23, 22},
		{24, 1}, {35, 1}, {35, 2}, {36, 1}, {40, 1}, {47, 1}, {48, 1}, {56, 1},
		{60, 1}, {79, 2}, {79, 4}, {79, 32}, {72, 128}, {99, 7}, {103, 8},
		{100, 1}, {103, 105}};
	struct image good;
	(void)state;
	make(&good, "");
	assert_int_equal(check(&good), 0);
	for (size_t i = 0; i < sizeof changes / sizeof changes[0]; i++) {
		struct image bad = good;
		bad.head[changes[i].at] = changes[i].value;
		if (check(&bad) == 0)
			print_error("byte %zu = %u was taken\n", changes[i].at,
				changes[i].value);
		assert_int_not_equal(check(&bad), 0);
	}
}

static void test_truncated(void **state)
{
	struct image im;
	(void)state;
	make(&im, "");
	uint64_t size = im.size;
	for (im.size = size - 1; im.size > sizeof im.head; im.size -= 977) {
		assert_int_equal(check(&im), RV_ECORRUPT);
		if (im.size < sizeof im.head + 977)
			break;
	}
	for (; im.len > 0; im.len--) {
		im.size = im.len;
		assert_int_equal(check(&im), RV_ECORRUPT);
	}
	im.size = 0;
	assert_int_equal(check(&im), RV_ECORRUPT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_good),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_fields),
		cmocka_unit_test(test_truncated),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
