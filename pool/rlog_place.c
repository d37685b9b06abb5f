/*
 * The master's word (PLACE): each host's part in the log, told to all that are linked,
 * and heard. It says of which life of the pool it is: so two lives meet here, and stop.
 * What follows from it for this host is rlog_learner.c's.
 */
#include "pool/rlog.h"

#include <inttypes.h>
#include <string.h>

#include "base/log.h"
#include "pool/rlog_internal.h"

/* --- two lives of the pool --- */

static bool is_clash(
	const struct rlog_generation *own, const struct rlog_generation *other)
{
	return own->number && own->number == other->number &&
	       !uuid_eq(&own->id, &other->id);
}

bool rlog_clash(const struct rlog *rlog, struct uuid *host)
{
	struct rlog_generation own;

	rlog_feed_generation(rlog, &own);
	if (!is_clash(&own, &rlog->clash) || own.number < rlog->config.refound_generation)
		return false;
	if (host)
		*host = rlog->clash_host;
	return true;
}

/* Not from a master (term 0): only which life is meant. */
static void tell_generation(
	struct rlog *rlog, const struct uuid *host, const struct rlog_generation *g)
{
	struct place_message m = {.generation = *g};
	struct buf b;

	buf_init(&b, 256);
	if (!place_encode(&m, &b) &&
		rlog->config.messenger->ops->send(rlog->config.messenger, host,
			POOL_MESSAGE_PLACE, buf_data(&b), buf_len(&b)))
		log_debug("pool.log", "msg=\"told when the link is back\"");
	buf_fini(&b);
}

/* Both lives stop, also where a host that is linked to both masters is the only one that
 * sees both: it tells each of the other. True: `m` is of the other life. */
static bool meet_clash(
	struct rlog *rlog, const struct uuid *from, const struct place_message *m)
{
	char host[UUID_TEXT_SIZE];
	struct rlog_generation own;
	bool known;

	rlog_feed_generation(rlog, &own);
	if (!is_clash(&own, &m->generation))
		return false;
	known = is_clash(&own, &rlog->clash);
	if (!known) {
		rlog->clash = m->generation;
		rlog->clash_host = *from;
		log_error("pool.clash",
			"host=%s generation=%" PRIu64
			" msg=\"that host's database is of another life of the pool with "
			"the same number: no change is taken on either side until one "
			"of them goes on by pool-emergency-transition-to-master\"",
			uuid_format(from, host), own.number);
		defer_start(&rlog->tell);
	}
	if (!m->term)
		return true;
	tell_generation(rlog, from, &own);
	LIST_FOR_EACH (node, &rlog->links) {
		const struct uuid *other =
			&CONTAINER_OF(node, struct rlog_link, node)->host;

		if (!known && !uuid_eq(other, from))
			tell_generation(rlog, other, &m->generation);
	}
	return true;
}

void rlog_take_place(
	struct rlog *rlog, const struct uuid *from, const uint8_t *bytes, size_t len)
{
	struct place_message m;

	if (place_decode(&m, bytes, len)) {
		log_warn("pool.log", "bytes=%zu msg=\"dropped a place\"", len);
		return;
	}
	if (meet_clash(rlog, from, &m) || !m.term)
		return;
	if (m.generation.number < rlog->place.generation.number ||
		(m.generation.number == rlog->place.generation.number &&
			m.term < rlog->place.term))
		return;
	rlog->place = m;
	if (rlog->learner)
		learner_note_master(rlog->learner, m.term, from);
	rlog_follow_place(rlog);
}

/* --- the master tells --- */

static void tell_place(struct rlog *rlog, const struct uuid *host)
{
	const struct raft_configuration *c = &rlog->raft.configuration;
	struct place_message m = {
		.term = rlog->lead_term, .conf_index = rlog->raft.configuration_index};
	char address[UUID_TEXT_SIZE];
	struct buf b;

	uuid_format(host, address);
	for (unsigned i = 0; i < c->n; i++) {
		if (strcmp(c->servers[i].address, address) != 0)
			continue;
		m.id = c->servers[i].id;
		/* A spare, which gets no entries, goes on as what it was. */
		m.standby = c->servers[i].role == RAFT_STANDBY;
	}
	rlog_feed_generation(rlog, &m.generation);
	buf_init(&b, 256);
	if (!place_encode(&m, &b) &&
		rlog->config.messenger->ops->send(rlog->config.messenger, host,
			POOL_MESSAGE_PLACE, buf_data(&b), buf_len(&b)))
		log_debug("pool.log", "msg=\"told when the link is back\"");
	buf_fini(&b);
}

static bool may_tell(const struct rlog *rlog)
{
	return rlog->config.messenger && rlog_is_leader(rlog) && rlog->raft_live &&
	       !rlog->raft_closing && !rlog->raft.configuration_uncommitted_index;
}

void rlog_tell_place(struct rlog *rlog, const struct uuid *host)
{
	if (may_tell(rlog))
		tell_place(rlog, host);
}

void rlog_look_around(struct rlog *rlog)
{
	if (!rlog->feeder)
		return;
	feeder_look(rlog->feeder);
	if (!may_tell(rlog) ||
		(rlog->placed_term == rlog->lead_term &&
			rlog->placed_conf == rlog->raft.configuration_index))
		return;
	rlog->placed_term = rlog->lead_term;
	rlog->placed_conf = rlog->raft.configuration_index;
	LIST_FOR_EACH (node, &rlog->links)
		tell_place(rlog, &CONTAINER_OF(node, struct rlog_link, node)->host);
}
