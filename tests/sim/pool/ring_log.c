/*
 * The logs of all hosts side by side: what a leader counts as committed is on the disks
 * of a majority of those who vote, by an entry of its own term; and what is answered to
 * candidates. Checked at the moment itself: for an entry to be lost, or for nobody to be
 * electable any more, it takes besides a row of elections in a certain order.
 */
#include <string.h>

#include "pool/raft_io_internal.h"
#include "pool/raft_message.h"
#include "pool/rlog_internal.h"
#include "ring.h"

/* --- commits --- */

/* For sure: a host that is down, or opens its log, may have it. */
static bool lacks(
	const struct ring_host *h, uint64_t server, uint64_t index, uint64_t term)
{
	const struct rlog *log = h->pool ? pool_log(h->pool) : NULL;

	if (!log || log->config.id != server || !rlog_raft_readable(log) || !log->rio ||
		log->rio->stats.snapshot_index >= index)
		return false;
	return log->raft.last_stored < index || rio_term_at(log->rio, index) != term;
}

static void check_commit(struct ring_host *h, const struct rlog *log)
{
	const struct raft *raft = &log->raft;
	uint64_t index = raft->commit_index, term = rio_term_at(log->rio, index);
	unsigned voters = 0, without = 0;

	for (unsigned i = 0; i < raft->configuration.n; i++) {
		const struct raft_server *s = &raft->configuration.servers[i];
		const struct ring_host *other;
		struct uuid uuid;

		if (s->role != RAFT_VOTER ||
			uuid_parse(&uuid, s->address, strlen(s->address)))
			continue;
		other = ring_host_of(h->ring, &uuid);
		voters++;
		without += other && lacks(other, s->id, index, term);
	}
	if (voters < 2)
		return; /* what its disk has is committed */
	if (2 * (voters - without) <= voters)
		ring_fail(h->ring,
			"host%d counts entry %llu of its log as committed, %u of %u "
			"voters don't have it",
			h->index + 1, (unsigned long long)index, without, voters);
	if (term != raft->current_term)
		ring_fail(h->ring,
			"host%d leads in term %llu, and counts replicas of entry %llu, "
			"which is of term %llu",
			h->index + 1, (unsigned long long)raft->current_term,
			(unsigned long long)index, (unsigned long long)term);
}

void ring_log_event(struct ring_host *h)
{
	const struct rlog *log = pool_log(h->pool);
	uint64_t before = h->committed;

	if (!rlog_raft_readable(log) || !log->rio) {
		h->committed = UINT64_MAX;
		return;
	}
	h->committed = log->raft.commit_index;
	if (h->committed > before && log->raft.state == RAFT_LEADER)
		check_commit(h, log);
}

/* --- answers to candidates --- */

void ring_log_sent(struct ring_host *h, const uint8_t *bytes, size_t len)
{
	const struct rlog *log = pool_log(h->pool);
	const struct raft_request_vote_result *v;
	struct raft_message m;

	if (len < 16 + 2 || bytes[9] != RAFT_IO_REQUEST_VOTE_RESULT || !log->rio ||
		raft_message_decode(&m, bytes + 8, len - 16))
		return;
	v = &m.request_vote_result;
	/* A vote is about the log as it is on the disk: none is given meanwhile. But a
	 * leader may step down for a candidate: nobody counts what it is writing, and its
	 * vote asks for a log that has that, too. */
	if (v->vote_granted && log->state != RLOG_LEADER &&
		(!rio_ops_empty(&log->rio->ops) || !rio_ops_empty(&log->rio->done)))
		ring_fail(h->ring, "host%d votes while its log is being written",
			h->index + 1);
	if (v->pre_vote == raft_tribool_true && !v->vote_granted &&
		v->term < log->rio->meta.term)
		ring_fail(h->ring,
			"host%d refuses a candidate of term %llu, and keeps to itself "
			"that "
			"it knows of term %llu",
			h->index + 1, (unsigned long long)v->term,
			(unsigned long long)log->rio->meta.term);
}
