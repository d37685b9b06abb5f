/* What is going on in a log, for those who ask. */
#include "pool/rlog.h"

#include <stdio.h>
#include <stdlib.h>

#include "pool/rlog_internal.h"

bool rlog_is_leader(const struct rlog *rlog)
{
	return rlog->ready && !rlog->failing && !rlog->stopping;
}

static void fill_servers(const struct rlog *rlog, struct rlog_status *out)
{
	const struct raft_configuration *c = &rlog->raft.configuration;
	const char *address = NULL;
	raft_id id = 0;

	for (unsigned i = 0; i < c->n; i++)
		out->voters += c->servers[i].role == RAFT_VOTER;
	out->servers = (int)c->n;
	raft_leader((struct raft *)&rlog->raft, &id, &address);
	out->leader_id = id;
	if (address)
		snprintf(out->leader_address, sizeof out->leader_address, "%s", address);
	out->last_index = raft_last_index((struct raft *)&rlog->raft);
	out->last_term = rlog_feed_term(rlog, out->last_index);
}

/* When a majority of the voters had answered, this leader included. */
static int64_t majority_heard(const struct rlog *rlog)
{
	const struct raft_configuration *c = &rlog->raft.configuration;
	int64_t heard[RLOG_MAX_VOTERS];
	unsigned n = 0;

	for (unsigned i = 0; i < c->n && n < RLOG_MAX_VOTERS; i++) {
		const struct rio_answer *a = rio_answer_of(rlog->rio, c->servers[i].id);

		if (c->servers[i].role != RAFT_VOTER)
			continue;
		heard[n] = a ? a->heard_us : 0;
		if (c->servers[i].id == rlog->config.id)
			heard[n] = loop_now_us(rlog->loop);
		n++;
	}
	/* Each reply to a read tells it, and they are a handful: sorted here. */
	for (unsigned i = 1; i < n; i++)
		for (unsigned k = i; k > 0 && heard[k - 1] < heard[k]; k--) {
			int64_t later = heard[k];

			heard[k] = heard[k - 1];
			heard[k - 1] = later;
		}
	return n ? heard[n / 2] : 0;
}

int64_t rlog_fresh_us(const struct rlog *rlog)
{
	struct learner_status s;

	if (rlog->learner) {
		learner_status(rlog->learner, &s);
		return s.fresh_us;
	}
	return rlog_raft_readable(rlog) && rlog->ready ? majority_heard(rlog)
						       : rlog->fresh_us;
}

int rlog_members(const struct rlog *rlog, struct rlog_member *out, int max)
{
	const struct raft_configuration *c = &rlog->raft.configuration;
	int n = 0;

	if (!rlog_raft_readable(rlog))
		return 0;
	for (; (unsigned)n < c->n && n < max; n++) {
		const struct raft_server *s = &c->servers[n];
		const struct rio_answer *a = rio_answer_of(rlog->rio, s->id);

		out[n] = (struct rlog_member){.id = s->id,
			.voter = s->role == RAFT_VOTER,
			.standby = s->role == RAFT_STANDBY,
			.match = a ? a->match : 0,
			.heard_us = a ? a->heard_us : 0};
		if (s->id == rlog->config.id) {
			out[n].match = raft_last_index((struct raft *)&rlog->raft);
			out[n].heard_us = loop_now_us(rlog->loop);
		}
		snprintf(out[n].address, sizeof out[n].address, "%s", s->address);
	}
	return n;
}

bool rlog_is_transferring(const struct rlog *rlog)
{
	return rlog->transferring;
}

void rlog_status(const struct rlog *rlog, struct rlog_status *out)
{
	struct rio_stats stats = {0};

	*out = (struct rlog_status){
		.state = rlog_current_state(rlog),
		.id = rlog->config.id,
		.term = rlog_current_term(rlog),
		.applied_index = rlog->applied_index,
		.applied_term = rlog->applied_term,
		.snapshot_age_ms = -1,
		.queued = rlog->queued,
		.healed = rlog->healed,
	};
	if (rlog->failing || rlog->stopped || rlog->stuck)
		out->error = rlog->error;
	rlog_fill_learner(rlog, out);
	out->last_term = out->applied_term;
	if (!rlog->rio)
		return;
	rio_stats(rlog->rio, &stats);
	out->snapshot_index = stats.snapshot_index;
	if (stats.snapshot_index)
		out->snapshot_age_ms =
			(loop_now_us(rlog->loop) - stats.snapshot_us) / 1000;
	out->disk_bytes = stats.disk_bytes;
	out->room = stats.room;
	out->low_space = stats.low_space;
	out->appends = stats.appends;
	out->syncs = stats.syncs;
	if (rlog_raft_readable(rlog))
		fill_servers(rlog, out);
	if (out->last_term < out->applied_term) /* the entry is in the snapshot */
		out->last_term = out->applied_term;
}
