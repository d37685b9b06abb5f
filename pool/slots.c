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
	unsigned *first, unsigned *healed, struct rv_error *e)
{
	struct slots copy[2] = {{0}};
	bool good[2] = {false};
	uint8_t *bytes;
	size_t len;
	int rc = disk_read(d, name, &bytes, &len, e);

	if (rc)
		return rc;
	for (unsigned i = 0; i < 2; i++) {
		size_t at = (size_t)i * SLOT_STRIDE;
		enum frame_verdict v = FRAME_BAD;
		struct frame f;

		if (at < len)
			v = frame_parse(bytes + at, len - at, &f);
		*healed += v != FRAME_GOOD;
		good[i] = (v == FRAME_GOOD || v == FRAME_HEALED) && f.type == type;
		if (good[i])
			copy[i] = (struct slots){f.index, f.term, f.synced, f.prev};
	}
	free(bytes);
	if (!good[0] && !good[1])
		return rv_error_set(e, RV_ECORRUPT,
			"%s/%s: both copies are damaged (offsets 0 and %d); this host "
			"can't prove what it promised: remove it from the pool and let "
			"it "
			"join again, or restore the directory from a backup",
			d->path, name, SLOT_STRIDE);
	if (copy[0].seq != copy[1].seq)
		*first = copy[0].seq < copy[1].seq ? 0 : 1;
	*s = copy[copy[0].seq < copy[1].seq];
	return 0;
}

int slots_write_both(struct disk_file *f, enum frame_type type, struct slots *s,
	unsigned *first, struct rv_error *e)
{
	uint8_t head[FRAME_HEAD_SIZE] = {0};
	int rc = 0;

	s->seq++;
	slot_encode(type, s, head);
	for (unsigned i = 0; i < 2 && !rc; i++) {
		unsigned copy = *first ^ i;

		rc = disk_write_now(
			f, (uint64_t)copy * SLOT_STRIDE, head, sizeof head, e);
		if (rc)
			*first = copy;
	}
	return rc;
}

int slots_write_one(
	struct disk_file *f, enum frame_type type, struct slots *s, struct rv_error *e)
{
	uint8_t head[FRAME_HEAD_SIZE] = {0};

	s->seq++;
	slot_encode(type, s, head);
	return disk_write_now(f, (s->seq & 1) ? SLOT_STRIDE : 0, head, sizeof head, e);
}
