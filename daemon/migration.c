/* Live migration as a method, and its connections on the pool's port. */
#include "daemon/migration.h"

#include "daemon/call.h"
#include "daemon/clocks.h"
#include "daemon/members.h"
#include "daemon/methods.h"
#include "daemon/tasks.h"
#include "daemon/vm_methods.h"
#include "link/port.h"
#include "migrate/migrate.h"

static void on_accepted(void *arg, int rc, const struct rv_error *e)
{
	struct call *c = arg;

	if (rc)
		call_fail(c, e);
	else
		tasks_follow(c, c->request);
}

void vm_migrate(struct call *c)
{
	struct daemon *d = c->daemon;
	const struct row *vm = call_row(c, "self");
	struct migrate_args args = {.host = call_ref(c, "host"),
		.live = call_bool(c, "live", true),
		.accept = call_bool(c, "accept", false),
		.max_downtime_ms = call_int(c, "max_downtime_ms", 0),
		.bandwidth_bytes_s = call_int(c, "bandwidth", 0),
		.user = c->who.user,
		.origin = c->origin};
	struct rv_error e = {0};
	struct uuid uuid;
	int rc;

	if (!vm || !call_row(c, "host"))
		return;
	if (!d->migrate) {
		call_failf(c, RV_ENOTALLOWED,
			"this host is in no pool with others: set [pool] listen and join "
			"one");
		return;
	}
	uuid = row_uuid(vm);
	if (clocks_check(d, db_row(pool_db(d->pool), CLASS_HOST, d->host), &e) ||
		clocks_check(d, db_row(pool_db(d->pool), CLASS_HOST, args.host), &e)) {
		call_fail(c, &e);
		return;
	}
	rc = migrate_start(d->migrate, &uuid, &args, tasks_uuid(c), on_accepted, c, &e);
	if (rc && !vm_busy_wait(c, &uuid, rc))
		call_fail(c, &e);
}

static int migration_dial(void *arg, const struct uuid *host,
	struct stream_config *config, struct stream **out, struct rv_error *e)
{
	struct daemon *d = arg;

	config->name = "migrate.stream";
	return members_connect(d->members, host, PORT_ALPN_MIGRATE, config, out, e);
}

/* What the ports can't see: is this host meant to take VMs at all? */
static int migration_check(
	void *arg, const struct migrate_prepare *prepare, struct rv_error *e)
{
	struct daemon *d = arg;
	const struct row *host = db_row(pool_db(d->pool), CLASS_HOST, d->host);

	(void)prepare;
	if (!host || !db_bool(host, HOST_ENABLED))
		return rv_error_set(e, RV_ENOTALLOWED,
			"host %s is disabled; host-enable lets VMs come again",
			host ? row_name(host) : "there");
	return clocks_check(d, host, e);
}

static void migration_accept(void *arg, struct stream *stream)
{
	struct daemon *d = arg;

	migrate_accept(d->migrate, stream); /* which bounds its own connections */
	members_closed(d->members, PORT_ALPN_MIGRATE);
}

int migration_open(struct daemon *d, struct rv_error *e)
{
	struct migrate_config config = {.loop = d->loop,
		.pool = d->pool,
		.vms = d->vms,
		.self = d->host,
		.dial = migration_dial,
		.check = migration_check,
		.arg = d};
	int rc = migrate_new(&d->migrate, &config, e);

	if (!rc && members_register(
			   d->members, PORT_ALPN_MIGRATE, false, migration_accept, d))
		rc = rv_error_set(
			e, RV_ELIMIT, "no place for migrations on the pool's port");
	return rc;
}
