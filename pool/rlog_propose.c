/* The life of proposals, and the entries on their way into the state machine. */
#include "pool/rlog.h"

#include <assert.h>
#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "base/limits.h"
#include "base/log.h"
#include "pool/rlog_internal.h"

enum {
	SUBMIT_BATCH = 64,
	APPLY_SLICE = 64,
	APPLY_SLICE_BYTES = 64 << 10,
	TAKE_RETRY_US = 30 * 1000000,
};

/* One raft_apply for several proposals. libraft calls back for the first entry alone; we
 * go by index and term instead. */
struct rlog_batch {
	struct raft_apply req;
};

static void batch_applied(struct raft_apply *req, int status, void *result)
{
	(void)status;
	(void)result;
	free(CONTAINER_OF(req, struct rlog_batch, req));
}

/* --- ends --- */

static void proposal_end(
	struct rlog *rlog, struct rlog_proposal *p, enum rlog_outcome outcome, int rc)
{
	list_remove(&p->node);
	raft_free(p->bytes);
	p->bytes = NULL;
	if (p != &rlog->term_barrier)
		rlog->queued--;
	p->fn(p, outcome, rc);
}

static struct rlog_proposal *first_of(struct list *l)
{
	return CONTAINER_OF(l->next, struct rlog_proposal, node);
}

void rlog_reject_fresh(struct rlog *rlog, int rc)
{
	struct list doomed;

	/* Callbacks may propose anew. */
	list_init(&doomed);
	while (!list_empty(&rlog->fresh)) {
		struct list *node = rlog->fresh.next;

		list_remove(node);
		list_push_back(&doomed, node);
	}
	rlog->fresh_bytes = 0;
	while (!list_empty(&doomed))
		proposal_end(rlog, first_of(&doomed), RLOG_REJECTED, rc);
}

void rlog_date_pending(struct rlog *rlog)
{
	int64_t until =
		loop_now_us(rlog->loop) + 1000 * (int64_t)rlog->config.outcome_timeout_ms;

	LIST_FOR_EACH (node, &rlog->pending) {
		struct rlog_proposal *p = CONTAINER_OF(node, struct rlog_proposal, node);

		if (!p->deadline_us)
			p->deadline_us = until;
	}
	if (!list_empty(&rlog->pending))
		timer_start_ms(&rlog->sweep, rlog->config.outcome_timeout_ms);
}

void rlog_sweep(void *arg)
{
	struct rlog *rlog = arg;
	int64_t now = loop_now_us(rlog->loop), next = INT64_MAX;
	struct list doomed;

	list_init(&doomed);
	LIST_FOR_EACH_SAFE (node, &rlog->pending) {
		struct rlog_proposal *p = CONTAINER_OF(node, struct rlog_proposal, node);

		if (!p->deadline_us)
			continue;
		if (p->deadline_us > now) {
			next = p->deadline_us < next ? p->deadline_us : next;
			continue;
		}
		list_remove(node);
		list_push_back(&doomed, node);
	}
	if (next != INT64_MAX)
		timer_start_us(&rlog->sweep, next - now);
	while (!list_empty(&doomed))
		proposal_end(rlog, first_of(&doomed), RLOG_UNKNOWN, RV_EOUTCOME);
}

void rlog_end_pending(
	struct rlog *rlog, uint64_t after, enum rlog_outcome outcome, int rc)
{
	struct list doomed;

	list_init(&doomed);
	LIST_FOR_EACH_SAFE (node, &rlog->pending) {
		if (CONTAINER_OF(node, struct rlog_proposal, node)->index <= after)
			continue;
		list_remove(node);
		list_push_back(&doomed, node);
	}
	while (!list_empty(&doomed))
		proposal_end(rlog, first_of(&doomed), outcome, rc);
}

void rlog_forget_up_to(struct rlog *rlog, uint64_t index)
{
	while (!list_empty(&rlog->pending) && first_of(&rlog->pending)->index <= index)
		proposal_end(rlog, first_of(&rlog->pending), RLOG_UNKNOWN, RV_EOUTCOME);
}

/* The entry at `index` is applied: whose was it, and whom did it replace? */
static void pending_applied(struct rlog *rlog, uint64_t index, uint64_t term)
{
	while (!list_empty(&rlog->pending)) {
		struct rlog_proposal *p = first_of(&rlog->pending);

		if (p->index > index)
			break;
		if (p->index == index && p->term == term)
			proposal_end(rlog, p, RLOG_COMMITTED, 0);
		else
			proposal_end(rlog, p, RLOG_REJECTED, RV_ENOTMASTER);
	}
}

/* --- handing over --- */

/* By index: some of an earlier leadership of ours may wait with greater ones. */
static void pending_add(struct rlog *rlog, struct rlog_proposal *p)
{
	struct list *at = &rlog->pending;

	while (at->prev != &rlog->pending &&
		CONTAINER_OF(at->prev, struct rlog_proposal, node)->index > p->index)
		at = at->prev;
	list_insert_before(at, &p->node);
}

/* Up to SUBMIT_BATCH fresh proposals become one append. */
static int submit_batch(struct rlog *rlog)
{
	struct rlog_batch *batch = calloc(1, sizeof *batch);
	struct raft_buffer bufs[SUBMIT_BATCH] = {{0}};
	struct rlog_proposal *p;
	unsigned n = 0;
	int r;

	if (!batch)
		return RV_ENOMEM;
	LIST_FOR_EACH (node, &rlog->fresh) {
		p = CONTAINER_OF(node, struct rlog_proposal, node);
		bufs[n].base = p->bytes;
		bufs[n].len = p->len;
		if (++n == SUBMIT_BATCH)
			break;
	}
	r = raft_apply(&rlog->raft, &batch->req, bufs, n, batch_applied);
	if (r) {
		free(batch);
		return rlog_from_raft(r);
	}
	for (unsigned i = 0; i < n; i++) {
		p = first_of(&rlog->fresh);
		list_remove(&p->node);
		rlog->fresh_bytes -= p->len;
		p->bytes = NULL; /* libraft's now */
		p->index = batch->req.index + i;
		p->term = rlog->lead_term;
		pending_add(rlog, p);
	}
	return 0;
}

static void submit(void *arg)
{
	struct rlog *rlog = arg;
	int rc = 0;

	while (!list_empty(&rlog->fresh) && rlog->raft_live && rlog->leads &&
		!rlog->raft.transfer && !rc)
		rc = submit_batch(rlog);
	if (rc)
		rlog_reject_fresh(rlog, rc);
	rlog_look(rlog);
}

static void propose(struct rlog *rlog, struct rlog_proposal *p, uint8_t *bytes,
	size_t len, rlog_proposal_fn *fn)
{
	p->rlog = rlog;
	p->fn = fn;
	p->index = p->term = 0;
	p->deadline_us = 0;
	p->bytes = bytes;
	p->len = len;
	rlog->fresh_bytes += len;
	list_push_back(&rlog->fresh, &p->node);
	defer_start(&rlog->submit);
}

/* Room in the space already set aside, for all that waits and this. */
static bool has_room(struct rlog *rlog, size_t len, bool essential)
{
	struct rio_stats stats;
	uint64_t need = len + FRAME_HEAD_SIZE + rlog->fresh_bytes +
			(uint64_t)FRAME_HEAD_SIZE * (unsigned)rlog->queued;

	rio_stats(rlog->rio, &stats);
	if (!stats.low_space)
		return true;
	if (!essential)
		need += rlog->config.reserve_bytes;
	return stats.room >= stats.queued + need;
}

int rlog_propose(struct rlog *rlog, struct rlog_proposal *p, uint8_t kind,
	const void *bytes, size_t len, bool essential, rlog_proposal_fn *fn)
{
	uint8_t *copy;

	if (rlog->stopping || rlog->stopped || rlog->state == RLOG_STOPPED)
		return RV_ECLOSED;
	if (rlog->state == RLOG_FAILED || rlog->failing)
		return rlog->error.code == RV_ESPACE ? RV_ESPACE : RV_EIO;
	if (!rlog->ready)
		return RV_ENOTMASTER;
	if (kind != RLOG_KIND_BARRIER && rlog_clash(rlog, NULL))
		return RV_ENOTALLOWED;
	if (len > RV_MAX_ENTRY_BYTES)
		return RV_ETOOBIG;
	if (rlog->queued >= RV_MAX_COMMITS_QUEUED)
		return RV_ELIMIT;
	if (!has_room(rlog, len, essential))
		return RV_ESPACE;
	copy = raft_malloc(len + 1);
	if (!copy)
		return RV_ENOMEM;
	copy[0] = kind;
	if (len > 0)
		memcpy(copy + 1, bytes, len);
	rlog->queued++;
	propose(rlog, p, copy, len + 1, fn);
	return 0;
}

int rlog_barrier(struct rlog *rlog, struct rlog_proposal *p, rlog_proposal_fn *fn)
{
	return rlog_propose(rlog, p, RLOG_KIND_BARRIER, NULL, 0, true, fn);
}

/* --- a new leader --- */

static void term_barrier_ended(struct rlog_proposal *p, enum rlog_outcome outcome, int rc)
{
	struct rlog *rlog = p->rlog;

	(void)rc;
	rlog->barrier_pending = false;
	if (outcome == RLOG_COMMITTED && rlog->leads && p->term == rlog->lead_term)
		rlog->ready = true;
	if (!rlog->freeing)
		defer_start(&rlog->tell);
}

/* Its own entry commits what earlier leaders left; then it is the master. */
void rlog_begin_leading(struct rlog *rlog)
{
	uint8_t *bytes;

	if (rlog->barrier_pending)
		return; /* an earlier one's end will have us looked at again */
	bytes = raft_malloc(1);
	if (!bytes)
		return;
	bytes[0] = RLOG_KIND_BARRIER;
	rlog->barrier_pending = true;
	propose(rlog, &rlog->term_barrier, bytes, 1, term_barrier_ended);
}

/* Its outcome is of no interest once the leadership is lost. */
void rlog_forget_barrier(struct rlog *rlog)
{
	struct rlog_proposal *p = &rlog->term_barrier;

	if (!rlog->barrier_pending)
		return;
	if (p->bytes)
		rlog->fresh_bytes -= p->len;
	proposal_end(rlog, p, RLOG_UNKNOWN, RV_EOUTCOME);
}

/* --- applying --- */

bool rlog_applying(void *arg)
{
	struct rlog *rlog = arg;

	return rlog->item_start != rlog->item_end;
}

void rlog_drop_items(struct rlog *rlog)
{
	rlog->item_start = rlog->item_end = 0;
	defer_stop(&rlog->apply);
}

static bool items_room(struct rlog *rlog)
{
	if (rlog->item_start == rlog->item_end)
		rlog->item_start = rlog->item_end = 0;
	if (rlog->item_end < rlog->item_size)
		return true;
	if (rlog->item_start > rlog->item_size / 2) {
		memmove(rlog->items, rlog->items + rlog->item_start,
			(rlog->item_end - rlog->item_start) * sizeof *rlog->items);
		rlog->item_end -= rlog->item_start;
		rlog->item_start = 0;
	} else {
		size_t size = rlog->item_size ? 2 * rlog->item_size : 256;
		struct rlog_item *more = realloc(rlog->items, size * sizeof *more);

		if (!more)
			return false;
		rlog->items = more;
		rlog->item_size = size;
	}
	return true;
}

/* libraft has committed an entry. It is applied soon, a few per callback; libraft keeps
 * the bytes at least until the next snapshot, which waits for us. */
int rlog_fsm_apply(struct raft_fsm *fsm, const struct raft_buffer *buf, void **result)
{
	struct rlog *rlog = fsm->data;
	uint64_t index = rlog->raft.last_applied + 1;

	*result = NULL;
	if (rlog->stuck || index <= rlog->applied_index)
		return 0;
	if (!items_room(rlog))
		return RAFT_NOMEM;
	rlog->items[rlog->item_end++] = (struct rlog_item){
		.index = index,
		.term = rio_term_at(rlog->rio, index),
		.bytes = buf->base,
		.len = buf->len,
	};
	defer_start(&rlog->apply);
	return 0;
}

void rlog_get_stuck(struct rlog *rlog, uint64_t index, int rc)
{
	rlog->stuck = true;
	rv_error_set(&rlog->error, rc,
		"this host can't apply entry %" PRIu64
		" of the pool's log (%s) and stops there; its VMs go on. Update reeved "
		"on "
		"this host",
		index, rv_error_text(rc));
	log_error("pool.log", "msg=\"%s\"", rlog->error.detail);
	rlog_drop_items(rlog);
	rlog_end_pending(rlog, 0, RLOG_UNKNOWN, RV_EOUTCOME);
	defer_start(&rlog->tell);
}

static int apply_item(struct rlog *rlog, const struct rlog_item *item)
{
	uint8_t kind = item->bytes[0];
	int rc = 0;

	if (kind != RLOG_KIND_BARRIER)
		rc = rlog->fsm->apply(rlog->arg, kind, item->bytes + 1, item->len - 1,
			item->index, item->term);
	if (rc)
		return rc;
	rlog->applied_index = item->index;
	rlog->applied_term = item->term;
	pending_applied(rlog, item->index, item->term);
	return 0;
}

/* Everything up to where libraft wants its snapshot is applied: fix the state now. */
static void snapshot_begin(struct rlog *rlog)
{
	int rc;

	rlog->snapshot_at = 0;
	rc = rlog->fsm->snapshot_begin(rlog->arg);
	rlog->snapshot_begun = !rc;
	rio_take_begin(rlog->rio, rc);
}

static void apply_some(void *arg)
{
	struct rlog *rlog = arg;
	size_t bytes = 0;

	for (int n = 0; n < APPLY_SLICE && bytes < APPLY_SLICE_BYTES; n++) {
		struct rlog_item item;
		int rc;

		if (rlog->snapshot_at &&
			(!rlog_applying(rlog) ||
				rlog->items[rlog->item_start].index > rlog->snapshot_at))
			snapshot_begin(rlog);
		if (!rlog_applying(rlog))
			break;
		item = rlog->items[rlog->item_start++];
		rc = apply_item(rlog, &item);
		if (rc) {
			rlog_get_stuck(rlog, item.index, rc);
			return;
		}
		bytes += item.len;
	}
	if (rlog_applying(rlog))
		defer_start(&rlog->apply);
	rlog_snapshot_check(rlog);
	rlog_look(rlog);
}

/* Lowers libraft's threshold when it is time; libraft looks at it with the next commit.
 */
void rlog_snapshot_check(struct rlog *rlog)
{
	struct rio_stats stats;
	uint64_t entries;
	bool due;

	if (!rlog->raft_live || rlog->snapshot_wanted || rlog->stuck)
		return;
	rio_stats(rlog->rio, &stats);
	entries = rlog->applied_index - stats.snapshot_index;
	due = entries >= rlog->config.snapshot_entries ||
	      stats.log_bytes >= rlog->config.snapshot_bytes;
	if (stats.take_failed_us &&
		loop_now_us(rlog->loop) - stats.take_failed_us < TAKE_RETRY_US)
		due = false;
	if (rlog->applied_index <= stats.snapshot_index || stats.taking ||
		(!due && !rlog->snapshot_asked))
		return;
	rlog->snapshot_asked = false;
	rlog->snapshot_wanted = true;
	raft_set_snapshot_threshold(&rlog->raft, 1);
}

/* --- the rest --- */

void rlog_propose_init(struct rlog *rlog)
{
	list_init(&rlog->fresh);
	list_init(&rlog->pending);
	list_init(&rlog->term_barrier.node);
	defer_init(&rlog->submit, rlog->loop, "pool.log.submit", submit, rlog);
	defer_init(&rlog->apply, rlog->loop, "pool.log.apply", apply_some, rlog);
}

void rlog_propose_fini(struct rlog *rlog)
{
	defer_stop(&rlog->submit);
	rlog_drop_items(rlog);
	rlog_reject_fresh(rlog, RV_ECLOSED);
	rlog_end_pending(rlog, 0, RLOG_UNKNOWN, RV_EOUTCOME);
	free(rlog->items);
}
