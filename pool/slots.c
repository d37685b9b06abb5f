#include "pool/slots.h"

#include <stdlib.h>
#include <string.h>

enum { SLOT_STRIDE = 4096, SLOTS_BYTES = SLOT_STRIDE + FRAME_HEAD_SIZE };

static void slot_encode(enum frame_type type, const struct slots *s, uint8_t *head)
{
	struct frame f = {
		.type = (uint16_t)type,
		.index = s->seq,
		.term = s->term,
		.synced = s->value,
		.prev = s->identity,
	};

	frame_encode(&f, head, head);
}

int slots_create(struct disk *d, const char *name, enum frame_type type, struct slots *s,
	struct rv_error *e)
{
	uint8_t bytes[SLOTS_BYTES] = {0};

	s->seq++;
	slot_encode(type, s, bytes);
	slot_encode(type, s, bytes + SLOT_STRIDE);
	return disk_replace(d, name, bytes, sizeof bytes, e);
}

int slots_read(struct disk *d, const char *name, enum frame_type type, struct slots *s,
	unsigned *healed, struct rv_error *e)
{
	uint8_t *bytes;
	size_t len;
	bool found = false;
	int rc = disk_read(d, name, &bytes, &len, e);

	if (rc)
		return rc;
	for (size_t at = 0; at < SLOTS_BYTES; at += SLOT_STRIDE) {
		struct frame f;
		enum frame_verdict v = FRAME_BAD;

		if (at < len)
			v = frame_parse(bytes + at, len - at, &f);
		if (v != FRAME_GOOD)
			(*healed)++;
		if ((v != FRAME_GOOD && v != FRAME_HEALED) || f.type != type ||
			(found && f.index < s->seq))
			continue;
		*s = (struct slots){f.index, f.term, f.synced, f.prev};
		found = true;
	}
	free(bytes);
	if (found)
		return 0;
	return rv_error_set(e, RV_ECORRUPT,
		"%s/%s: both copies are damaged (offsets 0 and %d); this host can't "
		"prove "
		"what it promised: remove it from the pool and let it join again, or "
		"restore the directory from a backup",
		d->path, name, SLOT_STRIDE);
}

int slots_write_both(
	struct disk_file *f, enum frame_type type, struct slots *s, struct rv_error *e)
{
	uint8_t head[FRAME_HEAD_SIZE];
	int rc;

	s->seq++;
	slot_encode(type, s, head);
	rc = disk_write_now(f, 0, head, sizeof head, e);
	if (!rc)
		rc = disk_write_now(f, SLOT_STRIDE, head, sizeof head, e);
	return rc;
}

int slots_write_one(
	struct disk_file *f, enum frame_type type, struct slots *s, struct rv_error *e)
{
	uint8_t head[FRAME_HEAD_SIZE];

	s->seq++;
	slot_encode(type, s, head);
	return disk_write_now(f, (s->seq & 1) ? SLOT_STRIDE : 0, head, sizeof head, e);
}
