/* Entries of a learner: to disk, then into the state. */
#include "pool/learner.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "pool/learner_internal.h"
#include "pool/rlog_internal.h"

enum {
	GROUP_BYTES = 4 << 20, /* about, of one write */
	GROUP_ITEMS = 256,
	APPLY_SLICE = 64,
	APPLY_SLICE_BYTES = 256 << 10,
};

/* --- the log lane --- */

/* An entry is readable only if the term on disk is not behind it. */
static int raise_term(struct learner *l, uint64_t term, struct rv_error *e)
{
	if (l->meta.term >= term)
		return 0;
	l->meta.term = term;
	return slots_write_both(l->meta_file, FRAME_META, &l->meta, &l->meta_first, e);
}

struct doomed {
	uint64_t newest;
};

static void note_newest(void *arg, const char *name, uint64_t bytes)
{
	struct doomed *d = arg;
	uint64_t index;

	(void)bytes;
	if (snapfile_parse_name(name, &index) && index > d->newest)
		d->newest = index;
}

/* Newest first, the log before the snapshots: whatever a crash leaves is an older state
 * of the same history. */
static int wipe(struct learner *l, struct rv_error *e)
{
	char name[DISK_NAME_MAX];
	struct doomed d;
	int rc = segments_reset(&l->segments, 1, e);

	while (!rc) {
		d.newest = 0;
		rc = disk_list(l->config.disk, note_newest, &d, e);
		if (rc || !d.newest)
			break;
		rc = disk_remove(l->config.disk, snapfile_name(name, d.newest), e);
	}
	return rc;
}

static void job_run(struct job *job)
{
	struct learner_job *j = CONTAINER_OF(job, struct learner_job, job);
	struct learner *l = j->learner;

	rv_error_clear(&j->error);
	j->rc = 0;
	if (j->kind == LEARNER_APPEND || j->kind == LEARNER_RESET)
		j->rc = raise_term(l, j->term, &j->error);
	if (j->rc)
		return;
	switch (j->kind) {
	case LEARNER_APPEND:
		j->rc = segments_append(&l->segments, j->batches, j->count, &j->error);
		break;
	case LEARNER_RESET:
		j->rc = segments_reset(&l->segments, j->index + 1, &j->error);
		break;
	case LEARNER_WIPE:
		j->rc = wipe(l, &j->error);
		break;
	case LEARNER_PRUNE:
		j->rc = segments_prune(&l->segments, j->index + 1, &j->error);
		break;
	}
	j->bytes = segments_bytes(&l->segments);
}

static void written(struct learner *l)
{
	l->appends++;
	while (!list_empty(&l->writing)) {
		struct learner_item *item =
			CONTAINER_OF(l->writing.next, struct learner_item, node);

		l->log_bytes += item->cost;
		list_remove(&item->node);
		list_push_back(&l->applying, &item->node);
	}
	if (!l->closing)
		defer_start(&l->apply);
}

static void job_good(struct learner *l, struct learner_job *j)
{
	switch (j->kind) {
	case LEARNER_APPEND:
		written(l);
		break;
	case LEARNER_RESET:
		l->written_index = j->index;
		l->written_term = j->term;
		learner_install_reset(l);
		break;
	case LEARNER_WIPE:
		learner_install_wiped(l);
		break;
	case LEARNER_PRUNE:
		break;
	}
}

static void job_done(struct job *job, int rc)
{
	struct learner_job *j = CONTAINER_OF(job, struct learner_job, job);
	struct learner *l = j->learner;

	j->running = false;
	if (l->abandoned)
		return;
	if (rc)
		j->rc = rv_error_set(&j->error, rc, "the log's disk was closed");
	else
		l->segment_bytes = j->bytes;
	if (!j->rc)
		job_good(l, j);
	else if (j->kind == LEARNER_PRUNE)
		log_warn("pool.learner", "msg=\"%s\"", j->error.detail);
	else
		learner_fail(l, j->rc, &j->error);
	learner_pump(l);
	learner_close_step(l);
}

bool learner_write_job(
	struct learner *l, enum learner_write kind, uint64_t index, uint64_t term)
{
	struct learner_job *j = &l->job;
	struct rv_error e;

	j->job = (struct job){
		.run = job_run, .done = job_done, .name = "pool.learner.write"};
	j->learner = l;
	j->kind = kind;
	j->index = index;
	j->term = term;
	j->running = true;
	if (!disk_submit(l->config.disk, DISK_LANE_LOG, &j->job))
		return true;
	j->running = false;
	learner_fail(l, rv_error_set(&e, RV_ELIMIT, "log: its thread takes no work"), &e);
	return false;
}

static bool batch_add(struct learner_job *j, const struct learner_item *item)
{
	if (j->count == j->size) {
		unsigned size = j->size ? 2 * j->size : 16;
		struct segments_batch *more = realloc(j->batches, size * sizeof *more);

		if (!more)
			return false;
		j->batches = more;
		j->size = size;
	}
	j->batches[j->count++] = (struct segments_batch){item->entries, item->m.count};
	return true;
}

/* All entries in a row become one write and one sync. */
static void write_entries(struct learner *l)
{
	struct learner_job *j = &l->job;
	size_t bytes = 0;

	j->count = 0;
	while (!list_empty(&l->waiting) && j->count < GROUP_ITEMS) {
		struct learner_item *item =
			CONTAINER_OF(l->waiting.next, struct learner_item, node);

		if (item->m.kind != FEED_ENTRIES ||
			(bytes > 0 && bytes + item->cost > GROUP_BYTES) ||
			!batch_add(j, item))
			break;
		bytes += item->cost;
		list_remove(&item->node);
		list_push_back(&l->writing, &item->node);
		l->written_index = item->m.index + item->m.count;
		l->written_term = item->entries[item->m.count - 1].term;
	}
	if (j->count > 0)
		learner_write_job(l, LEARNER_APPEND, l->written_index, l->written_term);
}

bool learner_drained(const struct learner *l)
{
	return !l->job.running && list_empty(&l->writing) && list_empty(&l->applying);
}

void learner_pump(struct learner *l)
{
	struct learner_item *first;

	if (l->job.running || l->failed || l->abandoned)
		return;
	if (l->prune_to && !l->closing) {
		uint64_t index = l->prune_to;

		l->prune_to = 0;
		if (learner_write_job(l, LEARNER_PRUNE, index, 0))
			return;
	}
	if (list_empty(&l->waiting) || l->install.state != INSTALL_IDLE) {
		if (l->install.state == INSTALL_DATA && !list_empty(&l->waiting))
			learner_install_next(l);
		return;
	}
	first = CONTAINER_OF(l->waiting.next, struct learner_item, node);
	if (first->m.kind == FEED_ENTRIES)
		write_entries(l);
	else if (learner_drained(l) && !l->closing)
		learner_install_next(l);
}

/* --- applying --- */

static int apply_entry(struct learner *l, uint64_t index, const struct raft_entry *entry)
{
	const uint8_t *bytes = entry->buf.base;
	int rc = 0;

	if (entry->type == RAFT_CHANGE)
		rc = learner_set_conf(l, bytes, entry->buf.len, index);
	else if (entry->type == RAFT_COMMAND && bytes[0] != RLOG_KIND_BARRIER)
		rc = l->config.fsm->apply(l->config.fsm_arg, bytes[0], bytes + 1,
			entry->buf.len - 1, index, entry->term);
	if (rc) {
		l->stuck = true;
		learner_lose(l, "an entry can't be applied here");
		l->config.events->stuck(l->config.arg, rc, index);
		return rc;
	}
	l->applied_index = index;
	l->applied_term = entry->term;
	return 0;
}

/* What the disk held when it was opened. False: all of it is applied. */
static bool replay_some(struct learner *l)
{
	struct recovered *r = &l->recovered;
	size_t bytes = 0;

	for (int n = 0; n < APPLY_SLICE && bytes < APPLY_SLICE_BYTES; n++) {
		const struct raft_entry *entry;
		uint64_t index;

		if (l->replayed == r->count)
			return false;
		entry = &r->entries[l->replayed];
		index = r->start_index + l->replayed;
		if (index > l->applied_index) {
			if (apply_entry(l, index, entry))
				return false;
			bytes += entry->buf.len;
			l->log_bytes += FRAME_HEAD_SIZE + entry->buf.len;
		} else if (entry->type == RAFT_CHANGE && index > l->conf_index &&
			   learner_set_conf(l, entry->buf.base, entry->buf.len, index)) {
			return false;
		}
		l->replayed++;
	}
	return true;
}

static void now_open(struct learner *l)
{
	struct recovered rest = l->recovered;

	l->recovered = (struct recovered){0};
	recovered_fini(&rest);
	l->open = true;
	learner_touched(l);
}

static void apply_some(void *arg)
{
	struct learner *l = arg;
	size_t bytes = 0;

	if (l->closing || l->stuck)
		return;
	if (!l->open) {
		if (replay_some(l)) {
			defer_start(&l->apply);
			return;
		}
		now_open(l);
	}
	for (int n = 0; n < APPLY_SLICE && bytes < APPLY_SLICE_BYTES; n++) {
		struct learner_item *item;
		const struct raft_entry *entry;

		if (list_empty(&l->applying))
			break;
		item = CONTAINER_OF(l->applying.next, struct learner_item, node);
		entry = &item->entries[item->done];
		if (apply_entry(l, item->m.index + ++item->done, entry))
			return;
		bytes += entry->buf.len;
		if (item->done == item->m.count)
			learner_item_free(l, item);
	}
	defer_start(&l->ack);
	if (!list_empty(&l->applying))
		defer_start(&l->apply);
	else
		learner_touched(l); /* it may be what it was told to become */
	learner_snapshot_check(l);
	learner_pump(l);
}

/* --- the rest --- */

void learner_write_init(struct learner *l)
{
	defer_init(&l->apply, l->loop, "pool.learner.apply", apply_some, l);
}

void learner_write_fini(struct learner *l)
{
	defer_stop(&l->apply);
	for (int i = 0; i < 2; i++) {
		struct list *list = i ? &l->applying : &l->writing;

		while (!list_empty(list))
			learner_item_free(
				l, CONTAINER_OF(list->next, struct learner_item, node));
	}
	free(l->job.batches);
}
