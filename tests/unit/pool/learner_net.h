/*
 * Learners on one simulated loop with one or three voters, what their tests share: hosts,
 * links between them, and the one history, which is checked with every entry that any
 * host applies.
 */
#ifndef REEVE_TESTS_POOL_LEARNER_NET_H
#define REEVE_TESTS_POOL_LEARNER_NET_H

#include "pool/rlog.h"

#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <xxhash.h>

enum {
	NODES = 7,
	TRUTH = 1 << 19,
	PADDING = 300 << 10, /* of a snapshot: more than a chunk */
	WRITES = 64,
};

struct net;

/* The state: how many entries, and their chain. */
struct machine {
	uint64_t count, chain;
	uint64_t shot_count, shot_chain;
	size_t shot_at;
	uint8_t aside[16];
	size_t aside_len, padding;
};

struct node {
	struct rlog_transport transport;
	struct pool_messenger messenger;
	struct net *net;
	int index;
	struct uuid uuid;
	struct disk_sim_medium *medium;
	struct disk *disk;
	struct rlog *log;
	struct machine machine;
	bool opened, stopped, refused;
	rlog_transport_deliver_fn *receive;
	void *receive_arg;
};

struct write {
	struct rlog_proposal p;
	struct net *net;
	bool busy;
	int64_t since_us;
};

struct net {
	struct loop *loop;
	struct node nodes[NODES];
	int voters;
	bool up[NODES][NODES];
	unsigned epoch[NODES][NODES];
	int64_t last_us[NODES][NODES];
	struct list flying;
	uint64_t *truth;
	uint64_t count; /* of it */
	struct write writes[WRITES];
	uint64_t salt, seed, acked;
	int64_t slowest_us;
	uint32_t damage_ppm;
	uint64_t next_id;
	bool changing;
	uint64_t snapshot_entries;
	bool pad, no_raft;
};

struct letter {
	struct list node;
	struct net *net;
	struct timer timer;
	int from, to;
	unsigned epoch;
	enum pool_message type;
	uint64_t from_id;
	size_t len;
	uint8_t bytes[];
};

static struct {
	unsigned acked, cuts, crashes, stops, faults, damaged, promoted, demoted,
		restored, voted;
} total;

/* --- the state machine --- */

static void check_state(struct node *n)
{
	struct net *net = n->net;

	assert_true(n->machine.count < TRUTH);
	if (n->machine.count > net->count) {
		net->truth[n->machine.count] = n->machine.chain;
		net->count = n->machine.count;
	}
	if (n->machine.chain != net->truth[n->machine.count])
		fail_msg("seed %" PRIu64 ": host %d holds another history at %" PRIu64,
			net->seed, n->index, n->machine.count);
}

static int apply(void *arg, uint8_t kind, const uint8_t *bytes, size_t len,
	uint64_t index, uint64_t term)
{
	struct node *n = arg;

	(void)term;
	if (kind != 1)
		return RV_EUNSUPPORTED;
	n->machine.chain = XXH3_64bits_withSeed(bytes, len, n->machine.chain + index);
	n->machine.count++;
	check_state(n);
	return 0;
}

static int snapshot_begin(void *arg)
{
	struct machine *m = &((struct node *)arg)->machine;

	m->shot_count = m->count;
	m->shot_chain = m->chain;
	m->shot_at = 0;
	return 0;
}

static int snapshot_next(void *arg, struct buf *out, bool *done)
{
	struct node *n = arg;
	struct machine *m = &n->machine;
	static const uint8_t zeros[16 << 10];

	if (m->shot_at == 0 && (buf_append(out, &m->shot_count, 8) ||
				       buf_append(out, &m->shot_chain, 8)))
		return RV_ENOMEM;
	m->shot_at += sizeof zeros;
	*done = !n->net->pad || m->shot_at >= PADDING;
	return n->net->pad ? buf_append(out, zeros, sizeof zeros) : 0;
}

static void snapshot_end(void *arg)
{
	(void)arg;
}

static int restore_begin(void *arg)
{
	struct machine *m = &((struct node *)arg)->machine;

	m->aside_len = m->padding = 0;
	return 0;
}

static int restore_next(void *arg, const uint8_t *bytes, size_t len, struct rv_error *e)
{
	struct machine *m = &((struct node *)arg)->machine;

	for (size_t i = 0; i < len; i++) {
		if (m->aside_len < sizeof m->aside)
			m->aside[m->aside_len++] = bytes[i];
		else if (bytes[i])
			return rv_error_set(e, RV_ECORRUPT, "padding that is none");
		else
			m->padding++;
	}
	return 0;
}

static int restore_finish(void *arg, struct rv_error *e)
{
	struct node *n = arg;
	struct machine *m = &n->machine;

	return m->aside_len < sizeof m->aside || (n->net->pad && m->padding < PADDING)
		       ? rv_error_set(e, RV_ECORRUPT, "not the whole")
		       : 0;
}

static void restore_end(void *arg, bool commit, uint64_t index, uint64_t term)
{
	struct node *n = arg;
	struct machine *m = &n->machine;
	uint64_t before;

	(void)index;
	(void)term;
	if (!commit)
		return;
	before = m->count;
	memcpy(&m->count, m->aside, 8);
	if (m->count < before)
		fail_msg("seed %" PRIu64 ": host %d went back to %" PRIu64, n->net->seed,
			n->index, m->count);
	memcpy(&m->chain, m->aside + 8, 8);
	total.restored++;
	check_state(n);
}

static const struct rlog_fsm fsm = {
	.apply = apply,
	.snapshot_begin = snapshot_begin,
	.snapshot_next = snapshot_next,
	.snapshot_end = snapshot_end,
	.restore_begin = restore_begin,
	.restore_next = restore_next,
	.restore_finish = restore_finish,
	.restore_end = restore_end,
};

/* --- links --- */

static void letter_free(struct letter *l)
{
	timer_stop(&l->timer);
	list_remove(&l->node);
	free(l);
}

static void letter_arrives(void *arg)
{
	struct letter *l = arg;
	struct net *net = l->net;
	struct node *from = &net->nodes[l->from], *to = &net->nodes[l->to];
	char address[UUID_TEXT_SIZE];

	if (net->up[l->from][l->to] && l->epoch == net->epoch[l->from][l->to] &&
		to->log) {
		if (l->type == POOL_MESSAGE_RAFT && net->no_raft)
			; /* lost */
		else if (l->type != POOL_MESSAGE_RAFT)
			rlog_deliver(to->log, &from->uuid, l->type, l->bytes, l->len);
		else if (to->receive)
			to->receive(to->receive_arg, l->from_id,
				uuid_format(&from->uuid, address), l->bytes, l->len);
	}
	letter_free(l);
}

static int post(struct node *from, const struct uuid *host, enum pool_message type,
	const uint8_t *bytes, size_t len)
{
	struct net *net = from->net;
	struct rlog_status s = {0};
	struct letter *l;
	int64_t at;
	int to = 0;

	while (to < NODES && !uuid_eq(&net->nodes[to].uuid, host))
		to++;
	if (to == NODES || !net->up[from->index][to])
		return RV_ECLOSED;
	if (prng_chance_ppm(loop_prng(net->loop), 5000) && type == POOL_MESSAGE_FEED)
		return RV_EAGAIN;
	l = malloc(sizeof *l + len);
	*l = (struct letter){.net = net, .from = from->index, .to = to, .len = len};
	l->type = type;
	l->epoch = net->epoch[from->index][to];
	memcpy(l->bytes, bytes, len);
	if (from->log)
		rlog_status(from->log, &s);
	l->from_id = s.id;
	if ((type == POOL_MESSAGE_FEED || type == POOL_MESSAGE_LEARN) && len > 0 &&
		prng_chance_ppm(loop_prng(net->loop), net->damage_ppm)) {
		l->bytes[prng_below(loop_prng(net->loop), len)] ^=
			(uint8_t)(1 + prng_below(loop_prng(net->loop), 255));
		total.damaged++;
	}
	timer_init(&l->timer, net->loop, "letter", letter_arrives, l);
	at = loop_now_us(net->loop) + prng_range(loop_prng(net->loop), 50, 2000);
	if (at <= net->last_us[from->index][to])
		at = net->last_us[from->index][to] + 1;
	net->last_us[from->index][to] = at;
	timer_start_us(&l->timer, at - loop_now_us(net->loop));
	list_push_back(&net->flying, &l->node);
	return 0;
}

static int messenger_send(struct pool_messenger *m, const struct uuid *host,
	enum pool_message type, const uint8_t *bytes, size_t len)
{
	return post(CONTAINER_OF(m, struct node, messenger), host, type, bytes, len);
}

static int transport_send(struct rlog_transport *t, uint64_t to_id, const char *address,
	const uint8_t *bytes, size_t len)
{
	struct uuid host;

	(void)to_id;
	if (uuid_parse(&host, address, strlen(address)))
		return RV_ECLOSED;
	return post(CONTAINER_OF(t, struct node, transport), &host, POOL_MESSAGE_RAFT,
		bytes, len);
}

static void transport_receiver(
	struct rlog_transport *t, rlog_transport_deliver_fn *fn, void *arg)
{
	struct node *n = CONTAINER_OF(t, struct node, transport);

	n->receive = fn;
	n->receive_arg = arg;
}

static const struct pool_messenger_ops messenger_ops = {messenger_send};
static const struct rlog_transport_ops transport_ops = {
	transport_send, transport_receiver};

static void link_set(struct net *net, int a, int b, bool up)
{
	if (a == b || net->up[a][b] == up)
		return;
	net->up[a][b] = net->up[b][a] = up;
	net->epoch[a][b]++;
	net->epoch[b][a]++;
	for (int i = 0; i < 2; i++) {
		struct node *n = &net->nodes[i ? b : a];
		const struct uuid *other = &net->nodes[i ? a : b].uuid;

		if (n->log && up)
			rlog_peer_up(n->log, other);
		else if (n->log)
			rlog_peer_down(n->log, other);
	}
}

/* --- hosts --- */

static void on_changed(void *arg)
{
	(void)arg;
}

static void on_opened(void *arg, int rc, const struct rv_error *e)
{
	struct node *n = arg;

	if (rc == RV_ECORRUPT)
		fail_msg("seed %" PRIu64 ": host %d: %s", n->net->seed, n->index,
			e->detail);
	n->opened = !rc;
	n->refused = rc != 0; /* a fault; it is started anew */
}

static void on_stopped(void *arg)
{
	((struct node *)arg)->stopped = true;
}

static const struct rlog_events events = {on_changed, on_opened, on_stopped};

static void node_up(struct node *n)
{
	struct net *net = n->net;
	struct rlog_config c = {
		.adopt = true,
		.messenger = &n->messenger,
		.self = n->uuid,
		.segment_bytes = 16 << 10,
		.snapshot_entries = net->snapshot_entries,
		.snapshot_bytes = UINT64_MAX,
		.trailing_entries = 20,
		.reserve_bytes = 512,
		.retry_ms = 50,
	};
	struct rv_error e;

	if (net->snapshot_entries > 1000)
		c.segment_bytes = 1 << 20;
	uuid_format(&n->uuid, c.address);
	if (n->index < net->voters) {
		c.id = (uint64_t)n->index + 1;
		c.bootstrap_count = net->voters;
		for (int v = 0; v < net->voters; v++) {
			c.bootstrap[v].id = (uint64_t)v + 1;
			c.bootstrap[v].voter = true;
			uuid_format(&net->nodes[v].uuid, c.bootstrap[v].address);
		}
	}
	memset(&n->machine, 0, sizeof n->machine);
	n->opened = n->stopped = n->refused = false;
	assert_int_equal(disk_new_sim(&n->disk, net->loop, n->medium), 0);
	assert_int_equal(rlog_open(&n->log, net->loop, n->disk, &n->transport, &c, &fsm,
				 &events, n, &e),
		0);
	for (int i = 0; i < NODES; i++)
		link_set(net, n->index, i, net->nodes[i].log != NULL);
}

static void node_gone(struct node *n)
{
	rlog_free(n->log);
	n->log = NULL;
	n->net->changing = false; /* nobody may be there to say how it ended */
	n->receive = NULL;
	disk_free(n->disk);
	for (int i = 0; i < NODES; i++)
		link_set(n->net, n->index, i, false);
}

static void node_crash(struct node *n)
{
	disk_sim_crash(n->medium);
	node_gone(n);
	total.crashes++;
}

static void run_ms(struct net *net, int64_t ms)
{
	loop_sim_run_until(net->loop, loop_now_us(net->loop) + 1000 * ms);
}

static struct net *net_new(uint64_t seed, int voters, uint64_t snapshot_entries)
{
	struct net *net = calloc(1, sizeof *net);

	net->seed = seed;
	net->voters = voters;
	net->next_id = (uint64_t)voters + 1;
	net->snapshot_entries = snapshot_entries;
	net->pad = true;
	net->truth = calloc(TRUTH, sizeof *net->truth);
	list_init(&net->flying);
	assert_int_equal(loop_new_sim(&net->loop, seed), 0);
	for (int i = 0; i < NODES; i++) {
		struct node *n = &net->nodes[i];

		n->net = net;
		n->index = i;
		n->uuid = uuid_random(loop_prng(net->loop));
		n->messenger.ops = &messenger_ops;
		n->transport.ops = &transport_ops;
		assert_int_equal(
			disk_sim_medium_new(&n->medium, seed * 16 + (uint64_t)i), 0);
	}
	return net;
}

static void net_free(struct net *net)
{
	for (int i = 0; i < NODES; i++) {
		if (net->nodes[i].log)
			node_gone(&net->nodes[i]);
		disk_sim_medium_free(net->nodes[i].medium);
	}
	while (!list_empty(&net->flying))
		letter_free(CONTAINER_OF(net->flying.next, struct letter, node));
	loop_free(net->loop);
	free(net->truth);
	free(net);
}

static struct node *leader_of(struct net *net)
{
	struct node *best = NULL;
	struct rlog_status s;
	uint64_t term = 0;

	for (int i = 0; i < NODES; i++) {
		if (!net->nodes[i].log || !rlog_is_leader(net->nodes[i].log))
			continue;
		rlog_status(net->nodes[i].log, &s);
		if (s.term > term) {
			term = s.term;
			best = &net->nodes[i];
		}
	}
	return best;
}

/* --- writes --- */

static void ended(struct rlog_proposal *p, enum rlog_outcome outcome, int rc)
{
	struct write *w = CONTAINER_OF(p, struct write, p);
	int64_t took = loop_now_us(w->net->loop) - w->since_us;

	(void)rc;
	w->busy = false;
	if (outcome != RLOG_COMMITTED)
		return;
	w->net->acked++;
	total.acked++;
	if (took > w->net->slowest_us)
		w->net->slowest_us = took;
}

static void write_some(struct net *net, int count)
{
	struct node *n = leader_of(net);
	uint8_t bytes[2000];

	for (int i = 0; i < WRITES && n && count > 0; i++) {
		struct write *w = &net->writes[i];
		size_t len = prng_below(loop_prng(net->loop), 60);

		if (w->busy)
			continue;
		if (prng_chance_ppm(loop_prng(net->loop), 20000))
			len = sizeof bytes;
		net->salt++;
		for (size_t at = 0; at < len; at++)
			bytes[at] = (uint8_t)(net->salt * 31 + at);
		w->net = net;
		w->since_us = loop_now_us(net->loop);
		w->busy = rlog_propose(n->log, &w->p, 1, bytes, len, true, ended) == 0;
		count--;
	}
}

/* --- changes of the configuration --- */

static void on_change(void *arg, int rc)
{
	struct net *net = arg;

	(void)rc;
	net->changing = false;
}

static uint64_t id_of(struct net *net, struct node *n, bool *voter, int *servers)
{
	struct rlog_member m[RLOG_MAX_SERVERS];
	struct node *leader = leader_of(net);
	char address[UUID_TEXT_SIZE];
	uint64_t id = 0;

	*servers = rlog_members(leader->log, m, RLOG_MAX_SERVERS);
	uuid_format(&n->uuid, address);
	for (int i = 0; i < *servers; i++) {
		if (strcmp(m[i].address, address) != 0)
			continue;
		id = m[i].id;
		*voter = m[i].voter;
	}
	return id;
}

#endif
