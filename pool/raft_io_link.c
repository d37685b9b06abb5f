/* Messages of raft_io: held, received, sent; and the clock that holding concerns too. */
#include "pool/raft_io.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/log.h"
#include "pool/life.h"
#include "pool/raft_io_internal.h"
#include "pool/raft_message.h"

enum {
	TO_BYTES = 8, /* behind each message: the id that it is for */
	HELD_MAX = 256,
	HELD_MAX_BYTES = 256 << 20,
	LETTERS_MAX = 1024,
	LETTERS_MAX_BYTES = 64 << 20,
};

struct rio_send {
	struct list node;
	struct raft_io_send *req;
	int status;
};

struct rio_held {
	struct list node;
	uint64_t from;
	char address[RLOG_ADDRESS_MAX];
	size_t len;
	uint8_t bytes[];
};

/* A message that is not sent yet. */
struct rio_letter {
	struct list node;
	uint64_t to;
	char address[RLOG_ADDRESS_MAX];
	size_t len;
	uint8_t bytes[];
};

/* --- holding --- */

static bool rio_leads(struct rio *rio)
{
	return raft_state(rio_raft(rio)) == RAFT_LEADER;
}

static bool rio_in_flight(const struct rio *rio)
{
	return !rio_ops_empty(&rio->ops) || !rio_ops_empty(&rio->done) ||
	       rio->install.put;
}

/* libraft's servers without a vote never notice that their leader has gone: they would
 * refuse their vote to the next one when they are needed for a majority. */
static void rio_forget_leader(struct rio *rio)
{
	struct raft *r = rio_raft(rio);
	raft_time now = (raft_time)(loop_now_us(rio->config.loop) / 1000);

	if (r->state != RAFT_FOLLOWER || !r->follower_state.current_leader.id ||
		now - r->election_timer_start < 2 * r->election_timeout)
		return;
	raft_free(r->follower_state.current_leader.address);
	r->follower_state.current_leader.address = NULL;
	r->follower_state.current_leader.id = 0;
}

/* A clock that is late by a whole tick: this process itself stood still, and the silence
 * was its own. What others sent meanwhile is still in the sockets. One round of the loop
 * reads there first, as much as a round reads, before libraft judges the others by the
 * clock; one alone, so that a host that is always late comes to judge at last. */
static bool rio_stood_still(struct rio *rio)
{
	int64_t late_us = loop_now_us(rio->config.loop) - rio->tick_due_us;

	if (rio->tick_late || late_us < rio->tick_ms * INT64_C(1000)) {
		rio->tick_late = false;
		return false;
	}
	rio->tick_late = true;
	return true;
}

void rio_start_clock(struct rio *rio)
{
	timer_start_about_ms(&rio->tick, rio->tick_ms);
	rio->tick_due_us = rio->tick.due_us;
}

void rio_tick(void *arg)
{
	struct rio *rio = arg;

	if (rio_stood_still(rio)) {
		timer_start_us(&rio->tick, 0); /* the next round, behind the sockets */
		return;
	}
	rio_start_clock(rio);
	if (rio_leads(rio) || !rio_in_flight(rio)) {
		rio_forget_leader(rio);
		rio->tick_cb(&rio->io);
		rio_touched(rio);
	}
}

/* libraft counts replicas of what its log ends with, whatever the term: until a leader's
 * own first entry is stored that would be an entry of an earlier term, which a majority
 * may hold and still lose (figure 8 of the Raft paper). */
static bool rio_new_leader(struct rio *rio)
{
	const struct rio_term *last =
		rio->term_count ? &rio->terms[rio->term_count - 1] : NULL;

	return rio_leads(rio) &&
	       (!last || last->term != rio->meta.term || rio->told_stored < last->first);
}

static bool rio_must_hold(struct rio *rio, int type)
{
	switch (type) {
	case RAFT_IO_APPEND_ENTRIES_RESULT:
		return rio_new_leader(rio);
	case RAFT_IO_REQUEST_VOTE:
	case RAFT_IO_REQUEST_VOTE_RESULT:
	case RAFT_IO_TIMEOUT_NOW:
		return !rio_leads(rio) && rio_in_flight(rio);
	case RAFT_IO_INSTALL_SNAPSHOT:
		return rio_in_flight(rio) || rio->config.applying(rio->config.arg) ||
		       rio->take.state != TAKE_IDLE;
	case RAFT_IO_APPEND_ENTRIES:
		return rio->install.put != NULL;
	default:
		return false;
	}
}

/* libraft votes twice in a term for the target of a transfer of its own. */
static bool rio_second_vote(const struct rio *rio, const struct raft_message *m)
{
	const struct raft_request_vote *v = &m->request_vote;

	return m->type == RAFT_IO_REQUEST_VOTE && !v->pre_vote &&
	       v->term == rio->meta.term && rio->meta.value != 0 &&
	       rio->meta.value != v->candidate_id;
}

/* This server's place in its own configuration; NULL: it has none. */
static struct raft_server *rio_own_server(struct rio *rio)
{
	struct raft *r = rio_raft(rio);

	for (unsigned i = 0; i < r->configuration.n; i++)
		if (r->configuration.servers[i].id == r->id)
			return &r->configuration.servers[i];
	return NULL;
}

/* Who votes is the candidate's configuration to say, which may be newer: one that was
 * made a voter, but did not hear of it before the leader died, must vote for that leader
 * to lead again. libraft refuses by its own configuration (section 4.2.2 of the Raft
 * dissertation: a server votes whether or not it is in its own configuration). */
static void rio_receive_vote(struct rio *rio, struct raft_message *m)
{
	struct raft_server *own = rio_own_server(rio);
	int role = own ? own->role : RAFT_VOTER;

	if (own)
		own->role = RAFT_VOTER;
	rio->recv_cb(&rio->io, m);
	own = rio_own_server(rio);
	if (own)
		own->role = role;
}

/* libraft asserts that no other leader speaks in its own term. */
static bool rio_absurd(struct rio *rio, const struct raft_message *m)
{
	uint64_t term = m->type == RAFT_IO_APPEND_ENTRIES     ? m->append_entries.term
			: m->type == RAFT_IO_INSTALL_SNAPSHOT ? m->install_snapshot.term
							      : 0;

	return term != 0 && term == rio->meta.term && rio_leads(rio);
}

/* Up to where this log will be the leader's once the message is accepted; 0: no telling.
 *
 * libraft answers with the last entry it has, although what follows the entries of the
 * message may be left over from an earlier term; the leader would count that as replicas
 * of its own entries, and commit what only it holds. So answers are cut to what is known:
 * the reach of an accepted message, and of later ones of the same term. */
static uint64_t rio_reach(const struct rio *rio, const struct raft_message *m)
{
	const struct raft_append_entries *a = &m->append_entries;
	const struct raft_install_snapshot *s = &m->install_snapshot;

	if (m->type == RAFT_IO_APPEND_ENTRIES && a->term >= rio->meta.term)
		return a->prev_log_index + a->n_entries;
	if (m->type == RAFT_IO_INSTALL_SNAPSHOT && s->term >= rio->meta.term)
		return s->last_index;
	return 0;
}

/* The answer to what is being received, or to an append that was accepted earlier. */
static void rio_cut_result(struct rio *rio, struct raft_append_entries_result *r)
{
	if (r->rejected)
		return;
	if (rio->receiving && rio->reach > rio->verified)
		rio->verified = rio->reach;
	if (r->last_log_index > rio->verified)
		r->last_log_index = rio->verified;
}

/* libraft rejects what follows an entry that it has compacted, and its leader then goes
 * back entry by entry to a snapshot older than this log, for ever. What a snapshot covers
 * was committed, so a leader of this term has the same: that part is left out. */
static void rio_skip_covered(struct rio *rio, struct raft_message *m)
{
	struct raft_append_entries *a = &m->append_entries;
	uint64_t covered = rio->stats.snapshot_index, skip;

	if (m->type != RAFT_IO_APPEND_ENTRIES || a->term < rio->meta.term ||
		a->prev_log_index >= covered)
		return;
	skip = covered - a->prev_log_index;
	if (skip < a->n_entries) {
		a->prev_log_term = a->entries[skip - 1].term;
		a->n_entries -= (unsigned)skip;
		memmove(a->entries, a->entries + skip, a->n_entries * sizeof *a->entries);
	} else {
		raft_message_fini(m);
		a->prev_log_term = rio_term_at(rio, covered);
	}
	a->prev_log_index = covered;
}

static uint64_t rio_term_of(const struct raft_message *m)
{
	switch (m->type) {
	case RAFT_IO_APPEND_ENTRIES:
		return m->append_entries.term;
	case RAFT_IO_APPEND_ENTRIES_RESULT:
		return m->append_entries_result.term;
	case RAFT_IO_REQUEST_VOTE:
		return m->request_vote.term;
	case RAFT_IO_REQUEST_VOTE_RESULT:
		return m->request_vote_result.term;
	case RAFT_IO_INSTALL_SNAPSHOT:
		return m->install_snapshot.term;
	default:
		return m->timeout_now.term;
	}
}

/* Hosts are found by their address, whatever they have become meanwhile, and libraft asks
 * nobody who he is: what was for this host under another id, or is of another life of the
 * pool, would be taken for this log's. */
static bool rio_for_another(
	struct rio *rio, const struct raft_message *m, const uint8_t to[static TO_BYTES])
{
	return bytes_get_le64(to) != rio_raft(rio)->id ||
	       (rio->meta.term != 0 && rio_term_of(m) != 0 &&
		       !life_same(rio_term_of(m), rio->meta.term));
}

static void rio_receive(struct rio *rio, uint64_t from, const char *address,
	const uint8_t *bytes, size_t len)
{
	struct raft_message m;
	int rc;

	len -= TO_BYTES;
	rc = raft_message_decode(&m, bytes, len);
	if (!rc && rio_for_another(rio, &m, bytes + len)) {
		rio->stats.dropped++;
		raft_message_fini(&m);
		return;
	}
	if (!rc && (rio_absurd(rio, &m) || rio_second_vote(rio, &m))) {
		raft_message_fini(&m);
		rc = RV_EPROTO;
	}
	if (rc) {
		rio->stats.dropped++;
		log_warn("pool.log",
			"from=%" PRIu64 " bytes=%zu msg=\"dropped a raft message: %s\"",
			from, len, rv_error_text(rc));
		return;
	}
	m.server_id = from;
	m.server_address = address;
	rio_skip_covered(rio, &m);
	rio->reach = rio_reach(rio, &m);
	rio->receiving = true;
	rio_hear(rio, &m);
	rio_roll_back(rio, &m);
	if (m.type == RAFT_IO_REQUEST_VOTE)
		rio_receive_vote(rio, &m);
	else
		rio->recv_cb(&rio->io, &m);
	rio->receiving = false;
	rio_touched(rio);
}

static void rio_hold(struct rio *rio, uint64_t from, const char *address,
	const uint8_t *bytes, size_t len)
{
	struct rio_held *h;

	if (rio->held_count >= HELD_MAX || rio->held_bytes + len > HELD_MAX_BYTES ||
		!(h = malloc(sizeof *h + len))) {
		rio->stats.dropped++; /* raft asks again */
		return;
	}
	h->from = from;
	snprintf(h->address, sizeof h->address, "%s", address);
	h->len = len;
	memcpy(h->bytes, bytes, len);
	list_push_back(&rio->held, &h->node);
	rio->held_count++;
	rio->held_bytes += len;
}

static void rio_unhold(struct rio *rio, struct rio_held *h)
{
	list_remove(&h->node);
	rio->held_count--;
	rio->held_bytes -= h->len;
}

/* One at a time: each may change what the next must wait for. */
void rio_release(void *arg)
{
	struct rio *rio = arg;

	if (rio->failed || rio->closing)
		return;
	LIST_FOR_EACH_SAFE (node, &rio->held) {
		struct rio_held *h = CONTAINER_OF(node, struct rio_held, node);

		if (rio_must_hold(rio, h->bytes[1]))
			continue;
		rio_unhold(rio, h);
		rio_receive(rio, h->from, h->address, h->bytes, h->len);
		free(h);
		rio_release_soon(rio);
		break;
	}
}

void rio_release_soon(struct rio *rio)
{
	if (!list_empty(&rio->held) && !rio->closing)
		defer_start(&rio->release);
}

void rio_deliver(
	void *arg, uint64_t from, const char *address, const uint8_t *bytes, size_t len)
{
	struct rio *rio = arg;

	if (rio->failed || rio->closing || len < 2 + TO_BYTES || from == 0)
		return;
	/* What need not wait doesn't: raft bears other orders. */
	if (rio_must_hold(rio, bytes[1]))
		rio_hold(rio, from, address, bytes, len);
	else
		rio_receive(rio, from, address, bytes, len);
}

/* --- sending --- */

/* libraft writes an entry and sends it at the same time. With one that takes the vote
 * from all others that could end for good: if this leader dies before its disk has the
 * entry, those that have it are no candidates any more, and refuse their vote to a log
 * without it. So from a change of configuration on nothing is sent before it is stored
 * here. */
static bool rio_after_change(struct rio *rio, const struct raft_message *m)
{
	const struct raft_append_entries *a = &m->append_entries;

	return m->type == RAFT_IO_APPEND_ENTRIES && rio_leads(rio) &&
	       rio->told_stored < rio->change &&
	       a->prev_log_index + a->n_entries >= rio->change;
}

/* What is encoded in `out`. */
static int rio_keep_letter(struct rio *rio, const struct raft_message *m)
{
	size_t len = buf_len(&rio->out);
	struct rio_letter *l;

	if (rio->letter_count >= LETTERS_MAX ||
		rio->letter_bytes + len > LETTERS_MAX_BYTES)
		return RV_EAGAIN; /* raft sends again */
	l = malloc(sizeof *l + len);
	if (!l)
		return RV_ENOMEM;
	l->to = m->server_id;
	snprintf(l->address, sizeof l->address, "%s", m->server_address);
	l->len = len;
	memcpy(l->bytes, buf_data(&rio->out), len);
	list_push_back(&rio->letters, &l->node);
	rio->letter_count++;
	rio->letter_bytes += len;
	return 0;
}

static void rio_letter_free(struct rio *rio, struct rio_letter *l)
{
	list_remove(&l->node);
	rio->letter_count--;
	rio->letter_bytes -= l->len;
	free(l);
}

void rio_post_letters(struct rio *rio)
{
	struct rlog_transport *t = rio->config.transport;

	while (!list_empty(&rio->letters) && rio->told_stored >= rio->change) {
		struct rio_letter *l =
			CONTAINER_OF(rio->letters.next, struct rio_letter, node);

		/* One that is lost here is one lost on the way: raft sends again. */
		if (t->ops->send(t, l->to, l->address, l->bytes, l->len))
			rio->stats.dropped++;
		rio_letter_free(rio, l);
	}
}

void rio_drop_letters(struct rio *rio)
{
	while (!list_empty(&rio->letters))
		rio_letter_free(
			rio, CONTAINER_OF(rio->letters.next, struct rio_letter, node));
}

void rio_sent(void *arg)
{
	struct rio *rio = arg;

	while (!list_empty(&rio->sends)) {
		struct rio_send *s = CONTAINER_OF(rio->sends.next, struct rio_send, node);

		list_remove(&s->node);
		s->req->cb(s->req, s->status);
		free(s);
	}
	if (!rio->closing)
		rio_touched(rio);
}

/* libraft refuses a pre-vote of a lower term than its own without telling which that is:
 * one that stood for election in vain, and lacks entries, would keep all others from it.
 */
void rio_tell_term(const struct rio *rio, struct raft_request_vote_result *r)
{
	if (r->pre_vote == raft_tribool_true && !r->vote_granted &&
		r->term < rio->meta.term)
		r->term = rio->meta.term;
}

int rio_send(struct raft_io *io, struct raft_io_send *req, const struct raft_message *m,
	raft_io_send_cb cb)
{
	struct rio *rio = RIO_OF(io);
	struct rlog_transport *t = rio->config.transport;
	struct raft_message cut = *m;
	struct rio_send *s = NULL;
	uint8_t to[TO_BYTES];
	int rc = t && !rio->failed ? 0 : RV_ECLOSED;

	req->cb = cb;
	if (cb) {
		s = malloc(sizeof *s);
		if (!s)
			return RAFT_NOCONNECTION;
		*s = (struct rio_send){.req = req};
		list_push_back(&rio->sends, &s->node);
		defer_start(&rio->sent);
	}
	buf_consume(&rio->out, buf_len(&rio->out));
	if (m->type == RAFT_IO_APPEND_ENTRIES_RESULT)
		rio_cut_result(rio, &cut.append_entries_result);
	if (m->type == RAFT_IO_REQUEST_VOTE_RESULT)
		rio_tell_term(rio, &cut.request_vote_result);
	if (!rc)
		rc = raft_message_encode(&cut, &rio->out);
	bytes_put_le64(to, m->server_id);
	if (!rc)
		rc = buf_append(&rio->out, to, sizeof to);
	if (!rc && rio_after_change(rio, m))
		rc = rio_keep_letter(rio, m);
	else if (!rc)
		rc = t->ops->send(t, m->server_id, m->server_address, buf_data(&rio->out),
			buf_len(&rio->out));
	if (s)
		s->status = rc ? RAFT_NOCONNECTION : 0;
	return 0;
}

void rio_drop_held(struct rio *rio)
{
	while (!list_empty(&rio->held)) {
		struct rio_held *h = CONTAINER_OF(rio->held.next, struct rio_held, node);

		rio_unhold(rio, h);
		free(h);
	}
}
