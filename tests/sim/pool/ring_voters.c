/* The master chooses who votes, as daemon/voters.c does: pool/voters.c decides. */
#include <stdio.h>
#include <string.h>

#include "ring.h"

enum { LOOK_MS = 500, ALIVE_US = 1500 * 1000 };

static bool is_alive(struct ring_host *h, int index, const struct rlog_member *s)
{
	int64_t now = loop_now_us(h->ring->loop);

	if (index == h->index)
		return true;
	if (!s)
		return h->ring->ways[h->index][index].up;
	return s->heard_us && now - s->heard_us < ALIVE_US;
}

static void member_add(struct ring_host *h, struct ring_host *other,
	const struct rlog_member *s, uint64_t last, const struct ring_voters *before)
{
	struct ring_voters *v = &h->voters;
	size_t i = v->count++;
	int64_t now = loop_now_us(h->ring->loop);

	v->seen[i].host = other->uuid;
	v->seen[i].alive = is_alive(h, other->index, s);
	v->seen[i].since_us = now;
	for (size_t k = 0; k < before->count; k++)
		if (uuid_eq(&before->seen[k].host, &other->uuid) &&
			before->seen[k].alive == v->seen[i].alive)
			v->seen[i].since_us = before->seen[k].since_us;
	v->members[i] = (struct voters_member){.raft_id = s ? s->id : 1,
		.role = !s	   ? VOTERS_OUTSIDE
			: s->voter ? VOTERS_VOTER
				   : VOTERS_STANDBY,
		.self = other == h,
		.alive = v->seen[i].alive,
		.since_ms = (now - v->seen[i].since_us) / 1000,
		.lag = s && last > s->match ? last - s->match : 0,
		.domain = ""};
}

static bool is_member(const struct ring_voters *v, const struct uuid *host)
{
	for (size_t i = 0; i < v->count; i++)
		if (uuid_eq(&v->seen[i].host, host))
			return true;
	return false;
}

static void members_read(struct ring_host *h)
{
	struct ring_voters *v = &h->voters;
	const struct ring_voters before = *v;
	struct ring *r = h->ring;
	struct rlog_status status;
	int servers;

	v->count = 0;
	rlog_status(pool_log(h->pool), &status);
	servers = rlog_members(pool_log(h->pool), v->servers, 2 * RING_HOSTS);
	for (int i = 0; i < servers; i++) {
		const char *text = v->servers[i].address;
		struct ring_host *other;
		struct uuid host;

		if (uuid_parse(&host, text, strlen(text)) ||
			!(other = ring_host_of(r, &host)))
			ring_fail(r, "a server at %s, which is no host", text);
		if (is_member(v, &host))
			ring_fail(r, "host%d has two ids in the log", other->index + 1);
		member_add(h, other, &v->servers[i], status.last_index, &before);
	}
	for (int i = 0; i < r->count; i++)
		if (!is_member(v, &r->hosts[i].uuid))
			member_add(h, &r->hosts[i], NULL, 0, &before);
}

/* --- one change --- */

static void on_changed(void *arg, int rc)
{
	struct ring_host *h = arg;
	struct ring_voters *v = &h->voters;

	v->changing = false;
	ring_note(h->ring, "host%d: voters: %s: %s", h->index + 1,
		voters_kind_name(v->kind), rv_error_symbol(rc));
	if (!rc && h->ring->formed)
		h->ring->totals->places[v->kind]++;
	timer_start_ms(&v->timer, rc ? LOOK_MS : 0);
}

static void on_strike(void *arg)
{
	struct ring_host *h = arg;

	if (!h->voters.changing || !h->ring->faults_on)
		return;
	ring_note(h->ring, "fault: the master dies in a change of places");
	ring_faults_count(h->ring, RING_FAULT_CHANGE_MASTER);
	ring_faults_die(h, (enum ring_death)prng_below(&h->ring->fault_prng, 3));
}

static void strike(struct ring_host *h)
{
	struct ring *r = h->ring;

	if (r->faults_on && (r->faults >> RING_FAULT_CHANGE_MASTER) & 1 &&
		prng_below(&r->fault_prng, 4) == 0)
		timer_start_us(&h->voters.strike, prng_range(&r->fault_prng, 0, 30000));
}

static void on_outsider(struct pool_commit *commit)
{
	struct ring_host *h = CONTAINER_OF(commit, struct ring_host, voters.commit);
	struct ring_voters *v = &h->voters;
	struct rv_error e;

	v->recording = false;
	if (!commit->rc && !v->changing && h->pool)
		v->changing = pool_member_add(h->pool, v->outsider_id, &v->outsider,
				      on_changed, h, &e) == 0;
	if (v->changing)
		strike(h);
}

static void outsider_add(struct ring_host *h, const struct uuid *host)
{
	struct ring_voters *v = &h->voters;
	const struct row *pool = db_pool(pool_db(h->pool));
	int64_t id = db_int(pool, POOL_NEXT_RAFT_ID);
	struct rv_error e;
	struct txn t;

	v->outsider = *host;
	v->outsider_id = (uint64_t)id;
	txn_init(&t, pool_db(h->pool), loop_wall_ms(h->ring->loop));
	txn_expect_exists(&t, CLASS_HOST, *host);
	txn_expect_int(&t, row_uuid(pool), POOL_NEXT_RAFT_ID, id);
	txn_set_int(&t, row_uuid(pool), POOL_NEXT_RAFT_ID, id + 1);
	txn_set_int(&t, *host, HOST_RAFT_ID, id);
	v->recording = !pool_commit(h->pool, &v->commit, &t, on_outsider, &e);
}

static void change_begin(struct ring_host *h, const struct voters_change *c)
{
	struct ring_voters *v = &h->voters;
	struct rlog *log = pool_log(h->pool);
	uint64_t id = v->members[c->which].raft_id;
	struct rv_error e = {0};
	int rc = 0;

	v->kind = c->kind;
	ring_note(h->ring, "host%d: voters: %s host%d: %s", h->index + 1,
		voters_kind_name(c->kind),
		ring_host_of(h->ring, &v->seen[c->which].host)->index + 1, c->why);
	switch (c->kind) {
	case VOTERS_ADD:
		outsider_add(h, &v->seen[c->which].host);
		return;
	case VOTERS_PROMOTE:
		rc = rlog_assign(log, id, true, on_changed, h, &e);
		break;
	case VOTERS_DEMOTE:
		rc = rlog_assign(log, id, false, on_changed, h, &e);
		break;
	case VOTERS_REMOVE:
		rc = rlog_remove(log, id, on_changed, h, &e);
		break;
	case VOTERS_HAND_OVER:
	case VOTERS_NOTHING:
		ring_fail(h->ring, "there is no witness to hand over");
	}
	v->changing = rc == 0;
	strike(h);
}

/* --- the master's rounds --- */

static void on_recorded(struct pool_commit *commit)
{
	CONTAINER_OF(commit, struct ring_host, voters.commit)->voters.recording = false;
}

static void record(struct ring_host *h)
{
	const struct db *db = pool_db(h->pool);
	struct uuid master = db_ref(db_pool(db), POOL_MASTER);
	struct rv_error e;
	struct txn t;

	if (uuid_eq(&master, &h->uuid))
		return;
	txn_init(&t, db, loop_wall_ms(h->ring->loop));
	txn_set_ref(&t, row_uuid(db_pool(db)), POOL_MASTER, h->uuid);
	h->voters.recording =
		!pool_commit(h->pool, &h->voters.commit, &t, on_recorded, &e);
}

/* Those who are to become voters, in pairs, are standbys first. */
static struct voters_rules rules_now(const struct ring_host *h)
{
	const struct ring_voters *v = &h->voters;
	struct voters_rules rules = h->ring->rules;
	unsigned wanted = voters_wanted(v->members, v->count, &rules), voters = 0;

	for (size_t i = 0; i < v->count; i++)
		voters += v->members[i].role == VOTERS_VOTER;
	if (wanted > voters)
		rules.standbys += wanted - voters;
	return rules;
}

static void on_timer(void *arg)
{
	struct ring_host *h = arg;
	struct ring_voters *v = &h->voters;
	struct voters_rules rules;
	struct voters_change c;

	if (!v->leads || h->dead_at_point || !pool_is_master(h->pool))
		return;
	timer_start_ms(&v->timer, LOOK_MS);
	if (!db_pool(pool_db(h->pool)))
		return;
	members_read(h);
	if (!v->recording)
		record(h);
	if (v->changing || v->recording || rlog_is_transferring(pool_log(h->pool)))
		return;
	rules = rules_now(h);
	c = voters_decide(v->members, v->count, &rules);
	if (c.kind != VOTERS_NOTHING)
		change_begin(h, &c);
}

void ring_voters_look(struct ring_host *h)
{
	bool leads = h->pool && pool_is_master(h->pool);

	if (leads == h->voters.leads)
		return;
	h->voters.leads = leads;
	if (!leads) {
		timer_stop(&h->voters.timer);
		return;
	}
	h->voters.count = 0;
	if (h->mgr)
		vm_manager_take_over(h->mgr);
	timer_start_ms(&h->voters.timer, 0);
}

void ring_voters_stop(struct ring_host *h)
{
	struct ring_voters *v = &h->voters;

	timer_stop(&v->timer);
	timer_stop(&v->strike);
	v->leads = v->changing = v->recording = false;
	v->count = 0;
}

void ring_voters_init(struct ring_host *h)
{
	timer_init(&h->voters.strike, h->ring->loop, "ring.strike", on_strike, h);
	timer_init(&h->voters.timer, h->ring->loop, "ring.voters", on_timer, h);
}

/* --- rest --- */

static bool place_right(struct ring_host *h, size_t i, char *why, size_t size)
{
	const struct voters_member *m = &h->voters.members[i];
	struct ring_host *other = ring_host_of(h->ring, &h->voters.seen[i].host);
	uint64_t id = m->role == VOTERS_OUTSIDE ? 0 : m->raft_id;
	struct rlog_status s;

	rlog_status(pool_log(other->pool), &s);
	if (s.learner == !id && s.id == id)
		return true;
	snprintf(why, size, "host%d is %llu in the log, and believes to be %llu",
		other->index + 1, (unsigned long long)id, (unsigned long long)s.id);
	return false;
}

bool ring_voters_at_rest(struct ring_host *h, char *why, size_t size)
{
	struct ring_voters *v = &h->voters;
	unsigned voters = 0, wanted;

	if (v->changing || v->recording || v->count != (size_t)h->ring->count) {
		snprintf(why, size, "the master has not settled the voters");
		return false;
	}
	wanted = voters_wanted(v->members, v->count, &h->ring->rules);
	for (size_t i = 0; i < v->count; i++) {
		voters += v->members[i].role == VOTERS_VOTER;
		if (!place_right(h, i, why, size))
			return false;
	}
	if (voters == wanted)
		return true;
	snprintf(why, size, "there are %u voters, wanted are %u", voters, wanted);
	return false;
}
