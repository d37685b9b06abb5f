#include "daemon/bootstrap.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>

#include "base/log.h"
#include "daemon/files.h"
#include "daemon/members.h"
#include "pool/db/schema.h"

/* --- identity ------------------------------------------------------------------------
 */

int bootstrap_identity(struct daemon *d, struct rv_error *e)
{
	char path[CONFIG_TEXT_MAX + 16], text[UUID_TEXT_SIZE + 1];
	char *found;
	int rc;

	snprintf(path, sizeof path, "%s/host-uuid", d->config->state_dir);
	found = files_read(path);
	if (!found && errno == ENOENT) {
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
	if (rc)
		return rv_error_set(e, RV_ECORRUPT,
			"%s holds no UUID; write this host's UUID into it (`reeve "
			"host-list` on another host shows it)",
			path);
	return 0;
}

/* --- records -------------------------------------------------------------------------
 */

/* The pool's CA, whose key only hosts with the pool's secret can open. */
static void record_ca(struct daemon *d, struct txn *t, struct uuid pool)
{
	const struct identity *id = members_identity(d->members);
	uint8_t fingerprint[CA_FINGERPRINT_SIZE];
	struct rv_error e = {0};
	struct buf sealed, text;

	if (!id->ca_key_pem)
		return;
	buf_init(&sealed, FILES_MAX_BYTES);
	buf_init(&text, FILES_MAX_BYTES);
	if (ca_fingerprint(id->ca_pem, fingerprint, &e) ||
		ca_seal(id->secret, fingerprint, id->ca_key_pem, &sealed, &e)) {
		log_error("daemon.bootstrap", "error=\"%s\"", e.detail);
	} else {
		int rc = 0;

		for (size_t i = 0; i < buf_len(&sealed) && !rc; i++)
			rc = buf_printf(&text, "%02x", buf_data(&sealed)[i]);
		if (!rc && !buf_append(&text, "", 1)) {
			txn_set_string(t, pool, POOL_CA_CERTIFICATE, id->ca_pem);
			txn_set_string(
				t, pool, POOL_CA_KEY, (const char *)buf_data(&text));
		}
	}
	buf_fini(&sealed);
	buf_fini(&text);
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

/* What may have changed since the last start. */
static void update_host(struct daemon *d, struct txn *t)
{
	const struct hyper_host *h = &d->hyper_host;
	struct utsname names;
	char number[24];

	txn_set_enum(t, d->host, HOST_HYPERVISOR,
		h->is_simulated ? HOST_HYPERVISOR_SIMULATED : HOST_HYPERVISOR_XEN);
	txn_set_ref(t, d->host, HOST_BOOT_ID, h->boot_id);
	txn_set_int(t, d->host, HOST_CPU_COUNT, h->cpus);
	txn_map_put(t, d->host, HOST_CPU_INFO, "model", h->cpu_model);
	snprintf(number, sizeof number, "%u", h->cpu_mhz);
	txn_map_put(t, d->host, HOST_CPU_INFO, "mhz", number);
	txn_map_put(t, d->host, HOST_SOFTWARE_VERSION, "reeve", REEVE_VERSION);
	txn_map_put(t, d->host, HOST_SOFTWARE_VERSION, "hypervisor", h->driver);
	txn_map_put(t, d->host, HOST_SOFTWARE_VERSION, "hypervisor-version", h->version);
	txn_set_int(t, d->host, HOST_MEMORY_OVERHEAD, (int64_t)h->dom0_kib * 1024);
	txn_set_int(t, d->host, HOST_LEVEL, SCHEMA_LEVEL);
	set_capabilities(d, t);
	if (uname(&names) == 0) {
		txn_set_string(t, d->host, HOST_HOSTNAME, names.nodename);
		txn_map_put(t, d->host, HOST_SOFTWARE_VERSION, "linux", names.release);
	}
}

void bootstrap_txn(struct daemon *d, struct txn *t)
{
	const struct db *db = pool_db(d->pool);

	txn_init(t, db, loop_wall_ms(d->loop));
	if (!db_pool(db)) {
		log_info("daemon.bootstrap",
			"msg=\"first start: making a pool of this host\"");
		struct uuid pool = make_pool(d, t);

		make_host(d, t, pool);
		if (d->members)
			record_ca(d, t, pool);
		make_roles(d, t);
	}
	if (d->members) {
		const struct row *pool = db_pool(db);

		if (pool && !*db_string(pool, POOL_CA_CERTIFICATE))
			record_ca(d, t, row_uuid(pool));
		txn_set_string(t, d->host, HOST_ADDRESS, members_address(d->members));
		txn_set_string(t, d->host, HOST_CERTIFICATE,
			members_identity(d->members)->cert_pem);
	}
	update_host(d, t);
}
