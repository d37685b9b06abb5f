/*
 * Bringing a host up:
 *
 *	OPEN ──► LEAD ──► PROBE ──► RECORD ──► ATTACH ──► RECONCILE ──► UP
 *	  │        │        │          │
 *	  └────────┴────────┴──────────┴──► FAILED (the loop stops, exit status 1)
 *
 * OPEN reads the log; LEAD waits until this host may decide; PROBE asks the hypervisor
 * what the host has; RECORD makes the pool on the very first start and brings the host's
 * record up to date. RPC is served from there on; questions before, where that takes
 * long: the disk is full, or nobody leads (daemon_refuses). ATTACH plugs what is wanted;
 * RECONCILE compares the domains that exist with the database. VM operations wait for
 * UP. A witness has no hypervisor to ask and nothing to plug: it goes from LEAD to RECORD
 * to UP.
 */
#include "daemon/start.h"

#include <stdio.h>

#include "base/log.h"
#include "daemon/attach.h"
#include "daemon/bootstrap.h"
#include "daemon/clocks.h"
#include "daemon/emergency.h"
#include "daemon/fencing.h"
#include "daemon/follow.h"
#include "daemon/forward.h"
#include "daemon/guard.h"
#include "daemon/lease.h"
#include "daemon/listen.h"
#include "daemon/members.h"
#include "daemon/metrics.h"
#include "daemon/recover.h"
#include "daemon/restart.h"
#include "daemon/rotation.h"
#include "daemon/state_disk.h"
#include "daemon/voters.h"
#include "daemon/witness.h"
#include "migrate/migrate.h"

enum {
	/* How long RECORD waits before it asks again, where no change of the pool comes
	 * first. */
	START_RETRY_MS = 500,
	/* How long LEAD may take before clients are let in to ask. */
	START_PATIENCE_MS = 10000,
};

enum start_state {
	OPEN,
	LEAD,
	PROBE,
	RECORD,
	ATTACH,
	RECONCILE,
	UP,
	FAILED,
	STATE_COUNT
};

static const struct op_state start_states[STATE_COUNT] = {
	[OPEN] = {"open", OP_TO(LEAD) | OP_TO(FAILED)},
	[LEAD] = {"lead", OP_TO(PROBE) | OP_TO(RECORD) | OP_TO(FAILED)},
	[PROBE] = {"probe", OP_TO(RECORD) | OP_TO(FAILED)},
	[RECORD] = {"record", OP_TO(ATTACH) | OP_TO(UP) | OP_TO(FAILED)},
	[ATTACH] = {"attach", OP_TO(RECONCILE)},
	[RECONCILE] = {"reconcile", OP_TO(UP)},
	[UP] = {"up", 0},
	[FAILED] = {"failed", 0},
};

static const struct op_table start_table = {
	"daemon.start", start_states, STATE_COUNT, OPEN};

static struct daemon *start_daemon(struct op *op)
{
	return CONTAINER_OF(op, struct daemon, start);
}

static void start_fail(struct daemon *d)
{
	op_move(&d->start, FAILED);
	op_finish(&d->start);
}

static void start_up(struct daemon *d)
{
	bool witness = witness_is_here(d);

	op_move(&d->start, UP);
	log_info("daemon.up", "host=%s driver=%s", d->config->name_label,
		witness ? "none" : d->hyper_host.driver);
	if (witness)
		log_info("daemon.up", "msg=\"this is a witness: it runs no VMs\"");
	op_finish(&d->start);
}

static void start_done(struct op *op)
{
	struct daemon *d = start_daemon(op);

	if (op->state == UP || d->stopping)
		return;
	log_error("daemon.start", "host=%s error=%s msg=\"%s\"", d->config->name_label,
		rv_error_symbol(op->error.code), op->error.detail);
	*d->exit_status = 1;
	loop_stop(d->loop);
}

/* Whether it takes long: the log failed, or nobody leads. */
static void start_watch(void *arg)
{
	struct daemon *d = arg;
	struct pool_status status;
	struct rv_error e = {0};

	if (d->recorded || d->serving || d->stopping || d->start.finished)
		return;
	pool_status(d->pool, &status);
	d->start_waited_ms += START_RETRY_MS;
	timer_start_ms(&d->start_watch, START_RETRY_MS);
	if (!status.log.error.code && d->start_waited_ms < START_PATIENCE_MS)
		return;
	log_warn("daemon.start",
		"host=%s msg=\"questions are answered, changes are not: %s\"",
		d->config->name_label,
		*status.why ? status.why : "this host is still starting");
	if (listen_open(d, &e)) {
		if (d->start.awaiting && !op_resume(&d->start, d->start_token))
			return;
		op_fail_with(&d->start, &e);
		start_fail(d);
	}
}

bool daemon_refuses(
	const struct daemon *d, const struct schema_method *m, struct rv_error *e)
{
	struct pool_status status;
	int code;

	if (d->recorded)
		return false;
	/* Where the others are gone for good, this is the way out. */
	if ((m->role == ROLE_READ_ONLY ||
		    m->id == METHOD_POOL_EMERGENCY_TRANSITION_TO_MASTER) &&
		db_pool(pool_db(d->pool)))
		return false;
	pool_status(d->pool, &status);
	code = status.log.error.code == RV_ESPACE ? RV_ESPACE : RV_EAGAIN;
	if (status.log.error.code)
		rv_error_set(e, code, "%s; this goes on by itself then",
			status.log.error.detail);
	else
		rv_error_set(e, code,
			"this host is starting and has no master yet; ask again, or look "
			"at the other hosts of the pool");
	return true;
}

void start_look(struct daemon *d)
{
	struct op *op = &d->start;

	if (!op->table || op->finished)
		return;
	if (op->state == RECORD && op->awaiting && timer_active(&op->deadline) &&
		op_resume(op, d->start_token))
		op_kick(op);
	else if (op->state == LEAD)
		op_kick(op);
}

/* --- the pool --- */

static void on_pool_opened(void *arg, int rc, const struct rv_error *e)
{
	struct daemon *d = arg;

	if (!op_resume(&d->start, d->start_token))
		return;
	if (rc) {
		op_fail_with(&d->start, e);
		start_fail(d);
		return;
	}
	follow_begin(d);
	if (d->members)
		members_attach(d->members);
	if (d->voters)
		voters_look(d->voters);
	lease_start(d->lease);
	op_move(&d->start, LEAD);
	op_kick(&d->start);
}

static void on_pool_changed(void *arg)
{
	struct daemon *d = arg;

	start_look(d);
	lease_look(d->lease);
	if (d->voters)
		voters_look(d->voters);
	if (d->forward && !d->stopping)
		forward_look(d->forward);
}

static void on_pool_closed(void *arg)
{
	struct daemon *d = arg;

	loop_stop(d->loop);
}

static const struct pool_events pool_events = {
	on_pool_opened, on_pool_changed, on_pool_closed};

int start_pool(struct daemon *d, struct rv_error *e)
{
	unsigned patience = (unsigned)d->config->pool_patience;
	struct pool_config config = {.log.id = 1,
		.log.election_ms = 200 * patience,
		.log.heartbeat_ms = 50 * patience};
	const struct identity *id = d->members ? members_identity(d->members) : NULL;
	struct rlog_server *first = &config.log.bootstrap[0];
	struct emergency_plan plan;

	uuid_format(&d->host, config.log.address);
	if (id) {
		/* Without a log of its own, one that joined is a learner. */
		config.log.id = id->founder ? id->raft_id : 0;
		config.log.adopt = true;
		config.messenger = members_messenger(d->members);
		config.self = d->host;
	}
	if (!id || id->founder) { /* one that joined waits for the master instead */
		*first = (struct rlog_server){.id = config.log.id, .voter = true};
		uuid_format(&d->host, first->address);
		config.log.bootstrap_count = 1;
	}
	if (id && emergency_planned(d->config->state_dir, &plan)) {
		*first = (struct rlog_server){.id = plan.raft_id, .voter = true};
		uuid_format(&d->host, first->address);
		config.log.bootstrap_count = 1;
		config.log.refound = true;
		config.log.refound_generation = plan.generation;
	}
	return pool_open(&d->pool, d->loop, d->disk, &config, &pool_events, d, e);
}

/* --- the steps --- */

static void on_host(void *arg, struct hyper_req *req)
{
	struct daemon *d = arg;

	if (!op_resume(&d->start, d->start_token))
		return;
	if (req->rc) {
		op_fail(&d->start, req->rc, "the hypervisor does not answer: %s",
			req->error.detail);
		start_fail(d);
		return;
	}
	d->hyper_host = *req->host;
	op_move(&d->start, RECORD);
	op_kick(&d->start);
}

/* Leadership wavers, or links come and go. The next entry is built from what the database
 * is by then, so one that took effect after all is not repeated. */
static bool start_may_pass(int rc)
{
	return rc == RV_EAGAIN || rc == RV_ENOTMASTER || rc == RV_ECLOSED ||
	       rc == RV_ETIMEDOUT || rc == RV_EOUTCOME || rc == RV_ECONFLICT ||
	       rc == RV_ELIMIT || rc == RV_ENOTALLOWED; /* rlog_clash */
}

/* In RECORD, until start_look or the deadline. */
static void start_later(struct daemon *d)
{
	d->start_token = op_await(&d->start, START_RETRY_MS);
}

static void on_recorded(struct pool_commit *commit)
{
	struct daemon *d = CONTAINER_OF(commit, struct daemon, commit);
	struct rv_error e = {0};

	if (!op_resume(&d->start, d->start_token) || d->stopping)
		return;
	if (start_may_pass(commit->rc)) {
		start_later(d);
		return;
	}
	if (commit->rc) {
		op_fail(&d->start, commit->rc,
			"this host can't be recorded in the database: %s",
			commit->error.detail);
		start_fail(d);
		return;
	}
	bootstrap_recorded(d);
	timer_stop(&d->start_watch);
	if (!d->serving && listen_open(d, &e)) {
		op_fail_with(&d->start, &e);
		start_fail(d);
		return;
	}
	d->recorded = true;
	pool_snapshot(d->pool); /* what the next start knows before it hears of others */
	rotation_start(d->rotation);
	state_disk_start(d->state_disk);
	if (witness_is_here(d)) {
		clocks_start(d->clocks);
		start_up(d);
		return;
	}
	op_move(&d->start, ATTACH);
	op_kick(&d->start);
}

static void start_record(struct daemon *d)
{
	struct rv_error e = {0};
	struct txn t;

	if (witness_may_start(d, &e)) {
		op_fail_with(&d->start, &e);
		start_fail(d);
		return;
	}
	bootstrap_txn(d, &t);
	d->start_token = op_await(&d->start, 0);
	if (!pool_commit(d->pool, &d->commit, &t, on_recorded, &e))
		return;
	if (!op_resume(&d->start, d->start_token))
		return;
	if (start_may_pass(e.code)) {
		start_later(d);
		return;
	}
	op_fail_with(&d->start, &e);
	start_fail(d);
}

static void on_attached(void *arg)
{
	struct daemon *d = arg;

	if (!op_resume(&d->start, d->start_token) || d->stopping)
		return;
	recover_chores(d);
	guard_start(d->guard);
	op_move(&d->start, RECONCILE);
	op_kick(&d->start);
}

static void on_reconciled(void *arg)
{
	struct daemon *d = arg;

	if (!op_resume(&d->start, d->start_token))
		return;
	if (d->migrate)
		migrate_begin(d->migrate);
	start_up(d);
}

/* The master may; a member may once it has the database, its own record in it, and a way
 * to the master. */
static bool start_may_record(struct daemon *d)
{
	if (pool_is_master(d->pool))
		return true;
	return d->members && db_row(pool_db(d->pool), CLASS_HOST, d->host) &&
	       pool_can_commit(d->pool);
}

static void start_deadline(struct op *op)
{
	struct daemon *d = start_daemon(op);

	if (!op_resume(op, d->start_token))
		return;
	if (op->state == RECORD) {
		op_kick(op);
		return;
	}
	op_fail(op, RV_ETIMEDOUT,
		"the hypervisor does not answer; look whether xenstored runs (systemctl "
		"status xenstored), then start reeved again");
	start_fail(d);
}

static void start_step(struct op *op)
{
	struct daemon *d = start_daemon(op);

	if (op->awaiting ||
		d->stopping) /* told to end: what is open is closed elsewhere */
		return;
	switch ((enum start_state)op->state) {
	case OPEN:
		d->start_token = op_await(op, 0);
		break;
	case LEAD:
		if (!start_may_record(d))
			return; /* comes again when the pool or its database changes */
		if (witness_is_here(d)) {
			op_move(op, RECORD);
			start_record(d);
			break;
		}
		op_move(op, PROBE);
		d->start_token = op_await(op, 30000);
		hyper_req_init(&d->hyper_req, on_host, d);
		hyper_host(d->hyper, &d->hyper_req);
		break;
	case RECORD:
		start_record(d);
		break;
	case ATTACH:
		d->start_token = op_await(op, 0);
		attach_all(d->attach, on_attached, d);
		break;
	case RECONCILE:
		d->start_token = op_await(op, 0);
		vm_manager_start(d->vms, on_reconciled, d);
		metrics_start(d->metrics);
		clocks_start(d->clocks);
		fencing_start(d->fencing);
		restarts_start(d->restarts);
		break;
	case PROBE:
	case UP:
	case FAILED:
	case STATE_COUNT:
		break;
	}
}

void start_init(struct daemon *d)
{
	timer_init(&d->start_watch, d->loop, "daemon.start.watch", start_watch, d);
}

void start_begin(struct daemon *d)
{
	d->start.on_deadline = start_deadline;
	timer_start_ms(&d->start_watch, START_RETRY_MS);
	op_start(&d->start, d->loop, &start_table, start_step, start_done,
		d->config->name_label);
}

void start_stop(struct daemon *d)
{
	op_drop(&d->start);
	timer_stop(&d->start_watch);
}
