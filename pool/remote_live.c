#include "pool/remote_live.h"

#include <msgpack.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/map.h"
#include "base/mpcheck.h"
#include "pool/pool_internal.h"

/* How long what was told may have been lost with a dying master. */
enum { AGAIN_US = 3000 * 1000 };

/* A field that changed here, to be told, or told lately. */
struct note {
	uint8_t key[16 + sizeof(int)]; /* object, field */
	struct uuid uuid;
	enum schema_field_id field;
	int64_t told_us; /* 0: not yet */
	struct list node;
};

struct remote_live {
	struct pool *pool;
	remote_live_send_fn *send;
	void *arg;
	struct map notes;
	struct list order;
	struct timer timer;
	struct timer ask;   /* something came before its object, or was lost with it */
	struct uuid master; /* who was told */
};

/* --- packing: a sequence of [object, class tag, field tag, value] ----------------------
 */

static int pack_write(void *arg, const char *bytes, size_t len)
{
	return buf_append(arg, bytes, len) ? -1 : 0;
}

static void pack_one(struct buf *b, const struct row *row, enum schema_field_id field)
{
	const struct schema_field *f = schema_field(field);
	struct uuid uuid = row_uuid(row);
	msgpack_packer pk;

	msgpack_packer_init(&pk, b, pack_write);
	msgpack_pack_array(&pk, 4);
	msgpack_pack_bin(&pk, sizeof uuid.b);
	msgpack_pack_bin_body(&pk, uuid.b, sizeof uuid.b);
	msgpack_pack_uint16(&pk, schema_class(f->cls)->tag);
	msgpack_pack_uint16(&pk, f->tag);
	value_pack(row_value(row, field), &pk, VALUE_WIRE_STORE);
}

/* Applies one; what this host does not know (another version, a removed object) is passed
 * over. */
static void apply_one(struct remote_live *l, const msgpack_object *o)
{
	const msgpack_object *item = o->via.array.ptr;
	const struct schema_class *c;
	const struct schema_field *f;
	struct value v;
	struct uuid uuid;

	if (o->type != MSGPACK_OBJECT_ARRAY || o->via.array.size != 4 ||
		item[0].type != MSGPACK_OBJECT_BIN ||
		item[0].via.bin.size != sizeof uuid.b ||
		item[1].type != MSGPACK_OBJECT_POSITIVE_INTEGER ||
		item[2].type != MSGPACK_OBJECT_POSITIVE_INTEGER)
		return;
	memcpy(uuid.b, item[0].via.bin.ptr, sizeof uuid.b);
	c = schema_class_by_tag(item[1].via.u64);
	f = c ? schema_field_by_tag(c, item[2].via.u64) : NULL;
	if (!f || !f->live || value_unpack(&v, f->type, &item[3], NULL))
		return;
	if (db_set_live(l->pool->db, uuid, f->id, &v, NULL)) {
		log_debug("pool.live", "field=%s msg=\"its object is not here yet\"",
			f->name);
		remote_live_ask(l);
	}
	value_fini(&v);
}

void remote_live_deliver(
	struct remote_live *l, const struct uuid *from, const uint8_t *bytes, size_t len)
{
	struct buf whole = {
		.base = (uint8_t *)bytes, .end = len, .size = len, .cap = len};
	msgpack_zone zone;

	if (len == 0) { /* it asks for all there is */
		remote_live_greet(l, from);
		return;
	}
	if (!msgpack_zone_init(&zone, 4096))
		return;
	for (size_t at = 0; at < len;) {
		size_t used, offset = 0;
		msgpack_object o;

		if (mpcheck_prefix(bytes + at, len - at, &used, NULL) ||
			msgpack_unpack(
				(const char *)bytes + at, used, &offset, &zone, &o) < 0)
			break;
		apply_one(l, &o);
		at += used;
	}
	msgpack_zone_destroy(&zone);
	defer_start(&l->pool->live);
	/* The master is the hub: what one host says, the others hear from it. */
	if (pool_is_master(l->pool))
		l->send(l->arg, NULL, from, &whole);
}

/* --- telling
 * ------------------------------------------------------------------------------ */

static void flush(struct remote_live *l, struct buf *b, const struct uuid *to)
{
	struct uuid master = pool_master(l->pool);

	if (buf_len(b) == 0)
		return;
	if (to)
		l->send(l->arg, to, NULL, b);
	else if (pool_is_master(l->pool))
		l->send(l->arg, NULL, NULL, b);
	else if (!uuid_is_none(&master))
		l->send(l->arg, &master, NULL, b);
	buf_consume(b, buf_len(b));
}

static void on_ask(void *arg)
{
	struct remote_live *l = arg;
	struct uuid master = pool_master(l->pool);
	struct buf none = {0};

	if (!pool_is_master(l->pool) && !uuid_is_none(&master))
		l->send(l->arg, &master, NULL, &none);
}

void remote_live_ask(struct remote_live *l)
{
	if (!timer_active(&l->ask))
		timer_start_ms(&l->ask, REMOTE_LIVE_ASK_MS);
}

static void note_forget(struct remote_live *l, struct note *n)
{
	map_remove(&l->notes, n->key, sizeof n->key);
	list_remove(&n->node);
	free(n);
}

static void on_interval(void *arg)
{
	struct remote_live *l = arg;
	struct uuid master = pool_master(l->pool);
	int64_t now = loop_now_us(l->pool->loop);
	bool more = false;
	struct buf b;

	if (uuid_is_none(&master)) { /* nobody to tell */
		timer_start_ms(&l->timer, REMOTE_LIVE_INTERVAL_MS);
		return;
	}
	buf_init(&b, REMOTE_LIVE_BATCH_BYTES * 2 + DB_MAX_ROW_BYTES);
	LIST_FOR_EACH_SAFE (node, &l->order) {
		struct note *n = CONTAINER_OF(node, struct note, node);
		const struct row *row = db_row_any(l->pool->db, n->uuid);
		bool ours = row && row_class(row) == schema_field(n->field)->cls;

		if (!ours || (n->told_us && now - n->told_us > AGAIN_US)) {
			note_forget(l, n);
			continue;
		}
		more = true;
		if (n->told_us)
			continue;
		n->told_us = now;
		pack_one(&b, row, n->field);
		if (buf_len(&b) > REMOTE_LIVE_BATCH_BYTES)
			flush(l, &b, NULL);
	}
	flush(l, &b, NULL);
	buf_fini(&b);
	l->master = master;
	if (more)
		timer_start_ms(&l->timer, REMOTE_LIVE_INTERVAL_MS);
}

void remote_live_look(struct remote_live *l)
{
	struct uuid master = pool_master(l->pool);

	if (uuid_is_none(&master) || uuid_eq(&master, &l->master))
		return;
	l->master = master;
	LIST_FOR_EACH (node, &l->order)
		CONTAINER_OF(node, struct note, node)->told_us = 0;
}

void remote_live_note(
	struct remote_live *l, const struct uuid *uuid, enum schema_field_id field)
{
	struct note *n = calloc(1, sizeof *n), *there;

	if (!n)
		return; /* the next measurement is told instead */
	memcpy(n->key, uuid->b, 16);
	memcpy(n->key + 16, &field, sizeof field);
	n->uuid = *uuid;
	n->field = field;
	there = map_get(&l->notes, n->key, sizeof n->key);
	if (there) {
		there->told_us = 0;
		free(n);
	} else if (map_add(&l->notes, n->key, sizeof n->key, n)) {
		free(n);
		return;
	} else {
		list_push_back(&l->order, &n->node);
	}
	if (!timer_active(&l->timer))
		timer_start_ms(&l->timer, REMOTE_LIVE_INTERVAL_MS);
}

void remote_live_greet(struct remote_live *l, const struct uuid *host)
{
	const struct db *db = l->pool->db;
	struct buf b;

	if (!pool_is_master(l->pool))
		return; /* what is its own, a host measures again soon */
	buf_init(&b, REMOTE_LIVE_BATCH_BYTES * 2 + DB_MAX_ROW_BYTES);
	for (int cls = CLASS_NONE + 1; cls < CLASS_COUNT; cls++) {
		const struct schema_class *c = schema_class((enum schema_class_id)cls);

		for (const struct row *row = db_next(db, c->id, NULL); row;
			row = db_next(db, c->id, row)) {
			for (int i = 0; i < c->field_count; i++)
				if (c->fields[i].live &&
					!value_is_zero(row_value(row, c->fields[i].id)))
					pack_one(&b, row, c->fields[i].id);
			if (buf_len(&b) > REMOTE_LIVE_BATCH_BYTES)
				flush(l, &b, host);
		}
	}
	flush(l, &b, host);
	buf_fini(&b);
}

int remote_live_new(
	struct remote_live **out, struct pool *pool, remote_live_send_fn *send, void *arg)
{
	struct remote_live *l = calloc(1, sizeof *l);

	if (!l)
		return RV_ENOMEM;
	l->pool = pool;
	l->send = send;
	l->arg = arg;
	map_init(&l->notes, prng_next(loop_prng(pool->loop)));
	list_init(&l->order);
	timer_init(&l->timer, pool->loop, "pool.live.interval", on_interval, l);
	timer_init(&l->ask, pool->loop, "pool.live.ask", on_ask, l);
	*out = l;
	return 0;
}

void remote_live_free(struct remote_live *l)
{
	if (!l)
		return;
	timer_stop(&l->timer);
	timer_stop(&l->ask);
	LIST_FOR_EACH_SAFE (node, &l->order)
		note_forget(l, CONTAINER_OF(node, struct note, node));
	map_fini(&l->notes);
	free(l);
}
