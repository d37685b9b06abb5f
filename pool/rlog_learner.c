/*
 * What this host is in the log: a server of raft's configuration or a learner, and how it
 * becomes the other. The master's word (PLACE) decides; the disk remembers.
 *
 *	server N ──► close libraft ─┐                        ┌─► open as server M, empty
 *	                            ├─► mark, wipe, name ────┤
 *	learner ──► close learner ──┘                        └─► open as learner
 *
 * The meta file names the server (its identity; 0: a learner) and, of a learner, the last
 * id that this host had, and whether the rest of the disk is to be wiped before use. It
 * is replaced as a whole before the first file goes and after the last one went: whatever
 * a crash leaves is a learner that begins anew. The state machine stays: what it holds
 * was committed, and entries that it has are passed over when they come again.
 */
#include "pool/rlog.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "pool/life.h"
#include "pool/raft_conf.h"
#include "pool/rlog_internal.h"

#define META_DIRTY (UINT64_C(1) << 63)

/* --- the disk says (jobs of the log lane) --- */

struct newest {
	uint64_t segment, snapshot;
};

static void note_newest(void *arg, const char *name, uint64_t bytes)
{
	struct newest *n = arg;
	uint64_t index;

	(void)bytes;
	if (segments_parse_name(name, &index) && index > n->segment)
		n->segment = index;
	if (snapfile_parse_name(name, &index) && index > n->snapshot)
		n->snapshot = index;
}

int rlog_disk_wipe(
	struct disk *d, uint64_t id, uint64_t former, uint64_t term, struct rv_error *e)
{
	struct slots dirty = {.value = former | META_DIRTY}, mark = {0};
	struct slots fresh = {
		.identity = id, .value = id ? 0 : former, .term = id ? term : 0};
	char name[DISK_NAME_MAX];
	struct newest n;
	int rc = slots_create(d, SEGMENTS_META, FRAME_META, &dirty, e);

	if (!rc)
		rc = slots_create(d, SEGMENTS_MARK, FRAME_MARK, &mark, e);
	while (!rc) {
		n = (struct newest){0};
		rc = disk_list(d, note_newest, &n, e);
		if (rc || (!n.segment && !n.snapshot))
			break;
		rc = disk_remove(d,
			n.segment ? segments_name(name, n.segment)
				  : snapfile_name(name, n.snapshot),
			e);
	}
	return rc ? rc : slots_create(d, SEGMENTS_META, FRAME_META, &fresh, e);
}

static bool founds(const struct rlog_open_job *j, uint64_t id)
{
	for (unsigned i = 0; i < j->bootstrap.n; i++)
		if (j->bootstrap.servers[i].id == id)
			return true;
	return false;
}

/* Who the disk says this host is; wipes it where that was begun. */
static int adopt(struct rlog_open_job *j)
{
	struct disk *d = j->rlog->disk;
	unsigned first = 0, healed = 0;
	struct slots meta;
	int rc = slots_read(
		d, SEGMENTS_META, FRAME_META, &meta, &first, &healed, &j->error);

	if (rc == RV_ENOENT) { /* a first start */
		rv_error_clear(&j->error);
		return 0;
	}
	if (rc)
		return rc;
	if (!founds(j, meta.identity))
		j->config.bootstrap = NULL; /* it had its beginning, as another */
	j->config.id = meta.identity;
	if (j->config.id)
		return 0;
	j->former = meta.value & ~META_DIRTY;
	return meta.value & META_DIRTY ? rlog_disk_wipe(d, 0, j->former, 0, &j->error)
				       : 0;
}

/* A learner that is to be the log's only server. */
static int refound(struct rlog_open_job *j)
{
	struct disk *d = j->rlog->disk;
	unsigned first = 0, healed = 0;
	struct slots meta;
	int rc;

	j->config.bootstrap = &j->bootstrap;
	if (j->config.id)
		return 0;
	rc = slots_read(d, SEGMENTS_META, FRAME_META, &meta, &first, &healed, &j->error);
	if (rc)
		return rc;
	meta.identity = j->config.id = j->bootstrap.servers[0].id;
	meta.value = 0;
	return slots_create(d, SEGMENTS_META, FRAME_META, &meta, &j->error);
}

int rlog_recover(struct rlog_open_job *j)
{
	uint64_t applied = j->config.applied;
	struct disk *d = j->rlog->disk;
	int rc = j->adopt ? adopt(j) : 0;

	if (!rc && j->config.refound)
		rc = refound(j);
	if (rc || j->config.id)
		return rc ? rc : recover(&j->recovered, d, &j->config, &j->error);
	j->config.applied = 0;
	rc = recover(&j->recovered, d, &j->config, &j->error);
	if (!rc && j->recovered.segments.next <= applied) {
		recovered_fini(&j->recovered);
		rc = rv_error_set(&j->error, RV_ECORRUPT,
			"%s holds less than was applied", d->path);
	}
	if (rc != RV_ECORRUPT)
		return rc;
	/* A learner promised nothing: it begins anew. */
	log_error("pool.learner", "msg=\"%s; throwing it away, a voter has it all\"",
		j->error.detail);
	rv_error_clear(&j->error);
	rc = rlog_disk_wipe(d, 0, j->former, 0, &j->error);
	return rc ? rc : recover(&j->recovered, d, &j->config, &j->error);
}

/* --- a learner's life --- */

static void learner_changed(void *arg)
{
	struct rlog *rlog = arg;

	defer_start(&rlog->tell);
}

static void learner_failed(void *arg, int rc, const struct rv_error *e)
{
	rlog_fail(arg, rc, e);
}

static void learner_stuck(void *arg, int rc, uint64_t index)
{
	rlog_get_stuck(arg, index, rc);
}

static void keep_conf(
	struct rlog *rlog, const struct raft_configuration *conf, uint64_t index)
{
	struct raft_configuration copy;

	if (raft_conf_copy(conf, &copy))
		return;
	raft_configuration_close(&rlog->kept_conf);
	rlog->kept_conf = copy;
	rlog->kept_conf_index = index;
}

/* What the state machine holds stays known. */
static void keep_state(struct rlog *rlog)
{
	const struct raft_configuration *conf;
	struct learner_status s;
	uint64_t index;

	learner_status(rlog->learner, &s);
	conf = learner_conf(rlog->learner, &index);
	rlog->applied_index = s.applied_index;
	rlog->applied_term = s.applied_term;
	rlog->fresh_us = s.fresh_us;
	rlog->discard = s.discard;
	keep_conf(rlog, conf, index);
}

static void learner_closed(void *arg)
{
	struct rlog *rlog = arg;

	keep_state(rlog);
	learner_free(rlog->learner);
	rlog->learner = NULL;
	rlog_closed(rlog);
}

static const struct learner_events learner_events = {
	.changed = learner_changed,
	.failed = learner_failed,
	.stuck = learner_stuck,
	.closed = learner_closed,
};

int rlog_start_learner(struct rlog *rlog, struct rv_error *e)
{
	struct rlog_open_job *j = &rlog->opening;
	struct learner_config config = {
		.loop = rlog->loop,
		.disk = rlog->disk,
		.messenger = rlog->config.messenger,
		.self = rlog->config.self,
		.fsm = rlog->fsm,
		.fsm_arg = rlog->arg,
		.log = &rlog->config,
		.applied_index = rlog->applied_index,
		.applied_term = rlog->applied_term,
		.conf = &rlog->kept_conf,
		.conf_index = rlog->kept_conf_index,
		.discard = rlog->discard,
		.events = &learner_events,
		.arg = rlog,
	};
	int rc;

	rlog->healed += j->recovered.healed;
	j->loaded = false;
	rc = learner_new(&rlog->learner, &config, &j->recovered);
	if (rc) {
		recovered_fini(&j->recovered);
		return rv_error_set(e, rc, "open the log: %s", rv_error_text(rc));
	}
	LIST_FOR_EACH (node, &rlog->links)
		learner_peer_up(
			rlog->learner, &CONTAINER_OF(node, struct rlog_link, node)->host);
	defer_start(&rlog->tell);
	return 0;
}

/* --- becoming the other --- */

static void wipe_run(struct job *job)
{
	struct rlog_wipe_job *w = CONTAINER_OF(job, struct rlog_wipe_job, job);

	rv_error_clear(&w->error);
	w->rc = rlog_disk_wipe(w->rlog->disk, w->id, w->former, w->term, &w->error);
}

static void wipe_done(struct job *job, int rc)
{
	struct rlog_wipe_job *w = CONTAINER_OF(job, struct rlog_wipe_job, job);
	struct rlog *rlog = w->rlog;

	w->running = rlog->switching = false;
	if (rc)
		w->rc = rv_error_set(&w->error, rc, "the log's disk was closed");
	if (rlog->freeing)
		return;
	if (!w->rc) {
		rlog->config.id = w->id;
		rlog->learns = w->id == 0;
		rlog->meta_first = 0;
		rlog->carried = rlog->applied_index;
		rlog->stuck = false;
	}
	rlog_wiped(rlog, w->rc, &w->error);
}

/* What this host was is closed: the disk is next. */
void rlog_switch(struct rlog *rlog)
{
	struct rlog_wipe_job *w = &rlog->wipe;

	w->job =
		(struct job){.run = wipe_run, .done = wipe_done, .name = "pool.log.wipe"};
	w->rlog = rlog;
	w->running = true;
	if (disk_submit(rlog->disk, DISK_LANE_LOG, &w->job))
		wipe_done(&w->job, RV_ELIMIT);
}

/* An id is used up once raft knew of this host under it. */
static uint64_t used_id(const struct rlog *rlog)
{
	struct learner_status s;
	uint64_t term;

	if (rlog->learner) {
		learner_status(rlog->learner, &s);
		return s.former;
	}
	term = rlog_current_term(rlog);
	return rlog->raft.configuration.n > 0 || term > life_base_of(term)
		       ? rlog->config.id
		       : rlog->config.id - 1;
}

static void become(struct rlog *rlog, uint64_t id)
{
	log_info("pool.log", "id=%" PRIu64 " was=%" PRIu64 " msg=\"%s\"", id,
		rlog->config.id,
		id ? "this host becomes a standby of the pool's voters"
		   : "this host becomes a learner");
	rlog->switching = true;
	rlog->wipe.id = id;
	rlog->wipe.former = used_id(rlog);
	/* From its first moment on it is of the master's life. */
	rlog->wipe.term = life_base_of(rlog->place.term);
	/* One that never got an entry knows of none. */
	if (!rlog->learner && rlog->raft.configuration.n > 0)
		keep_conf(
			rlog, &rlog->raft.configuration, rlog->raft.configuration_index);
	rlog_close_mode(rlog);
}

/* Entries that the state machine has are passed over by a new server's log, by their
 * index: they must be the same ones. A state that a former life of the pool made, or that
 * was found to differ, is replaced first, by what a voter feeds. */
static bool may_carry(const struct rlog *rlog, uint64_t term)
{
	struct learner_status s;

	learner_status(rlog->learner, &s);
	return !s.discard && (s.applied_index == 0 || life_same(s.applied_term, term));
}

/* A master that has been left out of an election may not have heard of it yet: its word
 * counts if its term is not behind this server's. Or else if its configuration, which is
 * committed, comes after the one that this server is known by here: an id is never given
 * again, so it is out for good. Without that a server that stood for election in vain and
 * was removed meanwhile would be a server for ever: nobody answers it, and it has the
 * greater term. */
bool rlog_must_follow(const struct rlog *rlog, const struct place_message *m)
{
	const struct raft_configuration *c = &rlog->raft.configuration;

	if (m->term >= rlog_current_term(rlog))
		return true;
	for (unsigned i = 0; i < c->n; i++)
		if (c->servers[i].id == rlog->config.id)
			return m->conf_index > rlog->raft.configuration_index &&
			       life_same(m->term, rlog_current_term(rlog));
	return false;
}

/* What the master said last, once this host is in a state to follow it. */
void rlog_follow_place(struct rlog *rlog)
{
	const struct place_message *m = &rlog->place;
	bool open = rlog->learner || (rlog->raft_live && !rlog->raft_closing);
	struct rlog_generation own;
	uint64_t id = m->standby ? m->id : 0;

	if (!rlog->config.adopt || !m->term || !open || rlog->switching ||
		rlog->stopping || rlog->failing || rlog->freeing || !rlog->opened_told ||
		rlog->restoring)
		return;
	rlog_feed_generation(rlog, &own);
	if (m->generation.number < own.number ||
		(m->generation.number == own.number &&
			!uuid_eq(&m->generation.id, &own.id)))
		return;
	if (rlog->learns) {
		if (id > used_id(rlog) && may_carry(rlog, m->term))
			become(rlog, id);
	} else if (m->id != rlog->config.id &&
		   (m->generation.number > own.number ||
			   (!rlog->leads && rlog_must_follow(rlog, m)))) {
		/* First a learner, which tells what it has. */
		become(rlog, id > rlog->config.id &&
					     life_same(m->term, rlog_current_term(rlog))
				     ? id
				     : 0);
	}
}

/* --- what the feeder may give --- */

bool rlog_feeds(const struct rlog *rlog)
{
	const struct raft_configuration *c = &rlog->raft.configuration;

	if (!rlog->raft_live || rlog->raft_closing || rlog->failing || rlog->stopping)
		return false;
	for (unsigned i = 0; i < c->n; i++)
		if (c->servers[i].id == rlog->config.id)
			return c->servers[i].role == RAFT_VOTER;
	return false;
}

uint64_t rlog_feed_limit(const struct rlog *rlog)
{
	struct rio_stats stats;

	if (!rlog_raft_readable(rlog) || !rlog->rio)
		return 0;
	rio_stats(rlog->rio, &stats);
	return rlog->raft.last_applied < stats.synced ? rlog->raft.last_applied
						      : stats.synced;
}

uint64_t rlog_feed_term(const struct rlog *rlog, uint64_t index)
{
	return rlog->rio ? rio_term_at(rlog->rio, index) : 0;
}

const struct tail_entry *rlog_feed_entry(const struct rlog *rlog, uint64_t index)
{
	return rlog->rio ? rio_tail_entry(rlog->rio, index) : NULL;
}

uint64_t rlog_feed_snapshot(const struct rlog *rlog)
{
	struct rio_stats stats = {0};

	if (rlog->rio)
		rio_stats(rlog->rio, &stats);
	return stats.snapshot_index;
}

void rlog_feed_generation(const struct rlog *rlog, struct rlog_generation *out)
{
	*out = (struct rlog_generation){0};
	if (rlog->fsm->generation)
		rlog->fsm->generation(rlog->arg, out);
}

/* --- the messenger's side --- */

static struct rlog_link *link_find(const struct rlog *rlog, const struct uuid *host)
{
	LIST_FOR_EACH (node, &rlog->links) {
		struct rlog_link *link = CONTAINER_OF(node, struct rlog_link, node);

		if (uuid_eq(&link->host, host))
			return link;
	}
	return NULL;
}

void rlog_peer_up(struct rlog *rlog, const struct uuid *host)
{
	struct rlog_link *link = link_find(rlog, host);

	if (!link) {
		link = calloc(1, sizeof *link);
		if (!link)
			return;
		link->host = *host;
		list_push_back(&rlog->links, &link->node);
	}
	if (rlog->feeder)
		feeder_peer_down(rlog->feeder, host); /* what was before is lost */
	if (rlog->learner)
		learner_peer_up(rlog->learner, host);
	rlog_tell_place(rlog, host);
}

void rlog_peer_down(struct rlog *rlog, const struct uuid *host)
{
	struct rlog_link *link = link_find(rlog, host);

	if (!link)
		return;
	list_remove(&link->node);
	free(link);
	if (rlog->feeder)
		feeder_peer_down(rlog->feeder, host);
	if (rlog->learner)
		learner_peer_down(rlog->learner, host);
}

void rlog_deliver(struct rlog *rlog, const struct uuid *from, enum pool_message type,
	const uint8_t *bytes, size_t len)
{
	if (rlog->stopped || rlog->freeing)
		return;
	if (type == POOL_MESSAGE_LEARN && rlog->feeder)
		feeder_deliver(rlog->feeder, from, bytes, len);
	else if (type == POOL_MESSAGE_FEED && rlog->learner)
		learner_deliver(rlog->learner, from, bytes, len);
	else if (type == POOL_MESSAGE_PLACE)
		rlog_take_place(rlog, from, bytes, len);
}

bool rlog_learner_stored(
	const struct rlog *rlog, const struct uuid *host, uint64_t *index)
{
	return rlog->feeder && feeder_stored(rlog->feeder, host, index);
}

void rlog_discard(struct rlog *rlog)
{
	if (rlog->learner)
		learner_discard(rlog->learner);
}

/* --- the rest --- */

void rlog_fill_learner(const struct rlog *rlog, struct rlog_status *out)
{
	struct learner_status s;

	out->learner = rlog->learns;
	out->learners = rlog->feeder ? feeder_count(rlog->feeder) : 0;
	if (!rlog->learner)
		return;
	learner_status(rlog->learner, &s);
	out->term = s.term;
	out->applied_index = s.applied_index;
	out->applied_term = s.applied_term;
	out->last_index = s.last_index;
	out->behind = s.commit > s.applied_index ? s.commit - s.applied_index : 0;
	out->feeder = s.feeder;
	out->snapshot_index = s.snapshot_index;
	if (s.snapshot_index)
		out->snapshot_age_ms = (loop_now_us(rlog->loop) - s.snapshot_us) / 1000;
	out->disk_bytes = s.disk_bytes;
	out->voters = s.voters;
	out->servers = s.servers;
	out->appends = out->syncs = s.appends;
	if (!uuid_is_none(&s.master))
		uuid_format(&s.master, out->leader_address);
}

int rlog_learner_init(struct rlog *rlog)
{
	list_init(&rlog->links);
	raft_configuration_init(&rlog->kept_conf);
	rlog->learns = rlog->config.adopt && rlog->config.id == 0;
	if (!rlog->config.messenger)
		return 0;
	return feeder_new(
		&rlog->feeder, rlog->loop, rlog->disk, rlog, rlog->config.messenger);
}

/* After disk_quiesce. */
void rlog_learner_fini(struct rlog *rlog)
{
	learner_free(rlog->learner);
	rlog->learner = NULL;
	feeder_free(rlog->feeder);
	rlog->feeder = NULL;
	while (!list_empty(&rlog->links)) {
		struct list *node = rlog->links.next;

		list_remove(node);
		free(CONTAINER_OF(node, struct rlog_link, node));
	}
	raft_configuration_close(&rlog->kept_conf);
}
