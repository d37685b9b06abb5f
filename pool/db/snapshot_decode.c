#include "pool/db/snapshot.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/limits.h"
#include "base/mpcheck.h"
#include "pool/db/snapshot_format.h"
#include "pool/db/store.h"

enum { LINK_SLICE = 2000 }; /* objects linked in one step */

struct snapshot_decoder {
	struct db *db;
	struct buf raw;	    /* bytes of a frame that is not complete yet */
	struct buf records; /* payload of a record that is not complete yet */
	struct buf scratch;
	msgpack_zone *zone; /* of the record being read */
	uint64_t sum;
	bool begun, first, last; /* magic, first and last record have been read */
	uint64_t objects;
	struct db_hash hash;
	size_t link_page; /* linking: how far */
	unsigned link_slot;
};

struct snapshot_decoder *snapshot_decoder_new(uint64_t seed)
{
	struct snapshot_decoder *d = calloc(1, sizeof *d);

	if (!d)
		return NULL;
	buf_init(&d->raw, 2 * (SNAPSHOT_SLICE_BYTES + SNAPSHOT_FRAME_HEAD));
	buf_init(&d->records, 2 * (DB_MAX_ROW_BYTES + SNAPSHOT_SLICE_BYTES));
	buf_init(&d->scratch, 4 * DB_MAX_ROW_BYTES);
	d->db = db_new(seed);
	d->zone = msgpack_zone_new(MSGPACK_ZONE_CHUNK_SIZE);
	if (!d->db || !d->zone) {
		snapshot_decoder_free(d);
		return NULL;
	}
	return d;
}

void snapshot_decoder_free(struct snapshot_decoder *d)
{
	if (!d)
		return;
	db_free(d->db);
	buf_fini(&d->raw);
	buf_fini(&d->records);
	buf_fini(&d->scratch);
	if (d->zone)
		msgpack_zone_free(d->zone);
	free(d);
}

static int corrupt(struct rv_error *e, const char *what)
{
	return rv_error_set(e, RV_ECORRUPT,
		"the snapshot of the database is damaged: %s; use an older one or fetch "
		"it "
		"from another host",
		what);
}

/* ---- records ---- */

static bool get_number(const msgpack_object *o, uint64_t *out)
{
	if (o->type != MSGPACK_OBJECT_POSITIVE_INTEGER)
		return false;
	*out = o->via.u64;
	return true;
}

static int read_first(
	struct snapshot_decoder *d, const msgpack_object_array *a, struct rv_error *e)
{
	uint64_t level, wall;
	int rc;

	if (a->size < 1 || !get_number(&a->ptr[0], &level))
		return corrupt(e, "its first record");
	if (level > SCHEMA_LEVEL)
		return rv_error_set(e, RV_EUNSUPPORTED,
			"the snapshot is of a pool of level %llu, this host understands "
			"%d: "
			"update its software",
			(unsigned long long)level, SCHEMA_LEVEL);
	if (a->size != 6 || !get_number(&a->ptr[1], &d->db->seq) ||
		!get_number(&a->ptr[2], &wall) || wall > INT64_MAX ||
		!get_number(&a->ptr[3], &d->objects) || d->objects > RV_MAX_OBJECTS ||
		!get_number(&a->ptr[4], &d->hash.hi) ||
		!get_number(&a->ptr[5], &d->hash.lo))
		return corrupt(e, "its first record");
	d->db->wall_ms = (int64_t)wall;
	d->first = true;
	/* Growing them half-way would make one slice long. */
	rc = table_reserve(&d->db->by_uuid, d->objects);
	return rc ? rc : table_reserve(&d->db->by_name, d->objects);
}

static int read_field(struct row *row, const msgpack_object_kv *kv, struct rv_error *e)
{
	const struct schema_field *f;
	struct value v;
	uint64_t tag;
	int rc;

	if (!get_number(&kv->key, &tag) || tag == 0 || tag > UINT16_MAX)
		return corrupt(e, "a field's tag");
	f = schema_field_by_tag(schema_class(row->cls), tag);
	if (!f) {
		msgpack_sbuffer packed;
		msgpack_packer pk;

		msgpack_sbuffer_init(&packed);
		msgpack_packer_init(&pk, &packed, msgpack_sbuffer_write);
		rc = msgpack_pack_object(&pk, kv->val) ? RV_ENOMEM : 0;
		if (rc == 0)
			rc = row_set_extra(
				row, tag, (const uint8_t *)packed.data, packed.size);
		msgpack_sbuffer_destroy(&packed);
		return rc;
	}
	if (!field_is_stored(f))
		return corrupt(e, "a field that is not stored");
	rc = value_unpack(&v, f->type, &kv->val, NULL);
	if (rc == 0) {
		rc = schema_check_value(f, &v, NULL);
		if (rc)
			value_fini(&v);
	}
	if (rc)
		return rc == RV_ENOMEM ? rc : corrupt(e, "a field's value");
	value_fini(row_slot(row, f));
	*row_slot(row, f) = v;
	return 0;
}

static int fill_row(struct snapshot_decoder *d, struct row *row,
	const msgpack_object_array *a, struct rv_error *e)
{
	int rc;

	if (!get_number(&a->ptr[2], &row->created_seq) ||
		!get_number(&a->ptr[3], &row->seq) || row->seq > d->db->seq ||
		row->created_seq > row->seq || a->ptr[4].type != MSGPACK_OBJECT_MAP)
		return corrupt(e, "a row's head");
	for (uint32_t i = 0; i < a->ptr[4].via.map.size; i++) {
		rc = read_field(row, &a->ptr[4].via.map.ptr[i], e);
		if (rc)
			return rc;
	}
	rc = row_seal(d->db, row, &d->scratch);
	return rc == RV_ETOOBIG ? corrupt(e, "a row is too large") : rc;
}

static int read_row(
	struct snapshot_decoder *d, const msgpack_object_array *a, struct rv_error *e)
{
	const struct schema_class *c = NULL;
	struct object *o;
	struct row *row;
	struct uuid uuid;
	uint64_t tag;
	int rc;

	if (get_number(&a->ptr[0], &tag))
		c = schema_class_by_tag(tag);
	if (!c)
		return corrupt(e, "a row of unknown class");
	if (a->ptr[1].type != MSGPACK_OBJECT_BIN ||
		a->ptr[1].via.bin.size != sizeof uuid.b)
		return corrupt(e, "a row's UUID");
	memcpy(uuid.b, a->ptr[1].via.bin.ptr, sizeof uuid.b);
	if (uuid_is_none(&uuid) || store_find(d->db, uuid) ||
		d->db->objects >= d->objects || (c->id == CLASS_POOL && db_pool(d->db)))
		return corrupt(e, "a row that can't be there");
	o = object_new(d->db, c->id, uuid);
	row = row_new(d->db, c->id, uuid);
	rc = o && row ? fill_row(d, row, a, e) : RV_ENOMEM;
	if (rc == 0)
		rc = pages_reserve(&d->db->pages, 1);
	if (rc) {
		object_free(o);
		row_release(row);
		return rc;
	}
	store_add(d->db, o, row);
	return 0;
}

static int read_record(
	struct snapshot_decoder *d, const uint8_t *bytes, size_t len, struct rv_error *e)
{
	const msgpack_object_array *a;
	msgpack_object o;
	size_t off = 0;
	uint64_t objects;

	if (d->last)
		return corrupt(e, "something follows its end");
	if (mpcheck(bytes, len, NULL))
		return corrupt(e, "a record is malformed");
	msgpack_zone_clear(d->zone);
	if (msgpack_unpack((const char *)bytes, len, &off, d->zone, &o) < 0)
		return RV_ENOMEM;
	a = &o.via.array;
	if (o.type != MSGPACK_OBJECT_ARRAY)
		return corrupt(e, "a record is no array");
	if (!d->first)
		return read_first(d, a, e);
	if (a->size == 5)
		return read_row(d, a, e);
	if (a->size != 1 || !get_number(&a->ptr[0], &objects) || objects != d->objects ||
		objects != d->db->objects)
		return corrupt(e, "a record of unknown form");
	d->last = true;
	return 0;
}

/* Reads all complete records of a frame's payload. */
static int read_payload(struct snapshot_decoder *d, const uint8_t *payload, size_t len,
	struct rv_error *e)
{
	int rc = buf_append(&d->records, payload, len);

	while (rc == 0 && buf_len(&d->records) >= SNAPSHOT_RECORD_HEAD) {
		const uint8_t *at = buf_data(&d->records);
		size_t n = snapshot_get(at, SNAPSHOT_RECORD_HEAD);

		if (n > DB_MAX_ROW_BYTES + 256)
			return corrupt(e, "a record is too long");
		if (buf_len(&d->records) - SNAPSHOT_RECORD_HEAD < n)
			return 0;
		rc = read_record(d, at + SNAPSHOT_RECORD_HEAD, n, e);
		buf_consume(&d->records, SNAPSHOT_RECORD_HEAD + n);
	}
	return rc;
}

/* ---- frames ---- */

/* Takes what is due at the front of `raw`; RV_EAGAIN: more bytes are needed. */
static int read_frame(struct snapshot_decoder *d, struct rv_error *e)
{
	const uint8_t *at = buf_data(&d->raw);
	uint64_t n, sum;
	int rc;

	if (!d->begun) {
		if (buf_len(&d->raw) < SNAPSHOT_MAGIC_BYTES)
			return RV_EAGAIN;
		if (memcmp(at, snapshot_magic, SNAPSHOT_MAGIC_BYTES - 1) != 0)
			return corrupt(e, "it does not begin as one");
		if (at[SNAPSHOT_MAGIC_BYTES - 1] != SNAPSHOT_VERSION)
			return rv_error_set(e, RV_EUNSUPPORTED,
				"the snapshot is of version %u, this host understands "
				"%d: "
				"update its software",
				at[SNAPSHOT_MAGIC_BYTES - 1], SNAPSHOT_VERSION);
		buf_consume(&d->raw, SNAPSHOT_MAGIC_BYTES);
		d->begun = true;
		return 0;
	}
	if (buf_len(&d->raw) < SNAPSHOT_FRAME_HEAD)
		return RV_EAGAIN;
	n = snapshot_get(at, 4);
	sum = snapshot_get(at + 4, 8);
	if (n == 0 || n > SNAPSHOT_SLICE_BYTES || d->last)
		return corrupt(e, "a frame's length");
	if (buf_len(&d->raw) - SNAPSHOT_FRAME_HEAD < n)
		return RV_EAGAIN;
	if (snapshot_sum(at + SNAPSHOT_FRAME_HEAD, n, d->sum) != sum)
		return corrupt(e, "a checksum is wrong");
	d->sum = sum;
	rc = read_payload(d, at + SNAPSHOT_FRAME_HEAD, n, e);
	buf_consume(&d->raw, SNAPSHOT_FRAME_HEAD + n);
	return rc;
}

int snapshot_decode(
	struct snapshot_decoder *d, const uint8_t *data, size_t len, struct rv_error *e)
{
	while (len > 0) {
		size_t n = len < SNAPSHOT_SLICE_BYTES ? len : SNAPSHOT_SLICE_BYTES;
		int rc = buf_append(&d->raw, data, n);

		data += n;
		len -= n;
		while (rc == 0)
			rc = read_frame(d, e);
		if (rc == RV_ENOMEM)
			return rv_error_set(
				e, rc, "out of memory while reading a snapshot");
		if (rc != RV_EAGAIN)
			return rc;
	}
	return 0;
}

/* ---- the whole ---- */

static int check_target(const struct snapshot_decoder *d, const struct object *o,
	const struct schema_field *f, struct rv_error *e)
{
	struct uuid ref = db_ref(o->row, f->id);
	const struct object *target;

	if (uuid_is_none(&ref))
		return f->ref == REF_OWNER ? corrupt(e, "a row without its owner") : 0;
	target = store_find(d->db, ref);
	return target && target->cls == f->ref_class
		       ? 0
		       : corrupt(e, "a reference to nothing");
}

static int link_object(struct snapshot_decoder *d, struct object *o, struct rv_error *e)
{
	const struct layout *l = d->db->layout;

	for (unsigned i = 0; i < l->link_count[o->cls]; i++) {
		int rc = check_target(d, o, schema_field(l->links[o->cls][i]), e);

		if (rc)
			return rc;
		store_link(d->db, o, l->links[o->cls][i]);
	}
	return 0;
}

int snapshot_decode_finish(
	struct snapshot_decoder *d, struct db **out, struct rv_error *e)
{
	struct pages *p = &d->db->pages;

	if (!d->last || buf_len(&d->raw) || buf_len(&d->records))
		return corrupt(e, "its end is missing");
	for (unsigned n = 0; d->link_page < p->count; n++) {
		struct row *row = p->places[d->link_page]->page->rows[d->link_slot];
		int rc;

		if (n == LINK_SLICE)
			return RV_EAGAIN;
		rc = row ? link_object(d, row->object, e) : 0;
		if (rc)
			return rc;
		if (++d->link_slot == PAGE_ROWS) {
			d->link_slot = 0;
			d->link_page++;
		}
	}
	if (d->db->hash.hi != d->hash.hi || d->db->hash.lo != d->hash.lo)
		return corrupt(e, "its hash differs from its rows'");
	if (db_level(d->db) > SCHEMA_LEVEL)
		return corrupt(e, "its level");
	d->db->horizon = d->db->seq;
	d->db->hash_from = d->db->seq;
	d->db->hashes[d->db->seq % STORE_HASHES] = d->db->hash;
	*out = d->db;
	d->db = NULL;
	return 0;
}
