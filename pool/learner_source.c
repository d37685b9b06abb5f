#include "pool/learner_source.h"

#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "pool/frame.h"
#include "pool/segments.h"

/* --- segments --- */

struct source_load {
	struct job job;
	struct source *source; /* NULL: nobody wants it any more */
	struct disk *disk;
	struct defer *wake;
	uint64_t want;		    /* the entry looked for */
	bool before;		    /* it is the last that the learner has */
	uint64_t first, next_first; /* segments: that of `want`, the one after */
	uint8_t *bytes;
	size_t len, at;
	uint64_t term;
	int rc;
	struct rv_error error;
};

void source_init(struct source *s)
{
	*s = (struct source){.state = SOURCE_NONE};
}

static void snapshot_release(struct source_snapshot *shot);

void source_close(struct source *s, int *loads)
{
	if (s->state == SOURCE_LOADING || s->state == SOURCE_LOADED ||
		s->state == SOURCE_SEGMENT)
		(*loads)--;
	if (s->load)
		s->load->source = NULL;
	if (s->snapshot)
		snapshot_release(s->snapshot);
	free(s->bytes);
	source_init(s);
}

static void note_segment(void *arg, const char *name, uint64_t bytes)
{
	struct source_load *l = arg;
	uint64_t first;

	(void)bytes;
	if (!segments_parse_name(name, &first))
		return;
	if (first <= l->want && first > l->first)
		l->first = first;
	if (first == l->want + 1)
		l->next_first = first;
}

/* Finds where the wanted entry begins, and the term of what comes before the next. */
static int load_find(struct source_load *l)
{
	struct frame f;

	for (size_t at = 0; l->len - at >= FRAME_HEAD_SIZE;
		at += FRAME_HEAD_SIZE + f.len) {
		if (!frame_head_good(l->bytes + at, &f) ||
			f.len > l->len - at - FRAME_HEAD_SIZE)
			return RV_ENOENT;
		l->at = at;
		l->term = f.term;
		if (f.type != FRAME_SEGMENT && f.index == l->want)
			return 0;
		/* The learner's last entry is the one before this segment. */
		if (f.type == FRAME_SEGMENT && l->before && f.index == l->want + 1)
			return f.term ? 0 : RV_ENOENT;
		if (f.type != FRAME_SEGMENT && f.index > l->want)
			return RV_ENOENT;
	}
	return RV_ENOENT;
}

static void load_run(struct job *job)
{
	struct source_load *l = CONTAINER_OF(job, struct source_load, job);
	char name[DISK_NAME_MAX];

	l->rc = disk_list(l->disk, note_segment, l, &l->error);
	if (!l->rc && !l->first && l->before)
		l->first = l->next_first;
	if (!l->rc && !l->first)
		l->rc = RV_ENOENT;
	if (!l->rc)
		l->rc = disk_read(l->disk, segments_name(name, l->first), &l->bytes,
			&l->len, &l->error);
	if (!l->rc)
		l->rc = load_find(l);
}

static void load_done(struct job *job, int rc)
{
	struct source_load *l = CONTAINER_OF(job, struct source_load, job);
	struct source *s = l->source;

	if (s) {
		s->load = NULL;
		s->state = SOURCE_LOADED;
		s->rc = rc ? rc : l->rc;
		s->bytes = l->bytes;
		s->len = l->len;
		s->at = l->at;
		s->before_term = l->term;
		l->bytes = NULL;
		defer_start(l->wake);
	}
	free(l->bytes);
	free(l);
}

int source_load(struct source *s, struct disk *d, uint64_t index, bool after, int *loads,
	struct defer *wake)
{
	struct source_load *l;
	int held = s->state == SOURCE_NONE ? 0 : 1, rc;

	if (*loads - held >= SOURCE_LOADS)
		return RV_ELIMIT;
	source_close(s, loads);
	l = calloc(1, sizeof *l);
	if (!l)
		return RV_ENOMEM;
	l->job = (struct job){
		.run = load_run, .done = load_done, .name = "pool.feed.read"};
	l->source = s;
	l->disk = d;
	l->wake = wake;
	l->want = after ? index + 1 : index;
	l->before = !after;
	rc = disk_submit(d, DISK_LANE_BULK, &l->job);
	if (rc) {
		free(l);
		return RV_ELIMIT;
	}
	s->load = l;
	s->state = SOURCE_LOADING;
	(*loads)++;
	return 0;
}

bool source_entry(
	const struct source *s, uint64_t index, size_t *at, struct feed_entry *e)
{
	struct frame f;

	while (s->state == SOURCE_SEGMENT && s->len - *at >= FRAME_HEAD_SIZE) {
		enum frame_verdict v;

		if (!frame_head_good(s->bytes + *at, &f) || f.index > index)
			return false;
		if (f.type == FRAME_SEGMENT || f.index < index) {
			if (f.len > s->len - *at - FRAME_HEAD_SIZE)
				return false;
			*at += FRAME_HEAD_SIZE + f.len;
			continue;
		}
		v = frame_parse(s->bytes + *at, s->len - *at, &f);
		if (v != FRAME_GOOD && v != FRAME_HEALED)
			return false;
		*e = (struct feed_entry){.term = f.term,
			.type = f.type,
			.bytes = s->bytes + *at + FRAME_HEAD_SIZE,
			.len = f.len};
		*at += FRAME_HEAD_SIZE + f.len;
		return true;
	}
	return false;
}

/* --- snapshots --- */

struct source_snapshot {
	struct list node;
	struct job job;
	struct disk *disk;
	struct defer *wake;
	uint64_t index;
	int users;
	bool reading;
	int rc;
	struct rv_error error;
	struct snapfile file;
};

static void snapshot_free(struct source_snapshot *shot)
{
	list_remove(&shot->node);
	snapfile_fini(&shot->file);
	free(shot);
}

static void snapshot_release(struct source_snapshot *shot)
{
	if (--shot->users == 0 && !shot->reading)
		snapshot_free(shot);
}

static void snapshot_run(struct job *job)
{
	struct source_snapshot *shot = CONTAINER_OF(job, struct source_snapshot, job);
	char name[DISK_NAME_MAX];
	unsigned healed = 0;

	shot->rc = snapfile_read(&shot->file, shot->disk,
		snapfile_name(name, shot->index), &healed, &shot->error);
}

static void snapshot_done(struct job *job, int rc)
{
	struct source_snapshot *shot = CONTAINER_OF(job, struct source_snapshot, job);

	shot->reading = false;
	if (rc)
		shot->rc = rc;
	else if (shot->rc)
		log_warn("pool.feed", "msg=\"no snapshot for a learner: %s\"",
			shot->error.detail);
	if (shot->users == 0)
		snapshot_free(shot);
	else
		defer_start(shot->wake);
}

static struct source_snapshot *snapshot_new(
	struct list *all, struct disk *d, uint64_t index, struct defer *wake)
{
	struct source_snapshot *shot = calloc(1, sizeof *shot);

	if (!shot)
		return NULL;
	shot->disk = d;
	shot->index = index;
	shot->wake = wake;
	shot->reading = true;
	shot->job = (struct job){
		.run = snapshot_run, .done = snapshot_done, .name = "pool.feed.snapshot"};
	if (disk_submit(d, DISK_LANE_BULK, &shot->job)) {
		free(shot);
		return NULL;
	}
	list_push_back(all, &shot->node);
	return shot;
}

int source_snapshot(struct source *s, struct list *all, struct disk *d, uint64_t index,
	struct defer *wake)
{
	struct source_snapshot *found = NULL;

	if (index == 0)
		return RV_ENOENT;
	LIST_FOR_EACH (node, all) {
		struct source_snapshot *shot =
			CONTAINER_OF(node, struct source_snapshot, node);

		if (shot->index == index && (shot->reading || !shot->rc))
			found = shot;
	}
	if (!found)
		found = snapshot_new(all, d, index, wake);
	if (!found)
		return RV_ENOMEM;
	found->users++;
	s->snapshot = found;
	s->state = SOURCE_SNAPSHOT;
	return 0;
}

int source_file(const struct source *s, const struct snapfile **file)
{
	if (s->snapshot->reading)
		return RV_EAGAIN;
	*file = &s->snapshot->file;
	return s->snapshot->rc;
}

void source_forget(struct list *all)
{
	while (!list_empty(all))
		snapshot_free(CONTAINER_OF(all->next, struct source_snapshot, node));
}
