#include "pool/learner_feed.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/map.h"
#include "pool/learner_source.h"
#include "pool/rlog_internal.h"

enum {
	BEAT_MS = 250,
	RETRY_MS = 20, /* a full queue, a place among the loads */
	SNAPSHOT_RETRY_MS = 500,
	SLICE_MESSAGES = 16, /* of one callback */
	SLICE_BYTES = 1 << 20,
};

/* One learner's session. */
struct feed {
	struct list node; /* in feeder.active or feeder.resting */
	struct feeder *feeder;
	struct uuid host;
	uint64_t session;
	uint64_t position, acked; /* bytes of data: sent, taken in */
	uint64_t stored;	  /* entries on its disk, as it last told */
	uint64_t sum;
	uint64_t index, term; /* of the last entry sent */
	bool unproven;	      /* whether we have that entry, or another there */
	struct source source; /* where its entries come from, if not from memory */
	uint64_t loaded_for;  /* the entry for which a segment was read last */
	size_t sending;	      /* the snapshot: where in the file */
	bool begun;	      /* and SNAP_BEGIN is sent */
	bool needs_snapshot;  /* which could not be had yet */
	uint64_t least;	      /* it must be no older: a state never goes back */
	int64_t wait_until_us;
};

struct feeder {
	struct loop *loop;
	struct disk *disk;
	struct rlog *rlog;
	struct pool_messenger *messenger;
	struct list active, resting;
	struct list snapshots; /* struct source_snapshot */
	struct map hosts;      /* feeds by their host */
	int count, loads;
	struct defer pump, woken;
	struct timer beat, retry;
	struct buf out;
	uint64_t limit; /* as last looked at */
};

static void feed_end_session(struct feed *fd);

/* --- sending --- */

static int feed_send(struct feeder *f, const struct uuid *host)
{
	return f->messenger->ops->send(f->messenger, host, POOL_MESSAGE_FEED,
		buf_data(&f->out), buf_len(&f->out));
}

static struct buf *fresh(struct feeder *f)
{
	buf_consume(&f->out, buf_len(&f->out));
	return &f->out;
}

static void refuse(struct feeder *f, const struct uuid *host, uint64_t session,
	enum feed_refusal why)
{
	if (!feed_encode_refuse(session, why, fresh(f)) && feed_send(f, host))
		log_debug("pool.feed", "msg=\"the learner asks again\"");
}

static void send_beat(struct feed *fd)
{
	struct feeder *f = fd->feeder;
	struct feed_message m = {.kind = FEED_BEAT, .session = fd->session};
	struct rlog_status s;

	rlog_status(f->rlog, &s);
	m.term = s.term;
	m.commit = rlog_feed_limit(f->rlog);
	m.age_ms = (uint64_t)(loop_now_us(f->loop) - rlog_fresh_us(f->rlog)) / 1000;
	if (!s.leader_id ||
		uuid_parse(&m.master, s.leader_address, strlen(s.leader_address)))
		m.master = UUID_NONE;
	if (!feed_encode_beat(&m, fresh(f)) && feed_send(f, &fd->host))
		log_debug("pool.feed", "msg=\"no beat: its queue is full\"");
}

/* The message in f->out goes to the learner, or the state is as before. */
static int send_data(struct feed *fd)
{
	struct feeder *f = fd->feeder;
	uint64_t sum = fd->sum;
	int rc;

	feed_end(&f->out, &sum);
	rc = feed_send(f, &fd->host);
	if (rc == RV_EAGAIN) { /* its queue is full */
		fd->wait_until_us = loop_now_us(f->loop) + 1000 * (int64_t)RETRY_MS;
		return RV_ELIMIT;
	}
	if (rc)
		return rc;
	fd->sum = sum;
	fd->position += buf_len(&f->out);
	return 0;
}

/* --- entries --- */

/* The next entry to send: from memory, else from the segment that was read. */
static bool next_entry(struct feed *fd, uint64_t index, size_t *at, struct feed_entry *e)
{
	const struct tail_entry *t = rlog_feed_entry(fd->feeder->rlog, index);

	if (!t)
		return source_entry(&fd->source, index, at, e);
	*e = (struct feed_entry){
		.term = t->term, .type = t->type, .bytes = t->bytes, .len = t->len};
	return true;
}

/* Sends one message of entries. RV_ESTALE: the next one is not at hand. */
static int send_entries(struct feed *fd, uint64_t limit)
{
	struct feeder *f = fd->feeder;
	uint64_t index = fd->index, term = fd->term;
	size_t from = fd->source.at, at = from, bytes = 0;
	struct feed_entry e;
	uint32_t count = 0;
	int rc;

	if (!next_entry(fd, index + 1, &at, &e))
		return RV_ESTALE;
	rc = feed_begin(FEED_ENTRIES, fd->session, fd->position, fresh(f));
	rc = rc ? rc : feed_put_entries(&f->out, index, term);
	do {
		if (count > 0 && bytes + e.len > LEARN_BATCH_BYTES)
			break;
		rc = rc ? rc : feed_put_entry(&f->out, e.term, e.type, e.bytes, e.len);
		if (rc)
			break;
		bytes += e.len;
		term = e.term;
		index++;
		count++;
		fd->source.at = at;
	} while (count < LEARN_BATCH_ENTRIES && index < limit &&
		 next_entry(fd, index + 1, &at, &e));
	if (!rc)
		feed_set_count(&f->out, count);
	rc = rc ? rc : send_data(fd);
	if (rc) {
		fd->source.at = from;
		return rc;
	}
	fd->index = index;
	fd->term = term;
	return 0;
}

/* --- snapshots --- */

static void begin_snapshot(struct feed *fd)
{
	struct feeder *f = fd->feeder;
	uint64_t newest = rlog_feed_snapshot(f->rlog);
	int rc = RV_ENOENT;

	source_close(&fd->source, &f->loads);
	fd->sending = 0;
	fd->begun = false;
	if (newest >= fd->least)
		rc = source_snapshot(
			&fd->source, &f->snapshots, f->disk, newest, &f->woken);
	fd->needs_snapshot = rc != 0;
	if (rc) {
		/* There is none yet, it is too old, or no memory: soon. */
		rlog_snapshot(f->rlog);
		fd->wait_until_us =
			loop_now_us(f->loop) + 1000 * (int64_t)SNAPSHOT_RETRY_MS;
	}
}

static int send_snapshot(struct feed *fd)
{
	struct feeder *f = fd->feeder;
	const struct snapfile *file;
	const uint8_t *chunk;
	size_t at = fd->sending, len;
	int rc = source_file(&fd->source, &file);

	if (rc == RV_EAGAIN)
		return rc;
	if (rc) { /* it could not be read: perhaps the next one can */
		fd->needs_snapshot = true;
		fd->wait_until_us =
			loop_now_us(f->loop) + 1000 * (int64_t)SNAPSHOT_RETRY_MS;
		source_close(&fd->source, &f->loads);
		return RV_ELIMIT;
	}

	if (!fd->begun) {
		rc = feed_begin(FEED_SNAP_BEGIN, fd->session, fd->position, fresh(f));
		rc = rc ? rc
			: feed_put_snapshot(&f->out, file->index, file->term,
				  file->conf_index, file->data_bytes, &file->conf);
		rc = rc ? rc : send_data(fd);
		fd->begun = !rc;
		return rc;
	}
	if (snapfile_next(file, &at, &chunk, &len)) {
		rc = feed_begin(FEED_SNAP_DATA, fd->session, fd->position, fresh(f));
		rc = rc ? rc : buf_append(&f->out, chunk, len);
		rc = rc ? rc : send_data(fd);
		if (!rc)
			fd->sending = at;
		return rc;
	}
	rc = feed_begin(FEED_SNAP_END, fd->session, fd->position, fresh(f));
	rc = rc ? rc : send_data(fd);
	if (rc)
		return rc;
	fd->index = file->index;
	fd->term = file->term;
	fd->unproven = false;
	source_close(&fd->source, &f->loads);
	return 0;
}

/* --- one learner's turn --- */

/* Whether the entry it holds last is ours. RV_EAGAIN: the disk must tell. */
static int prove(struct feed *fd)
{
	uint64_t ours = rlog_feed_term(fd->feeder->rlog, fd->index);

	if (fd->index == 0)
		ours = 0;
	else if (!ours)
		return RV_EAGAIN;
	fd->unproven = false;
	if (ours == fd->term)
		return 0;
	log_warn("pool.feed",
		"index=%" PRIu64
		" msg=\"a learner holds another entry there; it gets a snapshot\"",
		fd->index);
	return RV_ESTATE;
}

/* The segment has been read: is the learner's entry in it, and is it the same? */
static void loaded(struct feed *fd)
{
	struct source *s = &fd->source;

	if (s->rc) {
		begin_snapshot(fd);
		return;
	}
	if (fd->unproven && s->before_term != fd->term) {
		log_warn("pool.feed",
			"index=%" PRIu64
			" msg=\"a learner holds another entry there, or it is gone here; "
			"it gets a snapshot\"",
			fd->index);
		begin_snapshot(fd);
		return;
	}
	fd->unproven = false;
}

static int load(struct feed *fd)
{
	struct feeder *f = fd->feeder;

	if (!fd->unproven && fd->loaded_for == fd->index + 1) {
		begin_snapshot(fd); /* it was read, and is not readable */
		return 0;
	}
	if (!source_load(&fd->source, f->disk, fd->index, !fd->unproven, &f->loads,
		    &f->woken)) {
		fd->loaded_for = fd->unproven ? 0 : fd->index + 1;
		return RV_EAGAIN;
	}
	fd->wait_until_us = loop_now_us(f->loop) + 1000 * (int64_t)RETRY_MS;
	return RV_ELIMIT;
}

static int step_entries(struct feed *fd)
{
	struct feeder *f = fd->feeder;
	uint64_t limit = rlog_feed_limit(f->rlog);
	int rc;

	if (fd->unproven) {
		rc = prove(fd);
		if (rc == RV_EAGAIN)
			return load(fd);
		if (rc) {
			begin_snapshot(fd);
			return 0;
		}
	}
	if (fd->index >= limit) {
		source_close(&fd->source, &f->loads);
		return RV_EAGAIN;
	}
	rc = send_entries(fd, limit);
	return rc == RV_ESTALE ? load(fd) : rc;
}

/* Sends one message. RV_EAGAIN: nothing to do until it is woken; RV_ELIMIT: later. */
static int feed_step(struct feed *fd)
{
	struct feeder *f = fd->feeder;

	if (fd->source.state == SOURCE_LOADING ||
		fd->position - fd->acked >= LEARN_WINDOW)
		return RV_EAGAIN;
	if (fd->wait_until_us > loop_now_us(f->loop))
		return RV_ELIMIT;
	if (fd->needs_snapshot) {
		begin_snapshot(fd);
		return 0;
	}
	switch (fd->source.state) {
	case SOURCE_LOADED:
		fd->source.state = SOURCE_SEGMENT;
		loaded(fd);
		return 0;
	case SOURCE_SNAPSHOT:
		return send_snapshot(fd);
	default:
		return step_entries(fd);
	}
}

static void wake(struct feed *fd)
{
	list_remove(&fd->node);
	list_push_back(&fd->feeder->active, &fd->node);
	defer_start(&fd->feeder->pump);
}

/* A few messages, by turns. */
static void pump(void *arg)
{
	struct feeder *f = arg;
	size_t bytes = 0;
	int late = 0;

	for (int n = 0; n < SLICE_MESSAGES && bytes < SLICE_BYTES; n++) {
		struct feed *fd;
		int rc;

		if (list_empty(&f->active))
			break;
		fd = CONTAINER_OF(f->active.next, struct feed, node);
		rc = feed_step(fd);
		bytes += buf_len(&f->out);
		list_remove(&fd->node);
		list_push_back(rc == RV_EAGAIN ? &f->resting : &f->active, &fd->node);
		late += rc && rc != RV_EAGAIN;
		if (rc && rc != RV_EAGAIN && rc != RV_ELIMIT)
			feed_end_session(fd); /* the link is gone: it asks again */
	}
	if (list_empty(&f->active))
		return;
	if (late)
		timer_start_ms(&f->retry, RETRY_MS);
	else
		defer_start(&f->pump);
}

static void retry(void *arg)
{
	struct feeder *f = arg;

	defer_start(&f->pump);
}

/* Something was read for one of them, or more is committed. */
static void woken(void *arg)
{
	struct feeder *f = arg;

	LIST_FOR_EACH_SAFE (node, &f->resting)
		wake(CONTAINER_OF(node, struct feed, node));
}

/* --- sessions --- */

static struct feed *feed_find(const struct feeder *f, const struct uuid *host)
{
	return map_get(&f->hosts, host->b, sizeof host->b);
}

static void feed_end_session(struct feed *fd)
{
	struct feeder *f = fd->feeder;

	list_remove(&fd->node);
	map_remove(&f->hosts, fd->host.b, sizeof fd->host.b);
	source_close(&fd->source, &f->loads);
	f->count--;
	free(fd);
}

/* 0, or why this host doesn't feed that learner. *discard: from a snapshot on, which is
 * no older than *least. */
static int ask_refused(
	struct feeder *f, const struct learn_message *m, bool *discard, uint64_t *least)
{
	struct rlog_generation own;

	*discard = m->discard;
	if (!rlog_feeds(f->rlog))
		return FEED_NOT_VOTER;
	rlog_feed_generation(f->rlog, &own);
	if (m->generation.number > own.number ||
		(m->generation.number == own.number && own.number &&
			!uuid_eq(&m->generation.id, &own.id)))
		return FEED_GENERATION;
	*least = 0;
	if (m->generation.number && m->generation.number < own.number)
		*discard = true; /* it comes back from a life that was given up */
	else if (m->index > rlog_feed_limit(f->rlog))
		return FEED_BEHIND;
	else if (m->discard)
		*least = m->index;
	return f->count >= FEED_MAX ? FEED_FULL : 0;
}

static void deliver_ask(
	struct feeder *f, const struct uuid *from, const struct learn_message *m)
{
	struct feed *fd = feed_find(f, from);
	uint64_t least = 0;
	bool discard;
	int why;

	if (fd)
		feed_end_session(fd);
	why = ask_refused(f, m, &discard, &least);
	fd = why ? NULL : calloc(1, sizeof *fd);
	if (fd)
		fd->host = *from;
	if (!fd || map_add(&f->hosts, fd->host.b, sizeof fd->host.b, fd)) {
		refuse(f, from, m->session, why ? (enum feed_refusal)why : FEED_FULL);
		free(fd);
		return;
	}
	fd->feeder = f;
	fd->session = m->session;
	fd->sum = feed_first_sum(m->session);
	fd->index = m->index;
	fd->least = least;
	fd->term = m->term;
	fd->unproven = true;
	source_init(&fd->source);
	list_init(&fd->node);
	f->count++;
	if (!timer_active(&f->beat))
		timer_start_about_ms(&f->beat, BEAT_MS);
	send_beat(fd);
	if (discard)
		begin_snapshot(fd);
	wake(fd);
}

static void deliver_ack(struct feed *fd, const struct learn_message *m)
{
	/* Of bytes that were never sent: nothing that it says is of use. */
	if (m->position > fd->position || m->position < fd->acked)
		return;
	fd->acked = m->position;
	if (m->stored <= fd->index)
		fd->stored = m->stored;
	wake(fd);
}

void feeder_deliver(
	struct feeder *f, const struct uuid *from, const uint8_t *bytes, size_t len)
{
	struct learn_message m;
	struct feed *fd;

	if (learn_decode(&m, bytes, len)) {
		log_warn("pool.feed", "bytes=%zu msg=\"dropped a learner's message\"",
			len);
		return;
	}
	if (m.kind == LEARN_ASK) {
		deliver_ask(f, from, &m);
		return;
	}
	fd = feed_find(f, from);
	if (!fd || fd->session != m.session)
		return;
	if (m.kind == LEARN_ACK)
		deliver_ack(fd, &m);
	else
		feed_end_session(fd);
}

void feeder_peer_down(struct feeder *f, const struct uuid *host)
{
	struct feed *fd = feed_find(f, host);

	if (fd)
		feed_end_session(fd);
}

static void beat(void *arg)
{
	struct feeder *f = arg;

	if (f->count == 0)
		return;
	timer_start_about_ms(&f->beat, BEAT_MS);
	LIST_FOR_EACH (node, &f->resting)
		send_beat(CONTAINER_OF(node, struct feed, node));
	LIST_FOR_EACH (node, &f->active)
		send_beat(CONTAINER_OF(node, struct feed, node));
}

void feeder_look(struct feeder *f)
{
	uint64_t limit = rlog_feed_limit(f->rlog);

	if (f->count == 0)
		return;
	if (!rlog_feeds(f->rlog)) {
		feeder_end(f);
		return;
	}
	if (limit == f->limit)
		return;
	f->limit = limit;
	woken(f);
}

void feeder_tell(struct feeder *f)
{
	if (f->count > 0 && timer_active(&f->beat))
		timer_start_us(&f->beat, 0);
}

void feeder_end(struct feeder *f)
{
	for (int i = 0; i < 2; i++) {
		struct list *l = i ? &f->active : &f->resting;

		while (!list_empty(l)) {
			struct feed *fd = CONTAINER_OF(l->next, struct feed, node);

			refuse(f, &fd->host, fd->session, FEED_ENDED);
			feed_end_session(fd);
		}
	}
}

int feeder_count(const struct feeder *f)
{
	return f->count;
}

bool feeder_stored(const struct feeder *f, const struct uuid *host, uint64_t *stored)
{
	const struct feed *fd = feed_find(f, host);

	if (fd)
		*stored = fd->stored;
	return fd != NULL;
}

/* --- beginning and ending --- */

int feeder_new(struct feeder **out, struct loop *l, struct disk *disk, struct rlog *rlog,
	struct pool_messenger *messenger)
{
	struct feeder *f = calloc(1, sizeof *f);

	if (!f)
		return RV_ENOMEM;
	f->loop = l;
	f->disk = disk;
	f->rlog = rlog;
	f->messenger = messenger;
	list_init(&f->active);
	list_init(&f->resting);
	list_init(&f->snapshots);
	buf_init(&f->out, LEARN_MAX_MESSAGE);
	map_init(&f->hosts, prng_next(loop_prng(l)));
	defer_init(&f->pump, l, "pool.feed", pump, f);
	defer_init(&f->woken, l, "pool.feed.woken", woken, f);
	timer_init(&f->beat, l, "pool.feed.beat", beat, f);
	timer_init(&f->retry, l, "pool.feed.retry", retry, f);
	*out = f;
	return 0;
}

void feeder_free(struct feeder *f)
{
	if (!f)
		return;
	while (!list_empty(&f->active))
		feed_end_session(CONTAINER_OF(f->active.next, struct feed, node));
	while (!list_empty(&f->resting))
		feed_end_session(CONTAINER_OF(f->resting.next, struct feed, node));
	source_forget(&f->snapshots);
	defer_stop(&f->pump);
	defer_stop(&f->woken);
	map_fini(&f->hosts);
	timer_stop(&f->beat);
	timer_stop(&f->retry);
	buf_fini(&f->out);
	free(f);
}
