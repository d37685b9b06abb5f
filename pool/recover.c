#include "pool/recover.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/limits.h"
#include "base/log.h"
#include "pool/raft_conf.h"
#include "pool/recover_internal.h"

/* --- what files there are --- */

static bool push(uint64_t **at, size_t *count, uint64_t v)
{
	uint64_t *more = realloc(*at, (*count + 1) * sizeof v);

	if (!more)
		return false;
	*at = more;
	more[(*count)++] = v;
	return true;
}

static void note_file(void *arg, const char *name, uint64_t bytes)
{
	struct recover_listing *l = arg;
	size_t len = strlen(name);
	uint64_t index;

	if (segments_parse_name(name, &index)) {
		if (!push(&l->segments, &l->segment_count, index))
			l->failed = true;
	} else if (snapfile_parse_name(name, &index)) {
		l->snapshot_bytes += bytes;
		if (!push(&l->snapshots, &l->snapshot_count, index))
			l->failed = true;
	} else if (strcmp(name, SEGMENTS_META) == 0) {
		l->meta = true;
	} else if (strcmp(name, SEGMENTS_MARK) == 0) {
		l->mark = true;
	} else if ((strcmp(name, SEGMENTS_SPARE) == 0 ||
			   (len > 4 && strcmp(name + len - 4, ".tmp") == 0)) &&
		   l->junk_count < 16 && len < DISK_NAME_MAX) {
		snprintf(l->junk[l->junk_count++], DISK_NAME_MAX, "%s", name);
	}
}

static int by_number(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static int list_files(struct recover_listing *l, struct disk *d, struct rv_error *e)
{
	int rc = disk_list(d, note_file, l, e);

	if (rc)
		return rc;
	if (l->failed)
		return rv_error_set(e, RV_ENOMEM, "%s: out of memory", d->path);
	for (size_t i = 0; i < l->junk_count && !rc; i++)
		rc = disk_remove(d, l->junk[i], e);
	/* Also makes durable what names an earlier life left in the cache alone. */
	if (!rc)
		rc = disk_remove(d, SEGMENTS_SPARE, e);
	if (l->segment_count > 1)
		qsort(l->segments, l->segment_count, sizeof *l->segments, by_number);
	if (l->snapshot_count > 1)
		qsort(l->snapshots, l->snapshot_count, sizeof *l->snapshots, by_number);
	return rc;
}

/* Written anew, beside the old one. After a sync that failed in an earlier life what was
 * read may be in the page cache alone, and nobody knows of which copy: a crash at the
 * next write in place could take both. A full disk is waited out: the old one may do. */
static int renew(struct disk *d, const char *name, enum frame_type type, struct slots *s,
	struct rv_error *e)
{
	struct slots next = *s;
	int rc = slots_create(d, name, type, &next, e);

	if (!rc)
		*s = next;
	if (rc != RV_ESPACE)
		return rc;
	log_warn("pool.recover", "msg=\"%s\"", e->detail);
	return 0;
}

static int read_slots(struct recovered *r, struct disk *d, struct recover_listing *l,
	const struct recover_config *config, struct rv_error *e)
{
	bool data = l->segment_count > 0 || l->snapshot_count > 0;
	struct slots mark = {0};
	unsigned first = 0;
	int rc;

	if (data && (!l->meta || !l->mark))
		return rv_error_set(e, RV_ECORRUPT,
			"%s/%s is missing though there is a log: " RECOVER_REJOIN,
			d->path, l->meta ? SEGMENTS_MARK : SEGMENTS_META);
	rc = slots_read(d, SEGMENTS_META, FRAME_META, &r->meta, config->meta_first,
		&r->healed, e);
	if (!rc)
		rc = renew(d, SEGMENTS_META, FRAME_META, &r->meta, e);
	if (rc)
		return rc;
	if (!l->mark && r->meta.term > 0)
		return rv_error_set(e, RV_ECORRUPT,
			"%s/%s is missing though terms were begun: " RECOVER_REJOIN,
			d->path, SEGMENTS_MARK);
	if (!l->mark) /* died before it ever began */
		rc = slots_create(d, SEGMENTS_MARK, FRAME_MARK, &mark, e);
	if (!rc)
		rc = slots_read(d, SEGMENTS_MARK, FRAME_MARK, &r->segments.mark, &first,
			&r->healed, e);
	return rc ? rc : renew(d, SEGMENTS_MARK, FRAME_MARK, &r->segments.mark, e);
}

/* --- snapshots --- */

static int read_snapshots(struct recovered *r, struct disk *d, struct recover_listing *l,
	struct rv_error *e)
{
	char name[DISK_NAME_MAX];
	int rc = 0;

	for (size_t i = l->snapshot_count; i-- > 0;) {
		snapfile_name(name, l->snapshots[i]);
		rc = snapfile_read(&r->snapshot, d, name, &r->healed, e);
		if (rc == RV_ENOMEM || rc == RV_EIO)
			return rc;
		if (!rc) {
			r->has_snapshot = true;
			r->snapshot_bytes = l->snapshot_bytes;
			return 0;
		}
		log_error("pool.recover", "msg=\"%s; trying the one before\"", e->detail);
	}
	if (rc && l->segment_count > 0 && l->segments[0] == 1)
		return 0; /* the whole log is still there */
	if (rc)
		rv_error_set(e, RV_ECORRUPT,
			"%s/%s: no snapshot is readable: " RECOVER_REJOIN, d->path, name);
	return rc;
}

/* Once all else is well: else the next snapshot would replace the good one. */
static int drop_damaged(struct recovered *r, struct disk *d,
	const struct recover_listing *l, struct rv_error *e)
{
	char name[DISK_NAME_MAX];
	int rc = 0;

	for (size_t i = 0; i < l->snapshot_count && !rc; i++)
		if (!r->has_snapshot || l->snapshots[i] > r->snapshot.index)
			rc = disk_remove(d, snapfile_name(name, l->snapshots[i]), e);
	return rc;
}

/* --- the whole --- */

static int bootstrap(
	struct recovered *r, const struct recover_config *config, struct rv_error *e)
{
	struct raft_entry entry = {.term = 1, .type = RAFT_CHANGE};
	struct segments_batch batch = {&entry, 1};
	struct frame f = {.index = 1, .term = 1, .type = FRAME_CHANGE};
	size_t room = 0;
	int rc;

	if (raft_configuration_encode(config->bootstrap, &entry.buf))
		return rv_error_set(e, RV_ENOMEM, "begin the log: out of memory");
	rc = segments_append(&r->segments, &batch, 1, e);
	f.len = (uint32_t)entry.buf.len;
	if (!rc)
		rc = recover_keep_entry(r, &room, &f, entry.buf.base, e);
	raft_free(entry.buf.base);
	return rc;
}

/* The configuration in force: the last one in the log, or the snapshot's. */
static bool sole_voter(const struct recovered *r, uint64_t id)
{
	struct raft_configuration conf;
	bool sole;

	for (size_t i = r->count; i-- > 0;) {
		if (r->entries[i].type != RAFT_CHANGE)
			continue;
		if (raft_conf_decode(
			    r->entries[i].buf.base, r->entries[i].buf.len, &conf))
			return false;
		sole = raft_conf_sole_voter(&conf, id);
		raft_configuration_close(&conf);
		return sole;
	}
	return r->has_snapshot && raft_conf_sole_voter(&r->snapshot.conf, id);
}

static int write_meta(struct recovered *r, struct disk *d,
	const struct recover_config *config, struct rv_error *e)
{
	struct disk_file *file = NULL;
	int rc = disk_open(d, SEGMENTS_META, &file, e);

	if (!rc)
		rc = slots_write_both(file, FRAME_META, &r->meta, config->meta_first, e);
	disk_close(file);
	return rc;
}

/* What is in the log, known as committed or not, is so from now on: nobody else is left
 * to say otherwise. */
static int refound(struct recovered *r, struct disk *d,
	const struct recover_config *config, struct rv_error *e)
{
	struct raft_entry entry = {.type = RAFT_CHANGE};
	struct segments_batch batch = {&entry, 1};
	struct frame f = {.index = r->segments.next, .type = FRAME_CHANGE};
	size_t room = r->count;
	struct raft_configuration conf;
	int rc;

	if (r->meta.term < r->segments.term)
		r->meta.term = r->segments.term;
	if (r->meta.term < config->refound_term)
		r->meta.term = config->refound_term;
	if (sole_voter(r, config->id))
		return 0;
	/* A term of its own: others may have an entry of the last one there. */
	f.term = entry.term = ++r->meta.term;
	rc = write_meta(r, d, config, e); /* an entry is readable only then */
	if (rc)
		return rc;
	raft_configuration_init(&conf);
	rc = raft_configuration_add(&conf, config->id,
		     config->bootstrap->servers[0].address, RAFT_VOTER) ||
			     raft_configuration_encode(&conf, &entry.buf)
		     ? rv_error_set(e, RV_ENOMEM, "found the log anew: out of memory")
		     : 0;
	raft_configuration_close(&conf);
	if (rc)
		return rc;
	rc = segments_append(&r->segments, &batch, 1, e);
	f.len = (uint32_t)entry.buf.len;
	if (!rc)
		rc = recover_keep_entry(r, &room, &f, entry.buf.base, e);
	raft_free(entry.buf.base);
	log_warn("pool.recover",
		"server=%" PRIu64 " entry=%" PRIu64
		" msg=\"this server is the only one of the log from now on\"",
		config->id, f.index);
	return rc;
}

/* libraft's only voter leads without an election: the new term is begun here, so that
 * (term, index) never names two entries, even when a torn end was cut off. */
static int begin_term(struct recovered *r, struct disk *d,
	const struct recover_config *config, struct rv_error *e)
{
	if (sole_voter(r, config->id)) {
		r->meta.term++;
		r->meta.value = 0;
	}
	return write_meta(r, d, config, e);
}

static int open_mark(struct recovered *r, struct disk *d, struct rv_error *e)
{
	if (r->segments.mark_file)
		return 0;
	return disk_open(d, SEGMENTS_MARK, &r->segments.mark_file, e);
}

static int recover_files(struct recovered *r, struct disk *d, struct recover_listing *l,
	const struct recover_config *config, struct rv_error *e)
{
	int rc = list_files(l, d, e);

	if (!rc && !l->meta && l->segment_count + l->snapshot_count == 0 && !l->mark) {
		rc = segments_found(d, config->id, e);
		l->meta = l->mark = true;
	}
	if (!rc)
		rc = read_slots(r, d, l, config, e);
	if (!rc && r->meta.identity != config->id)
		rc = rv_error_set(e, RV_ESTATE,
			"%s belongs to server %" PRIu64 ", not to %" PRIu64
			": give each server a directory of its own",
			d->path, r->meta.identity, config->id);
	if (!rc)
		rc = read_snapshots(r, d, l, e);
	if (!rc)
		rc = recover_read_segments(r, d, l, config, e);
	if (!rc && r->segments.next <= config->applied)
		rc = rv_error_set(e, RV_ECORRUPT,
			"%s: the log ends at entry %" PRIu64 ", but %" PRIu64
			" were applied: " RECOVER_REJOIN,
			d->path, r->segments.next - 1, config->applied);
	return rc;
}

int recover(struct recovered *r, struct disk *d, const struct recover_config *config,
	struct rv_error *e)
{
	struct recover_listing l = {0};
	int rc;

	*r = (struct recovered){0};
	segments_init(&r->segments, d, config->segment_bytes);
	rc = recover_files(r, d, &l, config, e);
	if (!rc)
		rc = open_mark(r, d, e);
	if (!rc && r->segments.next == 1 && config->bootstrap &&
		config->bootstrap->n > 0) {
		if (r->meta.term == 0) {
			r->meta.term = 1;
			rc = write_meta(r, d, config, e);
		}
		if (!rc)
			rc = bootstrap(r, config, e);
	}
	if (!rc && config->refound)
		rc = refound(r, d, config, e);
	if (!rc)
		rc = begin_term(r, d, config, e);
	if (!rc)
		rc = drop_damaged(r, d, &l, e);
	if (!rc)
		rc = segments_mark(&r->segments, e);
	free(l.segments);
	free(l.snapshots);
	if (rc) {
		recovered_fini(r);
		return rc;
	}
	if (r->cut_bytes)
		log_warn("pool.recover",
			"file=%s/%s cut_bytes=%" PRIu64
			" msg=\"the unfinished end of the last write, never "
			"acknowledged, "
			"was cut off\"",
			d->path, r->cut_where, r->cut_bytes);
	return 0;
}

void recovered_fini(struct recovered *r)
{
	recover_forget_entries(r);
	snapfile_fini(&r->snapshot);
	segments_fini(&r->segments);
}
