/* Transfer of leadership, and who is a server. */
#include "pool/rlog.h"

#include <inttypes.h>

#include "base/log.h"
#include "pool/rlog_internal.h"

/* --- transfer --- */

static void transfer_over(void *arg)
{
	struct rlog *rlog = arg;
	const char *address;
	raft_id id = 0;
	int rc = RV_ETIMEDOUT;

	rlog->transferring = false;
	if (rlog_raft_readable(rlog))
		raft_leader(&rlog->raft, &id, &address);
	if (id != 0 && id != rlog->config.id &&
		(rlog->transfer_to == 0 || id == rlog->transfer_to))
		rc = 0;
	rlog->transfer_fn(rlog->transfer_arg, rc);
	/* What waited meanwhile goes on here, or is rejected. */
	defer_start(&rlog->submit);
}

static void transfer_closed(struct raft_transfer *req)
{
	struct rlog *rlog = CONTAINER_OF(req, struct rlog, transfer);

	if (!rlog->freeing)
		defer_start(&rlog->transfer_over);
}

static int leads_or_error(const struct rlog *rlog, struct rv_error *e)
{
	if (rlog_is_leader(rlog) && rlog->raft_live && !rlog->raft_closing)
		return 0;
	return rv_error_set(
		e, RV_ENOTMASTER, "this host is not the pool's master: ask the master");
}

int rlog_transfer(struct rlog *rlog, uint64_t server_id, rlog_transfer_fn *fn, void *arg,
	struct rv_error *e)
{
	int rc = leads_or_error(rlog, e), r;

	if (rc)
		return rc;
	if (rlog->transferring)
		return rv_error_set(e, RV_EBUSY,
			"another transfer of the master's role is under way");
	if (rlog->sole)
		return rv_error_set(e, RV_ENOTALLOWED,
			"this host is the pool's only voter: no other host can become "
			"master; let another host join first");
	if (server_id == rlog->config.id)
		return rv_error_set(e, RV_ENOTALLOWED, "that host is the master already");
	rlog->transfer_fn = fn;
	rlog->transfer_arg = arg;
	rlog->transfer_to = server_id;
	r = raft_transfer(&rlog->raft, &rlog->transfer, server_id, transfer_closed);
	if (r)
		return rv_error_set(e, rlog_from_raft(r),
			"server %" PRIu64 " can't become master: %s", server_id,
			raft_errmsg(&rlog->raft));
	rlog->transferring = true;
	return 0;
}

/* --- membership --- */

static void changed(struct raft_change *req, int status)
{
	struct rlog *rlog = CONTAINER_OF(req, struct rlog, change);

	/* libraft is at work: go on from the loop. */
	rlog->change_status = status;
	if (!rlog->freeing)
		defer_start(&rlog->change_step);
}

static void change_step(void *arg)
{
	struct rlog *rlog = arg;
	int r = rlog->change_status;

	if (r == 0 && rlog->change_to_standby && rlog->raft_live && !rlog->raft_closing) {
		/* libraft adds a spare, which gets no entries: the second step. */
		rlog->change_to_standby = false;
		r = raft_assign(&rlog->raft, &rlog->change, rlog->change_id, RAFT_STANDBY,
			changed);
		if (r == 0)
			return;
	}
	rlog->changing = false;
	rlog->change_fn(rlog->change_arg, rlog_from_raft(r));
}

static void nobody_asked(void *arg, int rc)
{
	(void)arg;
	if (rc)
		log_debug("pool.log", "rc=%s msg=\"a server is added later\"",
			rv_error_symbol(rc));
}

/* Adding takes two steps; a leader that got through the first alone leaves a spare, which
 * gets no entries, to the next one. */
void rlog_finish_adding(struct rlog *rlog)
{
	const struct raft_configuration *c = &rlog->raft.configuration;

	if (!rlog_is_leader(rlog) || !rlog_raft_readable(rlog) || rlog->changing ||
		rlog->transferring || rlog->raft.configuration_uncommitted_index)
		return;
	for (unsigned i = 0; i < c->n; i++) {
		if (c->servers[i].role != RAFT_SPARE)
			continue;
		rlog->changing = rlog->change_to_standby = true;
		rlog->change_id = c->servers[i].id;
		rlog->change_status = 0;
		rlog->change_fn = nobody_asked;
		rlog->change_arg = NULL;
		defer_start(&rlog->change_step);
		return;
	}
}

static int change_begin(
	struct rlog *rlog, uint64_t id, rlog_change_fn *fn, void *arg, struct rv_error *e)
{
	int rc = leads_or_error(rlog, e);

	if (rc)
		return rc;
	if (rlog->changing)
		return rv_error_set(
			e, RV_EBUSY, "another change of the pool's voters is under way");
	rlog->change_fn = fn;
	rlog->change_arg = arg;
	rlog->change_id = id;
	rlog->change_to_standby = false;
	return 0;
}

static int change_begun(struct rlog *rlog, int r, struct rv_error *e)
{
	rlog->changing = r == 0;
	if (r)
		return rv_error_set(e, rlog_from_raft(r), "server %" PRIu64 ": %s",
			rlog->change_id, raft_strerror(r));
	return 0;
}

int rlog_add(struct rlog *rlog, uint64_t id, const char *address, rlog_change_fn *fn,
	void *arg, struct rv_error *e)
{
	int rc = id == 0 ? rv_error_set(e, RV_EINVAL, "a server's id must not be 0")
			 : change_begin(rlog, id, fn, arg, e);

	if (rc)
		return rc;
	rlog->change_to_standby = true;
	return change_begun(
		rlog, raft_add(&rlog->raft, &rlog->change, id, address, changed), e);
}

int rlog_assign(struct rlog *rlog, uint64_t id, bool voter, rlog_change_fn *fn, void *arg,
	struct rv_error *e)
{
	int rc = change_begin(rlog, id, fn, arg, e);

	if (rc)
		return rc;
	return change_begun(rlog,
		raft_assign(&rlog->raft, &rlog->change, id,
			voter ? RAFT_VOTER : RAFT_STANDBY, changed),
		e);
}

int rlog_remove(
	struct rlog *rlog, uint64_t id, rlog_change_fn *fn, void *arg, struct rv_error *e)
{
	int rc = change_begin(rlog, id, fn, arg, e);

	if (rc)
		return rc;
	return change_begun(
		rlog, raft_remove(&rlog->raft, &rlog->change, id, changed), e);
}

/* --- the rest --- */

void rlog_member_init(struct rlog *rlog)
{
	defer_init(&rlog->transfer_over, rlog->loop, "pool.log.transfer", transfer_over,
		rlog);
	defer_init(&rlog->change_step, rlog->loop, "pool.log.change", change_step, rlog);
}

void rlog_member_fini(struct rlog *rlog)
{
	defer_stop(&rlog->transfer_over);
	defer_stop(&rlog->change_step);
}
