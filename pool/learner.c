#include "pool/learner.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "base/log.h"
#include "pool/learner_internal.h"
#include "pool/raft_conf.h"

enum { WATCH_MS = 250 };

static void seek(struct learner *l);

/* --- what the owner is told --- */

static void tell(void *arg)
{
	struct learner *l = arg;

	if (l->closing)
		return;
	if (!l->session)
		seek(l);
	l->config.events->changed(l->config.arg);
}

void learner_touched(struct learner *l)
{
	if (!l->closing)
		defer_start(&l->tell);
}

static void tell_failed(void *arg)
{
	struct learner *l = arg;

	l->config.events->failed(l->config.arg, l->error.code, &l->error);
}

void learner_fail(struct learner *l, int rc, const struct rv_error *e)
{
	if (l->failed)
		return;
	l->failed = true;
	l->error = *e;
	l->error.code = rc;
	timer_stop(&l->watch);
	if (!l->closing)
		defer_start(&l->tell_failed);
}

/* --- the configuration, as the stream tells it --- */

int learner_set_conf(struct learner *l, const uint8_t *bytes, size_t len, uint64_t index)
{
	struct raft_configuration conf;
	int rc = raft_conf_decode(bytes, len, &conf);

	if (rc)
		return rc;
	raft_configuration_close(&l->conf);
	l->conf = conf;
	l->conf_index = index;
	return 0;
}

static bool is_voter(const struct learner *l, const struct uuid *host)
{
	char text[UUID_TEXT_SIZE];

	uuid_format(host, text);
	for (unsigned i = 0; i < l->conf.n; i++)
		if (l->conf.servers[i].role == RAFT_VOTER &&
			strcmp(l->conf.servers[i].address, text) == 0)
			return true;
	return false;
}

/* --- sessions --- */

static bool send_message(
	struct learner *l, const struct uuid *host, const struct learn_message *m)
{
	struct buf b;
	bool sent;

	buf_init(&b, 256);
	sent = !learn_encode(m, &b) &&
	       !l->config.messenger->ops->send(l->config.messenger, host,
		       POOL_MESSAGE_LEARN, buf_data(&b), buf_len(&b));
	if (!sent)
		log_debug("pool.learner", "msg=\"not sent; the watch will see to it\"");
	buf_fini(&b);
	return sent;
}

static void drop_waiting(struct learner *l)
{
	while (!list_empty(&l->waiting))
		learner_item_free(
			l, CONTAINER_OF(l->waiting.next, struct learner_item, node));
	l->last_index = l->written_index;
	l->last_term = l->written_term;
	l->receiving = false;
	learner_install_cancel(l);
}

void learner_lose(struct learner *l, const char *why)
{
	struct learn_message bye = {.kind = LEARN_BYE, .session = l->session};
	char text[UUID_TEXT_SIZE];

	if (!l->session)
		return;
	if (l->feeder) {
		log_info("pool.learner", "feeder=%s msg=\"%s; trying another voter\"",
			uuid_format(&l->feeder->host, text), why);
		l->feeder->avoid_until_us =
			loop_now_us(l->loop) + 1000 * (int64_t)LEARNER_AVOID_MS;
		send_message(l, &l->feeder->host, &bye);
	}
	l->session = 0;
	l->feeder = NULL;
	drop_waiting(l);
	learner_touched(l);
}

/* Each learner has its own order of voters, so that they share the work. */
static uint64_t rank_of(const struct learner *l, const struct learner_peer *p)
{
	uint64_t rank = XXH3_64bits_withSeed(
		p->host.b, 16, XXH3_64bits(l->config.self.b, sizeof l->config.self.b));

	return rank >> 1 | (uint64_t)is_voter(l, &p->host) << 63;
}

static struct learner_peer *choose(const struct learner *l)
{
	int64_t now = loop_now_us(l->loop);
	struct learner_peer *best = NULL;

	LIST_FOR_EACH (node, &l->peers) {
		struct learner_peer *p = CONTAINER_OF(node, struct learner_peer, node);

		if (p->avoid_until_us <= now &&
			(!best || rank_of(l, p) > rank_of(l, best)))
			best = p;
	}
	return best;
}

static bool may_seek(const struct learner *l)
{
	return l->open && !l->session && !l->closing && !l->failed && !l->stuck &&
	       !l->save_first && l->install.state == INSTALL_IDLE &&
	       list_empty(&l->waiting);
}

static void seek(struct learner *l)
{
	struct learner_peer *p = may_seek(l) ? choose(l) : NULL;
	struct learn_message ask = {.kind = LEARN_ASK};
	int64_t now = loop_now_us(l->loop);

	if (!p)
		return; /* the watch comes again */
	l->session = prng_next(loop_prng(l->loop)) | 1;
	l->feeder = p;
	l->greeted = l->replaced = false;
	l->told_us = 0;
	l->position = l->acked_position = 0;
	l->sum = feed_first_sum(l->session);
	l->heard_us = l->moved_us = now;
	l->leaderless_us = 0;
	l->commit = 0;
	l->switches++;
	ask.session = l->session;
	ask.discard = l->discard;
	l->acked_stored = 0;
	if (l->discard) {
		ask.index = l->applied_index;
		ask.term = l->applied_term;
	} else {
		ask.index = l->last_index; /* perhaps on its way to the disk still */
		ask.term = l->last_term;
	}
	if (l->config.fsm->generation)
		l->config.fsm->generation(l->config.fsm_arg, &ask.generation);
	send_message(l, &p->host, &ask);
}

static bool waits_for_snapshot(const struct learner *l)
{
	return l->discard && !l->replaced;
}

static void watch(void *arg)
{
	struct learner *l = arg;
	int64_t now = loop_now_us(l->loop);

	timer_start_about_ms(&l->watch, WATCH_MS);
	defer_start(&l->ack);
	if (!l->session)
		seek(l);
	else if (now - l->heard_us > 1000 * (int64_t)LEARNER_SILENT_MS)
		learner_lose(l, "it is silent");
	else if (l->leaderless_us &&
		 now - l->leaderless_us > 1000 * (int64_t)LEARNER_LEADERLESS_MS)
		learner_lose(l, "it knows no master");
	else if ((l->commit > l->last_index || waits_for_snapshot(l)) && !l->receiving &&
		 list_empty(&l->waiting) &&
		 now - l->moved_us > 1000 * (int64_t)LEARNER_STUCK_MS)
		learner_lose(l, "it knows of entries and sends none");
}

static void ack(void *arg)
{
	struct learner *l = arg;
	struct learn_message m = {.kind = LEARN_ACK, .session = l->session};

	if (!l->session || l->closing)
		return;
	m.position = l->position > l->outstanding ? l->position - l->outstanding : 0;
	m.stored = l->discard ? 0 : l->applied_index;
	if (m.position == l->acked_position && m.stored == l->acked_stored)
		return;
	if (!send_message(l, &l->feeder->host, &m))
		return; /* the watch comes again */
	l->acked_position = m.position;
	l->acked_stored = m.stored;
}

void learner_item_free(struct learner *l, struct learner_item *item)
{
	list_remove(&item->node);
	l->outstanding -= item->cost;
	defer_start(&l->ack);
	free(item->entries);
	free(item);
}

/* --- what arrives --- */

/* A term without a master says only that there may be none: whoever told of it may stand
 * for election in vain, be left out and take its term along. What this learner knows by
 * its term is the master that it heard of last. */
static void note_master(struct learner *l, uint64_t term, const struct uuid *master)
{
	bool none = uuid_is_none(master);

	if (term < l->term || (none && term == l->term) ||
		(uuid_eq(master, &l->master) && (none || term == l->term)))
		return;
	if (!none)
		l->term = term;
	l->master = *master;
	learner_touched(l);
}

void learner_note_master(struct learner *l, uint64_t term, const struct uuid *master)
{
	note_master(l, term, master);
}

/* The state is as of a beat once all that was committed by then is applied. */
static void note_fresh(struct learner *l, const struct feed_message *m)
{
	int64_t now = loop_now_us(l->loop);

	if (l->told_us && l->told_commit <= l->applied_index)
		l->fresh_us = l->told_us;
	else if (l->told_us)
		return;
	l->told_us =
		m->age_ms < (uint64_t)now / 1000 ? now - 1000 * (int64_t)m->age_ms : 0;
	l->told_commit = m->commit;
	if (l->told_us && l->told_commit <= l->applied_index)
		l->fresh_us = l->told_us;
}

static void take_beat(struct learner *l, const struct feed_message *m)
{
	int64_t now = loop_now_us(l->loop);

	if (!l->greeted) {
		l->greeted = true;
		learner_touched(l);
	}
	l->commit = m->commit;
	note_fresh(l, m);
	if (l->last_index >= m->commit && !waits_for_snapshot(l))
		l->moved_us = now;
	if (!uuid_is_none(&m->master))
		l->leaderless_us = 0;
	else if (!l->leaderless_us)
		l->leaderless_us = now;
	note_master(l, m->term, &m->master);
}

static void take_refusal(struct learner *l, const struct feed_message *m)
{
	static const char *const why[] = {
		[FEED_NOT_VOTER] = "it is no voter",
		[FEED_BEHIND] = "it is behind this host",
		[FEED_FULL] = "it feeds as many as it may",
		[FEED_GENERATION] = "its database is of another life of the pool",
		[FEED_ENDED] = "it feeds no more",
	};

	l->refused++;
	learner_lose(l, why[m->refusal]);
}

/* Whether a data message is the one that must come next. NULL, or what is wrong. */
static const char *data_wrong(const struct learner *l, const struct feed_message *m)
{
	if (m->position != l->position || feed_next_sum(l->sum, m) != m->sum)
		return "what it sends has a gap or is damaged";
	if (l->position - l->acked_position > LEARN_WINDOW + LEARN_MAX_MESSAGE)
		return "it sends more than it may";
	switch (m->kind) {
	case FEED_ENTRIES:
		if (l->receiving || waits_for_snapshot(l))
			return "it sends entries where a snapshot is due";
		if (m->index != l->last_index || m->entry_term != l->last_term)
			return "its entries don't follow on this host's last";
		return NULL;
	case FEED_SNAP_BEGIN:
		return l->receiving ? "it begins a snapshot in another" : NULL;
	default:
		return l->receiving ? NULL : "it sends a part of no snapshot";
	}
}

static void note_entries(struct learner *l, struct learner_item *item)
{
	struct feed_entry e;
	size_t at = 0;

	for (unsigned i = 0; i < item->m.count && feed_next_entry(&item->m, &at, &e);
		i++) {
		item->entries[i] = (struct raft_entry){.term = e.term, .type = e.type};
		item->entries[i].buf.base = (void *)e.bytes;
		item->entries[i].buf.len = e.len;
		l->last_term = e.term;
	}
	l->last_index += item->m.count;
}

static int take_data(struct learner *l, const uint8_t *bytes, size_t len)
{
	struct learner_item *item = malloc(sizeof *item + len);
	int rc = item ? 0 : RV_ENOMEM;

	if (rc)
		return rc;
	*item = (struct learner_item){.cost = len};
	list_init(&item->node);
	memcpy(item->bytes, bytes, len);
	rc = feed_decode(&item->m, item->bytes, len);
	if (!rc && item->m.kind == FEED_ENTRIES) {
		item->entries = calloc(item->m.count, sizeof *item->entries);
		rc = item->entries ? 0 : RV_ENOMEM;
	}
	if (rc) {
		free(item);
		return rc;
	}
	if (item->m.kind == FEED_ENTRIES) {
		note_entries(l, item);
	} else if (item->m.kind == FEED_SNAP_BEGIN) {
		l->receiving = l->replaced = true;
		l->last_index = item->m.index;
		l->last_term = item->m.entry_term;
	} else if (item->m.kind == FEED_SNAP_END) {
		l->receiving = false;
	}
	l->sum = item->m.sum;
	l->position += len;
	l->outstanding += len;
	list_push_back(&l->waiting, &item->node);
	learner_pump(l);
	return 0;
}

void learner_deliver(
	struct learner *l, const struct uuid *from, const uint8_t *bytes, size_t len)
{
	struct feed_message m;
	const char *wrong = NULL;

	if (!l->session || l->closing || l->failed || !uuid_eq(from, &l->feeder->host))
		return;
	if (feed_decode(&m, bytes, len)) {
		learner_lose(l, "what it sends makes no sense");
		return;
	}
	if (m.session != l->session)
		return; /* of a session before */
	l->heard_us = loop_now_us(l->loop);
	if (m.kind == FEED_BEAT) {
		take_beat(l, &m);
	} else if (m.kind == FEED_REFUSE) {
		take_refusal(l, &m);
	} else {
		l->moved_us = l->heard_us;
		wrong = data_wrong(l, &m);
		if (!wrong && take_data(l, bytes, len))
			wrong = "this host has no memory for what it sends";
	}
	if (wrong) {
		log_warn("pool.learner", "index=%" PRIu64 " msg=\"refused: %s\"",
			l->last_index, wrong);
		l->refused++;
		learner_lose(l, wrong);
	}
}

/* --- peers --- */

static struct learner_peer *peer_find(const struct learner *l, const struct uuid *host)
{
	LIST_FOR_EACH (node, &l->peers) {
		struct learner_peer *p = CONTAINER_OF(node, struct learner_peer, node);

		if (uuid_eq(&p->host, host))
			return p;
	}
	return NULL;
}

void learner_peer_up(struct learner *l, const struct uuid *host)
{
	struct learner_peer *p;

	learner_peer_down(l, host); /* whatever was asked before is lost */
	p = calloc(1, sizeof *p);
	if (!p)
		return;
	p->host = *host;
	list_push_back(&l->peers, &p->node);
	if (l->open)
		learner_touched(l);
}

void learner_peer_down(struct learner *l, const struct uuid *host)
{
	struct learner_peer *p = peer_find(l, host);

	if (!p)
		return;
	list_remove(&p->node);
	if (l->feeder == p) {
		l->feeder = NULL;
		learner_lose(l, "the link to it went");
	}
	free(p);
}

/* --- beginning and ending --- */

static bool quiet(const struct learner *l)
{
	return !l->job.running && !learner_snap_running(l);
}

static void closed(void *arg)
{
	struct learner *l = arg;

	if (l->closed_told)
		return;
	l->closed_told = true;
	l->config.events->closed(l->config.arg);
}

void learner_close_step(struct learner *l)
{
	if (!l->closing || l->abandoned)
		return;
	/* What has arrived is written, if the disk is well. */
	if (!l->failed)
		learner_pump(l);
	if (quiet(l) && (l->failed || list_empty(&l->waiting)))
		defer_start(&l->closed);
}

void learner_close(struct learner *l)
{
	struct learn_message bye = {.kind = LEARN_BYE, .session = l->session};

	if (l->closing)
		return;
	if (l->session && l->feeder)
		send_message(l, &l->feeder->host, &bye);
	l->closing = true;
	l->session = 0;
	l->feeder = NULL;
	timer_stop(&l->watch);
	defer_stop(&l->apply);
	drop_waiting(l);
	learner_take_cancel(l);
	learner_close_step(l);
}

static int take_recovered(struct learner *l, struct recovered *r)
{
	const struct learner_config *c = &l->config;
	struct rv_error e;

	l->segments = r->segments;
	l->recovered = *r;
	l->recovered.segments = (struct segments){0};
	*r = (struct recovered){0};
	r = &l->recovered;
	l->meta = r->meta;
	l->former = r->meta.value;
	l->term = r->meta.term;
	l->written_index = l->segments.next - 1;
	l->written_term = l->segments.term;
	l->segment_bytes = segments_bytes(&l->segments);
	l->snapshot_bytes = r->snapshot_bytes;
	l->snapshot_us = loop_now_us(l->loop);
	if (r->has_snapshot) {
		l->snapshot_index = r->snapshot.index;
		if (raft_conf_copy(&r->snapshot.conf, &l->conf))
			return RV_ENOMEM;
		l->conf_index = r->snapshot.conf_index;
	}
	l->discard = c->discard;
	if (l->written_index < l->applied_index) {
		/* Nothing is on disk (the owner saw to it): the state is what there is.
		 */
		l->segments.next = l->applied_index + 1;
		l->written_index = l->applied_index;
		l->written_term = l->applied_term;
		l->save_first = !l->discard;
		if (c->conf && raft_conf_copy(c->conf, &l->conf))
			return RV_ENOMEM;
		l->conf_index = c->conf_index;
	}
	l->last_index = l->written_index;
	l->last_term = l->written_term;
	return disk_open(c->disk, SEGMENTS_META, &l->meta_file, &e);
}

int learner_new(
	struct learner **out, const struct learner_config *config, struct recovered *r)
{
	struct learner *l = calloc(1, sizeof *l);
	int rc;

	if (!l)
		return RV_ENOMEM;
	l->config = *config;
	l->loop = config->loop;
	l->applied_index = config->applied_index;
	l->applied_term = config->applied_term;
	raft_configuration_init(&l->conf);
	list_init(&l->peers);
	list_init(&l->waiting);
	list_init(&l->writing);
	list_init(&l->applying);
	defer_init(&l->closed, l->loop, "pool.learner.closed", closed, l);
	defer_init(&l->tell_failed, l->loop, "pool.learner.failed", tell_failed, l);
	defer_init(&l->tell, l->loop, "pool.learner.changed", tell, l);
	defer_init(&l->ack, l->loop, "pool.learner.ack", ack, l);
	timer_init(&l->watch, l->loop, "pool.learner.watch", watch, l);
	learner_write_init(l);
	learner_snap_init(l);
	rc = take_recovered(l, r);
	if (rc) {
		learner_free(l);
		return rc;
	}
	if (config->messenger)
		timer_start_about_ms(&l->watch, WATCH_MS);
	defer_start(&l->apply);
	*out = l;
	return 0;
}

void learner_abandon(struct learner *l)
{
	if (l)
		l->closing = l->abandoned = true;
}

void learner_free(struct learner *l)
{
	if (!l)
		return;
	learner_abandon(l);
	timer_stop(&l->watch);
	defer_stop(&l->apply);
	drop_waiting(l);
	learner_snap_fini(l);
	learner_write_fini(l);
	while (!list_empty(&l->peers)) {
		struct list *node = l->peers.next;

		list_remove(node);
		free(CONTAINER_OF(node, struct learner_peer, node));
	}
	defer_stop(&l->closed);
	defer_stop(&l->tell_failed);
	defer_stop(&l->tell);
	defer_stop(&l->ack);
	recovered_fini(&l->recovered);
	segments_fini(&l->segments);
	disk_close(l->meta_file);
	raft_configuration_close(&l->conf);
	free(l);
}

void learner_discard(struct learner *l)
{
	if (l->discard || l->closing)
		return;
	l->discard = true;
	learner_lose(l, "this host's database differs: it takes a snapshot");
}

const struct raft_configuration *learner_conf(const struct learner *l, uint64_t *index)
{
	*index = l->conf_index;
	return &l->conf;
}

/* --- what is going on --- */

void learner_status(const struct learner *l, struct learner_status *out)
{
	*out = (struct learner_status){
		.open = l->open,
		.applied_index = l->applied_index,
		.applied_term = l->applied_term,
		.last_index = l->last_index,
		.commit = l->commit > l->last_index ? l->commit : l->last_index,
		.term = l->term,
		.master = l->master,
		.feeder = l->session && l->greeted && l->feeder ? l->feeder->host
								: UUID_NONE,
		.installing = l->install.state != INSTALL_IDLE,
		.discard = l->discard,
		.snapshot_index = l->snapshot_index,
		.snapshot_us = l->snapshot_us,
		.disk_bytes = l->segment_bytes + l->snapshot_bytes,
		.servers = (int)l->conf.n,
		.fresh_us = l->fresh_us,
		.former = l->former,
		.switches = l->switches,
		.refused = l->refused,
		.installs = l->installs,
		.appends = l->appends,
	};
	for (unsigned i = 0; i < l->conf.n; i++)
		out->voters += l->conf.servers[i].role == RAFT_VOTER;
}
