/*
 * Several voters on one simulated loop: messages lost, late and cut off, machines that
 * crash with unsynced writes lost, followers so far behind that they need a snapshot.
 * - what was acknowledged is in every voter's state, in one order;
 * - at most one leader per term;
 * - leadership moves on request, and by itself when the leader dies.
 * REEVE_SEED=n runs one seed.
 */
#include "rig.h"

#include "base/prng.h"

enum { MAX_NODES = 5, WRITES = 64, SEEDS = 12 };

struct net;

struct node {
	struct rlog_transport transport;
	struct net *net;
	struct rig *rig;
	uint64_t id;
	bool up;
	rlog_transport_deliver_fn *receive;
	void *receive_arg;
};

struct net {
	struct loop *loop;
	struct node nodes[MAX_NODES];
	int count;
	bool cut[MAX_NODES][MAX_NODES];
	uint32_t loss_ppm;
	struct list flying;
	struct rig_write writes[WRITES];
	uint64_t salt, acked_chain, leader_of_term[4096];
	size_t acked_at;
	uint64_t seed;
};

struct letter {
	struct list node;
	struct net *net;
	struct timer timer;
	int from, to;
	size_t len;
	uint8_t bytes[];
};

static struct {
	unsigned acked, rejected, unknown, crashes, cuts, lost, installs, leaders,
		transfers, changes, changed;
} total;

static void letter_arrives(void *arg)
{
	struct letter *l = arg;
	struct node *to = &l->net->nodes[l->to];

	list_remove(&l->node);
	if (to->up && to->receive && !l->net->cut[l->from][l->to])
		to->receive(to->receive_arg, l->net->nodes[l->from].id,
			l->net->nodes[l->from].rig->config.address, l->bytes, l->len);
	free(l);
}

static int net_send(struct rlog_transport *t, uint64_t to_id, const char *address,
	const uint8_t *bytes, size_t len)
{
	struct node *from = CONTAINER_OF(t, struct node, transport);
	struct net *net = from->net;
	struct letter *l;

	(void)address;
	if (prng_chance_ppm(loop_prng(net->loop), net->loss_ppm)) {
		total.lost++;
		return 0;
	}
	assert_true(to_id >= 1 && to_id <= MAX_NODES);
	l = malloc(sizeof *l + len);
	l->net = net;
	l->from = (int)(from - net->nodes);
	l->to = (int)to_id - 1;
	l->len = len;
	memcpy(l->bytes, bytes, len);
	total.installs += bytes[1] == 5;
	timer_init(&l->timer, net->loop, "letter", letter_arrives, l);
	timer_start_us(&l->timer, prng_range(loop_prng(net->loop), 50, 2000));
	list_push_back(&net->flying, &l->node);
	return 0;
}

static void net_set_receiver(
	struct rlog_transport *t, rlog_transport_deliver_fn *fn, void *arg)
{
	struct node *n = CONTAINER_OF(t, struct node, transport);

	n->receive = fn;
	n->receive_arg = arg;
}

static const struct rlog_transport_ops net_ops = {net_send, net_set_receiver};

static void check_node(struct net *net, struct node *n)
{
	struct rlog_status s;

	if (!n->up || !n->rig->opened)
		return;
	if (n->rig->machine.count >= net->acked_at && net->acked_at &&
		n->rig->machine.chain[net->acked_at - 1] != net->acked_chain)
		fail_msg("seed %llu: voter %llu holds another history",
			(unsigned long long)net->seed, (unsigned long long)n->id);
	rlog_status(n->rig->log, &s);
	if (s.state != RLOG_LEADER || s.term >= 4096)
		return;
	if (net->leader_of_term[s.term] && net->leader_of_term[s.term] != n->id)
		fail_msg("seed %llu: two leaders in term %llu",
			(unsigned long long)net->seed, (unsigned long long)s.term);
	total.leaders += !net->leader_of_term[s.term];
	net->leader_of_term[s.term] = n->id;
}

static void net_collect(struct net *net)
{
	for (int i = 0; i < WRITES; i++) {
		struct rig_write *w = &net->writes[i];

		if (!w->proposed || !w->ended)
			continue;
		w->proposed = false;
		total.acked += w->outcome == RLOG_COMMITTED;
		total.rejected += w->outcome == RLOG_REJECTED;
		total.unknown += w->outcome == RLOG_UNKNOWN;
		if (w->outcome == RLOG_COMMITTED && w->at > net->acked_at) {
			net->acked_at = w->at;
			net->acked_chain = w->chain;
		}
	}
}

static void net_run(struct net *net, int64_t ms)
{
	for (int64_t i = 0; i < ms; i++) {
		loop_sim_run_until(net->loop, loop_now_us(net->loop) + 1000);
		net_collect(net);
		for (int n = 0; n < net->count; n++)
			check_node(net, &net->nodes[n]);
	}
}

static void node_up(struct node *n)
{
	struct rig *rig = n->rig;
	struct rv_error e;

	memset(&rig->machine, 0, sizeof rig->machine);
	rig->opened = rig->stopped = false;
	rig->open_rc = 0;
	assert_int_equal(disk_new_sim(&rig->disk, rig->loop, rig->medium), 0);
	assert_int_equal(rlog_open(&rig->log, rig->loop, rig->disk, &n->transport,
				 &rig->config, &rig_fsm, &rig_events, rig, &e),
		0);
	n->up = true;
}

static void node_crash(struct node *n)
{
	n->up = false;
	n->receive = NULL;
	rig_crash(n->rig);
	total.crashes++;
	net_collect(n->net);
}

static struct net *net_new(uint64_t seed, int count, int voters)
{
	struct net *net = calloc(1, sizeof *net);

	net->seed = seed;
	net->count = count;
	list_init(&net->flying);
	assert_int_equal(loop_new_sim(&net->loop, seed), 0);
	for (int i = 0; i < count; i++) {
		struct node *n = &net->nodes[i];
		struct rlog_config *c;

		n->transport.ops = &net_ops;
		n->net = net;
		n->id = (uint64_t)i + 1;
		n->rig = rig_new(seed * 16 + (uint64_t)i);
		loop_free(n->rig->loop);
		n->rig->loop = net->loop;
		c = &n->rig->config;
		c->id = n->id;
		c->snapshot_entries = 60;
		c->trailing_entries = 20;
		snprintf(c->address, sizeof c->address, "node%d", i + 1);
		c->bootstrap_count = i < voters ? voters : 0;
		for (int v = 0; v < voters; v++) {
			c->bootstrap[v] = (struct rlog_server){
				.id = (uint64_t)v + 1, .voter = true};
			snprintf(c->bootstrap[v].address, sizeof c->bootstrap[v].address,
				"node%d", v + 1);
		}
		node_up(n);
	}
	return net;
}

static void net_free(struct net *net)
{
	for (int i = 0; i < net->count; i++) {
		if (net->nodes[i].up)
			rig_drop(net->nodes[i].rig);
		disk_sim_medium_free(net->nodes[i].rig->medium);
		free(net->nodes[i].rig);
	}
	while (!list_empty(&net->flying)) {
		struct letter *l = CONTAINER_OF(net->flying.next, struct letter, node);

		timer_stop(&l->timer);
		list_remove(&l->node);
		free(l);
	}
	loop_free(net->loop);
	free(net);
}

static struct node *leader_of(struct net *net)
{
	struct node *best = NULL;
	struct rlog_status s;
	uint64_t term = 0;

	for (int i = 0; i < net->count; i++) {
		if (!net->nodes[i].up || !rlog_is_leader(net->nodes[i].rig->log))
			continue;
		rlog_status(net->nodes[i].rig->log, &s);
		if (s.term > term) {
			term = s.term;
			best = &net->nodes[i];
		}
	}
	return best;
}

/* For the reader of a failure. */
static void net_tell(struct net *net)
{
	for (int i = 0; i < net->count; i++) {
		struct rlog_status s;

		rlog_status(net->nodes[i].rig->log, &s);
		print_error("voter %d: %s term %llu last %llu applied %llu %s %s\n",
			i + 1, rlog_state_name(s.state), (unsigned long long)s.term,
			(unsigned long long)s.last_index,
			(unsigned long long)s.applied_index, s.error.detail,
			net->nodes[i].rig->open_error.detail);
	}
}

static struct node *await_leader(struct net *net)
{
	struct node *n;

	for (int i = 0; i < 20000; i++) {
		n = leader_of(net);
		if (n)
			return n;
		net_run(net, 1);
	}
	net_tell(net);
	fail_msg("seed %llu: no leader", (unsigned long long)net->seed);
	return NULL;
}

static void net_propose(struct net *net, int n)
{
	struct node *leader = leader_of(net);

	for (int i = 0; i < WRITES && n > 0 && leader; i++) {
		if (net->writes[i].proposed)
			continue;
		n--;
		net->salt++;
		if (rig_propose(leader->rig, &net->writes[i], net->salt << 20 | net->seed,
			    20 + net->salt % 200))
			return;
	}
}

static void assert_equal_states(struct net *net)
{
	struct node *leader = await_leader(net);

	for (int i = 0; i < net->count; i++) {
		struct rig_machine *m = &net->nodes[i].rig->machine;

		if (m->count != leader->rig->machine.count || m->count < net->acked_at ||
			m->chain[m->count - 1] !=
				leader->rig->machine.chain[m->count - 1])
			net_tell(net);
		if (m->count != leader->rig->machine.count || m->count < net->acked_at ||
			m->chain[m->count - 1] !=
				leader->rig->machine.chain[m->count - 1])
			fail_msg("seed %llu: voter %d has %zu entries, the leader %zu, "
				 "acknowledged %zu",
				(unsigned long long)net->seed, i + 1, m->count,
				leader->rig->machine.count, net->acked_at);
	}
}

static void test_three(void **state)
{
	struct net *net = net_new(1, 3, 3);

	(void)state;
	await_leader(net);
	for (int i = 0; i < 10; i++) {
		net_propose(net, 10);
		net_run(net, 50);
	}
	net_run(net, 500);
	assert_int_equal(net->acked_at, 100);
	assert_equal_states(net);
	net_free(net);
}

static int transferred;

static void transfer_told(void *arg, int rc)
{
	(void)arg;
	transferred = rc == 0 ? 1 : -1;
}

static void test_transfer(void **state)
{
	struct net *net = net_new(2, 3, 3);
	struct node *old = await_leader(net), *to;
	struct rv_error e;

	(void)state;
	to = &net->nodes[old->id % 3];
	net_propose(net, 5);
	net_run(net, 50);
	transferred = 0;
	assert_int_equal(
		rlog_transfer(old->rig->log, to->id, transfer_told, NULL, &e), 0);
	assert_int_equal(
		rlog_transfer(old->rig->log, to->id, transfer_told, NULL, &e), RV_EBUSY);
	for (int i = 0; i < 1000 && !transferred; i++)
		net_run(net, 1);
	assert_int_equal(transferred, 1);
	assert_ptr_equal(await_leader(net), to);
	assert_int_equal(
		rlog_transfer(old->rig->log, 0, transfer_told, NULL, &e), RV_ENOTMASTER);
	net_propose(net, 5);
	net_run(net, 300);
	assert_equal_states(net);
	assert_int_equal(net->acked_at, 10);
	net_free(net);
}

static int change_rc;

static void change_told(void *arg, int rc)
{
	(void)arg;
	change_rc = rc;
}

static void change_await(struct net *net)
{
	for (int i = 0; i < 5000 && change_rc == 1; i++)
		net_run(net, 1);
	assert_int_equal(change_rc, 0);
	change_rc = 1;
}

/* From one voter to three and back, the later ones needing a snapshot. */
static void test_membership(void **state)
{
	struct net *net = net_new(3, 3, 1);
	struct node *one = await_leader(net);
	struct rlog_status s;
	struct rv_error e;

	(void)state;
	for (int i = 0; i < 10; i++) {
		net_propose(net, 20);
		net_run(net, 100);
	}
	total.installs = 0;
	change_rc = 1;
	for (uint64_t id = 2; id <= 3; id++) {
		char address[16];

		snprintf(address, sizeof address, "node%d", (int)id);
		assert_int_equal(
			rlog_add(one->rig->log, id, address, change_told, NULL, &e), 0);
		change_await(net);
		assert_int_equal(
			rlog_assign(one->rig->log, id, true, change_told, NULL, &e), 0);
		change_await(net);
	}
	assert_true(total.installs > 0);
	rlog_status(one->rig->log, &s);
	assert_int_equal(s.voters, 3);
	net_propose(net, 20);
	net_run(net, 500);
	assert_equal_states(net);
	/* The new ones can lead without the old one. */
	node_crash(one);
	net_run(net, 1500);
	assert_non_null(leader_of(net));
	net_propose(net, 20);
	net_run(net, 500);
	assert_int_equal(net->acked_at, 240);
	node_up(one);
	net_run(net, 1000);
	assert_equal_states(net);
	net_free(net);
}

/* The first voter makes a second one and dies before that hears of it. Opened again, it
 * needs the vote of one that does not know that it has one. */
static void test_lost_promotion(void **state)
{
	struct net *net = net_new(4, 2, 1);
	struct node *one = await_leader(net);
	struct rv_error e;

	(void)state;
	net_propose(net, 5);
	change_rc = 1;
	assert_int_equal(rlog_add(one->rig->log, 2, "node2", change_told, NULL, &e), 0);
	change_await(net);
	net_run(net, 500);
	net->cut[0][1] = true;
	assert_int_equal(rlog_assign(one->rig->log, 2, true, change_told, NULL, &e), 0);
	net_run(net, 50);
	node_crash(one);
	net->cut[0][1] = false;
	node_up(one);
	await_leader(net);
	net_propose(net, 5);
	net_run(net, 500);
	assert_int_equal(net->acked_at, 10);
	assert_equal_states(net);
	net_free(net);
}

/* Of two voters one stays, and dies at every moment of that change. What the other knows
 * of it the one must know too: the other is no candidate any more, and without the change
 * the one needs its vote. The one's disk is the slower one. */
static void test_lost_demotion(void **state)
{
	(void)state;
	for (int64_t us = 0; us < 16000; us += 500) {
		struct net *net = net_new(5, 2, 2);
		struct node *one = await_leader(net), *other = &net->nodes[0];
		struct rv_error e;

		if (one == other)
			other = &net->nodes[1];
		net_propose(net, 5);
		net_run(net, 500);
		worker_sim_set_delay(
			one->rig->disk->lanes[DISK_LANE_LOG], 4000, 4000 + us % 3000);
		assert_int_equal(rlog_assign(one->rig->log, other->id, false, change_told,
					 NULL, &e),
			0);
		loop_sim_run_until(net->loop, loop_now_us(net->loop) + us);
		node_crash(one);
		node_up(one);
		await_leader(net);
		net_propose(net, 5);
		net_run(net, 500);
		assert_int_equal(net->acked_at, 10);
		assert_equal_states(net);
		net_free(net);
	}
}

static void mischief_changed(void *arg, int rc)
{
	(void)arg;
	total.changed += rc == 0;
}

/* One becomes a standby, or a voter again; never the leader, who could not lead then. */
static void change_voters(struct net *net, struct prng *prng)
{
	struct node *leader = leader_of(net);
	uint64_t id = 1 + prng_below(prng, (uint64_t)net->count);
	struct rlog_member m[MAX_NODES];
	struct rv_error e;
	int n, voters = 0;

	if (!leader || id == leader->id)
		return;
	n = rlog_members(leader->rig->log, m, MAX_NODES);
	for (int i = 0; i < n; i++)
		voters += m[i].voter;
	for (int i = 0; i < n; i++)
		if (m[i].id == id && (!m[i].voter || voters > 1) &&
			!rlog_assign(leader->rig->log, id, !m[i].voter, mischief_changed,
				NULL, &e))
			total.changes++;
}

/* All vote, as at the beginning. */
static void all_voters(struct net *net)
{
	for (int round = 0; round < 40; round++) {
		struct node *leader = leader_of(net);
		struct rlog_member m[MAX_NODES];
		struct rv_error e;
		int n = leader ? rlog_members(leader->rig->log, m, MAX_NODES) : 0, i;

		for (i = 0; i < n && m[i].voter; i++)
			;
		if (n && i == n)
			return;
		if (n && rlog_assign(leader->rig->log, m[i].id, true, mischief_changed,
				 NULL, &e))
			total.changes++;
		net_run(net, 500);
	}
	net_tell(net);
	fail_msg("seed %llu: not all became voters", (unsigned long long)net->seed);
}

static void net_mischief(struct net *net, struct prng *prng)
{
	struct node *n = &net->nodes[prng_below(prng, (uint64_t)net->count)];
	int a = (int)prng_below(prng, (uint64_t)net->count);
	int b = (int)prng_below(prng, (uint64_t)net->count);
	struct node *leader;
	struct rv_error e;

	switch (prng_below(prng, 10)) {
	case 8:
	case 9:
		change_voters(net, prng);
		break;
	case 0:
	case 1:
		if (n->up)
			node_crash(n);
		break;
	case 2:
		net->cut[a][b] = true;
		net->cut[b][a] = net->cut[b][a] || prng_below(prng, 2);
		total.cuts++;
		break;
	case 3:
		memset(net->cut, 0, sizeof net->cut);
		break;
	case 4:
		if (n->up)
			disk_sim_inject(
				n->rig->medium, DISK_SIM_FAIL_SYNC, prng_below(prng, 20));
		break;
	case 5:
		leader = leader_of(net);
		if (leader &&
			!rlog_transfer(leader->rig->log, 0, transfer_told, NULL, &e))
			total.transfers++;
		break;
	default:
		if (!n->up)
			node_up(n);
	}
}

static void run_seed(uint64_t seed)
{
	struct prng prng;
	struct net *net;
	int count = seed % 3 ? 3 : 5;

	prng_seed(&prng, seed);
	net = net_new(seed, count, count);
	for (int round = 0; round < 120; round++) {
		net->loss_ppm = (uint32_t)prng_below(&prng, 50000);
		net_propose(net, (int)prng_below(&prng, 16));
		net_run(net, 1 + (int64_t)prng_below(&prng, 150));
		if (prng_below(&prng, 3) == 0)
			net_mischief(net, &prng);
	}
	memset(net->cut, 0, sizeof net->cut);
	net->loss_ppm = 0;
	for (int i = 0; i < count; i++) {
		disk_sim_inject(net->nodes[i].rig->medium, DISK_SIM_NONE, 0);
		if (!net->nodes[i].up)
			node_up(&net->nodes[i]);
	}
	net_run(net, 8000);
	await_leader(net);
	all_voters(net);
	net_propose(net, 5);
	net_run(net, 2000);
	assert_equal_states(net);
	net_free(net);
}

static void test_mischief(void **state)
{
	const char *one = getenv("REEVE_SEED"), *many = getenv("REEVE_SEEDS");
	uint64_t seeds = many ? strtoull(many, NULL, 10) : SEEDS;

	(void)state;
	memset(&total, 0, sizeof total);
	if (one) {
		run_seed(strtoull(one, NULL, 10));
		return;
	}
	for (uint64_t seed = 1; seed <= seeds; seed++)
		run_seed(seed);
	printf("acked %u rejected %u unknown %u crashes %u cuts %u lost %u installs %u "
	       "leaders %u transfers %u changes %u done %u\n",
		total.acked, total.rejected, total.unknown, total.crashes, total.cuts,
		total.lost, total.installs, total.leaders, total.transfers, total.changes,
		total.changed);
	assert_true(total.acked > 0 && total.crashes > 0 && total.cuts > 0 &&
		    total.lost > 0 && total.installs > 0 && total.changed > 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_three),
		cmocka_unit_test(test_transfer),
		cmocka_unit_test(test_membership),
		cmocka_unit_test(test_lost_promotion),
		cmocka_unit_test(test_lost_demotion),
		cmocka_unit_test(test_mischief),
	};

	log_setup(LOG_ERROR + 1, NULL, NULL);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
