#include "pool/db/snapshot.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "pool/db/snapshot_format.h"
#include "pool/db/store.h"

enum part { AT_FIRST, AT_ROWS, AT_LAST, AT_END };

struct snapshot_encoder {
	enum part at;
	bool begun;	     /* the magic has been given out */
	struct page **pages; /* the view: those from `page` on still have our reference */
	size_t page_count, page;
	unsigned slot;
	uint64_t level, seq, objects, sum;
	int64_t wall_ms;
	struct db_hash hash;
	struct db *defaults; /* an empty database: what row_pack compares with */
	struct buf pending;  /* packed and not yet given out */
};

struct snapshot_encoder *snapshot_encoder_new(struct db *db)
{
	struct snapshot_encoder *s = calloc(1, sizeof *s);

	if (!s)
		return NULL;
	buf_init(&s->pending, 4 * DB_MAX_ROW_BYTES);
	s->level = db_level(db);
	s->seq = db->seq;
	s->wall_ms = db->wall_ms;
	s->objects = db->objects;
	s->hash = db->hash;
	/* Its own, since `db` may be gone before the encoder is. */
	s->defaults = db_new(0);
	s->pages = pages_view(&db->pages, &s->page_count);
	if (!s->defaults || !s->pages) {
		snapshot_encoder_free(s);
		return NULL;
	}
	return s;
}

void snapshot_encoder_free(struct snapshot_encoder *s)
{
	if (!s)
		return;
	for (; s->pages && s->page < s->page_count; s->page++)
		page_release(s->pages[s->page]);
	free(s->pages);
	db_free(s->defaults);
	buf_fini(&s->pending);
	free(s);
}

uint64_t snapshot_encoder_seq(const struct snapshot_encoder *s)
{
	return s->seq;
}

/* Packs one record behind its length; on failure `pending` is as before. */
struct record_out {
	struct value_sink sink;
	msgpack_packer pk;
	size_t before;
};

static void record_begin(struct record_out *r, struct snapshot_encoder *s, uint32_t parts)
{
	static const char no_length[SNAPSHOT_RECORD_HEAD];

	r->sink = (struct value_sink){.out = &s->pending};
	r->before = buf_len(&s->pending);
	msgpack_packer_init(&r->pk, &r->sink, value_sink_write);
	value_sink_write(&r->sink, no_length, sizeof no_length);
	msgpack_pack_array(&r->pk, parts);
}

static int record_end(struct record_out *r)
{
	struct buf *b = r->sink.out;

	if (r->sink.rc) {
		b->end = b->start + r->before;
		return r->sink.rc;
	}
	snapshot_put(buf_data(b) + r->before, SNAPSHOT_RECORD_HEAD,
		buf_len(b) - r->before - SNAPSHOT_RECORD_HEAD);
	return 0;
}

static int encode_first(struct snapshot_encoder *s)
{
	struct record_out r;

	record_begin(&r, s, 6);
	msgpack_pack_uint64(&r.pk, s->level);
	msgpack_pack_uint64(&r.pk, s->seq);
	msgpack_pack_int64(&r.pk, s->wall_ms);
	msgpack_pack_uint64(&r.pk, s->objects);
	msgpack_pack_uint64(&r.pk, s->hash.hi);
	msgpack_pack_uint64(&r.pk, s->hash.lo);
	return record_end(&r);
}

static int encode_row(struct snapshot_encoder *s, const struct row *row)
{
	struct record_out r;

	record_begin(&r, s, 5);
	msgpack_pack_uint16(&r.pk, schema_class(row->cls)->tag);
	msgpack_pack_bin(&r.pk, sizeof row->uuid.b);
	msgpack_pack_bin_body(&r.pk, row->uuid.b, sizeof row->uuid.b);
	msgpack_pack_uint64(&r.pk, row->created_seq);
	msgpack_pack_uint64(&r.pk, row->seq);
	if (r.sink.rc == 0)
		r.sink.rc = row_pack(s->defaults, row, &s->pending);
	return record_end(&r);
}

static int encode_last(struct snapshot_encoder *s)
{
	struct record_out r;

	record_begin(&r, s, 1);
	msgpack_pack_uint64(&r.pk, s->objects);
	return record_end(&r);
}

/* Packs rows until a frame is full or all are done. */
static int encode_rows(struct snapshot_encoder *s)
{
	while (s->page < s->page_count) {
		struct page *page = s->pages[s->page];

		while (s->slot < PAGE_ROWS) {
			const struct row *row = page->rows[s->slot];
			int rc;

			if (buf_len(&s->pending) >= SNAPSHOT_SLICE_BYTES)
				return 0;
			rc = row ? encode_row(s, row) : 0;
			if (rc)
				return rc;
			s->slot++;
		}
		page_release(page); /* the sooner, the less is copied by changes */
		s->page++;
		s->slot = 0;
	}
	s->at = AT_LAST;
	return 0;
}

/* Fills `pending` with at least a frame's worth, or with all that is left. */
static int encode_fill(struct snapshot_encoder *s)
{
	int rc = 0;

	if (s->at == AT_FIRST) {
		rc = encode_first(s);
		if (rc)
			return rc;
		s->at = AT_ROWS;
	}
	if (s->at == AT_ROWS)
		rc = encode_rows(s);
	if (rc == 0 && s->at == AT_LAST) {
		rc = encode_last(s);
		if (rc == 0)
			s->at = AT_END;
	}
	return rc;
}

int snapshot_encode(struct snapshot_encoder *s, struct buf *out)
{
	size_t head = SNAPSHOT_FRAME_HEAD + (s->begun ? 0 : SNAPSHOT_MAGIC_BYTES), n;
	uint8_t *room;
	uint64_t sum;
	int rc;

	rc = encode_fill(s);
	n = buf_len(&s->pending) < SNAPSHOT_SLICE_BYTES ? buf_len(&s->pending)
							: SNAPSHOT_SLICE_BYTES;
	if (rc == 0)
		rc = buf_reserve(out, head + n, &room);
	if (rc)
		return rc;
	if (!s->begun) {
		memcpy(room, snapshot_magic, SNAPSHOT_MAGIC_BYTES);
		room += SNAPSHOT_MAGIC_BYTES;
		s->begun = true;
	}
	sum = snapshot_sum(buf_data(&s->pending), n, s->sum);
	snapshot_put(room, 4, n);
	snapshot_put(room + 4, 8, sum);
	memcpy(room + SNAPSHOT_FRAME_HEAD, buf_data(&s->pending), n);
	buf_commit(out, head + n);
	buf_consume(&s->pending, n);
	s->sum = sum;
	return s->at == AT_END && buf_len(&s->pending) == 0 ? 0 : RV_EAGAIN;
}
