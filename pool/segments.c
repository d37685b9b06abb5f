#include "pool/segments.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/limits.h"

enum { SEGMENTS_MAX_GROUP = 256 << 20 };

void segments_init(struct segments *s, struct disk *d, uint64_t segment_bytes)
{
	*s = (struct segments){.disk = d, .segment_bytes = segment_bytes, .next = 1};
	buf_init(&s->scratch, SEGMENTS_MAX_GROUP);
}

void segments_fini(struct segments *s)
{
	disk_close(s->file);
	disk_close(s->spare);
	disk_close(s->mark_file);
	buf_fini(&s->scratch);
	free(s->at);
	*s = (struct segments){0};
}

char *segments_name(char name[static DISK_NAME_MAX], uint64_t first)
{
	snprintf(name, DISK_NAME_MAX, "log-%016" PRIx64, first);
	return name;
}

bool segments_parse_name(const char *name, uint64_t *first)
{
	char again[DISK_NAME_MAX];

	if (sscanf(name, "log-%16" SCNx64, first) != 1)
		return false;
	return strcmp(segments_name(again, *first), name) == 0;
}

int segments_found(struct disk *d, uint64_t server_id, struct rv_error *e)
{
	struct slots meta = {.identity = server_id}, mark = {0};
	int rc = slots_create(d, SEGMENTS_META, FRAME_META, &meta, e);

	return rc ? rc : slots_create(d, SEGMENTS_MARK, FRAME_MARK, &mark, e);
}

int segments_add(struct segments *s, const struct segment *found)
{
	if (s->count == s->size) {
		size_t size = s->size ? 2 * s->size : 16;
		struct segment *at = realloc(s->at, size * sizeof *at);

		if (!at)
			return RV_ENOMEM;
		s->at = at;
		s->size = size;
	}
	s->at[s->count++] = *found;
	return 0;
}

/* --- appending --- */

static int no_memory(struct rv_error *e)
{
	return rv_error_set(e, RV_ENOMEM, "append to the log: out of memory");
}

/* Appends one frame to the scratch buffer. */
static int group_frame(struct segments *s, struct frame *f, const void *body)
{
	uint8_t *room;
	int rc = buf_reserve(&s->scratch, FRAME_HEAD_SIZE + f->len, &room);

	if (rc)
		return rc;
	frame_encode(f, body, room);
	if (f->len > 0)
		memcpy(room + FRAME_HEAD_SIZE, body, f->len);
	buf_commit(&s->scratch, FRAME_HEAD_SIZE + f->len);
	return 0;
}

static int group_header(struct segments *s, uint64_t *link)
{
	struct frame f = {
		.type = FRAME_SEGMENT,
		.index = s->next,
		.term = s->term,
		.prev = *link,
		.synced = s->next - 1,
	};
	int rc = group_frame(s, &f, "");

	*link = f.link;
	return rc;
}

static size_t group_size(const struct segments_batch *batches, unsigned count)
{
	size_t size = 0;

	for (unsigned b = 0; b < count; b++)
		for (unsigned i = 0; i < batches[b].n; i++)
			size += FRAME_HEAD_SIZE + batches[b].entries[i].buf.len;
	return size;
}

struct group {
	uint64_t link, term, next;
};

static int group_encode(struct segments *s, const struct segments_batch *batches,
	unsigned count, struct group *g)
{
	int rc = 0;

	for (unsigned b = 0; b < count && !rc; b++) {
		for (unsigned i = 0; i < batches[b].n && !rc; i++) {
			const struct raft_entry *entry = &batches[b].entries[i];
			struct frame f = {
				.type = entry->type,
				.len = (uint32_t)entry->buf.len,
				.index = g->next,
				.term = entry->term,
				.prev = g->link,
				.synced = s->next - 1,
			};

			rc = group_frame(s, &f, entry->buf.base);
			g->link = f.link;
			g->term = entry->term;
			g->next++;
		}
	}
	return rc;
}

/* The scratch buffer becomes the beginning of a new segment. */
static int segments_begin(struct segments *s, struct rv_error *e)
{
	uint64_t bytes = buf_len(&s->scratch);
	struct segment fresh = {.first = s->next, .last = s->next, .bytes = bytes};
	struct disk_file *file = s->spare;
	char name[DISK_NAME_MAX];
	int rc = 0;

	if (!file) {
		uint64_t want = bytes > s->segment_bytes ? bytes : s->segment_bytes;

		rc = disk_create(s->disk, SEGMENTS_SPARE, want, &s->spare, e);
		file = s->spare;
	}
	if (!rc)
		rc = disk_write(file, 0, buf_data(&s->scratch), (size_t)bytes, e);
	if (!rc)
		rc = disk_sync(file, e);
	if (!rc)
		rc = disk_rename(
			s->disk, SEGMENTS_SPARE, segments_name(name, s->next), e);
	if (!rc && segments_add(s, &fresh))
		rc = no_memory(e);
	if (rc)
		return rc;
	snprintf(file->name, sizeof file->name, "%s", name);
	if (s->file) {
		struct rv_error ignored;

		/* Only gives the unused rest back; reading stops at the zeros anyway. */
		if (disk_truncate(s->file, s->offset, &ignored))
			rv_error_clear(&ignored);
		disk_close(s->file);
	}
	s->file = file;
	s->spare = NULL;
	s->offset = bytes;
	return 0;
}

int segments_append(struct segments *s, const struct segments_batch *batches,
	unsigned count, struct rv_error *e)
{
	struct group g = {s->link, s->term, s->next};
	size_t size = group_size(batches, count);
	bool begin = !s->file || s->offset + size > s->segment_bytes;
	int rc = 0;

	buf_consume(&s->scratch, buf_len(&s->scratch));
	if (begin)
		rc = group_header(s, &g.link);
	if (!rc)
		rc = group_encode(s, batches, count, &g);
	if (rc)
		return no_memory(e);
	s->torn = true;
	if (begin) {
		rc = segments_begin(s, e);
	} else {
		size = buf_len(&s->scratch);
		rc = disk_write(s->file, s->offset, buf_data(&s->scratch), size, e);
		if (!rc)
			rc = disk_sync(s->file, e);
		if (!rc)
			s->offset += size;
	}
	if (rc)
		return rc;
	s->torn = false;
	s->link = g.link;
	s->term = g.term;
	s->next = g.next;
	s->at[s->count - 1].last = g.next - 1;
	s->at[s->count - 1].bytes = s->offset;
	return 0;
}

/* --- removing --- */

static void segments_drop_spare(struct segments *s)
{
	disk_close(s->spare);
	s->spare = NULL;
}

int segments_cut(struct segments *s, struct rv_error *e)
{
	char name[DISK_NAME_MAX];
	int rc;

	segments_drop_spare(s);
	if (!s->torn)
		return 0;
	/* A new segment may have got its name although the sync of that failed. */
	rc = disk_remove(s->disk, segments_name(name, s->next), e);
	if (rc)
		return rc;
	if (!s->file)
		return 0;
	rc = disk_truncate(s->file, s->offset, e);
	return rc ? rc : disk_sync(s->file, e);
}

static int segments_remove_last(struct segments *s, struct rv_error *e)
{
	char name[DISK_NAME_MAX];
	int rc;

	disk_close(s->file);
	s->file = NULL;
	rc = disk_remove(s->disk, segments_name(name, s->at[s->count - 1].first), e);
	if (!rc)
		s->count--;
	return rc;
}

/* Writes a mark that says no more than `index`. */
static int segments_lower_mark(struct segments *s, uint64_t index, struct rv_error *e)
{
	unsigned first = 0;

	if (s->mark.value <= index)
		return 0;
	s->mark.value = index;
	s->mark.term = s->mark.identity = 0; /* not known here: not checked */
	return slots_write_both(s->mark_file, FRAME_MARK, &s->mark, &first, e);
}

/* Finds where entry `index` begins in the last segment; state becomes that before it. */
static int segments_seek(struct segments *s, uint64_t index, struct rv_error *e)
{
	char name[DISK_NAME_MAX];
	uint8_t *bytes;
	size_t len, at = 0;
	struct frame f;
	int rc;

	segments_name(name, s->at[s->count - 1].first);
	rc = disk_read(s->disk, name, &bytes, &len, e);
	if (rc)
		return rc;
	while (at < len) {
		enum frame_verdict v = frame_parse(bytes + at, len - at, &f);

		if (v != FRAME_GOOD && v != FRAME_HEALED)
			break;
		if (f.type != FRAME_SEGMENT && f.index >= index)
			break;
		at += FRAME_HEAD_SIZE + f.len;
		s->link = f.link;
		s->term = f.term;
		s->next = f.type == FRAME_SEGMENT ? f.index : f.index + 1;
	}
	free(bytes);
	if (s->next != index)
		return rv_error_set(e, RV_ECORRUPT,
			"%s/%s: entry %" PRIu64 " is not readable at offset %zu",
			s->disk->path, name, s->next, at);
	s->offset = at;
	return 0;
}

int segments_truncate(struct segments *s, uint64_t index, struct rv_error *e)
{
	char name[DISK_NAME_MAX];
	struct segment *last;
	int rc = segments_lower_mark(s, index - 1, e);

	while (!rc && s->count > 0 && s->at[s->count - 1].first >= index)
		rc = segments_remove_last(s, e);
	if (rc)
		return rc;
	if (s->count == 0) {
		s->next = index;
		s->link = s->term = 0;
		return 0;
	}
	rc = segments_seek(s, index, e);
	if (rc)
		return rc;
	last = &s->at[s->count - 1];
	if (!s->file) {
		rc = disk_open(s->disk, segments_name(name, last->first), &s->file, e);
		if (rc)
			return rc;
	}
	rc = disk_truncate(s->file, s->offset, e);
	if (!rc)
		rc = disk_sync(s->file, e);
	last->last = index - 1;
	last->bytes = s->offset;
	return rc;
}

int segments_reset(struct segments *s, uint64_t next, struct rv_error *e)
{
	int rc = segments_lower_mark(s, 0, e);

	/* Newest first: a crash in between leaves a log without a gap. */
	while (!rc && s->count > 0)
		rc = segments_remove_last(s, e);
	if (rc)
		return rc;
	s->next = next;
	s->link = s->term = s->offset = 0;
	return 0;
}

int segments_prune(struct segments *s, uint64_t keep_from, struct rv_error *e)
{
	char name[DISK_NAME_MAX];
	size_t gone = 0;
	int rc = 0;

	while (gone + 1 < s->count && s->at[gone].last < keep_from) {
		rc = disk_remove(s->disk, segments_name(name, s->at[gone].first), e);
		if (rc)
			break;
		gone++;
	}
	memmove(s->at, s->at + gone, (s->count - gone) * sizeof *s->at);
	s->count -= gone;
	return rc;
}

/* --- the rest --- */

int segments_prepare(struct segments *s, struct rv_error *e)
{
	if (s->spare)
		return 0;
	return disk_create(s->disk, SEGMENTS_SPARE, s->segment_bytes, &s->spare, e);
}

int segments_mark(struct segments *s, struct rv_error *e)
{
	if (s->mark.value == s->next - 1 && s->mark.identity == s->link)
		return 0;
	s->mark.value = s->next - 1;
	s->mark.term = s->term;
	s->mark.identity = s->link;
	return slots_write_one(s->mark_file, FRAME_MARK, &s->mark, e);
}

uint64_t segments_room(const struct segments *s)
{
	uint64_t room = s->spare ? s->segment_bytes : 0;

	if (s->file && s->offset < s->segment_bytes)
		room += s->segment_bytes - s->offset;
	return room;
}

uint64_t segments_bytes(const struct segments *s)
{
	uint64_t bytes = 0;

	for (size_t i = 0; i < s->count; i++)
		bytes += s->at[i].bytes;
	return bytes;
}
