#include "pool/snapfile.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/limits.h"
#include "pool/frame.h"
#include "pool/raft_conf.h"

/* Body of the tail: conf_index, data bytes (8 each), then the configuration. */
enum { TAIL_FIXED = 16, TAIL_MAX = 64 << 10 };

char *snapfile_name(char name[static DISK_NAME_MAX], uint64_t index)
{
	snprintf(name, DISK_NAME_MAX, "snap-%016" PRIx64, index);
	return name;
}

bool snapfile_parse_name(const char *name, uint64_t *index)
{
	char again[DISK_NAME_MAX];

	if (sscanf(name, "snap-%16" SCNx64, index) != 1)
		return false;
	return strcmp(snapfile_name(again, *index), name) == 0;
}

/* --- writing --- */

int snapfile_begin(struct snapfile_writer *w, struct disk *d, struct rv_error *e)
{
	*w = (struct snapfile_writer){.disk = d};
	return disk_create(d, SNAPFILE_TEMP, 0, &w->file, e);
}

static int write_frame(
	struct snapfile_writer *w, struct frame *f, const void *body, struct rv_error *e)
{
	uint8_t head[FRAME_HEAD_SIZE];
	int rc;

	f->prev = w->link;
	frame_encode(f, body, head);
	w->link = f->link;
	rc = disk_write(w->file, w->offset, head, sizeof head, e);
	if (!rc)
		rc = disk_write(w->file, w->offset + sizeof head, body, f->len, e);
	w->offset += sizeof head + f->len;
	return rc;
}

int snapfile_chunk(
	struct snapfile_writer *w, const void *bytes, size_t len, struct rv_error *e)
{
	struct frame f = {
		.type = FRAME_SNAP_CHUNK,
		.len = (uint32_t)len,
		.index = w->chunks++,
	};

	w->bytes += len;
	return write_frame(w, &f, bytes, e);
}

static int write_tail(
	struct snapfile_writer *w, const struct raft_snapshot *meta, struct rv_error *e)
{
	struct frame f = {
		.type = FRAME_SNAP_TAIL, .index = meta->index, .term = meta->term};
	struct raft_buffer conf;
	uint8_t *body;
	int rc;

	if (raft_configuration_encode(&meta->configuration, &conf))
		return rv_error_set(e, RV_ENOMEM, "write a snapshot: out of memory");
	f.len = (uint32_t)(TAIL_FIXED + conf.len);
	body = malloc(f.len);
	if (!body) {
		raft_free(conf.base);
		return rv_error_set(e, RV_ENOMEM, "write a snapshot: out of memory");
	}
	bytes_put_le64(body, meta->configuration_index);
	bytes_put_le64(body + 8, w->bytes);
	memcpy(body + TAIL_FIXED, conf.base, conf.len);
	rc = write_frame(w, &f, body, e);
	free(body);
	raft_free(conf.base);
	return rc;
}

struct kept_snapshots {
	uint64_t newest[SNAPFILE_KEEP];
	uint64_t bytes[SNAPFILE_KEEP];
	uint64_t doomed; /* 0: none */
};

static void note_snapshot(void *arg, const char *name, uint64_t bytes)
{
	struct kept_snapshots *k = arg;
	uint64_t index;

	if (!snapfile_parse_name(name, &index))
		return;
	for (int i = 0; i < SNAPFILE_KEEP; i++) {
		if (index > k->newest[i]) {
			uint64_t pushed = k->newest[i], pushed_bytes = k->bytes[i];

			k->newest[i] = index;
			k->bytes[i] = bytes;
			index = pushed;
			bytes = pushed_bytes;
		}
	}
	if (index)
		k->doomed = index;
}

/* Keeps the newest ones: should one be damaged, the log behind the other is there. */
static int drop_older(struct disk *d, uint64_t *older, uint64_t *kept, struct rv_error *e)
{
	struct kept_snapshots k;
	char name[DISK_NAME_MAX];
	int rc;

	do {
		k = (struct kept_snapshots){0};
		rc = disk_list(d, note_snapshot, &k, e);
		if (!rc && k.doomed)
			rc = disk_remove(d, snapfile_name(name, k.doomed), e);
	} while (!rc && k.doomed);
	*older = k.newest[SNAPFILE_KEEP - 1];
	*kept = 0;
	for (int i = 0; i < SNAPFILE_KEEP; i++)
		*kept += k.bytes[i];
	return rc;
}

int snapfile_commit(struct snapfile_writer *w, const struct raft_snapshot *meta,
	uint64_t *older, uint64_t *kept, struct rv_error *e)
{
	char name[DISK_NAME_MAX];
	int rc = write_tail(w, meta, e);

	if (!rc)
		rc = disk_sync(w->file, e);
	disk_close(w->file);
	w->file = NULL;
	if (!rc)
		rc = disk_rename(
			w->disk, SNAPFILE_TEMP, snapfile_name(name, meta->index), e);
	if (!rc)
		rc = drop_older(w->disk, older, kept, e);
	return rc;
}

void snapfile_abort(struct snapfile_writer *w)
{
	disk_close(w->file);
	w->file = NULL;
}

/* --- reading --- */

static int read_tail(struct snapfile *s, const struct frame *f, const uint8_t *body)
{
	if (f->len < TAIL_FIXED || f->len > TAIL_MAX || f->index == 0 || f->term == 0)
		return RV_ECORRUPT;
	s->index = f->index;
	s->term = f->term;
	s->conf_index = bytes_get_le64(body);
	if (bytes_get_le64(body + 8) != s->data_bytes)
		return RV_ECORRUPT;
	return raft_conf_decode(body + TAIL_FIXED, f->len - TAIL_FIXED, &s->conf);
}

static int read_frames(struct snapfile *s, unsigned *healed, size_t *offset)
{
	uint64_t link = 0, chunks = 0;
	struct frame f;

	for (size_t at = 0;; at += FRAME_HEAD_SIZE + f.len) {
		enum frame_verdict v;

		*offset = at;
		if (at >= s->len)
			return RV_ECORRUPT;
		v = frame_parse(s->bytes + at, s->len - at, &f);
		if ((v != FRAME_GOOD && v != FRAME_HEALED) || f.prev != link)
			return RV_ECORRUPT;
		if (v == FRAME_HEALED)
			(*healed)++;
		link = f.link;
		if (f.type == FRAME_SNAP_CHUNK && f.index == chunks) {
			chunks++;
			s->data_bytes += f.len;
			continue;
		}
		if (f.type != FRAME_SNAP_TAIL || at + FRAME_HEAD_SIZE + f.len != s->len)
			return RV_ECORRUPT;
		return read_tail(s, &f, s->bytes + at + FRAME_HEAD_SIZE);
	}
}

int snapfile_read(struct snapfile *s, struct disk *d, const char *name, unsigned *healed,
	struct rv_error *e)
{
	uint64_t index;
	size_t offset = 0;
	int rc;

	*s = (struct snapfile){0};
	rc = disk_read(d, name, &s->bytes, &s->len, e);
	if (rc)
		return rc;
	rc = read_frames(s, healed, &offset);
	if (!rc && snapfile_parse_name(name, &index) && index != s->index)
		rc = RV_ECORRUPT;
	if (rc) {
		snapfile_fini(s);
		return rv_error_set(e, rc, "%s/%s: snapshot is damaged at offset %zu",
			d->path, name, offset);
	}
	return 0;
}

void snapfile_fini(struct snapfile *s)
{
	free(s->bytes);
	raft_configuration_close(&s->conf);
	*s = (struct snapfile){0};
}

bool snapfile_next(
	const struct snapfile *s, size_t *at, const uint8_t **chunk, size_t *len)
{
	struct frame f;

	if (*at >= s->len || !frame_head_good(s->bytes + *at, &f) ||
		f.type != FRAME_SNAP_CHUNK)
		return false;
	*chunk = s->bytes + *at + FRAME_HEAD_SIZE;
	*len = f.len;
	*at += FRAME_HEAD_SIZE + f.len;
	return true;
}
