/*
 * Learners on one simulated loop with one or three voters: links that are cut anywhere,
 * bytes that are not what was sent, machines that crash with unsynced writes lost, disks
 * that fail, voters that come and go, snapshots in between.
 * - what any host applies, at any time, is the one history (checked with every entry);
 * - at rest every host has all of it;
 * - a learner that is promoted votes, one that is demoted follows again.
 * REEVE_SEED=n runs one seed, REEVE_SEEDS=n so many.
 */
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

#include "base/log.h"

enum {
	NODES = 7,
	TRUTH = 1 << 19,
	PADDING = 300 << 10, /* of a snapshot: more than a chunk */
	WRITES = 64,
	SEEDS = 40,
	STEPS = 60,
	BULK = 100000,
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

/* --- the state machine -------------------------------------------------------------- */

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

/* --- links -------------------------------------------------------------------------- */

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

/* --- hosts -------------------------------------------------------------------------- */

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

static void node_stop(struct node *n)
{
	if (n->refused) {
		node_gone(n);
		return;
	}
	rlog_stop(n->log);
	for (int i = 0; i < 20000 && !n->stopped; i++)
		run_ms(n->net, 1);
	assert_true(n->stopped);
	node_gone(n);
	total.stops++;
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

/* --- writes ------------------------------------------------------------------------- */

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

static void write_many(struct net *net, uint64_t count)
{
	uint64_t until = net->acked + count;

	for (int i = 0; i < 400000 && net->acked < until; i++) {
		write_some(net, WRITES);
		loop_sim_run_until(net->loop, loop_now_us(net->loop) + 500);
	}
	assert_true(net->acked >= until);
}

/* --- rest ----------------------------------------------------------------------------
 */

static bool all_there(struct net *net)
{
	struct node *leader = leader_of(net);

	if (!leader || net->changing)
		return false;
	for (int i = 0; i < NODES; i++) {
		const struct node *n = &net->nodes[i];

		if (n->log && (!n->opened || n->machine.count != net->count))
			return false;
	}
	return true;
}

static void tell_all(struct net *net)
{
	struct rlog_member m[RLOG_MAX_SERVERS];
	struct node *leader = leader_of(net);
	int servers = leader ? rlog_members(leader->log, m, RLOG_MAX_SERVERS) : 0;

	for (int i = 0; i < servers; i++)
		print_error("id %" PRIu64 " at %s: %s match %" PRIu64 "\n", m[i].id,
			m[i].address,
			m[i].voter     ? "voter"
			: m[i].standby ? "standby"
				       : "spare",
			m[i].match);
	for (int i = 0; i < NODES; i++) {
		struct rlog_status s;
		char text[UUID_TEXT_SIZE];

		if (!net->nodes[i].log)
			continue;
		rlog_status(net->nodes[i].log, &s);
		print_error("host %d (%s): %s id %" PRIu64 " term %" PRIu64
			    " last %" PRIu64 " applied %" PRIu64 " count %" PRIu64
			    " feeder %s voters %d/%d %s\n",
			i, uuid_format(&net->nodes[i].uuid, text),
			rlog_state_name(s.state), s.id, s.term, s.last_index,
			s.applied_index, net->nodes[i].machine.count,
			uuid_format(&s.feeder, (char[UUID_TEXT_SIZE]){0}), s.voters,
			s.servers, s.error.detail);
	}
}

static void restart_refused(struct node *n)
{
	if (!n->log || !n->refused)
		return;
	node_gone(n);
	node_up(n);
}

static void rest(struct net *net)
{
	net->damage_ppm = 0;
	net->changing = false;
	for (int i = 0; i < NODES; i++) {
		disk_sim_inject(net->nodes[i].medium, DISK_SIM_NONE, 0);
		disk_sim_set_capacity(net->nodes[i].medium, UINT64_MAX);
		if (!net->nodes[i].log)
			node_up(&net->nodes[i]);
	}
	for (int a = 0; a < NODES; a++)
		for (int b = 0; b < a; b++)
			link_set(net, a, b, true);
	for (int i = 0; i < 600; i++) {
		for (int k = 0; k < NODES; k++)
			restart_refused(&net->nodes[k]);
		run_ms(net, 100);
		write_some(net, 1);
		run_ms(net, 250); /* followers hear of a commit with a heartbeat */
		if (i > 5 && all_there(net))
			return;
	}
	tell_all(net);
	fail_msg("seed %" PRIu64 ": no rest: %" PRIu64 " entries", net->seed, net->count);
}

/* --- what befalls them
 * ------------------------------------------------------------------
 */

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

/* In, up, down or out of the configuration. */
static void change_place(struct net *net, struct node *n)
{
	struct node *leader = leader_of(net);
	struct rlog_status s;
	char address[UUID_TEXT_SIZE];
	bool voter = false;
	struct rv_error e;
	int servers, rc;
	uint64_t id;

	if (!leader || net->changing || n == leader)
		return;
	id = id_of(net, n, &voter, &servers);
	rlog_status(leader->log, &s);
	if (!id) {
		rc = rlog_add(leader->log, net->next_id, uuid_format(&n->uuid, address),
			on_change, net, &e);
		total.promoted += !rc;
		net->next_id += !rc;
	} else if (!voter && prng_chance_ppm(loop_prng(net->loop), 500000)) {
		/* Only who is there: the writes of the test need a majority. */
		rc = n->log ? rlog_assign(leader->log, id, true, on_change, net, &e) : 1;
		total.voted += !rc;
	} else if (voter && s.voters > 1) {
		rc = rlog_assign(leader->log, id, false, on_change, net, &e);
	} else if (!voter) {
		rc = rlog_remove(leader->log, id, on_change, net, &e);
		total.demoted += !rc;
	} else {
		return;
	}
	net->changing = rc == 0;
}

static void fault(struct net *net, struct node *n)
{
	static const enum disk_sim_fault kinds[] = {
		DISK_SIM_FAIL_STEP, DISK_SIM_FAIL_WRITE, DISK_SIM_FAIL_SYNC};

	disk_sim_inject(n->medium, kinds[prng_below(loop_prng(net->loop), 3)],
		prng_below(loop_prng(net->loop), 20));
	total.faults++;
}

static void befall(struct net *net)
{
	struct prng *p = loop_prng(net->loop);
	struct node *n = &net->nodes[prng_below(p, NODES)];
	int other = (int)prng_below(p, NODES);

	restart_refused(n);
	switch (prng_below(p, 12)) {
	case 0:
	case 1:
		if (n->log && net->nodes[other].log)
			link_set(net, n->index, other, !net->up[n->index][other]);
		total.cuts++;
		break;
	case 2:
	case 3:
		if (n->log)
			node_crash(n);
		else
			node_up(n);
		break;
	case 4:
		if (n->log)
			node_stop(n);
		else
			node_up(n);
		break;
	case 5:
		if (n->log)
			fault(net, n);
		break;
	case 6:
	case 8:
	case 9:
		change_place(net, n);
		break;
	case 7:
		if (n->log)
			rlog_snapshot(n->log);
		break;
	default:
		for (int i = 0; i < 20; i++) {
			write_some(net, (int)prng_below(p, WRITES));
			run_ms(net, (int64_t)prng_below(p, 30));
		}
	}
}

static void run_seed(uint64_t seed)
{
	static const uint64_t shots[] = {40, 200, 1 << 20};
	struct net *net = net_new(seed, seed % 2 ? 3 : 1, shots[seed % 3]);

	net->damage_ppm = seed % 4 == 0 ? 20000 : 0;
	for (int i = 0; i < NODES; i++)
		node_up(&net->nodes[i]);
	run_ms(net, 1500);
	for (int i = 0; i < STEPS; i++) {
		befall(net);
		run_ms(net, (int64_t)prng_below(loop_prng(net->loop), 300));
	}
	rest(net);
	net_free(net);
}

static void test_seeds(void **state)
{
	const char *one = getenv("REEVE_SEED"), *many = getenv("REEVE_SEEDS");
	uint64_t from = one ? strtoull(one, NULL, 10) : 1;
	uint64_t to = one ? from : many ? strtoull(many, NULL, 10) : SEEDS;

	(void)state;
	for (uint64_t seed = from; seed <= to; seed++)
		run_seed(seed);
	print_message("acked %u cuts %u crashes %u stops %u faults %u damaged %u "
		      "promoted %u voted %u demoted %u restored %u\n",
		total.acked, total.cuts, total.crashes, total.stops, total.faults,
		total.damaged, total.promoted, total.voted, total.demoted,
		total.restored);
	if (one)
		return;
	assert_true(total.acked > 0 && total.cuts > 0 && total.crashes > 0);
	assert_true(total.stops > 0 && total.faults > 0 && total.damaged > 0);
	assert_true(total.promoted > 0 && total.demoted > 0 && total.restored > 0);
	assert_true(total.voted > 0);
}

/* --- one by one ----------------------------------------------------------------------
 */

/* 100,000 entries behind: commits go on as fast as without it. */
static void far_behind(uint64_t snapshot_entries)
{
	struct net *net = net_new(7, 1, snapshot_entries);
	struct rlog_status s;
	int64_t alone;

	node_up(&net->nodes[0]);
	run_ms(net, 1000);
	write_many(net, BULK);
	alone = net->slowest_us;
	net->slowest_us = 0;
	node_up(&net->nodes[1]);
	for (int i = 0; i < 20000; i++) {
		write_some(net, WRITES);
		run_ms(net, 1);
		if (i > 100 && net->nodes[1].machine.count + 4 * WRITES > net->count)
			break;
	}
	rlog_status(net->nodes[1].log, &s);
	assert_true(s.learner);
	assert_true(net->nodes[1].machine.count + 4 * WRITES > net->count);
	/* The slowest of 100,000 alone had its snapshots and new segments too. */
	assert_true(net->slowest_us <= 2 * alone);
	/* It keeps up, and is acknowledged as stored. */
	for (int i = 0; i < 100; i++)
		run_ms(net, 10);
	assert_int_equal(net->nodes[1].machine.count, net->count);
	{
		uint64_t stored = 0;

		assert_true(rlog_learner_stored(
			net->nodes[0].log, &net->nodes[1].uuid, &stored));
		rlog_status(net->nodes[1].log, &s);
		assert_int_equal(stored, s.applied_index);
		assert_int_equal(s.behind, 0);
	}
	net_free(net);
}

static void test_far_behind_entries(void **state)
{
	(void)state;
	far_behind(1 << 20);
}

static void test_far_behind_snapshot(void **state)
{
	(void)state;
	far_behind(16384);
}

/* What it holds is there again after a crash, before any voter says a word. */
static void test_resumes(void **state)
{
	struct net *net = net_new(11, 1, 1 << 20);
	uint64_t held;

	(void)state;
	for (int i = 0; i < 2; i++)
		node_up(&net->nodes[i]);
	run_ms(net, 1000);
	write_many(net, 500);
	run_ms(net, 1000);
	held = net->nodes[1].machine.count;
	assert_int_equal(held, net->count);
	node_crash(&net->nodes[0]);
	node_crash(&net->nodes[1]);
	node_up(&net->nodes[1]);
	run_ms(net, 1000);
	assert_true(net->nodes[1].opened);
	assert_int_equal(net->nodes[1].machine.count, held);
	node_up(&net->nodes[0]);
	run_ms(net, 3000);
	write_many(net, 50);
	run_ms(net, 1000);
	assert_int_equal(net->nodes[1].machine.count, net->count);
	net_free(net);
}

static void wait_change(struct net *net, int rc)
{
	assert_int_equal(rc, 0);
	run_ms(net, 3000);
}

static void on_transfer(void *arg, int rc)
{
	(void)arg;
	assert_int_equal(rc, 0);
}

/* The log's founder is a learner like any other: it doesn't found it again. */
static void test_founder_learns(void **state)
{
	struct net *net = net_new(14, 1, 1 << 20);
	struct rlog *first, *second;
	char address[UUID_TEXT_SIZE];
	struct rlog_status s;
	struct rv_error e;
	uint64_t held;

	(void)state;
	for (int i = 0; i < 2; i++)
		node_up(&net->nodes[i]);
	run_ms(net, 1000);
	first = net->nodes[0].log;
	second = net->nodes[1].log;
	uuid_format(&net->nodes[1].uuid, address);
	wait_change(net, rlog_add(first, 20, address, on_change, net, &e));
	wait_change(net, rlog_assign(first, 20, true, on_change, net, &e));
	wait_change(net, rlog_transfer(first, 20, on_transfer, net, &e));
	wait_change(net, rlog_assign(second, 1, false, on_change, net, &e));
	wait_change(net, rlog_remove(second, 1, on_change, net, &e));
	rlog_status(first, &s);
	assert_true(s.learner);
	write_many(net, 100);
	run_ms(net, 2000);
	held = net->nodes[0].machine.count;
	assert_int_equal(held, net->count);
	node_crash(&net->nodes[1]);
	node_crash(&net->nodes[0]);
	node_up(&net->nodes[0]);
	run_ms(net, 2000);
	assert_int_equal(net->nodes[0].machine.count, held);
	node_up(&net->nodes[1]);
	run_ms(net, 3000);
	write_many(net, 10);
	run_ms(net, 1000);
	assert_int_equal(net->nodes[0].machine.count, net->count);
	net_free(net);
}

/* A standby for so short a time that it got no entry: its state is kept as it came. */
static void test_short_standby(void **state)
{
	struct net *net = net_new(15, 1, 1 << 20);
	struct node *n = &net->nodes[1];
	char address[UUID_TEXT_SIZE];
	struct rlog_status s;
	struct rv_error e;
	uint64_t held;

	(void)state;
	for (int i = 0; i < 2; i++)
		node_up(&net->nodes[i]);
	run_ms(net, 1000);
	write_many(net, 100);
	run_ms(net, 1000);
	held = n->machine.count;
	uuid_format(&n->uuid, address);
	assert_int_equal(rlog_add(net->nodes[0].log, 30, address, on_change, net, &e), 0);
	/* Its place arrives, the entries that follow do not. */
	net->no_raft = true;
	run_ms(net, 100);
	rlog_status(n->log, &s);
	assert_int_equal(s.id, 30);
	assert_int_equal(rlog_remove(net->nodes[0].log, 30, on_change, net, &e), 0);
	run_ms(net, 1000);
	net->no_raft = false;
	rlog_status(n->log, &s);
	assert_true(s.learner);
	node_crash(&net->nodes[0]);
	node_crash(n);
	node_up(n);
	run_ms(net, 2000);
	assert_int_equal(n->machine.count, held);
	net_free(net);
}

/* Whenever the leader dies while it adds a server: that is added or is not. */
static void test_added_in_two_steps(void **state)
{
	unsigned added = 0, spare = 0;

	(void)state;
	for (int steps = 0; steps < 40; steps++) {
		struct net *net = net_new(16, 1, 1 << 20);
		struct rlog_member m[4];
		char address[UUID_TEXT_SIZE];
		struct rlog_status s;
		struct rv_error e;

		for (int i = 0; i < 2; i++)
			node_up(&net->nodes[i]);
		run_ms(net, 1000);
		uuid_format(&net->nodes[1].uuid, address);
		assert_int_equal(
			rlog_add(net->nodes[0].log, 40, address, on_change, net, &e), 0);
		for (int i = 0; i < steps; i++)
			assert_true(loop_sim_step(net->loop));
		if (rlog_members(net->nodes[0].log, m, 4) == 2)
			spare += !m[1].standby;
		node_crash(&net->nodes[0]);
		node_up(&net->nodes[0]);
		run_ms(net, 4000);
		rlog_status(net->nodes[1].log, &s);
		if (rlog_members(net->nodes[0].log, m, 4) == 2) {
			assert_true(m[1].standby);
			assert_int_equal(s.id, 40);
			added++;
		} else {
			assert_true(s.learner);
		}
		net_free(net);
	}
	assert_true(added > 0 && added < 40 && spare > 0);
}

/* What it holds is replaced by something no older, though the voter's last snapshot is.
 */
static void test_discards(void **state)
{
	struct net *net = net_new(12, 1, 1 << 20);

	(void)state;
	for (int i = 0; i < 2; i++)
		node_up(&net->nodes[i]);
	run_ms(net, 1000);
	write_many(net, 100);
	rlog_snapshot(net->nodes[0].log);
	run_ms(net, 1000);
	write_many(net, 50);
	run_ms(net, 1000);
	assert_int_equal(net->nodes[1].machine.count, net->count);
	total.restored = 0;
	rlog_discard(net->nodes[1].log);
	run_ms(net, 10000);
	assert_int_equal(total.restored, 1);
	write_many(net, 10);
	run_ms(net, 1000);
	assert_int_equal(net->nodes[1].machine.count, net->count);
	net_free(net);
}

/* A voter dies: its learner asks another. */
static void test_other_voter(void **state)
{
	struct net *net = net_new(13, 3, 1 << 20);
	struct uuid former;
	struct rlog_status s;

	(void)state;
	for (int i = 0; i < 4; i++)
		node_up(&net->nodes[i]);
	run_ms(net, 3000);
	write_many(net, 100);
	rlog_status(net->nodes[3].log, &s);
	former = s.feeder;
	assert_false(uuid_is_none(&former));
	for (int i = 0; i < 3; i++)
		if (uuid_eq(&net->nodes[i].uuid, &former))
			node_crash(&net->nodes[i]);
	run_ms(net, 4000);
	write_many(net, 100);
	run_ms(net, 1000);
	rlog_status(net->nodes[3].log, &s);
	assert_false(uuid_is_none(&s.feeder));
	assert_false(uuid_eq(&s.feeder, &former));
	assert_int_equal(net->nodes[3].machine.count, net->count);
	net_free(net);
}

/* Up to a voter with a new id, and down again; its state never goes back. */
static void test_places(void **state)
{
	struct net *net = net_new(17, 1, 1 << 20);
	struct node *n = &net->nodes[1];
	struct rlog_status s;
	bool voter = false;
	int servers;

	(void)state;
	for (int i = 0; i < 2; i++)
		node_up(&net->nodes[i]);
	run_ms(net, 1000);
	write_many(net, 300);
	for (uint64_t round = 0; round < 3; round++) {
		struct rv_error e;
		char address[UUID_TEXT_SIZE];
		uint64_t id = net->next_id++, before = n->machine.count;

		net->changing = true;
		assert_int_equal(
			rlog_add(net->nodes[0].log, id, uuid_format(&n->uuid, address),
				on_change, net, &e),
			0);
		run_ms(net, 3000);
		rlog_status(n->log, &s);
		assert_false(s.learner);
		assert_int_equal(s.id, id);
		assert_true(n->machine.count >= before);
		assert_int_equal(
			rlog_assign(net->nodes[0].log, id, true, on_change, net, &e), 0);
		run_ms(net, 3000);
		rlog_status(net->nodes[0].log, &s);
		assert_int_equal(s.voters, 2);
		write_many(net, 100);
		assert_int_equal(id_of(net, n, &voter, &servers), id);
		assert_true(voter);
		assert_int_equal(
			rlog_assign(leader_of(net)->log, id, false, on_change, net, &e),
			0);
		run_ms(net, 1000);
		assert_int_equal(
			rlog_remove(net->nodes[0].log, id, on_change, net, &e), 0);
		run_ms(net, 4000);
		rlog_status(n->log, &s);
		assert_true(s.learner);
		write_many(net, 100);
		run_ms(net, 1000);
		assert_int_equal(n->machine.count, net->count);
		/* As a learner it stands on its own disk. */
		node_crash(n);
		node_up(n);
		run_ms(net, 2000);
		assert_int_equal(n->machine.count, net->count);
	}
	net_free(net);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_resumes),
		cmocka_unit_test(test_discards),
		cmocka_unit_test(test_added_in_two_steps),
		cmocka_unit_test(test_short_standby),
		cmocka_unit_test(test_founder_learns),
		cmocka_unit_test(test_other_voter),
		cmocka_unit_test(test_places),
		cmocka_unit_test(test_far_behind_entries),
		cmocka_unit_test(test_far_behind_snapshot),
		cmocka_unit_test(test_seeds),
	};

	if (!getenv("REEVE_SEED"))
		log_setup(LOG_ERROR + 1, NULL, NULL);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
