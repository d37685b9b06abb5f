#include "pool/remote_live.h"

#include <msgpack.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/map.h"
#include "base/mpcheck.h"
#include "base/within.h"
#include "pool/pool_internal.h"

enum {
	/* So long what was told may have been lost, with a link or with a dying master:
	 * it is told again to the next one. What is still measured, changed or not, is
	 * told again after that in any case. */
	AGAIN_US = 60 * 1000 * 1000,
	/* Forgetting is not urgent. */
	EXPIRE_MS = 10000,
	/* What one turn tells; the rest follows. */
	TURN_BYTES = 256 << 10,
	TURN_MS = 10,
	/* What the master passes on, to all links together: in a small pool everything at
	 * once, in one of a thousand hosts a host hears of the others' less often. */
	RELAY_BYTES_PER_S = 16 << 20,
	RELAY_MIN_BYTES = 1 << 10,
	RELAY_MS_PER_PEER = 25,
	RELAY_MIN_MS = 200,
	RELAY_MAX_MS = 500,
	SLICE_MS = 5, /* between some hosts and the next */
	/* Greetings: so much at a time, for all of them together; and so many objects, of
	 * which most may have nothing to tell. */
	GREET_BYTES = 128 << 10,
	GREET_ROWS = 2048,
	GREET_MS = 12,
};

/* A field that changed here or at another host, and is to be told; or was told lately. */
struct note {
	uint8_t key[16 + sizeof(int)]; /* object, field */
	struct uuid uuid;
	enum schema_field_id field;
	int64_t told_us; /* 0: not yet */
	struct list node;
};

/* A new host that is told all there is, as far as it has come. */
struct greeting {
	struct list node;
	struct uuid host;
	int cls;
	struct uuid at; /* the last row told of; none: its class begins */
};

struct remote_live {
	struct pool *pool;
	const struct remote_live_port *port;
	void *arg;
	struct map notes;      /* this host's own */
	struct list due, told; /* of them; told: the longest ago first */
	bool soon;	       /* the timer is set for what is due */
	struct timer timer;
	struct map others; /* at the master: other hosts', to be passed on */
	struct list passing;
	struct timer relay;
	struct buf batch; /* being passed on, to some hosts at a time */
	uint64_t round;
	struct list greetings;
	struct timer greet;
	struct timer ask;   /* something came before its object, or was lost with it */
	struct uuid master; /* who was told */
};

/* --- whose word counts --- */

/* What only the master says, for as long as it is one: what a former one says of it is
 * nobody's word any more. */
static bool is_the_masters(enum schema_field_id field)
{
	return field == HOST_LIVE || field == HOST_LAST_SEEN ||
	       field == HOST_LEASE_UNTIL || field == HOST_CLOCK_SKEW_MS;
}

/* Each life of the pool has terms of its own (pool/life.h), so a later one is greater. */
static uint64_t term_of(const struct remote_live *l)
{
	struct rlog_status s;

	rlog_status(pool_log(l->pool), &s);
	return s.term;
}

/* --- notes --- */

enum { NOTE_KEY_SIZE = sizeof((struct note *)0)->key };

static uint8_t *note_key(
	uint8_t key[NOTE_KEY_SIZE], const struct uuid *uuid, enum schema_field_id field)
{
	memcpy(key, uuid->b, 16);
	memcpy(key + 16, &field, sizeof field);
	return key;
}

/* The note of that field, made where there is none; NULL: no memory. */
static struct note *note_of(
	struct map *map, const struct uuid *uuid, enum schema_field_id field, bool *made)
{
	uint8_t key[NOTE_KEY_SIZE];
	struct note *n = map_get(map, note_key(key, uuid, field), sizeof key);

	*made = !n;
	if (n)
		return n;
	n = calloc(1, sizeof *n);
	if (!n)
		return NULL;
	memcpy(n->key, key, sizeof key);
	n->uuid = *uuid;
	n->field = field;
	list_init(&n->node);
	if (!map_add(map, n->key, sizeof n->key, n))
		return n;
	free(n);
	return NULL;
}

static void note_forget(struct map *map, struct note *n)
{
	map_remove(map, n->key, sizeof n->key);
	list_remove(&n->node);
	free(n);
}

static void notes_forget(struct map *map, struct list *list)
{
	LIST_FOR_EACH_SAFE (node, list)
		note_forget(map, CONTAINER_OF(node, struct note, node));
}

/* The object that it is about; NULL: gone, or another class's by now. */
static const struct row *note_row(const struct remote_live *l, const struct note *n)
{
	const struct row *row = db_row_any(l->pool->db, n->uuid);

	return row && row_class(row) == schema_field(n->field)->cls ? row : NULL;
}

static int64_t relay_ms(const struct remote_live *l)
{
	int64_t ms = RELAY_MS_PER_PEER * (int64_t)l->port->peers(l->arg);

	return within(ms, RELAY_MIN_MS, RELAY_MAX_MS);
}

/* The master is the hub: what one host says, the others hear from it. */
static void pass_on(
	struct remote_live *l, const struct uuid *uuid, enum schema_field_id field)
{
	bool made;
	struct note *n = note_of(&l->others, uuid, field, &made);

	if (n && made)
		list_push_back(&l->passing, &n->node);
	if (n && !timer_active(&l->relay))
		timer_start_about_ms(&l->relay, relay_ms(l));
}

/* This host is no master: what it said as one is not told again. */
static void forget_masters(struct remote_live *l)
{
	struct list *const lists[] = {&l->due, &l->told};

	for (size_t i = 0; i < sizeof lists / sizeof lists[0]; i++)
		LIST_FOR_EACH_SAFE (node, lists[i]) {
			struct note *n = CONTAINER_OF(node, struct note, node);

			if (is_the_masters(n->field))
				note_forget(&l->notes, n);
		}
}

/* --- packing: a sequence of [object, class tag, field tag, value], the master's after
 * [term] ---
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

static void pack_term(const struct remote_live *l, struct buf *b)
{
	msgpack_packer pk;

	msgpack_packer_init(&pk, b, pack_write);
	msgpack_pack_array(&pk, 1);
	msgpack_pack_uint64(&pk, term_of(l));
}

/* Whether it is a master's message, and of which term. */
static bool is_term(const msgpack_object *o, uint64_t *term)
{
	if (o->type != MSGPACK_OBJECT_ARRAY || o->via.array.size != 1 ||
		o->via.array.ptr[0].type != MSGPACK_OBJECT_POSITIVE_INTEGER)
		return false;
	*term = o->via.array.ptr[0].via.u64;
	return true;
}

/* Applies one; what this host does not know (another version, a removed object) is passed
 * over, and so is what only a master says, of another host. */
static void apply_one(struct remote_live *l, const msgpack_object *o, bool by_master)
{
	uint8_t key[NOTE_KEY_SIZE];
	const struct note *ours;
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
	if (!f || !f->live || (!by_master && is_the_masters(f->id)))
		return;
	/* What this host has to tell is newer than what it is told. */
	ours = map_get(&l->notes, note_key(key, &uuid, f->id), sizeof key);
	if ((ours && !ours->told_us) || value_unpack(&v, f->type, &item[3], NULL))
		return;
	if (db_set_live(l->pool->db, uuid, f->id, &v, NULL)) {
		log_debug("pool.live", "field=%s msg=\"its object is not here yet\"",
			f->name);
		remote_live_ask(l);
	} else if (pool_is_master(l->pool)) {
		pass_on(l, &uuid, f->id);
	}
	value_fini(&v);
}

void remote_live_deliver(
	struct remote_live *l, const struct uuid *from, const uint8_t *bytes, size_t len)
{
	msgpack_zone zone;
	bool by_master = false;
	uint64_t term;

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
		if (at == 0 && is_term(&o, &term)) {
			by_master = true;
			/* Of a former master: what it knew is not so any more. */
			if (term < term_of(l) || pool_is_master(l->pool)) {
				remote_live_ask(l);
				break;
			}
		} else {
			apply_one(l, &o, by_master);
		}
		at += used;
	}
	msgpack_zone_destroy(&zone);
	defer_start(&l->pool->live);
}

/* --- telling --- */

/* To the master. 0, or it was not sent. */
static int tell(struct remote_live *l, struct buf *b)
{
	struct uuid master = pool_master(l->pool);
	int rc = buf_len(b) ? l->port->send(l->arg, &master, b) : 0;

	buf_consume(b, buf_len(b));
	return rc;
}

static void on_ask(void *arg)
{
	struct remote_live *l = arg;
	struct uuid master = pool_master(l->pool);
	struct buf none = {0};

	if (!pool_is_master(l->pool) && !uuid_is_none(&master) &&
		l->port->send(l->arg, &master, &none))
		log_debug("pool.live", "msg=\"asks when something else is missed\"");
}

void remote_live_ask(struct remote_live *l)
{
	if (!timer_active(&l->ask))
		timer_start_ms(&l->ask, REMOTE_LIVE_ASK_MS);
}

/* Packs what is due, at most a message full; moves it to `batch`. */
static void pack_due(struct remote_live *l, struct buf *b, struct list *batch)
{
	while (!list_empty(&l->due) && buf_len(b) < REMOTE_LIVE_BATCH_BYTES) {
		struct note *n = CONTAINER_OF(l->due.next, struct note, node);
		const struct row *row = note_row(l, n);

		if (!row) {
			note_forget(&l->notes, n);
			continue;
		}
		pack_one(b, row, n->field);
		list_remove(&n->node);
		list_push_back(batch, &n->node);
	}
}

/* The master itself tells the others, with what those tell it. */
static void pass_due(struct remote_live *l)
{
	int64_t now = loop_now_us(l->pool->loop);

	LIST_FOR_EACH (node, &l->due) {
		struct note *n = CONTAINER_OF(node, struct note, node);

		n->told_us = now;
		pass_on(l, &n->uuid, n->field);
	}
	list_append_all(&l->told, &l->due);
}

/* Tells what is due; false: the master can't be told now. */
static bool tell_due(struct remote_live *l)
{
	int64_t now = loop_now_us(l->pool->loop);
	size_t bytes = 0;
	struct list batch;
	struct buf b;
	int rc = 0;

	list_init(&batch);
	buf_init(&b, REMOTE_LIVE_BATCH_BYTES * 2 + DB_MAX_ROW_BYTES);
	while (!rc && !list_empty(&l->due) && bytes < TURN_BYTES) {
		pack_due(l, &b, &batch);
		bytes += buf_len(&b);
		rc = tell(l, &b);
		LIST_FOR_EACH (node, &batch)
			CONTAINER_OF(node, struct note, node)->told_us = rc ? 0 : now;
		list_append_all(rc ? &l->due : &l->told, &batch);
	}
	buf_fini(&b);
	return !rc;
}

static void expire(struct remote_live *l)
{
	int64_t now = loop_now_us(l->pool->loop);

	while (!list_empty(&l->told)) {
		struct note *n = CONTAINER_OF(l->told.next, struct note, node);

		if (now - n->told_us <= AGAIN_US)
			return;
		note_forget(&l->notes, n);
	}
}

static void on_interval(void *arg)
{
	struct remote_live *l = arg;
	struct uuid master = pool_master(l->pool);
	int64_t again_ms = REMOTE_LIVE_INTERVAL_MS;

	expire(l);
	if (!uuid_is_none(&master)) { /* else there is nobody to tell */
		l->master = master;
		if (pool_is_master(l->pool))
			pass_due(l);
		else if (tell_due(l))
			again_ms = TURN_MS;
	}
	l->soon = !list_empty(&l->due);
	if (l->soon)
		timer_start_about_ms(&l->timer, again_ms);
	else if (!list_empty(&l->told))
		timer_start_ms(&l->timer, EXPIRE_MS);
}

static void tell_soon(struct remote_live *l)
{
	if (l->soon)
		return;
	l->soon = true;
	timer_start_about_ms(&l->timer, REMOTE_LIVE_INTERVAL_MS);
}

static void tell_again(struct remote_live *l)
{
	LIST_FOR_EACH (node, &l->told)
		CONTAINER_OF(node, struct note, node)->told_us = 0;
	list_append_all(&l->due, &l->told);
	if (!list_empty(&l->due))
		tell_soon(l);
}

void remote_live_look(struct remote_live *l)
{
	struct uuid master = pool_master(l->pool);

	if (uuid_eq(&master, &l->master))
		return;
	l->master = master; /* the same again after none may have missed something */
	if (uuid_is_none(&master))
		return;
	notes_forget(&l->others, &l->passing); /* each tells the new one itself */
	if (!pool_is_master(l->pool))
		forget_masters(l);
	tell_again(l);
}

void remote_live_down(struct remote_live *l, const struct uuid *host)
{
	/* At once, lest the master's older word be taken for newer when it is back. */
	if (uuid_eq(host, &l->master) && !l->pool->freeing)
		tell_again(l);
}

void remote_live_note(struct remote_live *l, const struct uuid *uuid,
	enum schema_field_id field, bool changed)
{
	struct note *n;
	bool made;

	if (!pool_is_master(l->pool) && is_the_masters(field))
		return;
	n = note_of(&l->notes, uuid, field, &made);
	if (!n)
		return; /* the next measurement is told instead */
	if (!made && (!changed || !n->told_us))
		return;
	n->told_us = 0;
	list_remove(&n->node);
	list_push_back(&l->due, &n->node);
	if (pool_is_master(l->pool))
		pass_due(l);
	else
		tell_soon(l);
}

/* --- passing on --- */

/* Fills the batch with what was unsaid for the longest. */
static void batch_fill(struct remote_live *l)
{
	size_t peers = l->port->peers(l->arg), budget;

	budget = RELAY_BYTES_PER_S / 1000 * (size_t)relay_ms(l) / (peers ? peers : 1);
	if (budget < RELAY_MIN_BYTES)
		budget = RELAY_MIN_BYTES;
	if (budget > REMOTE_LIVE_BATCH_BYTES)
		budget = REMOTE_LIVE_BATCH_BYTES;
	pack_term(l, &l->batch);
	while (!list_empty(&l->passing) && buf_len(&l->batch) < budget) {
		struct note *n = CONTAINER_OF(l->passing.next, struct note, node);
		const struct row *row = note_row(l, n);

		if (row)
			pack_one(&l->batch, row, n->field);
		note_forget(&l->others, n);
	}
	l->round++;
}

static void on_relay(void *arg)
{
	struct remote_live *l = arg;

	if (!pool_is_master(l->pool)) {
		buf_consume(&l->batch, buf_len(&l->batch));
		notes_forget(&l->others, &l->passing);
		return;
	}
	if (!buf_len(&l->batch))
		batch_fill(l);
	if (buf_len(&l->batch) && l->port->send_some(l->arg, &l->batch, l->round)) {
		timer_start_ms(&l->relay, SLICE_MS);
		return;
	}
	buf_consume(&l->batch, buf_len(&l->batch));
	if (!list_empty(&l->passing))
		timer_start_about_ms(&l->relay, relay_ms(l));
}

/* --- greeting --- */

static void greeting_free(struct greeting *g)
{
	list_remove(&g->node);
	free(g);
}

/* The row to go on with; NULL: its class is done. */
static const struct row *greeting_next(const struct greeting *g, const struct db *db)
{
	enum schema_class_id cls = (enum schema_class_id)g->cls;
	const struct row *at = uuid_is_none(&g->at) ? NULL : db_row(db, cls, g->at);

	/* Should the row be gone meanwhile, its class is told once more. */
	return db_next(db, cls, at);
}

/* Packs the next rows, *rows at most (which are counted down) and a message full; false:
 * that was all. */
static bool greeting_pack(
	struct greeting *g, const struct db *db, struct buf *b, unsigned *rows)
{
	for (; g->cls < CLASS_COUNT; g->cls++, g->at = UUID_NONE) {
		const struct schema_class *c = schema_class((enum schema_class_id)g->cls);
		const struct row *row;

		while ((row = greeting_next(g, db))) {
			for (int i = 0; i < c->field_count; i++)
				if (c->fields[i].live &&
					!value_is_zero(row_value(row, c->fields[i].id)))
					pack_one(b, row, c->fields[i].id);
			g->at = row_uuid(row);
			(*rows)--;
			if (!*rows || buf_len(b) > REMOTE_LIVE_BATCH_BYTES)
				return true;
		}
	}
	return false;
}

/* A message to one of those that wait; *told: its bytes. False: it can't be sent now. */
static bool greet_one(
	struct remote_live *l, struct greeting *g, size_t *told, unsigned *rows)
{
	struct greeting before = *g;
	struct buf b;
	bool more;
	int rc = 0;

	buf_init(&b, REMOTE_LIVE_BATCH_BYTES * 2 + DB_MAX_ROW_BYTES);
	pack_term(l, &b);
	*told = buf_len(&b);
	more = greeting_pack(g, l->pool->db, &b, rows);
	*told = buf_len(&b) - *told;
	if (*told)
		rc = l->port->send(l->arg, &g->host, &b);
	buf_fini(&b);
	list_remove(&g->node);
	if (rc == RV_EAGAIN) { /* its queue is full: it stays where it was */
		g->cls = before.cls;
		g->at = before.at;
	} else if (rc || !more) {
		greeting_free(g);
		return true;
	}
	list_push_back(&l->greetings, &g->node);
	return rc == 0;
}

static void on_greet(void *arg)
{
	struct remote_live *l = arg;
	unsigned rows = GREET_ROWS;
	size_t bytes = 0;

	if (!pool_is_master(l->pool))
		LIST_FOR_EACH_SAFE (node, &l->greetings)
			greeting_free(CONTAINER_OF(node, struct greeting, node));
	while (!list_empty(&l->greetings) && bytes < GREET_BYTES && rows > 0) {
		size_t told;

		if (!greet_one(l, CONTAINER_OF(l->greetings.next, struct greeting, node),
			    &told, &rows))
			break;
		bytes += told;
	}
	if (!list_empty(&l->greetings))
		timer_start_ms(&l->greet, GREET_MS);
}

void remote_live_greet(struct remote_live *l, const struct uuid *host)
{
	struct greeting *g;

	if (!pool_is_master(l->pool))
		return; /* what is its own, a host measures again soon */
	LIST_FOR_EACH_SAFE (node, &l->greetings) {
		g = CONTAINER_OF(node, struct greeting, node);
		if (uuid_eq(&g->host, host))
			greeting_free(g); /* from the beginning */
	}
	g = calloc(1, sizeof *g);
	if (!g)
		return; /* it asks when it misses something */
	g->host = *host;
	g->cls = CLASS_NONE + 1;
	list_push_back(&l->greetings, &g->node);
	if (!timer_active(&l->greet))
		timer_start_ms(&l->greet, 0);
}

/* --- beginning and ending --- */

int remote_live_new(struct remote_live **out, struct pool *pool,
	const struct remote_live_port *port, void *arg)
{
	struct remote_live *l = calloc(1, sizeof *l);

	if (!l)
		return RV_ENOMEM;
	l->pool = pool;
	l->port = port;
	l->arg = arg;
	map_init(&l->notes, prng_next(loop_prng(pool->loop)));
	map_init(&l->others, prng_next(loop_prng(pool->loop)));
	list_init(&l->due);
	list_init(&l->told);
	list_init(&l->passing);
	list_init(&l->greetings);
	buf_init(&l->batch, REMOTE_LIVE_BATCH_BYTES * 2 + DB_MAX_ROW_BYTES);
	timer_init(&l->timer, pool->loop, "pool.live.interval", on_interval, l);
	timer_init(&l->relay, pool->loop, "pool.live.relay", on_relay, l);
	timer_init(&l->greet, pool->loop, "pool.live.greet", on_greet, l);
	timer_init(&l->ask, pool->loop, "pool.live.ask", on_ask, l);
	*out = l;
	return 0;
}

void remote_live_free(struct remote_live *l)
{
	if (!l)
		return;
	timer_stop(&l->timer);
	timer_stop(&l->relay);
	timer_stop(&l->greet);
	timer_stop(&l->ask);
	notes_forget(&l->notes, &l->due);
	notes_forget(&l->notes, &l->told);
	notes_forget(&l->others, &l->passing);
	LIST_FOR_EACH_SAFE (node, &l->greetings)
		greeting_free(CONTAINER_OF(node, struct greeting, node));
	map_fini(&l->notes);
	map_fini(&l->others);
	buf_fini(&l->batch);
	free(l);
}
