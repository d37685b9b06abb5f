#include "daemon/served.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/mpcheck.h"
#include "daemon/daemon.h"
#include "daemon/members.h"
#include "rpc/message.h"

enum {
	/* Answers that wait for their links. Beyond it the results are left out. */
	SERVED_UNSENT_BYTES = 64 << 20,
	SERVED_UNSENT_COUNT = RV_MAX_CALLS,
	SERVED_RETRY_MS = 1000, /* besides when the link says that it has room */
	SERVED_TURN = 64,	/* answers sent again in one callback */
};

struct served {
	struct list node;
	struct serving *serving;
	struct uuid from;
	uint64_t id, start; /* of the asking daemon: its call, its start */
	msgpack_zone zone;
	msgpack_object params;
	uint8_t *bytes; /* what params point into */
	struct packing result;
	/* Ended, but the link had no room for it. */
	struct packing answer;
};

struct serving {
	struct daemon *daemon;
	struct list calls;  /* at work */
	struct list unsent; /* answers, until the link has room */
	struct list due;    /* of those: to be tried again */
	size_t unsent_count, unsent_bytes;
	struct timer retry;
	bool stopped;
};

/* --- packing --- */

static int packing_write(void *packing, const char *data, size_t len)
{
	struct packing *p = packing;

	if (!p->rc)
		p->rc = buf_append(&p->buf, data, len);
	return p->rc ? -1 : 0;
}

void packing_init(struct packing *p, size_t cap)
{
	buf_init(&p->buf, cap);
	p->rc = 0;
	msgpack_packer_init(&p->pk, p, packing_write);
}

/* --- answering --- */

static void served_free(struct served *s)
{
	list_remove(&s->node);
	msgpack_zone_destroy(&s->zone);
	buf_fini(&s->result.buf);
	buf_fini(&s->answer.buf);
	free(s->bytes);
	free(s);
}

static void answer_pack(struct served *s, int code, const char *detail)
{
	msgpack_packer *pk = &s->answer.pk;

	buf_fini(&s->answer.buf);
	packing_init(&s->answer, FORWARD_MESSAGE_BYTES);
	msgpack_pack_array(pk, 6);
	msgpack_pack_uint64(pk, s->id);
	msgpack_pack_uint64(pk, s->start);
	msgpack_pack_int(pk, -code);
	rpc_pack_text(pk, detail);
	if (code) { /* a result is one object all the same */
		msgpack_pack_bin(pk, 1);
		msgpack_pack_bin_body(pk, "\xc0", 1);
	} else {
		msgpack_pack_bin(pk, buf_len(&s->result.buf));
		msgpack_pack_bin_body(
			pk, buf_data(&s->result.buf), buf_len(&s->result.buf));
	}
	msgpack_pack_uint64(pk, pool_seq(s->serving->daemon->pool));
}

static int answer_send(struct served *s)
{
	return members_send(s->serving->daemon->members, &s->from, MEMBERS_ANSWER,
		buf_data(&s->answer.buf), buf_len(&s->answer.buf));
}

/* Worth trying again: the link is there. */
static bool is_passing(int rc)
{
	return rc == RV_EAGAIN || rc == RV_ENOMEM;
}

/* The link is full. The call is over: of it only the answer is kept. */
static bool answer_keep(struct served *s)
{
	struct serving *v = s->serving;

	if (v->unsent_count >= SERVED_UNSENT_COUNT)
		return false;
	if (v->unsent_bytes + buf_len(&s->answer.buf) > SERVED_UNSENT_BYTES) {
		answer_pack(s, RV_ELIMIT,
			"it was carried out, but too many answers wait for the link "
			"between the two hosts, and its result was left out; ask again");
		if (s->answer.rc)
			return false;
	}
	msgpack_zone_clear(&s->zone);
	buf_fini(&s->result.buf);
	free(s->bytes);
	s->bytes = NULL;
	list_remove(&s->node);
	list_push_back(&v->unsent, &s->node);
	v->unsent_count++;
	v->unsent_bytes += buf_len(&s->answer.buf);
	if (!timer_active(&v->retry))
		timer_start_ms(&v->retry, SERVED_RETRY_MS);
	return true;
}

static void unsent_free(struct served *s)
{
	s->serving->unsent_count--;
	s->serving->unsent_bytes -= buf_len(&s->answer.buf);
	served_free(s);
}

/* Ends it: sent, or kept until it can be. */
static void served_answer(struct served *s, int code, const char *detail)
{
	int rc;

	if (s->serving->stopped) { /* the link that closes tells the asking host */
		served_free(s);
		return;
	}
	if (!code && s->result.rc) {
		code = s->result.rc;
		detail = code == RV_ETOOBIG
				 ? "the result is larger than one message (16 MiB); ask "
				   "for fewer fields or objects"
				 : "it was carried out, but there was no memory for the "
				   "result";
	}
	answer_pack(s, code, detail);
	rc = s->answer.rc ? s->answer.rc : answer_send(s);
	if (is_passing(rc) && !s->answer.rc && answer_keep(s))
		return;
	if (rc)
		log_warn("forward.answer",
			"rc=%s msg=\"lost: the asking host follows the task\"",
			rv_error_symbol(rc));
	served_free(s);
}

/* A bounded part of what is due. */
static void answers_turn(struct serving *v)
{
	for (int i = 0; i < SERVED_TURN && !list_empty(&v->due); i++) {
		struct served *s = CONTAINER_OF(v->due.next, struct served, node);

		if (is_passing(answer_send(s))) {
			list_remove(&s->node);
			list_push_back(&v->unsent, &s->node);
		} else {
			unsent_free(s);
		}
	}
	if (!list_empty(&v->due))
		timer_start_ms(&v->retry, 0);
	else if (!list_empty(&v->unsent))
		timer_start_ms(&v->retry, SERVED_RETRY_MS);
}

static void on_retry(void *arg)
{
	struct serving *v = arg;

	if (list_empty(&v->due))
		list_append_all(&v->due, &v->unsent);
	answers_turn(v);
}

void serving_room(struct serving *v, const struct uuid *host)
{
	LIST_FOR_EACH_SAFE (node, &v->unsent) {
		if (!uuid_eq(&CONTAINER_OF(node, struct served, node)->from, host))
			continue;
		list_remove(node);
		list_push_back(&v->due, node);
	}
	if (!list_empty(&v->due))
		timer_start_ms(&v->retry, 0);
}

static void unsent_drop(struct list *list, const struct uuid *host)
{
	LIST_FOR_EACH_SAFE (node, list) {
		struct served *s = CONTAINER_OF(node, struct served, node);

		if (!host || uuid_eq(&s->from, host))
			unsent_free(s);
	}
}

/* It asks anew for what it has not heard of. */
void serving_host_down(struct serving *v, const struct uuid *host)
{
	unsent_drop(&v->unsent, host);
	unsent_drop(&v->due, host);
}

/* --- the call's port --- */

static msgpack_packer *served_begin(struct call *c)
{
	struct served *s = c->source;

	return &s->result.pk;
}

static void served_end(struct call *c)
{
	served_answer(c->source, 0, "");
}

static void served_fail(struct call *c, const struct rv_error *e)
{
	served_answer(c->source, e->code, e->detail);
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

/* --- being asked --- */

static bool served_parse(struct served *s, size_t len, struct session_identity *who,
	const msgpack_object **method)
{
	const msgpack_object *item;
	msgpack_object o;
	size_t at = 0;

	if (msgpack_unpack((const char *)s->bytes, len, &at, &s->zone, &o) < 0 ||
		o.type != MSGPACK_OBJECT_ARRAY || o.via.array.size != 6)
		return false;
	item = o.via.array.ptr;
	if (item[0].type != MSGPACK_OBJECT_POSITIVE_INTEGER ||
		item[1].type != MSGPACK_OBJECT_POSITIVE_INTEGER ||
		item[2].type != MSGPACK_OBJECT_STR ||
		item[3].type != MSGPACK_OBJECT_POSITIVE_INTEGER ||
		item[3].via.u64 > ROLE_POOL_ADMIN || item[4].type != MSGPACK_OBJECT_STR ||
		item[5].type != MSGPACK_OBJECT_MAP)
		return false;
	s->id = item[0].via.u64;
	s->start = item[1].via.u64;
	snprintf(who->user, sizeof who->user, "%.*s", (int)item[2].via.str.size,
		item[2].via.str.ptr);
	who->role = (enum role)item[3].via.u64;
	who->via = "another host";
	*method = &item[4];
	s->params = item[5];
	return true;
}

static struct served *served_new(
	struct serving *v, const struct uuid *from, const uint8_t *bytes, size_t len)
{
	struct served *s = calloc(1, sizeof *s);

	if (!s)
		return NULL;
	s->serving = v;
	s->from = *from;
	packing_init(&s->result, RV_MAX_RPC_MESSAGE_BYTES);
	packing_init(&s->answer, FORWARD_MESSAGE_BYTES);
	s->bytes = malloc(len);
	if (!s->bytes || !msgpack_zone_init(&s->zone, 4096)) {
		free(s->bytes);
		free(s);
		return NULL;
	}
	memcpy(s->bytes, bytes, len);
	list_push_back(&v->calls, &s->node);
	return s;
}

/* Trusted as far as a host of the pool is; still checked before it is unpacked. */
void serving_asked(
	struct serving *v, const struct uuid *from, const uint8_t *bytes, size_t len)
{
	struct session_identity who = {0};
	const msgpack_object *method;
	struct served *s;
	int rc;

	if (mpcheck(bytes, len, NULL)) {
		log_warn(
			"forward.serve", "msg=\"a host sent a call that is no msgpack\"");
		return;
	}
	s = served_new(v, from, bytes, len);
	if (!s) {
		log_warn("forward.serve", "msg=\"out of memory for a host's call\"");
		return;
	}
	if (!served_parse(s, len, &who, &method)) {
		log_warn("forward.serve",
			"msg=\"a host sent a call that can't be read: is its reeved of "
			"another version?\"");
		served_free(s);
		return;
	}
	rc = call_begin_forwarded(v->daemon, &served_port, s, &who, method->via.str.ptr,
		method->via.str.size, &s->params);
	if (rc == RV_ELIMIT)
		served_answer(s, rc,
			"too many calls wait for something on the host that this one is "
			"for; nothing was done: ask again later");
	else if (rc)
		served_answer(s, rc,
			"the host that this is for is out of memory; nothing was done: "
			"ask again later");
}

/* --- beginning and ending --- */

int serving_new(struct serving **out, struct daemon *d)
{
	struct serving *v = calloc(1, sizeof *v);

	if (!v)
		return RV_ENOMEM;
	v->daemon = d;
	list_init(&v->calls);
	list_init(&v->unsent);
	list_init(&v->due);
	timer_init(&v->retry, d->loop, "daemon.forward.answers", on_retry, v);
	*out = v;
	return 0;
}

void serving_stop(struct serving *v)
{
	if (!v)
		return;
	v->stopped = true;
	timer_stop(&v->retry);
}

void serving_free(struct serving *v)
{
	if (!v)
		return;
	serving_stop(v);
	unsent_drop(&v->unsent, NULL);
	unsent_drop(&v->due, NULL);
	LIST_FOR_EACH_SAFE (node, &v->calls)
		served_free(CONTAINER_OF(node, struct served, node));
	free(v);
}
