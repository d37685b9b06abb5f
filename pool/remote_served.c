/*
 * Serving as the master: what other hosts ask is proposed once, however often they ask,
 * and the answer is remembered for a while.
 */
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/mpcheck.h"
#include "pool/pool_internal.h"
#include "pool/remote_internal.h"
#include "pool/remote_wire.h"

/* At the master: what another host asked, and the answer once there is one. */
struct served {
	uint8_t key[32]; /* host, start, id */
	struct uuid host;
	struct list node; /* oldest first */
	uint64_t nth;	  /* that was ever asked */
	struct remote *remote;
	bool done;
	struct remote_answer answer;
	struct rlog_proposal proposal;
};

/* A host was answered all that it had asked up to this, and its repeats may not be known
 * any more. */
struct forgotten {
	struct uuid host;
	uint64_t start, id;
	uint64_t nth; /* the last of them */
};

static void reply(
	struct remote *r, const struct uuid *host, const struct remote_answer *answer)
{
	struct buf b;

	buf_init(&b, 4096);
	if (remote_answer_encode(answer, &b) ||
		remote_send(r, host, POOL_MESSAGE_RESULT, &b))
		log_debug("pool.remote", "msg=\"told when asked again\"");
	buf_fini(&b);
}

static void reply_at_once(struct remote *r, const struct uuid *host,
	const struct remote_ask *ask, int rc, const char *detail)
{
	struct remote_answer answer = {
		.start = ask->start, .id = ask->id, .rc = rc, .seq = db_seq(r->pool->db)};

	snprintf(answer.detail, sizeof answer.detail, "%s", detail);
	reply(r, host, &answer);
}

static void served_reply(struct served *s)
{
	reply(s->remote, &s->host, &s->answer);
}

static void served_end(struct served *s, int rc, const char *detail)
{
	s->done = true;
	s->answer.rc = rc;
	s->answer.seq = db_seq(s->remote->pool->db);
	snprintf(s->answer.detail, sizeof s->answer.detail, "%s", detail);
	/* What was cut must not end in half a character. */
	s->answer.detail[mpcheck_utf8(
		(const uint8_t *)s->answer.detail, strlen(s->answer.detail))] = '\0';
	served_reply(s);
}

static void served_proposed(struct rlog_proposal *p, enum rlog_outcome outcome, int rc)
{
	struct served *s = CONTAINER_OF(p, struct served, proposal);
	struct pool *pool = s->remote->pool;

	if (outcome == RLOG_COMMITTED && pool->result_index == p->index)
		served_end(s, pool->result.verdict.code, pool->result.verdict.detail);
	else if (outcome == RLOG_COMMITTED)
		served_end(s, 0, "");
	else if (outcome == RLOG_REJECTED)
		served_end(s, rc,
			"the pool's master could not write it; nothing was done: try "
			"again");
	else
		served_end(s, RV_EOUTCOME,
			"the pool's master failed before it was known whether this took "
			"effect: look before trying again");
}

static void served_forget(struct remote *r, struct served *s)
{
	map_remove(&r->served, s->key, sizeof s->key);
	list_remove(&s->node);
	r->served_count--;
	free(s);
}

/* What an earlier start of the host asked may have been long at work, and give way after
 * later ones' answers: nobody asks for it again, so it takes no one's place. */
static bool forgotten_note(struct remote *r, const struct served *s)
{
	struct forgotten *f = map_get(&r->forgotten, s->host.b, sizeof s->host.b);

	if (!f) {
		f = calloc(1, sizeof *f);
		if (!f)
			return false;
		f->host = s->host;
		if (map_add(&r->forgotten, f->host.b, sizeof f->host.b, f)) {
			free(f);
			return false;
		}
	}
	if (f->start != s->answer.start && s->nth < f->nth)
		return true;
	if (f->start != s->answer.start) {
		f->start = s->answer.start;
		f->id = 0;
	}
	if (s->answer.id > f->id)
		f->id = s->answer.id;
	if (s->nth > f->nth)
		f->nth = s->nth;
	return true;
}

static bool is_forgotten(
	const struct remote *r, const struct uuid *from, const struct remote_ask *ask)
{
	const struct forgotten *f = map_get(&r->forgotten, from->b, sizeof from->b);

	return f && f->start == ask->start && ask->id <= f->id;
}

/* The oldest answers give way; what is still at work stays. */
static bool served_make_room(struct remote *r)
{
	if (r->served_count < REMOTE_REMEMBERED)
		return true;
	LIST_FOR_EACH (node, &r->served_order) {
		struct served *s = CONTAINER_OF(node, struct served, node);

		if (!s->done)
			continue;
		if (!forgotten_note(r, s))
			return false;
		served_forget(r, s);
		return true;
	}
	return false;
}

static struct served *served_new(struct remote *r, const struct uuid *from,
	const struct remote_ask *ask, const uint8_t key[static 32])
{
	struct served *s = served_make_room(r) ? calloc(1, sizeof *s) : NULL;

	if (!s)
		return NULL;
	memcpy(s->key, key, sizeof s->key);
	s->remote = r;
	s->nth = ++r->served_asked;
	s->host = *from;
	s->answer.start = ask->start;
	s->answer.id = ask->id;
	if (map_add(&r->served, s->key, sizeof s->key, s)) {
		free(s);
		return NULL;
	}
	list_push_back(&r->served_order, &s->node);
	r->served_count++;
	return s;
}

/* This host can't lead in that term any more: a repeat is refused as well, and needs no
 * memory. While no master is found, hosts ask again and again. */
static bool is_past(const struct remote_ask *ask, const struct rlog_status *s)
{
	return ask->term < s->term || (ask->term == s->term && s->state == RLOG_FOLLOWER);
}

void remote_served_deliver(
	struct remote *r, const struct uuid *from, const uint8_t *bytes, size_t len)
{
	char words[POOL_CLASH_WORDS];
	struct rlog_status status;
	struct remote_ask ask;
	struct served *s;
	uint8_t key[32];
	int rc;

	if (remote_ask_decode(&ask, bytes, len) || ask.master != r->start)
		return;
	memcpy(key, from->b, 16);
	bytes_put_le64(key + 16, ask.start);
	bytes_put_le64(key + 24, ask.id);
	s = map_get(&r->served, key, sizeof key);
	if (s) {
		if (s->done)
			served_reply(s);
		return;
	}
	/* A barrier does no harm twice. */
	if (ask.len && is_forgotten(r, from, &ask)) {
		reply_at_once(r, from, &ask, RV_EOUTCOME,
			"the pool's master does not know any more whether this took "
			"effect: look before trying again");
		return;
	}
	rlog_status(r->pool->log, &status);
	if (is_past(&ask, &status)) {
		reply_at_once(r, from, &ask, RV_ENOTMASTER,
			"the pool's master changed meanwhile");
		return;
	}
	s = served_new(r, from, &ask, key);
	if (!s)
		return; /* its sender's deadline ends it */
	if (ask.term != status.term) {
		/* The sender may have taken a later barrier for proof that this one
		 * never was. */
		served_end(s, RV_ENOTMASTER, "the pool's master changed meanwhile");
		return;
	}
	rc = ask.len ? rlog_propose(r->pool->log, &s->proposal, POOL_ENTRY_TXN, ask.bytes,
			       ask.len, ask.essential, served_proposed)
		     : rlog_barrier(r->pool->log, &s->proposal, served_proposed);
	if (rc == RV_ENOTALLOWED && pool_clash_words(r->pool, words))
		served_end(s, rc, words);
	else if (rc)
		served_end(s, rc,
			"the pool's master can't take it now; nothing was done: try "
			"again");
}

void remote_served_clear(struct remote *r)
{
	struct forgotten *f;
	size_t cursor = 0;

	LIST_FOR_EACH_SAFE (node, &r->served_order)
		served_forget(r, CONTAINER_OF(node, struct served, node));
	while ((f = map_next(&r->forgotten, &cursor)))
		free(f);
}
