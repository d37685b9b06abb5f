/* Who leads the pool: shown, and changed on purpose. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "daemon/ca_change.h"
#include "daemon/daemon.h"
#include "daemon/members.h"
#include "daemon/quorum.h"
#include "daemon/voters.h"
#include "daemon/witness.h"
#include "rpc/message.h"

enum { STATUS_MAX_SERVERS = 64 };

/* --- pool.status --- */

struct view {
	struct pool_status pool;
	struct rlog_member servers[STATUS_MAX_SERVERS];
	int count;
	int64_t now;
};

static const struct rlog_member *server_of(const struct view *v, const struct uuid *host)
{
	char text[UUID_TEXT_SIZE];

	uuid_format(host, text);
	for (int i = 0; i < v->count; i++)
		if (strcmp(v->servers[i].address, text) == 0)
			return &v->servers[i];
	return NULL;
}

static void pack_uuid(msgpack_packer *pk, struct uuid uuid)
{
	char text[UUID_TEXT_SIZE];

	rpc_pack_key(pk, uuid_is_none(&uuid) ? "" : uuid_format(&uuid, text));
}

/* nil: not known here. */
static void pack_lag(
	msgpack_packer *pk, const struct view *v, const struct rlog_member *s)
{
	uint64_t last = v->pool.log.last_index;

	if (!s || !s->match || !v->pool.master)
		msgpack_pack_nil(pk);
	else
		msgpack_pack_uint64(pk, last > s->match ? last - s->match : 0);
}

static void pack_member(msgpack_packer *pk, struct daemon *d, const struct view *v,
	const struct row *host)
{
	struct uuid uuid = row_uuid(host);
	const struct rlog_member *s = server_of(v, &uuid);
	bool self = uuid_eq(&uuid, &d->host);
	struct peer_status peer = {0};
	bool known = !self && d->members && !members_status(d->members, &uuid, &peer);

	msgpack_pack_map(pk, 9);
	rpc_pack_key(pk, "host");
	pack_uuid(pk, uuid);
	rpc_pack_key(pk, "name_label");
	rpc_pack_text(pk, row_name(host));
	rpc_pack_key(pk, "kind");
	rpc_pack_key(pk, witness_is(host) ? "witness" : "host");
	rpc_pack_key(pk, "role");
	rpc_pack_key(pk, !s ? "learner" : s->voter ? "voter" : "standby");
	rpc_pack_key(pk, "link");
	rpc_pack_key(pk, self ? "self" : known ? peer_state_name(peer.state) : "none");
	rpc_pack_key(pk, "link_reason");
	rpc_pack_text(pk, known && peer.state != PEER_UP ? peer.reason : "");
	rpc_pack_key(pk, "lag");
	pack_lag(pk, v, s);
	rpc_pack_key(pk, "heard_ms");
	if (s && s->heard_us && v->pool.master)
		msgpack_pack_int64(pk, (v->now - s->heard_us) / 1000);
	else
		msgpack_pack_nil(pk);
	rpc_pack_key(pk, "clock_skew_ms");
	if (known && peer.link.clock.known)
		msgpack_pack_double(pk, (double)peer.link.clock.offset_us / 1000);
	else
		msgpack_pack_nil(pk);
}

static void pack_text(msgpack_packer *pk, const char *key, const char *text)
{
	rpc_pack_key(pk, key);
	rpc_pack_text(pk, text);
}

static void pack_number(msgpack_packer *pk, const char *key, int64_t n)
{
	rpc_pack_key(pk, key);
	msgpack_pack_int64(pk, n);
}

static void pack_truth(msgpack_packer *pk, const char *key, bool is)
{
	rpc_pack_key(pk, key);
	if (is)
		msgpack_pack_true(pk);
	else
		msgpack_pack_false(pk);
}

/* Who is linked to this host, by name. */
static void pack_heard(msgpack_packer *pk, struct daemon *d)
{
	const struct db *db = pool_db(d->pool);
	uint32_t count = 0;

	for (int round = 0; round < 2; round++) {
		if (round == 1)
			msgpack_pack_array(pk, count);
		for (const struct row *h = NULL; (h = db_next(db, CLASS_HOST, h));) {
			struct uuid uuid = row_uuid(h);

			if (!d->members || !members_is_up(d->members, &uuid))
				continue;
			count++;
			if (round == 1)
				rpc_pack_text(pk, row_name(h));
		}
	}
}

/* In words what is wrong, for people. */
static const char *trouble(
	const struct daemon *d, const struct view *v, char words[static QUORUM_WORDS])
{
	if (v->pool.log.error.code)
		return v->pool.log.error.detail;
	if (v->pool.clash)
		return v->pool.why;
	if (quorum_lost(d, words))
		return words;
	if (v->pool.log.low_space)
		return "the disk of the pool's database is nearly full";
	return "";
}

/* What the host that was asked sees by itself, beside the master's view. */
static void pack_asked(msgpack_packer *pk, struct daemon *d)
{
	const struct row *self = db_row(pool_db(d->pool), CLASS_HOST, d->host);
	struct view v = {.now = loop_now_us(d->loop)};
	const struct rlog_member *s;
	char words[QUORUM_WORDS];

	pool_status(d->pool, &v.pool);
	v.count = rlog_members(pool_log(d->pool), v.servers, STATUS_MAX_SERVERS);
	s = server_of(&v, &d->host);
	rpc_pack_key(pk, "asked");
	msgpack_pack_map(pk, 9);
	rpc_pack_key(pk, "host");
	pack_uuid(pk, d->host);
	pack_text(pk, "name_label", self ? row_name(self) : "");
	rpc_pack_key(pk, "role");
	rpc_pack_key(pk, !s ? "learner" : s->voter ? "voter" : "standby");
	pack_text(pk, "state", rlog_state_name(v.pool.log.state));
	pack_number(pk, "term", (int64_t)v.pool.log.term);
	rpc_pack_key(pk, "master");
	pack_uuid(pk, pool_master(d->pool));
	pack_number(pk, "age_ms", pool_age_ms(d->pool));
	pack_text(pk, "trouble", trouble(d, &v, words));
	rpc_pack_key(pk, "hears");
	pack_heard(pk, d);
}

bool pool_status_reply(struct call *c, const void *result, size_t len)
{
	const msgpack_object *value;
	msgpack_object o;
	msgpack_packer *pk;
	msgpack_zone zone;
	size_t at = 0;
	bool good;

	if (c->method->id != METHOD_POOL_STATUS || !msgpack_zone_init(&zone, 4096))
		return false;
	good = msgpack_unpack(result, len, &at, &zone, &o) >= 0 &&
	       o.type == MSGPACK_OBJECT_MAP;
	value = good ? rpc_map_get(&o, "value") : NULL;
	good = value && value->type == MSGPACK_OBJECT_MAP;
	if (good) {
		pk = c->port->begin(c);
		msgpack_pack_map(pk, o.via.map.size);
		for (uint32_t i = 0; i < o.via.map.size; i++) {
			msgpack_pack_object(pk, o.via.map.ptr[i].key);
			if (&o.via.map.ptr[i].val != value) {
				msgpack_pack_object(pk, o.via.map.ptr[i].val);
				continue;
			}
			msgpack_pack_map(pk, value->via.map.size + 1);
			for (uint32_t j = 0; j < value->via.map.size; j++) {
				msgpack_pack_object(pk, value->via.map.ptr[j].key);
				msgpack_pack_object(pk, value->via.map.ptr[j].val);
			}
			pack_asked(pk, c->daemon);
		}
		call_reply_end(c);
	}
	msgpack_zone_destroy(&zone);
	return good;
}

void pool_get_status(struct call *c)
{
	struct daemon *d = c->daemon;
	const struct db *db = pool_db(d->pool);
	const struct row *pool = db_pool(db);
	struct uuid master = pool_master(d->pool);
	struct view v = {.now = loop_now_us(d->loop)};
	int64_t age = pool_age_ms(d->pool);
	msgpack_packer *pk;
	char text[600], words[QUORUM_WORDS];

	pool_status(d->pool, &v.pool);
	v.count = rlog_members(pool_log(d->pool), v.servers, STATUS_MAX_SERVERS);
	pk = call_reply_begin(c);
	msgpack_pack_map(pk, c->forwarded ? 15 : 16);
	rpc_pack_key(pk, "host");
	pack_uuid(pk, d->host);
	rpc_pack_key(pk, "master");
	pack_uuid(pk, master);
	pack_truth(
		pk, "quorum", !uuid_is_none(&master) && age >= 0 && age <= POOL_STALE_MS);
	pack_text(pk, "trouble", trouble(d, &v, words));
	pack_text(pk, "advice",
		*ca_change_advice(d, text, sizeof text) ? text : witness_advice(db));
	pack_text(pk, "state", rlog_state_name(v.pool.log.state));
	pack_number(pk, "term", (int64_t)v.pool.log.term);
	pack_number(
		pk, "generation_number", pool ? db_int(pool, POOL_GENERATION_NUMBER) : 0);
	rpc_pack_key(pk, "generation_id");
	pack_uuid(pk, pool ? db_ref(pool, POOL_GENERATION_ID) : UUID_NONE);
	pack_number(pk, "seq", (int64_t)v.pool.seq);
	pack_number(pk, "age_ms", age);
	pack_number(pk, "voters", v.pool.log.voters);
	pack_number(pk, "waiting", v.pool.log.queued);
	pack_truth(pk, "database_differs", v.pool.db_differs);
	rpc_pack_key(pk, "members");
	msgpack_pack_array(pk, db_count(db, CLASS_HOST));
	for (const struct row *h = db_next(db, CLASS_HOST, NULL); h;
		h = db_next(db, CLASS_HOST, h))
		pack_member(pk, d, &v, h);
	if (!c->forwarded)
		pack_asked(pk, d);
	call_reply_end(c);
}

/* --- pool.designate_new_master --- */

enum { DESIGNATE_TRIES = 20, DESIGNATE_PAUSE_MS = 250 };

struct designation {
	struct list node; /* daemon's */
	struct call *call;
	struct daemon *daemon;
	struct uuid host;
	struct timer timer;
	int tries;
};

static void designate_step(struct designation *g);

static void designation_free(struct designation *g)
{
	timer_stop(&g->timer);
	list_remove(&g->node);
	free(g);
}

void designations_free(struct daemon *d)
{
	LIST_FOR_EACH_SAFE (node, &d->designations)
		designation_free(CONTAINER_OF(node, struct designation, node));
}

static void designate_end(struct designation *g, const struct rv_error *e)
{
	struct call *c = g->call;

	designation_free(g);
	if (e->code)
		call_fail(c, e);
	else
		call_reply_nil(c);
}

static void designate_again(void *arg)
{
	designate_step(arg);
}

/* Entries on their way, a lost message or another change of the voters: a moment later.
 */
static void designate_later(struct designation *g, const struct rv_error *e)
{
	if (++g->tries >= DESIGNATE_TRIES)
		designate_end(g, e);
	else
		timer_start_ms(&g->timer, DESIGNATE_PAUSE_MS);
}

static void on_step(void *arg, int rc)
{
	struct designation *g = arg;
	struct rv_error e = {0};

	if (!rc) {
		timer_start_ms(&g->timer, 0);
		return;
	}
	rv_error_set(&e, rc,
		"the master's role could not be handed over: %s; the master is the one "
		"before",
		rv_error_text(rc));
	designate_later(g, &e);
}

static const struct rlog_member *designate_server(
	struct designation *g, struct rlog_member *servers)
{
	int n = rlog_members(pool_log(g->daemon->pool), servers, STATUS_MAX_SERVERS);
	char text[UUID_TEXT_SIZE];

	uuid_format(&g->host, text);
	for (int i = 0; i < n; i++)
		if (strcmp(servers[i].address, text) == 0)
			return &servers[i];
	return NULL;
}

/* Until that host leads. A standby gets the vote first. */
static void designate_step(struct designation *g)
{
	struct rlog_member servers[STATUS_MAX_SERVERS];
	struct pool *pool = g->daemon->pool;
	struct uuid master = pool_master(pool);
	const struct rlog_member *s;
	struct rv_error e = {0};
	int rc;

	if (uuid_eq(&master, &g->host)) {
		designate_end(g, &e);
		return;
	}
	if (!pool_is_master(pool)) {
		rv_error_set(&e, RV_ENOTMASTER,
			"the pool's master changed meanwhile: try again");
		designate_later(g, &e);
		return;
	}
	s = designate_server(g, servers);
	if (!s) {
		rv_error_set(&e, RV_ENOTALLOWED,
			"that host only learns what the pool's voters decide; it can't "
			"lead: designate one that `reeve pool-status` shows as voter or "
			"standby");
		designate_end(g, &e);
		return;
	}
	rc = s->voter ? pool_designate(pool, s->id, on_step, g, &e)
		      : rlog_assign(pool_log(pool), s->id, true, on_step, g, &e);
	if (rc)
		designate_later(g, &e);
}

void pool_designate_new_master(struct call *c)
{
	const struct row *host = call_row(c, "host");
	struct designation *g;

	if (!host)
		return;
	g = calloc(1, sizeof *g);
	if (!g) {
		call_failf(c, RV_ENOMEM, "out of memory; ask again later");
		return;
	}
	g->call = c;
	g->daemon = c->daemon;
	g->host = row_uuid(host);
	list_push_back(&c->daemon->designations, &g->node);
	log_info("pool.designate", "host=%s", row_name(host));
	timer_init(&g->timer, c->daemon->loop, "pool.designate", designate_again, g);
	designate_step(g);
}
