/* The entries of a log as its segments hold them: each frame checked, healed, or found to
 * be where the log ends (recover.h). */
#include "pool/recover.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "pool/raft_conf.h"
#include "pool/recover_internal.h"

struct reader {
	struct recovered *r;
	struct disk *disk;
	char name[DISK_NAME_MAX];
	uint8_t *bytes;
	size_t len, at; /* at: where the next frame is expected */
	bool started;	/* link, next are known */
	bool last;	/* the file read is the last one */
	uint64_t link, term, next;
	uint64_t synced;    /* the most that any frame proves */
	uint64_t load_from; /* entries before are not kept */
	size_t size;	    /* allocated entries */
	uint64_t mark_link; /* link of the entry that the mark names; 0: not seen */
};

static int corrupt(struct reader *rd, struct rv_error *e, const char *what)
{
	return rv_error_set(e, RV_ECORRUPT,
		"%s/%s: %s at offset %zu, entry %" PRIu64
		", which was acknowledged: " RECOVER_REJOIN,
		rd->disk->path, rd->name, what, rd->at, rd->next);
}

/* Puts a healed frame back on disk; not vital. */
static void repair(struct reader *rd, const struct frame *f)
{
	struct disk_file *file = NULL;
	struct rv_error e;
	int rc = disk_open(rd->disk, rd->name, &file, &e);

	if (!rc)
		rc = disk_write(
			file, rd->at, rd->bytes + rd->at, FRAME_HEAD_SIZE + f->len, &e);
	if (!rc)
		rc = disk_sync(file, &e);
	disk_close(file);
	rd->r->healed++;
	log_warn("pool.recover",
		"file=%s/%s offset=%zu entry=%" PRIu64 " msg=\"a damaged byte was %s\"",
		rd->disk->path, rd->name, rd->at, f->index,
		rc ? "read around; it could not be repaired on disk" : "repaired");
}

int recover_keep_entry(struct recovered *r, size_t *room, const struct frame *f,
	const uint8_t *body, struct rv_error *e)
{
	struct raft_entry *entry;

	if (r->count == *room) {
		size_t size = *room ? 2 * *room : 256;
		struct raft_entry *more =
			raft_realloc(r->entries, size * sizeof *r->entries);

		if (!more)
			return rv_error_set(e, RV_ENOMEM, "read the log: out of memory");
		r->entries = more;
		*room = size;
	}
	entry = &r->entries[r->count];
	*entry = (struct raft_entry){.term = f->term, .type = f->type};
	entry->buf.len = f->len;
	entry->buf.base = raft_malloc(f->len ? f->len : 1);
	if (!entry->buf.base)
		return rv_error_set(e, RV_ENOMEM, "read the log: out of memory");
	memcpy(entry->buf.base, body, f->len);
	if (r->count++ == 0)
		r->start_index = f->index;
	return 0;
}

/* libraft asserts on what it is given: check all that it relies on. */
static int check_entry(
	struct reader *rd, const struct frame *f, const uint8_t *body, struct rv_error *e)
{
	struct raft_configuration conf;

	if (f->type < FRAME_COMMAND || f->type > FRAME_CHANGE || f->term == 0 ||
		f->term < rd->term || f->term > rd->r->meta.term || f->len == 0)
		return corrupt(rd, e, "an entry that can't be");
	if (f->index == 1 && f->type != FRAME_CHANGE)
		return corrupt(rd, e, "a first entry that is no configuration");
	if (f->type != FRAME_CHANGE)
		return 0;
	if (raft_conf_decode(body, f->len, &conf))
		return corrupt(rd, e, "an unreadable configuration");
	raft_configuration_close(&conf);
	return 0;
}

static int take_frame(struct reader *rd, const struct frame *f, struct rv_error *e)
{
	const uint8_t *body = rd->bytes + rd->at + FRAME_HEAD_SIZE;
	int rc;

	if (f->synced > rd->synced)
		rd->synced = f->synced;
	if (f->type == FRAME_SEGMENT) {
		rd->term = f->term;
	} else {
		rc = check_entry(rd, f, body, e);
		if (!rc && f->index >= rd->load_from)
			rc = recover_keep_entry(rd->r, &rd->size, f, body, e);
		if (rc)
			return rc;
		if (f->index == rd->r->segments.mark.value)
			rd->mark_link = f->link;
		rd->term = f->term;
		rd->next = f->index + 1;
	}
	rd->link = f->link;
	rd->at += FRAME_HEAD_SIZE + f->len;
	return 0;
}

/* Each byte is as the one before it: what is set aside for the log is megabytes of zeros,
 * and byte by byte they were most of what a start has to do. */
static bool all_zero(const uint8_t *bytes, size_t len)
{
	return len == 0 || (bytes[0] == 0 && memcmp(bytes, bytes + 1, len - 1) == 0);
}

/* Whether the frame is the one that must come at this place. */
static bool fits(const struct reader *rd, const struct frame *f, bool first)
{
	if (first != (f->type == FRAME_SEGMENT))
		return false;
	if (!rd->started)
		return first;
	return f->prev == rd->link && f->index == rd->next;
}

/* The most that any undamaged head in the rest of the file proves. */
static uint64_t proof_behind(const struct reader *rd)
{
	uint64_t proof = 0;
	struct frame f;

	for (size_t at = rd->at; rd->len - at >= FRAME_HEAD_SIZE; at++)
		if (frame_head_good(rd->bytes + at, &f) && f.synced > proof)
			proof = f.synced;
	return proof;
}

/* A process that was killed may leave bytes in the page cache alone, and a failed sync
 * bytes that only look written: what is built upon is written again and synced. */
static int settle_tail(struct reader *rd, struct rv_error *e)
{
	struct disk_file *file = NULL;
	int rc = disk_open(rd->disk, rd->name, &file, e);

	if (!rc)
		rc = disk_write(file, 0, rd->bytes, rd->at, e);
	if (!rc && rd->at < rd->len)
		rc = disk_truncate(file, rd->at, e);
	if (!rc)
		rc = disk_sync(file, e);
	disk_close(file);
	return rc;
}

/* The frame at rd->at is not readable: torn, or damaged? */
static int judge_end(struct reader *rd, struct rv_error *e)
{
	struct recovered *r = rd->r;
	uint64_t proof = rd->synced;

	if (proof_behind(rd) > proof)
		proof = proof_behind(rd);
	if (r->segments.mark.value > proof)
		proof = r->segments.mark.value;
	if (!rd->last)
		return 0; /* the next segment's beginning tells */
	if (proof >= rd->next)
		return corrupt(rd, e, "damage");
	r->cut_bytes = rd->len - rd->at;
	snprintf(r->cut_where, sizeof r->cut_where, "%s offset %zu", rd->name, rd->at);
	return 0;
}

static int read_frames(struct reader *rd, struct rv_error *e)
{
	bool first = true;
	struct frame f;
	int rc;

	rd->at = 0;
	while (rd->at < rd->len) {
		uint8_t *here = rd->bytes + rd->at;
		size_t left = rd->len - rd->at;
		enum frame_verdict v;

		if (all_zero(here, left < FRAME_HEAD_SIZE ? left : FRAME_HEAD_SIZE) &&
			all_zero(here, left))
			break;
		v = frame_parse(here, left, &f);
		if ((v != FRAME_GOOD && v != FRAME_HEALED) || !fits(rd, &f, first)) {
			if (first)
				return corrupt(rd, e, "a damaged beginning");
			return judge_end(rd, e);
		}
		if (!rd->started) {
			rd->started = true;
			rd->next = f.index;
		}
		if (v == FRAME_HEALED)
			repair(rd, &f);
		rc = take_frame(rd, &f, e);
		if (rc)
			return rc;
		first = false;
	}
	if (first)
		return corrupt(rd, e, "nothing but zeros");
	return 0;
}

static int read_segment(struct reader *rd, uint64_t first, struct rv_error *e)
{
	struct segment found = {.first = first};
	int rc;

	segments_name(rd->name, first);
	rc = disk_read(rd->disk, rd->name, &rd->bytes, &rd->len, e);
	if (rc)
		return rc;
	rd->at = 0;
	if (rd->started && rd->next != first)
		rc = corrupt(
			rd, e, "the file before it ends too early; damage in it, found");
	if (!rc)
		rc = read_frames(rd, e);
	if (!rc && rd->next == first)
		rc = corrupt(rd, e, "a segment without entries");
	if (!rc && rd->last)
		rc = settle_tail(rd, e);
	free(rd->bytes);
	rd->bytes = NULL;
	if (rc)
		return rc;
	found.last = rd->next - 1;
	found.bytes = rd->at;
	if (segments_add(&rd->r->segments, &found))
		return rv_error_set(e, RV_ENOMEM, "read the log: out of memory");
	return 0;
}

void recover_forget_entries(struct recovered *r)
{
	for (size_t i = 0; i < r->count; i++)
		raft_free(r->entries[i].buf.base);
	raft_free(r->entries);
	r->entries = NULL;
	r->count = 0;
}

/* An installed snapshot whose log was not yet cleared away, or a log wholly behind its
 * snapshot: the snapshot alone counts. */
static int drop_log(struct reader *rd, struct rv_error *e)
{
	struct recovered *r = rd->r;
	struct segments *s = &r->segments;
	int rc;

	recover_forget_entries(r);
	r->start_index = r->snapshot.index + 1;
	s->next = rd->next;
	s->term = rd->term;
	rc = disk_open(rd->disk, SEGMENTS_MARK, &s->mark_file, e);
	if (!rc)
		rc = segments_reset(s, r->snapshot.index + 1, e);
	rd->next = r->snapshot.index + 1;
	rd->link = 0;
	rd->term = r->snapshot.term;
	rd->mark_link = rd->synced = 0;
	return rc;
}

static int match_snapshot(struct reader *rd, struct rv_error *e)
{
	struct recovered *r = rd->r;
	uint64_t index = r->snapshot.index;

	if (rd->next <= index && r->segments.mark.value <= index)
		return drop_log(rd, e);
	if (r->count > 0 && r->start_index <= index &&
		r->entries[index - r->start_index].term != r->snapshot.term)
		return drop_log(rd, e);
	return 0;
}

/* The log must reach what the mark promised, and be the log that it promised. */
static int match_mark(struct reader *rd, struct rv_error *e)
{
	const struct slots *mark = &rd->r->segments.mark;
	uint64_t promised = mark->value > rd->synced ? mark->value : rd->synced;

	if (promised >= rd->next)
		return rv_error_set(e, RV_ECORRUPT,
			"%s/%s: the log ends at entry %" PRIu64 ", but %" PRIu64
			" were acknowledged: " RECOVER_REJOIN,
			rd->disk->path, rd->name[0] ? rd->name : "(no segment)",
			rd->next - 1, promised);
	if (rd->mark_link && mark->identity && rd->mark_link != mark->identity)
		return rv_error_set(e, RV_ECORRUPT,
			"%s: entry %" PRIu64
			" is not the one that was acknowledged (files "
			"of another log?): " RECOVER_REJOIN,
			rd->disk->path, mark->value);
	return 0;
}

/* The first segment that is needed: those before hold nothing that counts. */
static size_t first_needed(const struct recover_listing *l, const struct recovered *r)
{
	size_t i = 0;

	while (r->has_snapshot && i + 1 < l->segment_count &&
		l->segments[i + 1] <= r->snapshot.index + 1)
		i++;
	return i;
}

int recover_read_segments(struct recovered *r, struct disk *d,
	const struct recover_listing *l, const struct recover_config *config,
	struct rv_error *e)
{
	struct reader rd = {.r = r, .disk = d, .next = 1};
	uint64_t after = r->has_snapshot ? r->snapshot.index + 1 : 1;
	size_t needed = first_needed(l, r);
	uint64_t trailing;
	int rc = 0;

	r->start_index = after;
	rd.next = after;
	rd.term = r->has_snapshot ? r->snapshot.term : 0;
	/* At least the snapshot's own entry, to compare terms. */
	trailing = config->trailing ? config->trailing : 1;
	rd.load_from = after > trailing ? after - trailing : 1;
	for (size_t i = 0; i < l->segment_count && !rc; i++) {
		struct segment old = {.first = l->segments[i]};

		if (i == needed) {
			rd.started = false;
			rd.term = 0;
		}
		if (i < needed) {
			/* Kept for the snapshot before; not read. */
			old.last = l->segments[i + 1] - 1;
			rc = segments_add(&r->segments, &old);
			continue;
		}
		if (i == needed && l->segments[i] > after)
			return rv_error_set(e, RV_ECORRUPT,
				"%s: entries %" PRIu64 " to %" PRIu64
				" are missing: " RECOVER_REJOIN,
				d->path, after, l->segments[i] - 1);
		rd.last = i + 1 == l->segment_count;
		rc = read_segment(&rd, l->segments[i], e);
	}
	if (!rc && r->has_snapshot && l->segment_count > 0)
		rc = match_snapshot(&rd, e);
	if (!rc)
		rc = match_mark(&rd, e);
	r->segments.link = rd.link;
	r->segments.term = rd.term;
	r->segments.next = rd.next;
	return rc;
}
