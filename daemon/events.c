#include "daemon/events.h"

#include <string.h>

#include "daemon/daemon.h"
#include "daemon/methods.h"
#include "pool/db/changes.h"
#include "rpc/message.h"

enum {
	EVENT_TIMEOUT_MAX_MS = 60000,
	EVENT_TIMEOUT_DEFAULT_MS = 30000,
	EVENT_TURN = 32,	/* waiters looked at in one callback */
	EVENT_BATCH = 5000,	/* objects in one reply, where they are small */
	EVENT_HEAD_BYTES = 256, /* an event without its record is less */
	EVENT_MAX_BYTES = RV_MAX_RPC_MESSAGE_BYTES - 4096,
};

/* Changes packed one after another; the array's head needs their number first. */
struct event_pack {
	struct buf bytes;
	msgpack_packer pk;
	uint32_t count;
};

static int event_pack_one(void *arg, const struct change *change)
{
	static const char *const operations[] = {"add", "mod", "del"};
	struct call *c = ((struct call **)arg)[0];
	struct event_pack *p = ((struct event_pack **)arg)[1];
	char text[UUID_TEXT_SIZE];

	if (buf_len(&p->bytes) + EVENT_HEAD_BYTES > EVENT_MAX_BYTES)
		return RV_ETOOBIG;
	msgpack_pack_map(&p->pk, change->row ? 4 : 3);
	rpc_pack_key(&p->pk, "class");
	rpc_pack_key(&p->pk, schema_class(change->cls)->name);
	rpc_pack_key(&p->pk, "uuid");
	rpc_pack_key(&p->pk, uuid_format(&change->uuid, text));
	rpc_pack_key(&p->pk, "operation");
	rpc_pack_key(&p->pk, operations[change->kind]);
	if (change->row) {
		size_t len;
		const uint8_t *record =
			db_record(pool_db(c->daemon->pool), change->row, &len);

		rpc_pack_key(&p->pk, "record");
		if (!record || buf_append(&p->bytes, record, len))
			return RV_ETOOBIG;
	}
	p->count++;
	return 0;
}

/* The classes asked for, as a set of bits; 0: the call has been failed. */
static uint64_t event_classes(struct call *c)
{
	const struct value *names = call_arg(c, "classes");
	uint64_t classes = 0;

	for (size_t i = 0; names && i < value_count(names); i++) {
		const char *name = value_set_at(names, i);
		const struct schema_class *cls = schema_class_by_name(name, strlen(name));

		if (!cls) {
			call_failf(c, RV_EPARAM, "classes: there is no class '%s'", name);
			return 0;
		}
		classes |= CHANGES_CLASS(cls->id);
	}
	return classes ? classes : CHANGES_ALL;
}

static void event_reply(struct call *c, const struct event_pack *p,
	const struct changes_token *token, bool fresh)
{
	char text[CHANGES_TOKEN_SIZE];
	msgpack_packer *pk = call_reply_begin(c);

	msgpack_pack_map(pk, 3);
	rpc_pack_key(pk, "token");
	rpc_pack_key(pk, changes_token_format(token, text));
	rpc_pack_key(pk, "fresh");
	fresh ? msgpack_pack_true(pk) : msgpack_pack_false(pk);
	rpc_pack_key(pk, "events");
	msgpack_pack_array(pk, p->count);
	if (p->count)
		pk->callback(
			pk->data, (const char *)buf_data(&p->bytes), buf_len(&p->bytes));
	call_reply_end(c);
}

/* Packs what fits one reply: where the objects are large, fewer of them. */
static int event_collect(struct call *c, struct changes_token *token, uint64_t classes,
	struct event_pack *pack, enum changes_status *status)
{
	const struct db *db = pool_db(c->daemon->pool);
	void *arg[] = {c, pack};
	int rc = 0;

	msgpack_packer_init(&pack->pk, &pack->bytes, rpc_pack_to_buf);
	for (unsigned batch = EVENT_BATCH; batch > 0; batch /= 8) {
		pack->count = 0;
		buf_consume(&pack->bytes, buf_len(&pack->bytes));
		rc = changes_since(
			db, token, classes, batch, event_pack_one, arg, status);
		if (rc != RV_ETOOBIG)
			return rc;
	}
	return rc;
}

/* Replies if there is something to tell, or `at_once`. False: the call waits on. */
static bool event_try(struct call *c, bool at_once)
{
	const struct db *db = pool_db(c->daemon->pool);
	struct event_pack pack = {.count = 0};
	enum changes_status status = CHANGES_NONE;
	struct changes_token token;
	struct rv_error e = {0};
	uint64_t classes;
	int rc;

	if (changes_token_parse(&token, call_text(c, "token"), &e)) {
		call_fail(c, &e);
		return true;
	}
	if (!at_once && !changes_pending(db, &token))
		return false;
	classes = event_classes(c);
	if (!classes)
		return true;
	buf_init(&pack.bytes, EVENT_MAX_BYTES);
	rc = event_collect(c, &token, classes, &pack, &status);
	if (rc)
		call_failf(c, rc,
			"event.from: the changes do not fit one message; name fewer "
			"classes");
	else if (at_once || pack.count || status == CHANGES_FRESH)
		event_reply(c, &pack, &token, status == CHANGES_FRESH);
	else
		rc = 1; /* changes of other classes alone */
	buf_fini(&pack.bytes);
	return rc <= 0;
}

static void event_on_timeout(void *arg)
{
	event_try(arg, true);
}

static void event_on_gone(void *arg)
{
	struct call *c = arg;

	call_failf(c, RV_ECLOSED, "the client has gone");
}

void event_from(struct call *c)
{
	int64_t timeout_ms = call_int(c, "timeout_ms", EVENT_TIMEOUT_DEFAULT_MS);

	if (timeout_ms < 0 || timeout_ms > EVENT_TIMEOUT_MAX_MS) {
		call_failf(c, RV_EPARAM, "timeout_ms: 0 to %d", EVENT_TIMEOUT_MAX_MS);
		return;
	}
	if (event_try(c, timeout_ms == 0))
		return;
	timer_init(&c->timer, c->daemon->loop, "rpc.event.timeout", event_on_timeout, c);
	timer_start_ms(&c->timer, timeout_ms);
	call_on_gone(c, event_on_gone);
	list_push_back(&c->daemon->event_waiters, &c->waiting);
}

/* A bounded part of them: with thousands of waiters, other callbacks come between. */
static void events_turn(void *arg)
{
	struct daemon *d = arg;

	for (int i = 0; i < EVENT_TURN && !list_empty(&d->event_due); i++) {
		struct call *c = CONTAINER_OF(d->event_due.next, struct call, waiting);

		/* It waits on from here, or is over and in no list. */
		list_remove(&c->waiting);
		list_push_back(&d->event_waiters, &c->waiting);
		event_try(c, false);
	}
	if (!list_empty(&d->event_due))
		timer_start_ms(&d->event_turn, 0);
}

/* Every waiter is due again: those left over from the last change first. */
void events_look(struct daemon *d)
{
	list_append_all(&d->event_due, &d->event_waiters);
	if (!list_empty(&d->event_due) && !timer_active(&d->event_turn))
		timer_start_ms(&d->event_turn, 0);
}

void events_init(struct daemon *d)
{
	list_init(&d->event_waiters);
	list_init(&d->event_due);
	timer_init(&d->event_turn, d->loop, "rpc.events", events_turn, d);
}

void events_stop(struct daemon *d)
{
	timer_stop(&d->event_turn);
}
