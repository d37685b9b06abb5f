#include "pool/remote.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/within.h"
#include "pool/pool_internal.h"
#include "pool/remote_internal.h"
#include "pool/remote_live.h"
#include "pool/remote_wire.h"

enum {
	RAFT_HEAD = 8,	    /* the sender's raft id */
	LIVE_AT_ONCE = 256, /* hosts told of live fields in one callback */
	RETRY_MS = 20,	    /* after a refusal for want of a master, ... */
	RETRY_MAX_MS = 250, /* ... more and more rarely */
	RETRY_PART = 16,    /* of how long it has waited */
	FORMER_MS = 100, /* for a former master to tell what came of what it was asked */
};

/* A linked host. */
struct peer {
	struct uuid host;
	uint64_t start;	     /* of its daemon, from HELLO; 0: not told yet */
	uint64_t live_round; /* the last one of live fields that it was sent */
	struct list node;
};

static struct peer *peer_find(const struct remote *r, const struct uuid *host)
{
	return map_get(&r->by_host, host->b, sizeof host->b);
}

int remote_send(struct remote *r, const struct uuid *host, enum pool_message type,
	const struct buf *b)
{
	return r->messenger->ops->send(
		r->messenger, host, type, buf_len(b) ? buf_data(b) : NULL, buf_len(b));
}

/* --- raft's transport --- */

static int transport_send(struct rlog_transport *t, uint64_t to_id,
	const char *to_address, const uint8_t *bytes, size_t len)
{
	struct remote *r = CONTAINER_OF(t, struct remote, transport);
	uint8_t head[RAFT_HEAD];
	struct rlog_status s;
	struct uuid host;
	struct buf b;
	int rc;

	(void)to_id;
	if (uuid_parse(&host, to_address, strlen(to_address)))
		return RV_ECLOSED;
	if (!r->pool->log)
		return RV_ECLOSED; /* still opening */
	rlog_status(r->pool->log, &s);
	bytes_put_le64(head, s.id);
	buf_init(&b, len + RAFT_HEAD);
	rc = buf_append(&b, head, sizeof head);
	if (!rc)
		rc = buf_append(&b, bytes, len);
	if (!rc)
		rc = remote_send(r, &host, POOL_MESSAGE_RAFT, &b);
	buf_fini(&b);
	return rc;
}

static void transport_set_receiver(
	struct rlog_transport *t, rlog_transport_deliver_fn *fn, void *arg)
{
	struct remote *r = CONTAINER_OF(t, struct remote, transport);

	r->deliver = fn;
	r->deliver_arg = arg;
}

static const struct rlog_transport_ops transport_ops = {
	.send = transport_send, .set_receiver = transport_set_receiver};

struct rlog_transport *remote_transport(struct remote *r)
{
	return &r->transport;
}

static void deliver_raft(
	struct remote *r, const struct uuid *from, const uint8_t *bytes, size_t len)
{
	char address[UUID_TEXT_SIZE];

	if (!r->deliver || len < RAFT_HEAD)
		return;
	/* The address is the link's own word; the id is checked against it by raft's
	 * configuration, which knows each id by its address. */
	r->deliver(r->deliver_arg, bytes_get_le64(bytes), uuid_format(from, address),
		bytes + RAFT_HEAD, len - RAFT_HEAD);
}

/* --- asking the master --- */

static void ask_end(struct pool_ask *a)
{
	timer_stop(&a->deadline);
	pool_wait_cancel(&a->wait);
	list_remove(&a->node);
	a->remote->ask_count--;
	a->fn(a);
}

static void ask_unknown(struct pool_ask *a)
{
	rv_error_set(&a->error, RV_EOUTCOME,
		"the pool's master or the link to it failed before it was known whether "
		"this took effect: look before trying again");
	ask_end(a);
}

/* A proposal of our own can't be called back: its end ends the ask. */
static void ask_late(void *arg)
{
	struct pool_ask *a = arg;

	if (a->local)
		return;
	if (a->master_start) {
		ask_unknown(a);
		return;
	}
	rv_error_set(&a->error, RV_ENOTMASTER,
		"no master was found; nothing was done: try again");
	ask_end(a);
}

/* The answer's effects are here, or can't be waited for any longer: then who asked must
 * not be told of success, for it would go on with a database that knows nothing of it. */
static void ask_caught_up(struct pool_wait *w, int rc)
{
	struct pool_ask *a = CONTAINER_OF(w, struct pool_ask, wait);

	if (rc && !a->error.code) {
		log_warn("pool.remote",
			"seq=%llu msg=\"committed, but not yet seen here\"",
			(unsigned long long)a->seq);
		rv_error_set(&a->error, RV_EOUTCOME,
			"the pool's master did it, but this host does not hear of it: "
			"look before trying again");
	}
	ask_end(a);
}

/* It is known that nothing was done: it goes to whoever leads next. The name is new,
 * since the former master remembers the refusal. */
static void ask_anew(struct pool_ask *a)
{
	struct remote *r = a->remote;
	int64_t left_us = a->until_us - loop_now_us(r->pool->loop);
	int64_t ms = (REMOTE_TIMEOUT_MS - left_us / 1000) / RETRY_PART;

	a->local = false;
	a->master_start = 0;
	a->left_us = 0;
	a->id = ++r->last_id;
	if (left_us <= 0)
		timer_start_us(&a->deadline, 0);
	else if (!timer_active(&r->retry))
		timer_start_ms(&r->retry, within(ms, RETRY_MS, RETRY_MAX_MS));
}

static void ask_proposed(struct rlog_proposal *p, enum rlog_outcome outcome, int rc)
{
	struct pool_ask *a = CONTAINER_OF(p, struct pool_ask, proposal);
	struct pool *pool = a->remote->pool;

	if (outcome == RLOG_REJECTED && rc == RV_ENOTMASTER && !pool->freeing) {
		ask_anew(a);
		return;
	}
	a->local = false;
	a->seq = db_seq(pool->db);
	if (outcome == RLOG_UNKNOWN) {
		ask_unknown(a);
		return;
	}
	if (outcome == RLOG_REJECTED)
		rv_error_set(&a->error, rc,
			"the pool's database could not be written; nothing was done: try "
			"again");
	else if (a->len)
		a->error = pool->result.verdict;
	ask_end(a);
}

/* This host leads by now. */
static void ask_locally(struct remote *r, struct pool_ask *a)
{
	struct rlog *log = r->pool->log;
	char words[POOL_CLASH_WORDS];
	int rc = a->len ? rlog_propose(log, &a->proposal, POOL_ENTRY_TXN, a->bytes,
				  a->len, a->essential, ask_proposed)
			: rlog_barrier(log, &a->proposal, ask_proposed);

	a->local = rc == 0;
	if (!rc || rc == RV_ENOTMASTER)
		return;
	rv_error_set(&a->error, rc, "the change can't be written: %s",
		rc == RV_ENOTALLOWED && pool_clash_words(r->pool, words)
			? words
			: rv_error_text(rc));
	ask_end(a);
}

/* Sends to the present master what was never sent, and again what that very start of it
 * was sent before. */
static void ask_send(struct remote *r, struct pool_ask *a)
{
	struct uuid master = pool_master(r->pool);
	struct peer *p = peer_find(r, &master);
	struct remote_ask ask;
	struct rlog_status s;
	struct buf b;

	if (!p || !p->start)
		return; /* comes again with the link's HELLO */
	if (!a->master_start) {
		rlog_status(r->pool->log, &s);
		a->master = master;
		a->master_start = p->start;
		a->term = s.term;
	}
	ask = (struct remote_ask){.start = r->start,
		.id = a->id,
		.master = a->master_start,
		.term = a->term,
		.essential = a->essential,
		.bytes = a->bytes,
		.len = a->len};
	buf_init(&b, RV_MAX_ENTRY_BYTES + 64);
	if (remote_ask_encode(&ask, &b) ||
		remote_send(r, &master, POOL_MESSAGE_COMMIT, &b))
		log_debug("pool.remote", "msg=\"asked again when the link is back\"");
	buf_fini(&b);
}

/* A former master that handed over still knows what came of it, and will tell. One that
 * is frozen or cut off will not, and its link takes long to notice. */
static bool former_may_tell(struct remote *r, struct pool_ask *a)
{
	int64_t now_us = loop_now_us(r->pool->loop);

	if (a->left_us == 0)
		a->left_us = now_us;
	if (now_us - a->left_us >= FORMER_MS * INT64_C(1000))
		return false;
	if (!timer_active(&r->retry))
		timer_start_ms(&r->retry, FORMER_MS);
	return true;
}

/* Where it stands, and what can be done about it now. */
static void ask_look(struct remote *r, struct pool_ask *a)
{
	struct uuid master = pool_master(r->pool);
	struct peer *p = peer_find(r, &master), *former;

	if (a->local || uuid_is_none(&master))
		return;
	if (a->master_start && uuid_eq(&a->master, &master) &&
		(!p || !p->start || p->start == a->master_start)) {
		ask_send(r, a);
		return;
	}
	former = a->master_start ? peer_find(r, &a->master) : NULL;
	if (former && a->len && (!former->start || former->start == a->master_start) &&
		former_may_tell(r, a))
		return;
	if (a->master_start && a->len) {
		ask_unknown(a);
		return;
	}
	if (a->master_start) { /* a barrier: it does no harm twice */
		a->master_start = 0;
		a->id = ++r->last_id;
	}
	if (rlog_is_leader(r->pool->log))
		ask_locally(r, a);
	else
		ask_send(r, a);
}

int remote_ask_master(struct remote *r, struct pool_ask *a, const uint8_t *bytes,
	size_t len, bool essential, void (*fn)(struct pool_ask *))
{
	struct loop *l = r->pool->loop;

	if (r->ask_count >= RV_MAX_COMMITS_QUEUED)
		return RV_ELIMIT;
	r->ask_count++;
	*a = (struct pool_ask){.remote = r,
		.id = ++r->last_id,
		.essential = essential,
		.bytes = bytes,
		.len = len,
		.until_us = loop_now_us(l) + REMOTE_TIMEOUT_MS * INT64_C(1000),
		.fn = fn};
	list_push_back(&r->asks, &a->node);
	list_init(&a->wait.node);
	timer_init(&a->wait.timer, l, "pool.wait", NULL, NULL);
	timer_init(&a->deadline, l, "pool.remote.deadline", ask_late, a);
	timer_start_ms(&a->deadline, REMOTE_TIMEOUT_MS);
	if (!rlog_is_leader(r->pool->log))
		ask_send(r, a);
	else if (!timer_active(&r->retry)) /* never told inside the call */
		timer_start_ms(&r->retry, 0);
	return 0;
}

bool remote_is_ready(const struct remote *r)
{
	struct uuid master = pool_master(r->pool);
	struct peer *p = uuid_is_none(&master) ? NULL : peer_find(r, &master);

	return p && p->start;
}

static struct pool_ask *ask_find(struct remote *r, uint64_t id)
{
	LIST_FOR_EACH (node, &r->asks) {
		struct pool_ask *a = CONTAINER_OF(node, struct pool_ask, node);

		if (a->id == id)
			return a;
	}
	return NULL;
}

static void deliver_answer(
	struct remote *r, const struct uuid *from, const uint8_t *bytes, size_t len)
{
	struct remote_answer answer;
	struct pool_ask *a;

	if (remote_answer_decode(&answer, bytes, len) || answer.start != r->start)
		return;
	a = ask_find(r, answer.id);
	if (!a || a->local || !uuid_eq(&a->master, from))
		return;
	if (answer.rc == RV_ENOTMASTER) {
		ask_anew(a);
		return;
	}
	list_remove(&a->node);
	list_push_back(&r->answered, &a->node);
	timer_stop(&a->deadline);
	a->seq = answer.seq;
	if (answer.rc)
		rv_error_set(&a->error, answer.rc, "%s", answer.detail);
	pool_wait_seq(r->pool, &a->wait, answer.seq, REMOTE_TIMEOUT_MS, ask_caught_up);
}

/* --- peers --- */

static void say_hello(struct remote *r, const struct uuid *host)
{
	uint8_t start[8];

	bytes_put_le64(start, r->start);
	if (r->messenger->ops->send(
		    r->messenger, host, POOL_MESSAGE_HELLO, start, sizeof start))
		log_debug("pool.remote", "msg=\"the link went again\"");
}

void remote_peer_up(struct remote *r, const struct uuid *host)
{
	struct peer *p = peer_find(r, host);

	if (!p) {
		p = calloc(1, sizeof *p);
		if (!p)
			return;
		p->host = *host;
		if (map_add(&r->by_host, p->host.b, sizeof p->host.b, p)) {
			free(p);
			return;
		}
		list_push_back(&r->peers, &p->node);
	}
	p->start = 0;
	say_hello(r, host);
	remote_live_greet(r->live, host);
}

void remote_peer_down(struct remote *r, const struct uuid *host)
{
	struct peer *p = peer_find(r, host);

	if (!p)
		return;
	map_remove(&r->by_host, p->host.b, sizeof p->host.b);
	list_remove(&p->node);
	free(p);
	remote_live_down(r->live, host);
	if (!r->pool->freeing)
		remote_look(r); /* who waited for its answer waits no more */
}

void remote_look(struct remote *r)
{
	struct list turn;

	/* What ends may have others begin or end: each is taken out by itself. */
	list_init(&turn);
	while (!list_empty(&r->asks)) {
		struct list *node = r->asks.next;

		list_remove(node);
		list_push_back(&turn, node);
	}
	while (!list_empty(&turn)) {
		struct list *node = turn.next;

		list_remove(node);
		list_push_back(&r->asks, node);
		ask_look(r, CONTAINER_OF(node, struct pool_ask, node));
	}
	remote_live_look(r->live);
}

static void look_again(void *arg)
{
	remote_look(arg);
}

void remote_deliver(struct remote *r, const struct uuid *from, enum pool_message type,
	const uint8_t *bytes, size_t len)
{
	struct peer *p = peer_find(r, from);

	switch (type) {
	case POOL_MESSAGE_RAFT:
		deliver_raft(r, from, bytes, len);
		break;
	case POOL_MESSAGE_HELLO:
		if (p && len == 8 && p->start != bytes_get_le64(bytes)) {
			p->start = bytes_get_le64(bytes);
			/* It may have come up after ours was sent, and not heard it. */
			say_hello(r, from);
			remote_look(r);
			r->pool->events->changed(r->pool->arg);
		}
		break;
	case POOL_MESSAGE_COMMIT:
		remote_served_deliver(r, from, bytes, len);
		break;
	case POOL_MESSAGE_RESULT:
		deliver_answer(r, from, bytes, len);
		break;
	case POOL_MESSAGE_LIVE:
		remote_live_deliver(r->live, from, bytes, len);
		break;
	case POOL_MESSAGE_LEARN: /* pool.c gives these to the log */
	case POOL_MESSAGE_FEED:
	case POOL_MESSAGE_PLACE:
		break;
	}
}

void remote_ask_live(struct remote *r)
{
	remote_live_ask(r->live);
}

void remote_live(struct remote *r, const struct uuid *uuid, enum schema_field_id field,
	bool changed)
{
	remote_live_note(r->live, uuid, field, changed);
}

static int live_send(void *arg, const struct uuid *to, const struct buf *b)
{
	struct remote *r = arg;

	return peer_find(r, to) ? remote_send(r, to, POOL_MESSAGE_LIVE, b) : RV_ECLOSED;
}

static bool live_send_some(void *arg, const struct buf *b, uint64_t round)
{
	struct remote *r = arg;
	int sent = 0;

	LIST_FOR_EACH (node, &r->peers) {
		struct peer *p = CONTAINER_OF(node, struct peer, node);

		if (p->live_round == round)
			continue;
		if (++sent > LIVE_AT_ONCE)
			return true;
		p->live_round = round;
		if (remote_send(r, &p->host, POOL_MESSAGE_LIVE, b))
			log_debug("pool.live", "msg=\"lost; it is told again\"");
	}
	return false;
}

static size_t live_peers(void *arg)
{
	const struct remote *r = arg;

	return r->by_host.count;
}

static const struct remote_live_port live_port = {
	.send = live_send, .send_some = live_send_some, .peers = live_peers};

/* --- beginning and ending --- */

int remote_new(struct remote **out, struct pool *pool, struct pool_messenger *messenger,
	struct uuid self, uint64_t start)
{
	struct remote *r = calloc(1, sizeof *r);

	if (!r)
		return RV_ENOMEM;
	r->transport.ops = &transport_ops;
	r->pool = pool;
	r->messenger = messenger;
	r->self = self;
	r->start = start ? start : 1;
	list_init(&r->peers);
	map_init(&r->by_host, start);
	list_init(&r->asks);
	list_init(&r->answered);
	list_init(&r->served_order);
	map_init(&r->served, start);
	map_init(&r->forgotten, start);
	timer_init(&r->retry, pool->loop, "pool.remote.retry", look_again, r);
	if (remote_live_new(&r->live, pool, &live_port, r)) {
		free(r);
		return RV_ENOMEM;
	}
	*out = r;
	return 0;
}

void remote_free(struct remote *r)
{
	if (!r)
		return;
	timer_stop(&r->retry);
	while (!list_empty(&r->asks))
		ask_unknown(CONTAINER_OF(r->asks.next, struct pool_ask, node));
	while (!list_empty(&r->answered))
		ask_end(CONTAINER_OF(r->answered.next, struct pool_ask, node));
	remote_served_clear(r);
	while (!list_empty(&r->peers)) {
		struct uuid host = CONTAINER_OF(r->peers.next, struct peer, node)->host;

		remote_peer_down(r, &host);
	}
	remote_live_free(r->live);
	map_fini(&r->served);
	map_fini(&r->forgotten);
	map_fini(&r->by_host);
	free(r);
}
