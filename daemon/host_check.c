#include "daemon/host_check.h"

#include <dirent.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/timex.h>
#include <unistd.h>

enum { PATH_SIZE = 512, NAMES_SIZE = 128 };

struct check {
	const char *root;
	const struct host_check_facts *facts;
	struct hyper_detection found;
	struct host_finding *out;
	size_t count;
};

static struct host_finding *begin(struct check *k, const char *name)
{
	struct host_finding *f = &k->out[k->count++];

	*f = (struct host_finding){.check = name, .grade = HOST_CHECK_OK};
	return f;
}

__attribute__((format(printf, 2, 3))) static void say(
	struct host_finding *f, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(f->words, sizeof f->words, fmt, ap);
	va_end(ap);
}

static void blame(struct host_finding *f, enum host_check_grade grade, const char *fix)
{
	f->grade = grade;
	snprintf(f->fix, sizeof f->fix, "%s", fix);
}

/* --- files --- */

static const char *full(const struct check *k, const char *path, char out[PATH_SIZE])
{
	snprintf(out, PATH_SIZE, "%s%s", k->root, path);
	return out;
}

static bool exists(const struct check *k, const char *path)
{
	char at[PATH_SIZE];
	struct stat s;

	return lstat(full(k, path, at), &s) == 0;
}

/* The first few names in a directory, and how many there are. */
static size_t names_in(const struct check *k, const char *path, char names[NAMES_SIZE])
{
	char at[PATH_SIZE];
	DIR *dir = opendir(full(k, path, at));
	struct dirent *entry;
	size_t count = 0, len = 0;

	names[0] = '\0';
	if (!dir)
		return 0;
	while ((entry = readdir(dir))) {
		if (entry->d_name[0] == '.')
			continue;
		if (++count <= 3)
			len += (size_t)snprintf(names + len, NAMES_SIZE - len, "%s%.30s",
				len ? ", " : "", entry->d_name);
	}
	closedir(dir);
	if (count > 3 && len < NAMES_SIZE)
		snprintf(names + len, NAMES_SIZE - len, ", …");
	return count;
}

/* The value of `key = value` in one of xl's configuration files; false: not set. */
static bool setting(const struct check *k, const char *path, const char *key, char *value,
	size_t size)
{
	char at[PATH_SIZE], line[256];
	FILE *f = fopen(full(k, path, at), "r");
	size_t len = strlen(key);
	bool found = false;

	while (f && fgets(line, sizeof line, f)) {
		char *p = line + strspn(line, " \t");

		if (strncmp(p, key, len) != 0)
			continue;
		p += len;
		p += strspn(p, " \t");
		if (*p++ != '=')
			continue;
		p += strspn(p, " \t\"'");
		p[strcspn(p, "\"'# \t\r\n")] = '\0';
		snprintf(value, size, "%s", p);
		found = true;
	}
	if (f)
		fclose(f);
	return found;
}

/* --- checks --- */

static void check_xen(struct check *k)
{
	struct host_finding *f = begin(k, "xen");

	if (k->found.here == HYPER_HERE_DOM0 && !k->facts->is_simulated) {
		say(f, "dom0 of Xen %s", k->found.version);
		return;
	}
	if (k->found.here == HYPER_HERE_DOM0) {
		say(f, "this is dom0 of Xen %s, but reeved is told to simulate",
			k->found.version);
		blame(f, HOST_CHECK_WRONG,
			"set [hypervisor] driver = auto in /etc/reeve/reeved.conf and "
			"restart reeved");
		return;
	}
	say(f, "%s%s",
		k->found.here == HYPER_HERE_GUEST
			? "this machine is a guest of Xen, not its dom0"
			: "there is no Xen on this machine",
		k->facts->is_simulated
			? ": reeved simulates one, and no VM of this host is real"
			: "");
	blame(f, HOST_CHECK_WRONG, "apt install xen-system-amd64 && reboot");
}

static void check_dom0_memory(struct check *k)
{
	struct host_finding *f = begin(k, "dom0-memory");

	if (k->facts->dom0_fixed) {
		say(f, "dom0's memory is fixed");
		return;
	}
	say(f, "dom0's memory is not fixed: it would take and give what Reeve counts "
	       "on, so no VM is started here");
	blame(f, HOST_CHECK_WRONG,
		"in /etc/default/grub set GRUB_CMDLINE_XEN_DEFAULT="
		"\"dom0_mem=2G,max:2G\", then update-grub && reboot");
}

/* "auto", xl's default, is off where dom0's memory is fixed. */
static void check_autoballoon(struct check *k)
{
	struct host_finding *f = begin(k, "autoballoon");
	char value[32] = "auto";

	setting(k, "/etc/xen/xl.conf", "autoballoon", value, sizeof value);
	if (strcmp(value, "off") == 0 || strcmp(value, "0") == 0 ||
		(strcmp(value, "auto") == 0 && k->facts->dom0_fixed)) {
		say(f, "xl leaves dom0's memory alone");
		return;
	}
	say(f, "xl takes memory from dom0 when it starts a guest (autoballoon=%s)",
		value);
	blame(f, HOST_CHECK_WRONG, "set autoballoon=\"off\" in /etc/xen/xl.conf");
}

static void check_xendomains(struct check *k)
{
	struct host_finding *f = begin(k, "xendomains");
	char at[PATH_SIZE], target[64] = "";
	ssize_t r = readlink(full(k, "/etc/systemd/system/xendomains.service", at),
		target, sizeof target - 1);

	if (r > 0)
		target[r] = '\0';
	if (strcmp(target, "/dev/null") == 0 ||
		(!exists(k, "/lib/systemd/system/xendomains.service") &&
			!exists(k, "/etc/init.d/xendomains"))) {
		say(f, "the service that saves and starts guests by itself is off");
		return;
	}
	say(f, "xendomains would save Reeve's VMs at shutdown and start them again "
	       "behind the pool's back");
	blame(f, HOST_CHECK_WRONG, "systemctl mask xendomains");
}

static void check_saved(struct check *k)
{
	struct host_finding *f = begin(k, "saved-domains");
	char names[NAMES_SIZE];
	size_t count = names_in(k, "/var/lib/xen/save", names);

	if (count == 0) {
		say(f, "xendomains has left no saved guests");
		return;
	}
	say(f, "%zu saved guests lie in /var/lib/xen/save: %s", count, names);
	blame(f, HOST_CHECK_WRONG,
		"xl restore each of them, then reeve vm-import-xl its "
		"configuration; or delete what is not wanted");
}

static void check_auto(struct check *k)
{
	struct host_finding *f = begin(k, "xl-autostart");
	char names[NAMES_SIZE];
	size_t count = names_in(k, "/etc/xen/auto", names);

	if (count == 0) {
		say(f, "xl starts no guest at boot");
		return;
	}
	say(f, "xl would start %zu guests at boot: %s", count, names);
	blame(f, HOST_CHECK_ADVICE,
		"reeve vm-import-xl filename=/etc/xen/auto/NAME takes one over and "
		"removes its link");
}

static void check_xenstored(struct check *k)
{
	struct host_finding *f = begin(k, "xenstored");

	if (k->found.here != HYPER_HERE_DOM0 || exists(k, "/run/xenstored/socket") ||
		exists(k, "/dev/xen/xenbus")) {
		say(f, "nothing to complain of");
		return;
	}
	say(f, "xenstored's socket is not there");
	blame(f, HOST_CHECK_WRONG, "systemctl start xen");
}

static void check_backends(struct check *k)
{
	static const char *const modules[] = {"xen_blkback", "xen_netback", "xen_gntdev",
		"xen_evtchn", "loop", "bridge"};
	struct host_finding *f = begin(k, "kernel-modules");
	char missing[NAMES_SIZE] = "", at[64];
	size_t len = 0;

	for (size_t i = 0; i < sizeof modules / sizeof *modules; i++) {
		snprintf(at, sizeof at, "/sys/module/%s", modules[i]);
		if (!exists(k, at) && len < sizeof missing)
			len += (size_t)snprintf(
				missing + len, sizeof missing - len, " %s", modules[i]);
	}
	if (missing[0] == '\0' || k->found.here != HYPER_HERE_DOM0) {
		say(f, "the backends of disks and networks are there");
		return;
	}
	say(f, "dom0's kernel has not loaded%s", missing);
	snprintf(f->fix, sizeof f->fix, "modprobe -a%s", missing);
	f->grade = HOST_CHECK_ADVICE;
}

static void check_bridges(struct check *k)
{
	struct host_finding *f = begin(k, "bridges");
	char at[PATH_SIZE], one[PATH_SIZE + 280];
	DIR *dir = opendir(full(k, "/sys/class/net", at));
	struct dirent *entry;
	size_t bridges = 0;
	struct stat s;

	while (dir && (entry = readdir(dir))) {
		snprintf(one, sizeof one, "%s/%s/bridge", at, entry->d_name);
		bridges += entry->d_name[0] != '.' && stat(one, &s) == 0;
	}
	if (dir)
		closedir(dir);
	if (bridges) {
		say(f, "%zu bridges", bridges);
		return;
	}
	say(f, "there is no bridge: VMs reach each other on this host only, until a "
	       "PIF is plugged");
	blame(f, HOST_CHECK_ADVICE,
		"reeve pif-introduce host=HOST device=eth1, then reeve pif-plug");
}

static void check_clock(struct check *k)
{
	struct host_finding *f = begin(k, "clock");

	if (k->facts->clock_synchronised) {
		say(f, "a time daemon keeps the clock");
		return;
	}
	say(f, "nothing keeps the clock right; a host whose clock is off gets no "
	       "migrations");
	blame(f, HOST_CHECK_ADVICE, "apt install chrony");
}

bool host_check_clock(void)
{
	struct timex t = {.modes = 0};
	int state = adjtimex(&t);

	return state != -1 && state != TIME_ERROR && !(t.status & STA_UNSYNC);
}

const char *host_check_grade_name(enum host_check_grade grade)
{
	static const char *const names[] = {"ok", "advice", "wrong"};

	return names[grade];
}

size_t host_check_run(const char *root, const struct host_check_facts *facts,
	struct host_finding out[static HOST_CHECK_MAX])
{
	struct check k = {.root = root, .facts = facts, .out = out};

	hyper_detect(root, &k.found);
	check_xen(&k);
	check_dom0_memory(&k);
	check_autoballoon(&k);
	check_xendomains(&k);
	check_saved(&k);
	check_auto(&k);
	check_xenstored(&k);
	check_backends(&k);
	check_bridges(&k);
	check_clock(&k);
	return k.count;
}
