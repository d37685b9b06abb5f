/*
 * What a daemon is made of: its parts, in the order in which each can be made of those
 * before it, and in the order in which they end.
 */
#include "daemon/daemon.h"

#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "daemon/attach.h"
#include "daemon/bootstrap.h"
#include "daemon/ca_change.h"
#include "daemon/call.h"
#include "daemon/chore.h"
#include "daemon/clocks.h"
#include "daemon/console.h"
#include "daemon/drivers.h"
#include "daemon/dump.h"
#include "daemon/eject.h"
#include "daemon/emergency.h"
#include "daemon/events.h"
#include "daemon/fencing.h"
#include "daemon/files.h"
#include "daemon/follow.h"
#include "daemon/forward.h"
#include "daemon/ghosts.h"
#include "daemon/guard.h"
#include "daemon/import_xl.h"
#include "daemon/join.h"
#include "daemon/large.h"
#include "daemon/lease.h"
#include "daemon/listen.h"
#include "daemon/members.h"
#include "daemon/metrics.h"
#include "daemon/migration.h"
#include "daemon/object_live.h"
#include "daemon/policy.h"
#include "daemon/recover.h"
#include "daemon/restart.h"
#include "daemon/rotation.h"
#include "daemon/start.h"
#include "daemon/state_disk.h"
#include "daemon/tasks.h"
#include "daemon/turnover.h"
#include "daemon/vm_live.h"
#include "daemon/voters.h"
#include "daemon/witness.h"
#include "migrate/migrate.h"

static int open_vms(struct daemon *d, struct rv_error *e)
{
	struct vm_manager_config config = {.loop = d->loop,
		.pool = d->pool,
		.self = d->host,
		.may_run = lease_may_run,
		.may_run_arg = d->lease,
		.was_fenced = fencing_was_fenced,
		.was_fenced_arg = d->fencing};
	struct vm_host_config host = {
		.uuid = d->host, .hyper = d->hyper, .storage = d->storage, .net = d->net};
	int rc = vm_manager_new(&d->vms, &config, e);

	/* A witness has none to drive, so its manager never starts. */
	return rc || witness_is_here(d) ? rc : vm_manager_add_host(d->vms, &host, e);
}

static int daemon_open(struct daemon *d, struct rv_error *e)
{
	char path[CONFIG_TEXT_MAX + 8];
	int rc = bootstrap_directory(d->config->state_dir, e);

	if (!rc)
		rc = files_make_directory(d->config->run_dir, 0755, e);
	snprintf(path, sizeof path, "%s/db", d->config->state_dir);
	if (!rc)
		rc = turnover_carry_out(d->config->state_dir, e);
	if (!rc)
		rc = bootstrap_identity(d, e);
	if (!rc)
		rc = disk_open_dir(&d->disk, d->loop, path, e);
	if (!rc && !witness_is_here(d))
		rc = drivers_open(d, e);
	if (!rc && *d->config->pool_listen) {
		rc = forward_new(&d->forward, d);
		if (!rc)
			rc = members_open(&d->members, d, e);
		if (!rc)
			rc = joining_new(&d->joining, d, e);
		if (!rc)
			rc = ejection_new(&d->ejection, d, e);
		if (!rc)
			rc = emergency_new(&d->emergency, d);
	}
	if (!rc)
		rc = lease_new(&d->lease, d);
	if (!rc)
		rc = fencing_new(&d->fencing, d);
	if (!rc)
		rc = restarts_new(&d->restarts, d);
	if (!rc)
		rc = start_pool(d, e);
	if (!rc)
		rc = open_vms(d, e);
	if (!rc && d->members && !witness_is_here(d))
		rc = migration_open(d, e);
	if (!rc && d->members)
		rc = voters_new(&d->voters, d);
	if (!rc && d->members)
		rc = rotation_new(&d->rotation, d);
	if (!rc && d->members)
		rc = ca_change_new(&d->ca_change, d);
	if (!rc)
		rc = attach_new(&d->attach, d);
	if (!rc)
		rc = metrics_new(&d->metrics, d);
	if (!rc)
		rc = state_disk_new(&d->state_disk, d);
	if (!rc)
		rc = clocks_new(&d->clocks, d);
	if (!rc)
		rc = consoles_new(&d->consoles, d);
	if (!rc)
		rc = dumps_new(&d->dumps, d);
	if (!rc)
		rc = ghosts_new(&d->ghosts, d);
	if (!rc)
		rc = guard_new(&d->guard, d);
	if (!rc)
		rc = imports_new(&d->imports, d);
	if (rc && !e->code)
		rv_error_set(e, rc, "reeved can't start: %s", rv_error_text(rc));
	return rc;
}

int daemon_start(struct daemon *d, struct loop *l, const struct config *c, int *status,
	struct rv_error *e)
{
	memset(d, 0, sizeof *d);
	d->loop = l;
	d->config = c;
	d->exit_status = status;
	list_init(&d->calls);
	list_init(&d->free_calls);
	large_reads_init(d);
	tasks_init(d);
	object_live_init(d);
	vm_live_init(d);
	events_init(d);
	list_init(&d->chores);
	list_init(&d->designations);
	recover_init(d);
	follow_init(d);
	start_init(d);
	if (daemon_open(d, e))
		return e->code;
	start_begin(d);
	return 0;
}

void daemon_stop(struct daemon *d)
{
	if (d->stopping)
		return;
	d->stopping = true;
	log_info("daemon.stop", "msg=\"VMs keep running\"");
	listen_close(d);
	if (d->migrate)
		migrate_stop(d->migrate);
	vm_manager_stop(d->vms);
	voters_stop(d->voters);
	rotation_stop(d->rotation);
	ca_change_stop(d->ca_change);
	pool_close(d->pool);
}

void daemon_restart(struct daemon *d)
{
	if (d->stopping)
		return;
	d->restart = true;
	loop_stop(d->loop);
}

bool daemon_starts_again(const struct daemon *d)
{
	return d->restart && !d->stopping;
}

void daemon_fini(struct daemon *d)
{
	d->stopping = true; /* calls that end below ask no pool why */
	listen_close(d);
	sessions_free(d->sessions);
	imports_stop(d->imports);
	ghosts_stop(d->ghosts);
	guard_stop(d->guard);
	state_disk_stop(d->state_disk);
	worker_free(d->worker);
	metrics_stop(d->metrics);
	clocks_stop(d->clocks);
	lease_stop(d->lease);
	fencing_stop(d->fencing);
	restarts_stop(d->restarts);
	consoles_stop(d->consoles);
	voters_stop(d->voters);
	rotation_stop(d->rotation);
	ca_change_stop(d->ca_change);
	timer_stop(&d->recover);
	start_stop(d);
	follow_stop(d);
	if (d->migrate)
		migrate_stop(d->migrate);
	if (d->vms)
		vm_manager_stop(d->vms);
	ejection_stop(d->ejection);
	hyper_free(d->hyper);
	storage_free(d->storage);
	net_free(d->net);
	forward_stop(d->forward); /* calls that end below tell nobody */
	pool_free(d->pool);
	joining_free(d->joining);
	ejection_free(d->ejection);
	emergency_free(d->emergency);
	dumps_free(d->dumps);
	members_free(d->members);
	/* What had asked the ports and the pool: freed after them. */
	metrics_free(d->metrics);
	clocks_free(d->clocks);
	state_disk_free(d->state_disk);
	lease_free(d->lease);
	fencing_free(d->fencing);
	consoles_free(d->consoles);
	imports_free(d->imports);
	ghosts_free(d->ghosts);
	guard_free(d->guard);
	voters_free(d->voters);
	rotation_free(d->rotation);
	ca_change_free(d->ca_change);
	designations_free(d);
	chores_free(d);
	attach_free(d->attach);
	vm_manager_free(d->vms);
	migrate_free(d->migrate);
	policy_close(d);
	disk_free(d->disk);
	large_reads_stop(d);
	events_stop(d);
	tasks_stop(d);
	object_live_stop(d);
	vm_live_fini(d);
	calls_free(d);
	restarts_free(d->restarts); /* it had made some of them */
	forward_free(d->forward);
}

int daemon_cancel(struct daemon *d, struct uuid task, struct rv_error *e)
{
	int rc = chore_cancel(d, task, e);

	return rc == RV_ENOENT ? vm_op_cancel(d->vms, &task, e) : rc;
}
