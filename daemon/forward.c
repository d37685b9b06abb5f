#include "daemon/forward.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/map.h"
#include "base/mpcheck.h"
#include "daemon/daemon.h"
#include "daemon/eject.h"
#include "daemon/members.h"
#include "daemon/route.h"
#include "daemon/served.h"
#include "daemon/tasks.h"
#include "daemon/voters.h"
#include "daemon/witness.h"
#include "rpc/message.h"

enum {
	FORWARD_SEEN_MS = 10000,
	LOOK_AGAIN_MS = 100,
	HOST_PATIENCE_MS = 3000, /* for a host that was live a moment ago */
	TURN = 64,		 /* calls looked at in one callback */
	/* A call without an answer: how often its task is looked up, and for how many
	 * looks in a row it may have none. */
	SENT_LOOK_MS = 30000,
	SENT_LOOKS = 20,
};

/* A call of a client here, being carried out there. */
struct sent {
	struct list node; /* sent, lost, or, once answered, answered */
	struct list call; /* of one: see sent_call */
	struct forward *forward;
	struct uuid host;
	uint64_t id; /* in by_id until it is answered or lost */
	struct timer watch;
	int looks;
	/* answered: the result waits until this host has seen what that host had done */
	bool answered;
	struct pool_wait wait;
	uint8_t *result;
	size_t result_len;
};

/* Calls are in these lists by their `waiting`: they leave when they end. */
struct forward {
	struct daemon *daemon;
	struct serving *serving;
	struct map by_id; /* struct sent */
	struct list sent, answered;
	struct list lost;   /* struct sent: their host's link broke, to be looked at */
	struct list parked; /* calls that wait for a master, or for a host's link */
	struct list due;    /* of those: to be looked at */
	struct timer look;  /* while some are parked */
	struct timer turn;  /* while some are lost or due */
	bool turning;
	uint64_t start, last_id; /* see daemon/served.h */
};

/* --- sending --- */

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

static struct call *sent_call(const struct sent *s)
{
	return list_empty(&s->call) ? NULL
				    : CONTAINER_OF(s->call.next, struct call, waiting);
}

static void sent_free(struct sent *s)
{
	if (s->answered)
		pool_wait_cancel(&s->wait);
	else
		map_remove(&s->forward->by_id, &s->id, sizeof s->id);
	timer_stop(&s->watch);
	list_remove(&s->node);
	list_remove(&s->call);
	free(s->result);
	free(s);
}

/* Frees it and gives its call back, whose client may now go without notice: the call may
 * be at work here next. */
static struct call *sent_take(struct sent *s)
{
	struct call *c = sent_call(s);

	if (c) {
		list_remove(&c->waiting);
		call_on_gone(c, NULL);
	}
	sent_free(s);
	return c;
}

/* Its answer, should it come, is for nobody. */
static void on_sent_gone(void *arg)
{
	struct call *c = arg;

	sent_free(CONTAINER_OF(c->waiting.prev, struct sent, call));
	call_failf(c, RV_ECLOSED, "the client has gone");
}

static void on_parked_gone(void *arg)
{
	call_failf(arg, RV_ECLOSED, "the client has gone");
}

static int send_call(struct call *c, struct sent *s, const struct uuid *on)
{
	struct forward *f = s->forward;
	char method[RPC_MAX_METHOD_BYTES + 1];
	struct packing p;
	int rc;

	packing_init(&p, FORWARD_MESSAGE_BYTES);
	snprintf(method, sizeof method, "%s.%s", c->method->group, c->method->name);
	msgpack_pack_array(&p.pk, 6);
	msgpack_pack_uint64(&p.pk, s->id);
	msgpack_pack_uint64(&p.pk, f->start);
	rpc_pack_text(&p.pk, c->who.user);
	msgpack_pack_int(&p.pk, c->who.role);
	rpc_pack_key(&p.pk, method);
	pack_params(&p.pk, c, on);
	rc = p.rc ? p.rc
		  : members_send(c->daemon->members, &s->host, MEMBERS_CALL,
			    buf_data(&p.buf), buf_len(&p.buf));
	buf_fini(&p.buf);
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

	if (!c->park_until_us)
		c->park_until_us = now + patience_ms * 1000;
	if (now >= c->park_until_us || c->daemon->stopping || call_keep(c))
		return false;
	tasks_uuid(c); /* the same request, whoever is asked */
	list_push_back(&f->parked, &c->waiting);
	call_on_gone(c, on_parked_gone);
	if (!timer_active(&f->look))
		timer_start_ms(&f->look, LOOK_AGAIN_MS);
	return true;
}

static void no_master(struct call *c)
{
	struct rv_error e = {0};

	if (!c->forwarded && forward_park(c, POOL_PATIENCE_MS))
		return;
	(void)rv_error_set(&e, RV_ENOTMASTER, "the pool has no master now; %s: try again",
		c->sent ? "whether this was begun is not known" : "nothing was done");
	witness_advise(pool_db(c->daemon->pool), &e);
	call_fail(c, &e);
}

/* What lets go of what a host that is gone for good still has; the master refuses it
 * while it hears from that host. "" where there is nothing to say. */
static const char *gone_words(
	const struct call *c, const struct row *host, char *out, size_t size)
{
	const struct row *vm =
		c->method->cls == CLASS_VM && schema_arg_by_name(c->method, "self", 4)
			? db_row(pool_db(c->daemon->pool), CLASS_VM, call_ref(c, "self"))
			: NULL;
	int len;

	out[0] = '\0';
	if (!host || db_bool(host, HOST_LIVE))
		return out;
	len = snprintf(out, size,
		". If it is off for good, `reeve host-declare-dead host=%.64s` lets go "
		"of "
		"all its VMs",
		row_name(host));
	if (vm)
		snprintf(out + len, size - (size_t)len,
			", `reeve vm-reset-power-state vm=%.64s` of this one",
			row_name(vm));
	return out;
}

/* Not linked. One that is live by the master's word is so again in a moment; one that is
 * no member never will be. The master's record may not have come yet. */
static void no_host(struct call *c, struct uuid host)
{
	const struct row *row = db_row(pool_db(c->daemon->pool), CLASS_HOST, host);
	struct uuid master = pool_master(c->daemon->pool);
	char text[UUID_TEXT_SIZE], gone[300];

	if (!row && !c->sent && !uuid_eq(&host, &master)) {
		call_failf(c, RV_ENOENT,
			"there is no host %s in this pool; `reeve host-list` shows them",
			uuid_format(&host, text));
		return;
	}
	if (row && db_bool(row, HOST_LIVE) && forward_park(c, HOST_PATIENCE_MS))
		return;
	call_failf(c, RV_ECLOSED,
		"%s.%s is for host %s, which is not linked to this one; %s: try again "
		"when it is back%s",
		c->method->group, c->method->name, host_name(c->daemon, &host),
		c->sent ? "whether it was begun is not known" : "nothing was done",
		gone_words(c, row, gone, sizeof gone));
}

static void look_again(void *arg)
{
	forward_look(arg);
}

static void sent_watch(void *arg)
{
	struct sent *s = arg;
	struct forward *f = s->forward;
	struct call *c = sent_call(s);
	const struct row *row;
	struct uuid task;

	if (!c)
		return; /* the daemon ends */
	task = pool_request_lookup(f->daemon->pool, &c->request);
	row = db_row(pool_db(f->daemon->pool), CLASS_TASK, task);
	if (!uuid_is_none(&task) && (!row || tasks_ended(row) || c->async)) {
		tasks_follow(sent_take(s), task);
	} else if (uuid_is_none(&task) && ++s->looks >= SENT_LOOKS) {
		call_failf(sent_take(s), RV_EOUTCOME,
			"the host that %s.%s was sent to is linked, but has not answered "
			"for %d minutes, and there is no task of it: look whether it was "
			"done before asking again",
			c->method->group, c->method->name,
			SENT_LOOKS * SENT_LOOK_MS / 60000);
	} else {
		if (!uuid_is_none(&task))
			s->looks = 0; /* at work */
		timer_start_ms(&s->watch, SENT_LOOK_MS);
	}
}

static struct sent *sent_new(struct forward *f, struct uuid host)
{
	struct sent *s = calloc(1, sizeof *s);

	if (!s)
		return NULL;
	s->forward = f;
	s->host = host;
	s->id = ++f->last_id;
	list_init(&s->node);
	list_init(&s->call);
	timer_init(&s->watch, f->daemon->loop, "daemon.forward.watch", sent_watch, s);
	if (map_add(&f->by_id, &s->id, sizeof s->id, s)) {
		free(s);
		return NULL;
	}
	return s;
}

static void not_sent(struct call *c, struct uuid host, int rc)
{
	struct uuid master = pool_master(c->daemon->pool);

	if (rc == RV_ETOOBIG)
		call_failf(c, rc,
			"%s.%s is for host %s, and too big to be sent there; use fewer "
			"or shorter parameters",
			c->method->group, c->method->name, host_name(c->daemon, &host));
	else if (uuid_eq(&master, &host))
		no_master(c);
	else
		no_host(c, host);
}

void forward_to(struct call *c, struct uuid host, const struct uuid *on)
{
	struct forward *f = c->daemon->forward;
	struct sent *s;
	int rc;

	tasks_uuid(c);
	s = call_keep(c) ? NULL : sent_new(f, host);
	if (!s) {
		call_failf(c, RV_ENOMEM, "out of memory; ask again later");
		return;
	}
	rc = send_call(c, s, on);
	if (rc) {
		sent_free(s);
		not_sent(c, host, rc);
		return;
	}
	c->sent = true;
	list_push_back(&f->sent, &s->node);
	list_push_back(&s->call, &c->waiting);
	call_on_gone(c, on_sent_gone);
	timer_start_ms(&s->watch, SENT_LOOK_MS);
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
		return false;	  /* refuses in its own words */
	if (witness_is_here(d)) { /* it places nothing; a host leads in a moment */
		no_master(c);
		return true;
	}
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
		if (!witness_is_here(c->daemon) || !witness_lacks(c->method))
			return false;
		call_failf(c, RV_EAGAIN,
			"this is the pool's witness, which runs no VMs, and no host is "
			"linked to it now; nothing was done: try again when one is");
		return true;
	case ROUTE_PLACE:
		return forward_placed(c);
	case ROUTE_MASTER:
		return forward_master(c);
	case ROUTE_HOST:
		if (c->forwarded && witness_is_here(c->daemon)) {
			no_master(c); /* it was sent to who led */
			return true;
		}
		if (c->forwarded)
			return false; /* it moved meanwhile: this host refuses */
		forward_to(c, host, NULL);
		return true;
	}
	return true;
}

/* --- the answer --- */

static struct sent *sent_find(struct forward *f, const struct uuid *host, uint64_t id)
{
	struct sent *s = map_get(&f->by_id, &id, sizeof id);

	return s && uuid_eq(&s->host, host) ? s : NULL;
}

static void reply_packed(struct call *c, const void *result, size_t len)
{
	msgpack_packer *pk;

	if (!c->forwarded && pool_status_reply(c, result, len))
		return;
	pk = c->port->begin(c);
	pk->callback(pk->data, result, len);
	call_reply_end(c);
}

static void on_seen(struct pool_wait *w, int rc)
{
	struct sent *s = CONTAINER_OF(w, struct sent, wait);
	struct call *c = sent_call(s);

	if (rc)
		log_warn("forward.seen", "msg=\"done there, but not yet seen here\"");
	if (c) {
		list_remove(&c->waiting);
		call_on_gone(c, NULL);
		reply_packed(c, s->result, s->result_len);
	}
	sent_free(s);
}

/* The client asks this host what came of it, so this host must know of it first. */
static void reply_when_seen(struct sent *s, const msgpack_object *item, uint64_t seq)
{
	struct forward *f = s->forward;
	struct pool *pool = f->daemon->pool;
	struct call *c;

	s->result_len = item->via.bin.size;
	if (seq > pool_seq(pool))
		s->result = malloc(s->result_len);
	if (s->result) {
		memcpy(s->result, item->via.bin.ptr, s->result_len);
		map_remove(&f->by_id, &s->id, sizeof s->id);
		timer_stop(&s->watch);
		list_remove(&s->node);
		list_push_back(&f->answered, &s->node);
		s->answered = true;
		pool_wait_seq(pool, &s->wait, seq, FORWARD_SEEN_MS, on_seen);
		return;
	}
	c = sent_take(s);
	if (c)
		reply_packed(c, item->via.bin.ptr, item->via.bin.size);
}

/* The items of an answer to this start of the daemon. NULL: it is not one. */
static const msgpack_object *answer_items(
	const struct forward *f, const msgpack_object *answer)
{
	const msgpack_object *item = answer->via.array.ptr;

	if (answer->type != MSGPACK_OBJECT_ARRAY || answer->via.array.size != 6 ||
		item[0].type != MSGPACK_OBJECT_POSITIVE_INTEGER ||
		item[1].type != MSGPACK_OBJECT_POSITIVE_INTEGER ||
		item[2].type != MSGPACK_OBJECT_POSITIVE_INTEGER ||
		item[3].type != MSGPACK_OBJECT_STR ||
		item[4].type != MSGPACK_OBJECT_BIN || item[4].via.bin.size == 0 ||
		item[5].type != MSGPACK_OBJECT_POSITIVE_INTEGER ||
		mpcheck((const uint8_t *)item[4].via.bin.ptr, item[4].via.bin.size, NULL))
		return NULL;
	return item[1].via.u64 == f->start ? item : NULL;
}

static void sent_failed(
	struct sent *s, const msgpack_object *code, const msgpack_object *detail)
{
	struct call *c = sent_take(s);

	if (!c)
		return;
	/* Nothing was done there: it goes to the next master. */
	if (code->via.u64 == (uint64_t)-RV_ENOTMASTER && !c->forwarded &&
		forward_park(c, POOL_PATIENCE_MS))
		return;
	call_failf(c, -(int)(code->via.u64 & 0xffff), "%.*s", (int)detail->via.str.size,
		detail->via.str.ptr);
}

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
	if (msgpack_unpack((const char *)bytes, len, &at, &zone, &o) >= 0)
		item = answer_items(f, &o);
	if (item)
		s = sent_find(f, from, item[0].via.u64);
	if (s && item[2].via.u64)
		sent_failed(s, &item[2], &item[3]);
	else if (s)
		reply_when_seen(s, &item[4], item[5].via.u64);
	msgpack_zone_destroy(&zone);
}

/* --- looking again --- */

/* The link broke before the answer: the task tells what came of it. */
static void sent_lost(struct sent *s)
{
	struct forward *f = s->forward;
	struct uuid host = s->host, task;
	struct call *c = sent_take(s);

	if (!c)
		return;
	if (c->method->id == METHOD_POOL_EJECT && ejection_is_leaving(f->daemon)) {
		call_reply_nil(c); /* it was this host that had to go */
		return;
	}
	task = pool_request_lookup(f->daemon->pool, &c->request);
	if (!uuid_is_none(&task))
		tasks_follow(c, task);
	else if ((c->forwarded && !pool_is_master(f->daemon->pool)) ||
		 !forward_park(c, POOL_PATIENCE_MS))
		call_failf(c, RV_ECLOSED, "the link to host %s broke; ask again",
			host_name(f->daemon, &host));
}

/* A bounded part of them: with thousands of calls, other callbacks come between. */
static void on_turn(void *arg)
{
	struct forward *f = arg;

	if (f->turning)
		return;
	f->turning = true;
	for (int i = 0; i < TURN; i++) {
		if (!list_empty(&f->lost)) {
			sent_lost(CONTAINER_OF(f->lost.next, struct sent, node));
		} else if (!list_empty(&f->due)) {
			struct call *c = CONTAINER_OF(f->due.next, struct call, waiting);

			/* It may run here now, and then its client may go. */
			list_remove(&c->waiting);
			call_on_gone(c, NULL);
			call_again(c);
		} else {
			break;
		}
	}
	f->turning = false;
	if (!list_empty(&f->lost) || !list_empty(&f->due))
		timer_start_ms(&f->turn, 0);
}

/* Every call that waits is due again: those left over from the last look first. */
void forward_look(struct forward *f)
{
	list_append_all(&f->due, &f->parked);
	if (!timer_active(&f->turn))
		on_turn(f);
}

void forward_host_down(struct forward *f, const struct uuid *host)
{
	serving_host_down(f->serving, host);
	LIST_FOR_EACH_SAFE (node, &f->sent) {
		if (!uuid_eq(&CONTAINER_OF(node, struct sent, node)->host, host))
			continue;
		list_remove(node);
		list_push_back(&f->lost, node);
	}
	if (!timer_active(&f->turn))
		on_turn(f);
}

void forward_room(struct forward *f, const struct uuid *host)
{
	serving_room(f->serving, host);
}

void forward_serve(
	struct forward *f, const struct uuid *from, const uint8_t *bytes, size_t len)
{
	serving_asked(f->serving, from, bytes, len);
}

/* --- beginning and ending --- */

int forward_new(struct forward **out, struct daemon *d)
{
	struct forward *f = calloc(1, sizeof *f);

	if (!f)
		return RV_ENOMEM;
	if (serving_new(&f->serving, d)) {
		free(f);
		return RV_ENOMEM;
	}
	f->daemon = d;
	f->start = prng_next(loop_prng(d->loop));
	map_init(&f->by_id, prng_next(loop_prng(d->loop)));
	list_init(&f->sent);
	list_init(&f->answered);
	list_init(&f->lost);
	list_init(&f->parked);
	list_init(&f->due);
	timer_init(&f->look, d->loop, "daemon.forward.look", look_again, f);
	timer_init(&f->turn, d->loop, "daemon.forward.turn", on_turn, f);
	*out = f;
	return 0;
}

/* Their calls, as those that are parked, end with the others. */
static void sent_take_all(struct list *list)
{
	LIST_FOR_EACH_SAFE (node, list)
		sent_take(CONTAINER_OF(node, struct sent, node));
}

void forward_stop(struct forward *f)
{
	if (!f)
		return;
	timer_stop(&f->look);
	timer_stop(&f->turn);
	serving_stop(f->serving);
	sent_take_all(&f->sent);
	sent_take_all(&f->lost);
	sent_take_all(&f->answered);
}

void forward_free(struct forward *f)
{
	if (!f)
		return;
	forward_stop(f);
	list_remove(&f->parked);
	list_remove(&f->due);
	serving_free(f->serving);
	map_fini(&f->by_id);
	free(f);
}
