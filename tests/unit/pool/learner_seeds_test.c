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

#include "base/log.h"
#include "learner_net.h"

enum { SEEDS = 40, STEPS = 60 };

/* --- rest --- */

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

/* --- what befalls them --- */

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

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_seeds)};

	if (!getenv("REEVE_SEED"))
		log_setup(LOG_ERROR + 1, NULL, NULL);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
