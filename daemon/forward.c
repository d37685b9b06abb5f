#include "daemon/forward.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/mpcheck.h"
#include "daemon/daemon.h"
#include "daemon/eject.h"
#include "daemon/members.h"
#include "daemon/route.h"
#include "daemon/tasks.h"
#include "rpc/message.h"

enum { FORWARD_SEEN_MS = 10000 };

/* A call of a client here, being carried out there. */
struct sent {
	struct list node;
	struct call *call; /* NULL: its client has gone */
	struct uuid host;
	uint64_t id;
	/* answered: the result waits until this host has seen what that host had done */
	bool answered;
	struct pool_wait wait;
	uint8_t *result;
	size_t result_len;
};

/* A call of a client there, being carried out here. */
struct served {
	struct list node;
	struct forward *forward;
	struct uuid from;
	uint64_t id;
	msgpack_zone zone;
	msgpack_object params;
	uint8_t *bytes; /* what params point into */
	struct buf answer;
	msgpack_packer pk;
};

/* A call that waits for a master, or for a host to be linked. */
struct parked {
	struct list node;
	struct call *call;
};

struct forward {
	struct daemon *daemon;
	struct list sent, served, parked;
	struct timer look; /* while some are parked */
	uint64_t last_id;
};

enum {
	LOOK_AGAIN_MS = 100,
	HOST_PATIENCE_MS = 3000, /* for a host that was live a moment ago */
};

/* --- sending
 * --------------------------------------------------------------------------------- */

static bool is_key(const msgpack_object *key, const char *name)
{
	return key->type == MSGPACK_OBJECT_STR && key->via.str.size == strlen(name) &&
	       memcmp(key->via.str.ptr, name, key->via.str.size) == 0;
}

/* These are said anew: see pack_params. */
static bool is_replaced(const msgpack_object *key)
{
	return is_key(key, "session") || is_key(key, "request") || is_key(key, "on") ||
	       is_key(key, "min_seq");
}

/* The client's params without its session, with a request UUID, with what this host has
 * seen (the other one must have seen it too), and with the host that the client or the
 * scheduler chose. */
static void pack_params(msgpack_packer *pk, struct call *c, const struct uuid *on)
{
	const msgpack_object_map *params = &c->params->via.map;
	const msgpack_object *wanted = rpc_map_get(c->params, "on");
	char text[UUID_TEXT_SIZE];
	uint32_t kept = 0;

	for (uint32_t i = 0; i < params->size; i++)
		kept += !is_replaced(&params->ptr[i].key);
	msgpack_pack_map(pk, kept + 2 + (on || wanted ? 1 : 0));
	rpc_pack_key(pk, "request");
	rpc_pack_key(pk, uuid_format(&c->request, text));
	rpc_pack_key(pk, "min_seq");
	msgpack_pack_uint64(pk, pool_seq(c->daemon->pool));
	if (on || wanted)
		rpc_pack_key(pk, "on");
	if (on)
		rpc_pack_key(pk, uuid_format(on, text));
	else if (wanted)
		msgpack_pack_object(pk, *wanted);
	for (uint32_t i = 0; i < params->size; i++) {
		if (is_replaced(&params->ptr[i].key))
			continue;
		msgpack_pack_object(pk, params->ptr[i].key);
		msgpack_pack_object(pk, params->ptr[i].val);
	}
}

static void sent_free(struct sent *s)
{
	if (s->answered)
		pool_wait_cancel(&s->wait);
	list_remove(&s->node);
	free(s->result);
	free(s);
}

static void parked_free(struct parked *p)
{
	list_remove(&p->node);
	free(p);
}

static void on_client_gone(void *arg)
{
	struct call *c = arg;
	struct forward *f = c->daemon->forward;

	LIST_FOR_EACH (node, &f->sent) {
		struct sent *s = CONTAINER_OF(node, struct sent, node);

		if (s->call == c)
			s->call = NULL;
	}
	LIST_FOR_EACH_SAFE (node, &f->parked)
		if (CONTAINER_OF(node, struct parked, node)->call == c)
			parked_free(CONTAINER_OF(node, struct parked, node));
	call_failf(c, RV_ECLOSED, "the client has gone");
}

static int send_call(struct call *c, struct sent *s, const struct uuid *on)
{
	char method[RPC_MAX_METHOD_BYTES + 1];
	struct buf b;
	msgpack_packer pk;
	int rc;

	buf_init(&b, RV_MAX_RPC_MESSAGE_BYTES);
	msgpack_packer_init(&pk, &b, rpc_pack_to_buf);
	snprintf(method, sizeof method, "%s.%s", c->method->group, c->method->name);
	msgpack_pack_array(&pk, 5);
	msgpack_pack_uint64(&pk, s->id);
	rpc_pack_text(&pk, c->who.user);
	msgpack_pack_int(&pk, c->who.role);
	rpc_pack_key(&pk, method);
	pack_params(&pk, c, on);
	rc = members_send(
		c->daemon->members, &s->host, MEMBERS_CALL, buf_data(&b), buf_len(&b));
	buf_fini(&b);
	return rc;
}

static const char *host_name(const struct daemon *d, const struct uuid *host)
{
	const struct row *row = db_row(pool_db(d->pool), CLASS_HOST, *host);

	return row ? row_name(row) : "that is not in the database";
}

/* Has the call wait and be looked at again; false: it has waited for long enough, or
 * can't be kept. */
static bool forward_park(struct call *c, int64_t patience_ms)
{
	struct forward *f = c->daemon->forward;
	int64_t now = loop_now_us(c->daemon->loop);
	struct parked *p;

	if (!c->park_until_us)
		c->park_until_us = now + patience_ms * 1000;
	if (now >= c->park_until_us || c->daemon->stopping || call_keep(c))
		return false;
	p = calloc(1, sizeof *p);
	if (!p)
		return false;
	tasks_uuid(c); /* the same request, whoever is asked */
	p->call = c;
	list_push_back(&f->parked, &p->node);
	call_on_gone(c, on_client_gone);
	if (!timer_active(&f->look))
		timer_start_ms(&f->look, LOOK_AGAIN_MS);
	return true;
}

static void no_master(struct call *c)
{
	if (c->forwarded || !forward_park(c, POOL_PATIENCE_MS))
		call_failf(c, RV_ENOTMASTER, "the pool has no master now; %s: try again",
			c->sent ? "whether this was begun is not known"
				: "nothing was done");
}

/* Not linked. One that is live by the master's word is so again in a moment. */
static void no_host(struct call *c, struct uuid host)
{
	const struct row *row = db_row(pool_db(c->daemon->pool), CLASS_HOST, host);

	if (row && db_bool(row, HOST_LIVE) && forward_park(c, HOST_PATIENCE_MS))
		return;
	call_failf(c, RV_ECLOSED,
		"%s.%s is for host %s, which is not linked to this one; %s: try again "
		"when it is back",
		c->method->group, c->method->name, host_name(c->daemon, &host),
		c->sent ? "whether it was begun is not known" : "nothing was done");
}

void forward_look(struct forward *f)
{
	struct list turn;

	list_init(&turn);
	while (!list_empty(&f->parked)) {
		struct list *node = f->parked.next;

		list_remove(node);
		list_push_back(&turn, node);
	}
	while (!list_empty(&turn)) {
		struct parked *p = CONTAINER_OF(turn.next, struct parked, node);
		struct call *c = p->call;

		parked_free(p);
		call_again(c);
	}
}

static void look_again(void *arg)
{
	forward_look(arg);
}

void forward_to(struct call *c, struct uuid host, const struct uuid *on)
{
	struct forward *f = c->daemon->forward;
	struct sent *s = calloc(1, sizeof *s);
	int rc;

	tasks_uuid(c);
	if (!s || call_keep(c)) {
		free(s);
		call_failf(c, RV_ENOMEM, "out of memory; ask again later");
		return;
	}
	s->host = host;
	s->call = c;
	s->id = ++f->last_id;
	rc = send_call(c, s, on);
	if (rc) {
		struct uuid master = pool_master(c->daemon->pool);

		free(s);
		if (uuid_eq(&master, &host))
			no_master(c);
		else
			no_host(c, host);
		return;
	}
	c->sent = true;
	list_push_back(&f->sent, &s->node);
	call_on_gone(c, on_client_gone);
}

/* False: this host is the master. */
static bool forward_master(struct call *c)
{
	struct daemon *d = c->daemon;
	struct uuid master = pool_master(d->pool);

	if (pool_is_master(d->pool))
		return false;
	if (c->forwarded || uuid_is_none(&master) || uuid_eq(&master, &d->host))
		no_master(c);
	else
		forward_to(c, master, NULL);
	return true;
}

/* The master's scheduler chooses; the chosen host's own daemon starts the VM. */
static bool forward_placed(struct call *c)
{
	struct daemon *d = c->daemon;
	struct uuid vm = call_ref(c, "self"), host;
	struct rv_error e = {0};

	if (forward_master(c))
		return true;
	if (!db_row(pool_db(d->pool), CLASS_VM, vm))
		return false; /* refuses in its own words */
	if (vm_place_explain(d->vms, &vm, NULL, &host, &e)) {
		call_fail(c, &e);
		return true;
	}
	c->placed = host;
	if (uuid_eq(&host, &d->host))
		return false;
	forward_to(c, host, &host);
	return true;
}

bool forward_call(struct call *c)
{
	struct uuid host;

	switch (route_call(c, &host)) {
	case ROUTE_HERE:
		return false;
	case ROUTE_PLACE:
		return forward_placed(c);
	case ROUTE_MASTER:
		return forward_master(c);
	case ROUTE_HOST:
		if (c->forwarded)
			return false; /* it moved meanwhile: this host refuses */
		forward_to(c, host, NULL);
		return true;
	case ROUTE_FAILED:
		break;
	}
	return true;
}

/* --- the answer
 * -------------------------------------------------------------------------------- */

static struct sent *sent_find(struct forward *f, const struct uuid *host, uint64_t id)
{
	LIST_FOR_EACH (node, &f->sent) {
		struct sent *s = CONTAINER_OF(node, struct sent, node);

		if (s->id == id && !s->answered && uuid_eq(&s->host, host))
			return s;
	}
	return NULL;
}

static void reply_packed(struct call *c, const void *result, size_t len)
{
	msgpack_packer *pk = c->port->begin(c);

	pk->callback(pk->data, result, len);
	call_reply_end(c);
}

static void on_seen(struct pool_wait *w, int rc)
{
	struct sent *s = CONTAINER_OF(w, struct sent, wait);

	if (rc)
		log_warn("forward.seen", "msg=\"done there, but not yet seen here\"");
	if (s->call)
		reply_packed(s->call, s->result, s->result_len);
	sent_free(s);
}

/* The client asks this host what came of it, so this host must know of it first. */
static void reply_when_seen(
	struct forward *f, struct sent *s, const msgpack_object *item, uint64_t seq)
{
	struct pool *pool = f->daemon->pool;
	struct call *c = s->call;

	s->result_len = item->via.bin.size;
	if (c && seq > pool_seq(pool))
		s->result = malloc(s->result_len);
	if (s->result) {
		memcpy(s->result, item->via.bin.ptr, s->result_len);
		s->answered = true;
		pool_wait_seq(pool, &s->wait, seq, FORWARD_SEEN_MS, on_seen);
		return;
	}
	sent_free(s);
	if (c)
		reply_packed(c, item->via.bin.ptr, item->via.bin.size);
}

/* [id, error number, detail, packed result, change by which it was done] */
void forward_answered(
	struct forward *f, const struct uuid *from, const uint8_t *bytes, size_t len)
{
	msgpack_object o;
	const msgpack_object *item = NULL;
	msgpack_zone zone;
	struct sent *s = NULL;
	size_t at = 0;

	if (mpcheck(bytes, len, NULL) || !msgpack_zone_init(&zone, 1024))
		return;
	if (msgpack_unpack((const char *)bytes, len, &at, &zone, &o) >= 0 &&
		o.type == MSGPACK_OBJECT_ARRAY && o.via.array.size == 5) {
		item = o.via.array.ptr;
		if (item[0].type == MSGPACK_OBJECT_POSITIVE_INTEGER &&
			item[1].type == MSGPACK_OBJECT_POSITIVE_INTEGER &&
			item[2].type == MSGPACK_OBJECT_STR &&
			item[3].type == MSGPACK_OBJECT_BIN && item[3].via.bin.size > 0 &&
			item[4].type == MSGPACK_OBJECT_POSITIVE_INTEGER &&
			mpcheck((const uint8_t *)item[3].via.bin.ptr,
				item[3].via.bin.size, NULL) == 0)
			s = sent_find(f, from, item[0].via.u64);
	}
	if (s) {
		struct call *c = s->call;

		if (c && item[1].via.u64 == (uint64_t)-RV_ENOTMASTER && !c->forwarded &&
			forward_park(c, POOL_PATIENCE_MS)) {
			/* Nothing was done there: it goes to the next master. */
			sent_free(s);
		} else if (item[1].via.u64) {
			sent_free(s);
			if (c)
				call_failf(c, -(int)(item[1].via.u64 & 0xffff), "%.*s",
					(int)item[2].via.str.size, item[2].via.str.ptr);
		} else {
			reply_when_seen(f, s, &item[3], item[4].via.u64);
		}
	}
	msgpack_zone_destroy(&zone);
}

void forward_host_down(struct forward *f, const struct uuid *host)
{
	LIST_FOR_EACH_SAFE (node, &f->sent) {
		struct sent *s = CONTAINER_OF(node, struct sent, node);
		struct call *c = s->call;
		struct uuid task;

		if (s->answered || !uuid_eq(&s->host, host))
			continue;
		sent_free(s);
		if (!c)
			continue;
		if (c->method->id == METHOD_POOL_EJECT &&
			ejection_is_leaving(f->daemon)) {
			call_reply_nil(c); /* it was this host that had to go */
			continue;
		}
		task = pool_request_lookup(f->daemon->pool, &c->request);
		if (!uuid_is_none(&task))
			tasks_follow(c, task);
		else if ((c->forwarded && !pool_is_master(f->daemon->pool)) ||
			 !forward_park(c, POOL_PATIENCE_MS))
			call_failf(c, RV_ECLOSED, "the link to host %s broke; ask again",
				host_name(f->daemon, host));
	}
}

/* --- serving
 * ---------------------------------------------------------------------------------------
 */

static msgpack_packer *served_begin(struct call *c)
{
	struct served *s = c->source;

	msgpack_packer_init(&s->pk, &s->answer, rpc_pack_to_buf);
	return &s->pk;
}

static void served_send(struct served *s, int code, const char *detail)
{
	struct buf b;
	msgpack_packer pk;

	buf_init(&b, RV_MAX_RPC_MESSAGE_BYTES);
	msgpack_packer_init(&pk, &b, rpc_pack_to_buf);
	msgpack_pack_array(&pk, 5);
	msgpack_pack_uint64(&pk, s->id);
	msgpack_pack_int(&pk, -code);
	rpc_pack_text(&pk, detail);
	if (code) { /* a result is one object all the same */
		msgpack_pack_bin(&pk, 1);
		msgpack_pack_bin_body(&pk, "\xc0", 1);
	} else {
		msgpack_pack_bin(&pk, buf_len(&s->answer));
		msgpack_pack_bin_body(&pk, buf_data(&s->answer), buf_len(&s->answer));
	}
	msgpack_pack_uint64(&pk, pool_seq(s->forward->daemon->pool));
	if (members_send(s->forward->daemon->members, &s->from, MEMBERS_ANSWER,
		    buf_data(&b), buf_len(&b)))
		log_warn("forward.answer",
			"msg=\"lost: the asking host follows the task\"");
	buf_fini(&b);
}

static void served_free(struct served *s)
{
	list_remove(&s->node);
	msgpack_zone_destroy(&s->zone);
	buf_fini(&s->answer);
	free(s->bytes);
	free(s);
}

static void served_end(struct call *c)
{
	served_send(c->source, 0, "");
	served_free(c->source);
}

static void served_fail(struct call *c, const struct rv_error *e)
{
	served_send(c->source, e->code, e->detail);
	served_free(c->source);
}

static int served_keep(struct call *c)
{
	(void)c;
	return 0; /* kept from the start */
}

static void served_on_gone(struct call *c, timer_fn *fn)
{
	(void)c; /* the asking host may have lost its link alone: the work goes on */
	(void)fn;
}

static const struct call_port served_port = {
	served_begin, served_end, served_fail, served_keep, served_on_gone};

static bool served_parse(struct served *s, size_t len, struct session_identity *who,
	const msgpack_object **method)
{
	const msgpack_object *item;
	msgpack_object o;
	size_t at = 0;

	if (msgpack_unpack((const char *)s->bytes, len, &at, &s->zone, &o) < 0 ||
		o.type != MSGPACK_OBJECT_ARRAY || o.via.array.size != 5)
		return false;
	item = o.via.array.ptr;
	if (item[0].type != MSGPACK_OBJECT_POSITIVE_INTEGER ||
		item[1].type != MSGPACK_OBJECT_STR ||
		item[2].type != MSGPACK_OBJECT_POSITIVE_INTEGER ||
		item[2].via.u64 > ROLE_POOL_ADMIN || item[3].type != MSGPACK_OBJECT_STR ||
		item[4].type != MSGPACK_OBJECT_MAP)
		return false;
	s->id = item[0].via.u64;
	snprintf(who->user, sizeof who->user, "%.*s", (int)item[1].via.str.size,
		item[1].via.str.ptr);
	who->role = (enum role)item[2].via.u64;
	who->via = "another host";
	*method = &item[3];
	s->params = item[4];
	return true;
}

/* Trusted as far as a host of the pool is; still checked before it is unpacked. */
void forward_serve(
	struct forward *f, const struct uuid *from, const uint8_t *bytes, size_t len)
{
	struct session_identity who = {0};
	const msgpack_object *method;
	struct served *s;

	if (mpcheck(bytes, len, NULL)) {
		log_warn(
			"forward.serve", "msg=\"a host sent a call that is no msgpack\"");
		return;
	}
	s = calloc(1, sizeof *s);
	if (!s)
		return;
	list_init(&s->node);
	s->forward = f;
	s->from = *from;
	buf_init(&s->answer, RV_MAX_RPC_MESSAGE_BYTES);
	s->bytes = malloc(len);
	if (!s->bytes || !msgpack_zone_init(&s->zone, 4096)) {
		free(s->bytes);
		free(s);
		return;
	}
	memcpy(s->bytes, bytes, len);
	list_push_back(&f->served, &s->node);
	if (!served_parse(s, len, &who, &method) ||
		call_begin_forwarded(f->daemon, &served_port, s, &who,
			method->via.str.ptr, method->via.str.size, &s->params))
		served_free(s);
}

/* --- beginning and ending
 * ------------------------------------------------------------------------------ */

int forward_new(struct forward **out, struct daemon *d)
{
	struct forward *f = calloc(1, sizeof *f);

	if (!f)
		return RV_ENOMEM;
	f->daemon = d;
	list_init(&f->sent);
	list_init(&f->served);
	list_init(&f->parked);
	timer_init(&f->look, d->loop, "daemon.forward.look", look_again, f);
	*out = f;
	return 0;
}

void forward_free(struct forward *f)
{
	if (!f)
		return;
	timer_stop(&f->look);
	LIST_FOR_EACH_SAFE (node, &f->parked)
		parked_free(CONTAINER_OF(node, struct parked, node));
	LIST_FOR_EACH_SAFE (node, &f->sent)
		sent_free(CONTAINER_OF(node, struct sent, node));
	LIST_FOR_EACH_SAFE (node, &f->served)
		served_free(CONTAINER_OF(node, struct served, node));
	free(f);
}
