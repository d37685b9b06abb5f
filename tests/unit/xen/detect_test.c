/* Detection says what is there, and never makes up a hypervisor. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "xen/detect.h"

static char root[64];

static void put(const char *file, const char *text)
{
	static const char *const dirs[] = {"", "/proc", "/proc/xen", "/sys",
		"/sys/hypervisor", "/sys/hypervisor/version"};
	char full[128];
	int fd;

	for (size_t i = 0; i < sizeof dirs / sizeof *dirs; i++) {
		snprintf(full, sizeof full, "%s%s", root, dirs[i]);
		(void)mkdir(full, 0700);
	}
	snprintf(full, sizeof full, "%s%s", root, file);
	fd = open(full, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
	close(fd);
}

static void clean(void)
{
	static const char *const paths[] = {"/proc/xen/capabilities",
		"/sys/hypervisor/type", "/sys/hypervisor/version/major",
		"/sys/hypervisor/version/minor", "/sys/hypervisor/version/extra",
		"/sys/hypervisor/version", "/sys/hypervisor", "/sys", "/proc/xen",
		"/proc", ""};
	char full[128];

	for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
		snprintf(full, sizeof full, "%s%s", root, paths[i]);
		(void)remove(full);
	}
}

static void three_machines(void **state)
{
	struct hyper_detection d;

	(void)state;
	hyper_detect(root, &d);
	assert_int_equal(d.here, HYPER_HERE_NOTHING);
	assert_non_null(strstr(d.text, "NO REAL VIRTUAL MACHINES"));
	assert_non_null(strstr(d.text, "xen-system-amd64"));

	put("/sys/hypervisor/type", "xen\n");
	put("/proc/xen/capabilities", "");
	hyper_detect(root, &d);
	assert_int_equal(d.here, HYPER_HERE_GUEST);
	assert_non_null(strstr(d.text, "NO REAL VIRTUAL MACHINES"));

	put("/proc/xen/capabilities", "control_d\n");
	put("/sys/hypervisor/version/major", "4\n");
	put("/sys/hypervisor/version/minor", "17\n");
	put("/sys/hypervisor/version/extra", ".5-pre\n");
	hyper_detect(root, &d);
	assert_int_equal(d.here, HYPER_HERE_DOM0);
	assert_int_equal(d.version_major, 4);
	assert_int_equal(d.version_minor, 17);
	assert_string_equal(d.version, "4.17.5-pre");
	assert_non_null(strstr(d.text, "Xen 4.17.5-pre"));
	clean();
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(three_machines)};

	snprintf(root, sizeof root, "/tmp/reeve-detect-%d", getpid());
	return cmocka_run_group_tests(tests, NULL, NULL);
}
