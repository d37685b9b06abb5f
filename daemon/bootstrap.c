#include "daemon/bootstrap.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "base/log.h"
#include "daemon/emergency.h"
#include "daemon/files.h"
#include "daemon/members.h"
#include "daemon/pool_ca.h"
#include "daemon/turnover.h"
#include "daemon/witness.h"
#include "pool/db/message.h"
#include "pool/db/schema.h"
#include "vm/vm_cpu.h"

/* --- identity --- */

static bool is_there(const char *directory, const char *name)
{
	char path[PATH_MAX];

	snprintf(path, sizeof path, "%s/%s", directory, name);
	return access(path, F_OK) == 0;
}

static bool has_database(const char *state_dir)
{
	char path[PATH_MAX];
	struct dirent *entry;
	bool found = false;
	DIR *dir;

	snprintf(path, sizeof path, "%s/db", state_dir);
	dir = opendir(path);
	while (dir && !found && (entry = readdir(dir)))
		found = entry->d_name[0] != '.' && strcmp(entry->d_name, "lock") != 0;
	if (dir)
		closedir(dir);
	return found;
}

/* Whether the state directory holds a pool's database or a membership already. */
static bool has_former_life(const char *state_dir)
{
	return has_database(state_dir) || is_there(state_dir, "member/place");
}

/* A new UUID would make this host a stranger to its own database. */
static int refuse_new_identity(
	const char *path, const char *state_dir, struct rv_error *e)
{
	char certificate[PATH_MAX], text[UUID_TEXT_SIZE], known[128] = "";
	struct uuid host;
	char *pem;

	snprintf(certificate, sizeof certificate, "%s/member/cert.pem", state_dir);
	pem = files_read(certificate);
	if (pem && !ca_certificate_host(pem, &host, NULL))
		snprintf(known, sizeof known, "by its certificate it is %s",
			uuid_format(&host, text));
	else
		snprintf(known, sizeof known,
			"`reeve host-list` on another host shows "
			"it");
	free(pem);
	return rv_error_set(e, RV_ECORRUPT,
		"%s is missing, but %s holds this host's database: write the host's "
		"UUID into the file (%s), or, to begin anew as another host, move db and "
		"member out of the directory",
		path, state_dir, known);
}

int bootstrap_identity(struct daemon *d, struct rv_error *e)
{
	char path[CONFIG_TEXT_MAX + 16], text[UUID_TEXT_SIZE + 1];
	char *found;
	int rc;

	snprintf(path, sizeof path, "%s/host-uuid", d->config->state_dir);
	found = files_read(path);
	if (!found && errno == ENOENT) {
		if (has_former_life(d->config->state_dir))
			return refuse_new_identity(path, d->config->state_dir, e);
		d->host = uuid_random(loop_prng(d->loop));
		uuid_format(&d->host, text);
		text[UUID_TEXT_LEN] = '\n';
		return files_write(path, text, UUID_TEXT_LEN + 1, e);
	}
	if (!found)
		return rv_error_set(e, rv_error_from_errno(errno), "%s can't be read: %s",
			path, strerror(errno));
	rc = uuid_parse(&d->host, found, strnlen(found, UUID_TEXT_LEN));
	free(found);
	if (!rc && !has_database(d->config->state_dir))
		return identity_without_database(d->config->state_dir, e);
	if (rc)
		return rv_error_set(e, RV_ECORRUPT,
			"%s holds no UUID; write this host's UUID into it (`reeve "
			"host-list` on another host shows it)",
			path);
	return 0;
}

int bootstrap_directory(const char *path, struct rv_error *e)
{
	int rc = files_make_directory(path, 0700, e);
	struct stat st;

	if (rc)
		return rc;
	if (stat(path, &st) != 0)
		return rv_error_set(
			e, rv_error_from_errno(errno), "%s: %s", path, strerror(errno));
	if (!S_ISDIR(st.st_mode))
		return rv_error_set(e, RV_EINVAL, "%s is no directory", path);
	if (st.st_uid != geteuid())
		return rv_error_set(e, RV_EPERM,
			"%s belongs to user %u, who could read and change the pool's "
			"keys there; give it to the user that reeved runs as (chown %u "
			"%s)",
			path, (unsigned)st.st_uid, (unsigned)geteuid(), path);
	if ((st.st_mode & 0077) == 0)
		return 0;
	if (chmod(path, 0700) != 0)
		return rv_error_set(e, rv_error_from_errno(errno),
			"%s is open to other users (mode %04o) and that can't be "
			"changed: %s",
			path, (unsigned)(st.st_mode & 07777), strerror(errno));
	log_warn("daemon.directory",
		"path=%s mode=%04o msg=\"other users could enter it, where the pool's "
		"keys "
		"are: its mode is 0700 now%s\"",
		path, (unsigned)(st.st_mode & 07777),
		st.st_mode & 0022 ? "; they could have changed what is in it" : "");
	return 0;
}

/* --- records --- */

/* The pool's CA, whose key only hosts with the pool's secret can open. */
static void record_ca(struct daemon *d, struct txn *t, struct uuid pool)
{
	const struct identity *id = members_identity(d->members);
	struct rv_error e = {0};
	char *text;

	if (!id->ca_key_pem)
		return;
	if (pool_ca_seal(id->ca_pem, id->ca_key_pem, id->secret, &text, &e)) {
		log_error("daemon.bootstrap", "error=\"%s\"", e.detail);
		return;
	}
	txn_set_string(t, pool, POOL_CA_CERTIFICATE, id->ca_pem);
	txn_set_string(t, pool, POOL_CA_KEY, text);
	free(text);
}

/* What this host shows. One that was to follow may have come into force meanwhile. */
static void record_certificate(struct daemon *d, struct txn *t)
{
	const struct db *db = pool_db(d->pool);
	const struct row *host = db_row(db, CLASS_HOST, d->host);
	const char *shown = members_identity(d->members)->cert_pem;

	/* Of a CA that was lost: daemon/rotation.c sees to it. */
	if (host && *pool_ca_certificate(db, POOL_CA_NOW) && !pool_ca_signed(db, shown))
		return;
	txn_set_string(t, d->host, HOST_CERTIFICATE, shown);
	if (host && strcmp(db_string(host, HOST_CERTIFICATE_NEXT), shown) == 0)
		txn_set_string(t, d->host, HOST_CERTIFICATE_NEXT, "");
}

static struct uuid make_pool(struct daemon *d, struct txn *t)
{
	struct uuid pool = uuid_random(loop_prng(d->loop));

	txn_create(t, CLASS_POOL, pool);
	txn_set_string(t, pool, POOL_NAME_LABEL, "pool");
	txn_set_ref(t, pool, POOL_GENERATION_ID, uuid_random(loop_prng(d->loop)));
	txn_set_int(t, pool, POOL_GENERATION_NUMBER, 1);
	txn_set_int(t, pool, POOL_NEXT_RAFT_ID, 2);
	return pool;
}

/* One role object each, so that tools can list them. */
static void make_roles(struct daemon *d, struct txn *t)
{
	for (int role = ROLE_READ_ONLY; role <= ROLE_POOL_ADMIN; role++) {
		struct uuid uuid = uuid_random(loop_prng(d->loop));

		txn_create(t, CLASS_ROLE, uuid);
		txn_set_string(t, uuid, ROLE_NAME_LABEL, role_name((enum role)role));
	}
}

static void make_host(struct daemon *d, struct txn *t, struct uuid pool)
{
	struct utsname names;

	txn_expect_absent(t, CLASS_HOST, d->host); /* proposed before, after all in */
	txn_create(t, CLASS_HOST, d->host);
	txn_set_string(t, d->host, HOST_NAME_LABEL,
		*d->config->name_label || uname(&names) ? d->config->name_label
							: names.nodename);
	txn_set_time(t, d->host, HOST_JOINED, loop_wall_ms(d->loop));
	txn_set_int(t, d->host, HOST_RAFT_ID, 1);
	txn_set_enum(t, d->host, HOST_RAFT_ROLE, HOST_RAFT_ROLE_VOTER);
	txn_set_ref(t, pool, POOL_MASTER, d->host);
}

static void set_capabilities(struct daemon *d, struct txn *t)
{
	static const struct {
		uint32_t cap;
		const char *name;
	} known[] = {{HYPER_CAP_PV, "pv"}, {HYPER_CAP_PVH, "pvh"}, {HYPER_CAP_HVM, "hvm"},
		{HYPER_CAP_LIVE_PV, "live-pv"}, {HYPER_CAP_LIVE_HVM, "live-hvm"},
		{HYPER_CAP_CONSOLE, "console"}, {HYPER_CAP_WATCHDOG, "watchdog"}};

	for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
		if (d->hyper_host.caps & known[i].cap)
			txn_set_add(t, d->host, HOST_CAPABILITIES, known[i].name);
		else
			txn_set_remove(t, d->host, HOST_CAPABILITIES, known[i].name);
	}
}

/* A few KiB: written only when it differs. A pool that is made now has this host's. */
static void set_cpu_policy(struct daemon *d, struct txn *t, struct uuid new_pool)
{
	const struct row *host = db_row(pool_db(d->pool), CLASS_HOST, d->host);
	const struct hyper_host *h = &d->hyper_host;
	char text[VM_CPU_TEXT_SIZE];

	vm_cpu_format(h->cpu_policy, h->cpu_policy_len, text);
	if (!host || strcmp(db_string(host, HOST_CPU_POLICY), text) != 0)
		txn_set_string(t, d->host, HOST_CPU_POLICY, text);
	if (!uuid_is_none(&new_pool))
		txn_set_string(t, new_pool, POOL_CPU_POLICY, text);
}

static void update_hypervisor(struct daemon *d, struct txn *t)
{
	const struct hyper_host *h = &d->hyper_host;
	char number[24];

	txn_set_enum(t, d->host, HOST_HYPERVISOR,
		h->is_simulated ? HOST_HYPERVISOR_SIMULATED : HOST_HYPERVISOR_XEN);
	txn_set_ref(t, d->host, HOST_BOOT_ID, h->boot_id);
	txn_set_int(t, d->host, HOST_CPU_COUNT, h->cpus);
	txn_map_put(t, d->host, HOST_CPU_INFO, "model", h->cpu_model);
	snprintf(number, sizeof number, "%u", h->cpu_mhz);
	txn_map_put(t, d->host, HOST_CPU_INFO, "mhz", number);
	txn_map_put(t, d->host, HOST_SOFTWARE_VERSION, "hypervisor", h->driver);
	txn_map_put(t, d->host, HOST_SOFTWARE_VERSION, "hypervisor-version", h->version);
	txn_set_int(t, d->host, HOST_MEMORY_OVERHEAD, (int64_t)h->dom0_kib * 1024);
	set_capabilities(d, t);
}

/* What may have changed since the last start. */
static void update_host(struct daemon *d, struct txn *t)
{
	struct utsname names;

	witness_txn(d, t);
	if (!witness_is_here(d))
		update_hypervisor(d, t);
	txn_map_put(t, d->host, HOST_SOFTWARE_VERSION, "reeve", REEVE_VERSION);
	txn_set_int(t, d->host, HOST_LEVEL, SCHEMA_LEVEL);
	if (uname(&names) == 0) {
		txn_set_string(t, d->host, HOST_HOSTNAME, names.nodename);
		txn_map_put(t, d->host, HOST_SOFTWARE_VERSION, "linux", names.release);
	}
}

/* This host has left a pool: those who read its own database shall know. */
static void say_left(struct daemon *d, struct txn *t)
{
	char *words = turnover_words(d->config->state_dir);
	struct uuid uuid = uuid_random(loop_prng(d->loop));

	if (!words)
		return;
	message_add(t, uuid,
		&(struct message){.name = "HOST_EJECTED",
			.priority = 2,
			.cls = "host",
			.obj = d->host,
			.body = words});
	free(words);
}

void bootstrap_recorded(struct daemon *d)
{
	struct rv_error e = {0};

	if (d->members && *db_string(db_pool(pool_db(d->pool)), POOL_CA_KEY) &&
		identity_recorded(
			members_identity_edit(d->members), d->config->state_dir, &e))
		log_warn("bootstrap.recorded",
			"error=\"%s\" msg=\"the key of the pool's CA lies there in the "
			"clear; it is removed at the next start\"",
			e.detail);
	turnover_forget_words(d->config->state_dir);
	emergency_recorded(d);
}

void bootstrap_txn(struct daemon *d, struct txn *t)
{
	const struct db *db = pool_db(d->pool);
	struct uuid pool = UUID_NONE;

	txn_init(t, db, loop_wall_ms(d->loop));
	if (!db_pool(db)) {
		log_info("daemon.bootstrap",
			"msg=\"first start: making a pool of this host\"");
		pool = make_pool(d, t);
		make_host(d, t, pool);
		if (d->members)
			record_ca(d, t, pool);
		make_roles(d, t);
	}
	if (d->members) {
		const struct row *row = db_pool(db);

		if (row && !*db_string(row, POOL_CA_CERTIFICATE))
			record_ca(d, t, row_uuid(row));
		txn_set_string(t, d->host, HOST_ADDRESS, members_address(d->members));
		record_certificate(d, t);
	}
	update_host(d, t);
	if (!witness_is_here(d))
		set_cpu_policy(d, t, pool);
	say_left(d, t);
	emergency_txn(d, t);
}
