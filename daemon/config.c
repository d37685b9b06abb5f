#include "daemon/config.h"

#include <errno.h>
#include <ini.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/units.h"
#include "daemon/call.h"

enum key_type { KEY_TEXT, KEY_BYTES, KEY_NUMBER, KEY_MS, KEY_BOOL };

struct key {
	const char *section, *name;
	enum key_type type;
	size_t offset;
	const char *initial;
	const char *doc;
};

#define AT(member) offsetof(struct config, member)

static const struct key keys[] = {
	{"host", "name-label", KEY_TEXT, AT(name_label), "",
		"this host's name in the pool; empty: its host name"},
	{"host", "state-dir", KEY_TEXT, AT(state_dir), "/var/lib/reeve",
		"the database and what must outlive a restart"},
	{"host", "run-dir", KEY_TEXT, AT(run_dir), "/run/reeve", "sockets"},
	{"host", "witness", KEY_BOOL, AT(witness), "false",
		"this machine is a pool's witness: it votes and keeps the database, but "
		"runs no VMs and needs no Xen (the same as --witness)"},
	{"hypervisor", "driver", KEY_TEXT, AT(hypervisor), "auto",
		"auto, xen, or simulated (no VM really runs)"},
	{"hypervisor", "sim-memory", KEY_BYTES, AT(sim_memory), "32GiB",
		"memory of a simulated host"},
	{"hypervisor", "sim-dom0-memory", KEY_BYTES, AT(sim_dom0_memory), "1GiB",
		"of which dom0 has"},
	{"hypervisor", "sim-cpus", KEY_NUMBER, AT(sim_cpus), "8",
		"physical CPUs of a simulated host"},
	{"hypervisor", "sim-cpu-lacks", KEY_TEXT, AT(sim_cpu_lacks), "",
		"features that a simulated host's CPUs lack, such as: avx2 aes"},
	{"hypervisor", "sim-version", KEY_TEXT, AT(sim_version), "4.17",
		"of Xen, as a simulated host says"},
	{"hypervisor", "sim-step", KEY_MS, AT(sim_step_ms), "5ms",
		"latency of each call of a simulated hypervisor"},
	{"hypervisor", "xen-driver-dir", KEY_TEXT, AT(xen_driver_dir), "",
		"where reeve-xen-VERSION.so is; empty: /usr/lib/reeve"},
	{"hypervisor", "xen-helper", KEY_TEXT, AT(xen_helper), "",
		"the program that builds, saves and destroys domains; empty: "
		"reeve-xen-helper beside the driver"},
	{"hypervisor", "xen-scripts", KEY_TEXT, AT(xen_scripts), "",
		"where its scripts for disks and interfaces are; empty: beside it"},
	{"hypervisor", "xenstored", KEY_TEXT, AT(xenstored), "",
		"xenstored's socket; empty: /run/xenstored/socket, else /dev/xen/xenbus"},
	{"hypervisor", "xenstored-patience", KEY_MS, AT(xenstored_patience_ms), "5s",
		"so long may xenstored leave a question unanswered before it counts as "
		"lost"},
	{"network", "driver", KEY_TEXT, AT(network), "auto",
		"auto, bridge (Linux bridges), or simulated"},
	{"pool", "listen", KEY_TEXT, AT(pool_listen), "",
		"where the other hosts of the pool reach this one, such as "
		"tcp:0.0.0.0:7473; empty: no pool but this host's own"},
	{"pool", "address", KEY_TEXT, AT(pool_address), "",
		"what they dial, such as tcp:192.0.2.1:7473; empty: as listen"},
	{"pool", "patience", KEY_NUMBER, AT(pool_patience), "1",
		"how many times longer than usual hosts wait for a sign of each other's "
		"life, for slow lines and machines; the same on all hosts of a pool"},
	{"scheduler", "plugin-dir", KEY_TEXT, AT(sched_plugins), "/usr/lib/reeve/sched",
		"where placement policies other than greedy and conservative are"},
	{"rpc", "listen", KEY_TEXT, AT(rpc_listen), "",
		"further addresses, separated by blanks: tls+tcp://0.0.0.0:7474, "
		"tcp://127.0.0.1:7475"},
	{"rpc", "group", KEY_TEXT, AT(rpc_group), "",
		"local group whose members may use the local socket"},
	{"rpc", "group-role", KEY_TEXT, AT(rpc_group_role), "read-only",
		"and the role that they have"},
	{"rpc", "tls12", KEY_BOOL, AT(rpc_tls12), "true",
		"accept TLS 1.2 (ECDHE, AEAD) of stock NNG clients beside TLS 1.3"},
	{"test", "clock-file", KEY_TEXT, AT(test_clock_file), "",
		"for tests alone: a file with the milliseconds by which this daemon's "
		"clock is to be wrong, read every second"},
	{"test", "dom0-root", KEY_TEXT, AT(test_dom0_root), "",
		"for tests alone: a directory in place of / for what a host must have to "
		"start VMs, looked at also where the hypervisor is simulated"},
	{"log", "level", KEY_TEXT, AT(log_level), "info", "debug, info, warn or error"},
};

enum { KEY_COUNT = sizeof keys / sizeof keys[0] };

static const struct key *key_find(const char *section, const char *name)
{
	for (size_t i = 0; i < KEY_COUNT; i++)
		if (strcmp(keys[i].section, section) == 0 &&
			strcmp(keys[i].name, name) == 0)
			return &keys[i];
	return NULL;
}

static int parse_bool(const char *text, bool *out)
{
	static const char *const yes[] = {"true", "yes", "on", "1"};
	static const char *const no[] = {"false", "no", "off", "0"};

	for (size_t i = 0; i < sizeof yes / sizeof yes[0]; i++) {
		if (strcasecmp(text, yes[i]) == 0 || strcasecmp(text, no[i]) == 0) {
			*out = strcasecmp(text, yes[i]) == 0;
			return 0;
		}
	}
	return RV_EINVAL;
}

static int key_store(
	struct config *c, const struct key *k, const char *text, struct rv_error *e)
{
	char *at = (char *)c + k->offset;
	int rc = 0;

	switch (k->type) {
	case KEY_TEXT:
		if (strlen(text) >= CONFIG_TEXT_MAX)
			return rv_error_set(e, RV_EINVAL,
				"%s.%s: longer than %d characters", k->section, k->name,
				CONFIG_TEXT_MAX - 1);
		memcpy(at, text, strlen(text) + 1);
		break;
	case KEY_BYTES:
		rc = units_parse_bytes(text, (uint64_t *)(void *)at);
		break;
	case KEY_MS:
		rc = units_parse_ms(text, (uint64_t *)(void *)at);
		break;
	case KEY_NUMBER:
		rc = strpbrk(text, "KMGTBkmgt")
			     ? RV_EINVAL
			     : units_parse_bytes(text, (uint64_t *)(void *)at);
		break;
	case KEY_BOOL:
		rc = parse_bool(text, (bool *)at);
		break;
	}
	if (rc) {
		static const char *const wanted[] = {[KEY_BYTES] = "a size such as 4GiB",
			[KEY_NUMBER] = "a number",
			[KEY_MS] = "a time such as 5ms",
			[KEY_BOOL] = "true or false"};

		if (rc == RV_ETOOBIG)
			return rv_error_set(e, RV_EINVAL, "%s.%s: '%s' is too large",
				k->section, k->name, text);
		return rv_error_set(e, RV_EINVAL, "%s.%s: '%s' is not %s", k->section,
			k->name, text, wanted[k->type]);
	}
	return 0;
}

void config_defaults(struct config *c)
{
	memset(c, 0, sizeof *c);
	for (size_t i = 0; i < KEY_COUNT; i++) {
		int rc = key_store(c, &keys[i], keys[i].initial, NULL);

		(void)rc; /* the table's own defaults parse: config_test holds it */
	}
}

struct reading {
	struct config *config;
	struct rv_error *e;
	bool seen[KEY_COUNT];
};

static int on_line(void *arg, const char *section, const char *name, const char *value)
{
	struct reading *r = arg;
	const struct key *k = key_find(section, name);

	if (!k) {
		rv_error_set(r->e, RV_EINVAL,
			"no setting [%s] %s; `reeved --help-config` lists all", section,
			name);
		return 0;
	}
	/* Which of both was meant nobody can tell. inih takes an indented line for more
	 * of the value before it, and would tell the same key twice, too. */
	if (r->seen[k - keys]) {
		rv_error_set(r->e, RV_EINVAL,
			"[%s] %s is set twice, or this line is indented: say it once",
			section, name);
		return 0;
	}
	r->seen[k - keys] = true;
	return key_store(r->config, k, value, r->e) == 0;
}

/* The whole file as text, to be freed; NULL: e says why not. inih would stop at a zero
 * byte without a word, and what the file sets would be lost. */
static char *read_whole(const char *path, struct rv_error *e)
{
	FILE *f = fopen(path, "re");
	char *text = NULL;
	size_t size = 0;
	ssize_t len = 0;
	int line = 1, err = 0;

	if (f) {
		errno = 0;
		len = getdelim(&text, &size, '\0', f);
	}
	/* A directory opens, and can't be read; an empty file is no error. */
	if (!f || ferror(f) || !text)
		err = errno ? errno : EIO;
	if (f)
		fclose(f);
	if (err) {
		free(text);
		rv_error_set(e, RV_ENOENT, "configuration %s can't be read: %s", path,
			strerror(err));
		return NULL;
	}
	if (len <= 0) {
		text[0] = '\0';
		return text;
	}
	if (text[len - 1] != '\0')
		return text;
	for (const char *at = text; (at = strchr(at, '\n')) != NULL; at++)
		line++;
	free(text);
	rv_error_set(e, RV_EINVAL,
		"%s line %d holds a zero byte, so it is no text: write the file anew, or "
		"restore it from a backup",
		path, line);
	return NULL;
}

/* Debian's inih reads what is longer as several lines: the end of a comment would be a
 * setting. */
enum { LINE_MAX_CHARS = 198 };

static int lines_are_short(const char *text, const char *path, struct rv_error *e)
{
	int line = 1;

	for (size_t len; *text; text += len + (text[len] == '\n'), line++) {
		len = strcspn(text, "\n");
		if (len > LINE_MAX_CHARS)
			return rv_error_set(e, RV_EINVAL,
				"%s line %d is longer than %d characters: break it if it "
				"is a comment; a longer value can be given by --set",
				path, line, LINE_MAX_CHARS);
	}
	return 0;
}

int config_read(struct config *c, const char *path, struct rv_error *e)
{
	struct reading reading = {.config = c, .e = e};
	char *text;
	int line;

	rv_error_clear(e);
	text = read_whole(path, e);
	if (!text)
		return e->code;
	if (lines_are_short(text, path, e)) {
		free(text);
		return e->code;
	}
	line = ini_parse_string(text, on_line, &reading);
	free(text);
	if (line == 0)
		return 0;
	if (line < 0)
		return rv_error_set(e, RV_ENOMEM, "%s: out of memory", path);
	if (!e->code)
		rv_error_set(e, RV_EINVAL, "neither [section] nor key = value");
	return rv_error_prefix(e, "%s line %d", path, line);
}

int config_set(struct config *c, const char *assignment, struct rv_error *e)
{
	const char *dot = strchr(assignment, '.'), *equals = strchr(assignment, '=');
	char section[64], name[64];
	const struct key *k;

	if (!dot || !equals || dot > equals ||
		dot - assignment >= (ptrdiff_t)sizeof section ||
		equals - dot - 1 >= (ptrdiff_t)sizeof name)
		return rv_error_set(
			e, RV_EINVAL, "--set '%s': write SECTION.KEY=VALUE", assignment);
	snprintf(section, sizeof section, "%.*s", (int)(dot - assignment), assignment);
	snprintf(name, sizeof name, "%.*s", (int)(equals - dot - 1), dot + 1);
	k = key_find(section, name);
	if (!k)
		return rv_error_set(e, RV_EINVAL,
			"--set %s.%s: no such setting; `reeved --help-config` lists all",
			section, name);
	return key_store(c, k, equals + 1, e);
}

static bool is_one_of(const char *text, const char *const *choices)
{
	for (; *choices; choices++)
		if (strcmp(text, *choices) == 0)
			return true;
	return false;
}

int config_check(const struct config *c, struct rv_error *e)
{
	static const char *const hypervisors[] = {"auto", "xen", "simulated", NULL};
	static const char *const networks[] = {"auto", "bridge", "simulated", NULL};
	static const char *const levels[] = {"debug", "info", "warn", "error", NULL};

	if (!is_one_of(c->hypervisor, hypervisors))
		return rv_error_set(e, RV_EINVAL,
			"hypervisor.driver: '%s' is none of auto, xen, simulated",
			c->hypervisor);
	if (!is_one_of(c->network, networks))
		return rv_error_set(e, RV_EINVAL,
			"network.driver: '%s' is none of auto, bridge, simulated",
			c->network);
	if (!is_one_of(c->log_level, levels))
		return rv_error_set(e, RV_EINVAL,
			"log.level: '%s' is none of debug, info, warn, error",
			c->log_level);
	if (*c->name_label && call_name_check(CLASS_HOST, c->name_label, e)) {
		e->code = RV_EINVAL;
		return rv_error_prefix(e, "host.name-label");
	}
	if (c->witness && !*c->pool_listen)
		return rv_error_set(e, RV_EINVAL,
			"host.witness: a witness must be reached by the hosts: set "
			"[pool] listen, such as tcp:0.0.0.0:7473");
	if (c->pool_patience < 1 || c->pool_patience > CONFIG_PATIENCE_MAX)
		return rv_error_set(
			e, RV_EINVAL, "pool.patience: 1 to %d", CONFIG_PATIENCE_MAX);
	if (c->sim_cpus < 1 || c->sim_cpus > 4096)
		return rv_error_set(e, RV_EINVAL, "hypervisor.sim-cpus: 1 to 4096");
	if (c->sim_memory <= c->sim_dom0_memory)
		return rv_error_set(e, RV_EINVAL,
			"hypervisor.sim-memory must be more than sim-dom0-memory");
	if (*c->pool_listen && strncmp(c->pool_listen, "tcp:", 4) != 0)
		return rv_error_set(e, RV_EINVAL,
			"pool.listen: '%s' is no address such as tcp:0.0.0.0:7473",
			c->pool_listen);
	if (strstr(c->pool_listen, ":0.0.0.0:") && !*c->pool_address)
		return rv_error_set(e, RV_EINVAL,
			"pool.address is needed beside pool.listen = %s: what shall the "
			"other hosts dial?",
			c->pool_listen);
	if (c->state_dir[0] != '/' || c->run_dir[0] != '/')
		return rv_error_set(e, RV_EINVAL,
			"host.state-dir and host.run-dir must be absolute paths");
	return 0;
}

void config_print_help(FILE *out)
{
	const char *section = "";

	for (size_t i = 0; i < KEY_COUNT; i++) {
		if (strcmp(section, keys[i].section) != 0) {
			section = keys[i].section;
			fprintf(out, "%s[%s]\n", i ? "\n" : "", section);
		}
		fprintf(out, "# %s\n%s = %s\n", keys[i].doc, keys[i].name,
			keys[i].initial);
	}
}
