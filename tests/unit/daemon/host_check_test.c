/* A host made of files, with each thing wrong in turn. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "daemon/host_check.h"

static char root[64]; /* of the test that runs */

/* Runs a command on a path below the root. */
static void shell(const char *what, const char *path)
{
	char command[400];

	snprintf(command, sizeof command, "%s '%s%s'", what, root, path);
	assert_int_equal(system(command), 0);
}

/* Makes the file, with its directories. */
static void put(const char *path, const char *text)
{
	char command[500];

	snprintf(command, sizeof command,
		"mkdir -p \"$(dirname '%s%s')\" && printf '%%s' '%s' >'%s%s'", root, path,
		text, root, path);
	assert_int_equal(system(command), 0);
}

static int set_up(void **state)
{
	(void)state;
	snprintf(root, sizeof root, "/tmp/reeve-host-check-XXXXXX");
	assert_non_null(mkdtemp(root));
	put("/proc/xen/capabilities", "control_d\n");
	put("/sys/hypervisor/type", "xen\n");
	put("/sys/hypervisor/version/major", "4\n");
	put("/sys/hypervisor/version/minor", "17\n");
	put("/run/xenstored/socket", "");
	put("/sys/class/net/xenbr0/bridge/stp_state", "0");
	for (const char *const *m = (const char *const[]){"/sys/module/xen_blkback",
		     "/sys/module/xen_netback", "/sys/module/xen_gntdev",
		     "/sys/module/xen_evtchn", "/sys/module/loop", "/sys/module/bridge",
		     NULL};
		*m; m++)
		shell("mkdir -p", *m);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	shell("rm -rf", "");
	return 0;
}

static const struct host_check_facts good = {
	.dom0_fixed = true, .clock_synchronised = true};

/* What this check finds. */
static struct host_finding look(const struct host_check_facts *facts, const char *check)
{
	struct host_finding all[HOST_CHECK_MAX];
	size_t count = host_check_run(root, facts, all);

	for (size_t i = 0; i < count; i++) {
		assert_true(all[i].words[0] != '\0');
		assert_true((all[i].grade == HOST_CHECK_OK) == (all[i].fix[0] == '\0'));
		if (strcmp(all[i].check, check) == 0)
			return all[i];
	}
	fail_msg("there is no check %s", check);
	return all[0];
}

static void assert_finds(const struct host_check_facts *facts, const char *check,
	enum host_check_grade grade, const char *word)
{
	struct host_finding f = look(facts, check);

	if (f.grade != grade)
		fail_msg("%s: %s", check, f.words);
	if (!strstr(f.words, word) && !strstr(f.fix, word))
		fail_msg("%s: no \"%s\" in \"%s\" and \"%s\"", check, word, f.words,
			f.fix);
}

static void test_good(void **state)
{
	struct host_finding all[HOST_CHECK_MAX];
	size_t count = host_check_run(root, &good, all);

	(void)state;
	assert_true(count >= 10);
	for (size_t i = 0; i < count; i++)
		if (all[i].grade != HOST_CHECK_OK)
			fail_msg("%s: %s", all[i].check, all[i].words);
}

static void test_facts(void **state)
{
	struct host_check_facts facts = good;

	(void)state;
	facts.dom0_fixed = false;
	assert_finds(&facts, "dom0-memory", HOST_CHECK_WRONG, "dom0_mem=2G,max:2G");
	/* xl's default then is on. */
	assert_finds(&facts, "autoballoon", HOST_CHECK_WRONG, "xl.conf");
	facts = good;
	facts.clock_synchronised = false;
	assert_finds(&facts, "clock", HOST_CHECK_ADVICE, "chrony");
	facts = good;
	facts.is_simulated = true;
	assert_finds(&facts, "xen", HOST_CHECK_WRONG, "driver = auto");
}

static void test_xl(void **state)
{
	(void)state;
	put("/etc/xen/xl.conf", "#autoballoon=\"off\"\n autoballoon = \"on\" # so\n");
	assert_finds(&good, "autoballoon", HOST_CHECK_WRONG, "autoballoon=on");
	put("/etc/xen/xl.conf", "autoballoon=\"on\"\nautoballoon='off'\n");
	assert_finds(&good, "autoballoon", HOST_CHECK_OK, "alone");
	put("/lib/systemd/system/xendomains.service", "[Unit]\n");
	assert_finds(&good, "xendomains", HOST_CHECK_WRONG, "systemctl mask");
	shell("mkdir -p", "/etc/systemd/system");
	shell("ln -s /dev/null", "/etc/systemd/system/xendomains.service");
	assert_finds(&good, "xendomains", HOST_CHECK_OK, "off");
	put("/var/lib/xen/save/web1", "");
	assert_finds(&good, "saved-domains", HOST_CHECK_WRONG, "web1");
	for (const char *const *name = (const char *const[]){"a", "b", "c", "d", NULL};
		*name; name++) {
		char path[64];

		snprintf(path, sizeof path, "/etc/xen/auto/%s.cfg", *name);
		put(path, "");
	}
	assert_finds(&good, "xl-autostart", HOST_CHECK_ADVICE, "4 guests");
}

static void test_dom0(void **state)
{
	(void)state;
	shell("rm", "/run/xenstored/socket");
	assert_finds(&good, "xenstored", HOST_CHECK_WRONG, "systemctl start xen");
	shell("rmdir", "/sys/module/xen_netback");
	assert_finds(
		&good, "kernel-modules", HOST_CHECK_ADVICE, "modprobe -a xen_netback");
	shell("rm -r", "/sys/class/net/xenbr0");
	assert_finds(&good, "bridges", HOST_CHECK_ADVICE, "pif-plug");
	shell("rm -r", "/proc");
	assert_finds(&good, "xen", HOST_CHECK_WRONG, "guest of Xen");
	shell("rm -r", "/sys/hypervisor");
	assert_finds(&good, "xen", HOST_CHECK_WRONG, "xen-system-amd64");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_good, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_facts, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_xl, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_dom0, set_up, tear_down),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
