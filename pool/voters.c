#include "pool/voters.h"

#include <string.h>

enum {
	MOST_DEFAULT = 5,
	MOST_LIMIT = 7,
	REPLACE_MS = 10000,
	SETTLE_MS = 1000,
	LAG_LIMIT = 1024,
	FULL_MS = 5000,
};

/* What the functions below share. */
struct view {
	const struct voters_member *m;
	size_t n;
	struct voters_rules rules;
	unsigned wanted;
	bool witness; /* whether a witness has a place among the voters */
};

static struct voters_rules rules_of(const struct voters_rules *given)
{
	struct voters_rules r = given ? *given : (struct voters_rules){0};

	r.most = r.most == 0 ? MOST_DEFAULT : r.most > MOST_LIMIT ? MOST_LIMIT : r.most;
	r.replace_ms = r.replace_ms ? r.replace_ms : REPLACE_MS;
	r.settle_ms = r.settle_ms ? r.settle_ms : SETTLE_MS;
	r.lag_limit = r.lag_limit ? r.lag_limit : LAG_LIMIT;
	r.full_ms = r.full_ms ? r.full_ms : FULL_MS;
	return r;
}

static bool has_place(const struct view *v, const struct voters_member *m)
{
	return !m->gone && (!m->witness || v->witness);
}

static bool is_silent(const struct view *v, const struct voters_member *m)
{
	return !m->self && !m->alive && m->since_ms >= v->rules.replace_ms;
}

/* So many hosts and a witness are an odd number of voters, and no host is left out. */
static bool is_made_odd(const struct view *v, size_t hosts)
{
	return hosts >= 2 && hosts % 2 == 0 && hosts < v->rules.most;
}

/* All hosts count, or those alone that are not silent: so the witness stays beside two of
 * which one is silent, and comes to help when of three one is. */
static bool witness_has_place(const struct view *v)
{
	size_t hosts = 0, able = 0;

	for (size_t i = 0; i < v->n; i++) {
		if (v->m[i].gone || v->m[i].witness)
			continue;
		hosts++;
		able += !is_silent(v, &v->m[i]);
	}
	return is_made_odd(v, hosts) || is_made_odd(v, able);
}

/* A voter that should make place for another. */
static bool is_unfit(const struct view *v, const struct voters_member *m)
{
	return !has_place(v, m) || is_silent(v, m);
}

static bool is_ready(const struct view *v, const struct voters_member *m)
{
	return m->role == VOTERS_STANDBY && has_place(v, m) && m->alive &&
	       m->since_ms >= v->rules.settle_ms && m->lag <= v->rules.lag_limit;
}

static struct view view_of(const struct voters_member *members, size_t count,
	const struct voters_rules *rules)
{
	struct view v = {.m = members, .n = count, .rules = rules_of(rules)};
	unsigned places = 0;

	v.witness = witness_has_place(&v);
	for (size_t i = 0; i < count; i++)
		places += has_place(&v, &members[i]);
	v.wanted = places < v.rules.most ? places : v.rules.most;
	if (v.wanted % 2 == 0)
		v.wanted = v.wanted ? v.wanted - 1 : 1;
	return v;
}

unsigned voters_wanted(const struct voters_member *members, size_t count,
	const struct voters_rules *rules)
{
	return view_of(members, count, rules).wanted;
}

/* --- counting --- */

static unsigned count_role(const struct view *v, enum voters_role role)
{
	unsigned n = 0;

	for (size_t i = 0; i < v->n; i++)
		n += v->m[i].role == role;
	return n;
}

static unsigned count_fit(const struct view *v)
{
	unsigned n = 0;

	for (size_t i = 0; i < v->n; i++)
		n += v->m[i].role == VOTERS_VOTER && !is_unfit(v, &v->m[i]);
	return n;
}

static unsigned count_ready(const struct view *v)
{
	unsigned n = 0;

	for (size_t i = 0; i < v->n; i++)
		n += is_ready(v, &v->m[i]);
	return n;
}

/* Fit voters of that domain; a host that names none stands alone in its own. */
static unsigned crowd(const struct view *v, const struct voters_member *m)
{
	unsigned n = 0;

	if (!*m->domain)
		return m->role == VOTERS_VOTER;
	for (size_t i = 0; i < v->n; i++)
		n += v->m[i].role == VOTERS_VOTER && !is_unfit(v, &v->m[i]) &&
		     strcmp(v->m[i].domain, m->domain) == 0;
	return n;
}

/* --- choosing --- */

/* Who is the better new voter: of the emptier domain, then the less behind. */
static bool is_better(const struct view *v, size_t a, size_t b)
{
	unsigned ca = crowd(v, &v->m[a]), cb = crowd(v, &v->m[b]);

	if (v->m[a].witness != v->m[b].witness)
		return !v->m[a].witness;
	if (ca != cb)
		return ca < cb;
	if (!*v->m[a].domain != !*v->m[b].domain)
		return *v->m[a].domain != '\0';
	return v->m[a].lag < v->m[b].lag;
}

/* Index of the best standby; count of members: none is ready. */
static size_t best_standby(const struct view *v)
{
	size_t best = v->n;

	for (size_t i = 0; i < v->n; i++)
		if (is_ready(v, &v->m[i]) && (best == v->n || is_better(v, i, best)))
			best = i;
	return best;
}

/* Who goes first: one without a place, a silent one, a crowded one, one behind. */
static bool goes_before(const struct view *v, size_t a, size_t b)
{
	const struct voters_member *x = &v->m[a], *y = &v->m[b];
	unsigned cx, cy;

	if (has_place(v, x) != has_place(v, y))
		return !has_place(v, x);
	if (is_silent(v, x) != is_silent(v, y))
		return is_silent(v, x);
	cx = crowd(v, x);
	cy = crowd(v, y);
	if (cx != cy)
		return cx > cy;
	if (x->alive != y->alive)
		return !x->alive;
	return x->lag > y->lag;
}

static size_t worst_voter(const struct view *v)
{
	size_t worst = v->n;

	for (size_t i = 0; i < v->n; i++)
		if (v->m[i].role == VOTERS_VOTER && !v->m[i].self &&
			(worst == v->n || goes_before(v, i, worst)))
			worst = i;
	return worst;
}

static struct voters_change change(enum voters_kind kind, size_t which, const char *why)
{
	return (struct voters_change){.kind = kind, .which = which, .why = why};
}

/* --- the rules, in their order --- */

/* Why somebody else is to lead; NULL: nothing speaks against the master. */
static const char *against_master(const struct view *v)
{
	for (size_t i = 0; i < v->n; i++)
		if (v->m[i].self && !v->m[i].gone && !v->m[i].witness)
			return v->m[i].full_ms >= v->rules.full_ms
				       ? "the master's disk is full"
				       : NULL;
	return "the master must not lead";
}

/* The master itself has no place here: someone else must lead before it can go. */
static struct voters_change rule_leader(const struct view *v)
{
	const char *why = against_master(v);
	size_t best = v->n;

	if (!why)
		return change(VOTERS_NOTHING, 0, "");
	for (size_t i = 0; i < v->n; i++)
		if (v->m[i].role == VOTERS_VOTER && !v->m[i].self && !v->m[i].gone &&
			!v->m[i].witness && v->m[i].alive &&
			v->m[i].lag <= v->rules.lag_limit &&
			(best == v->n || v->m[i].lag < v->m[best].lag))
			best = i;
	return best == v->n ? change(VOTERS_NOTHING, 0, "")
			    : change(VOTERS_HAND_OVER, best, why);
}

/* Index of the standby to give up first: a silent one, else the last. */
static size_t spare_standby(const struct view *v)
{
	size_t spare = v->n;

	for (size_t i = 0; i < v->n; i++)
		if (v->m[i].role == VOTERS_STANDBY &&
			(spare == v->n || !is_silent(v, &v->m[spare]) ||
				is_silent(v, &v->m[i])))
			spare = i;
	return spare;
}

/* Where there is a limit, silent standbys don't count: another takes their place. */
static bool may_add(const struct view *v, const struct voters_member *m)
{
	unsigned able = 0;

	if (m->role != VOTERS_OUTSIDE || m->gone || !m->raft_id)
		return false;
	if (!v->rules.standbys)
		return true;
	for (size_t i = 0; i < v->n; i++)
		able += v->m[i].role == VOTERS_STANDBY && !is_silent(v, &v->m[i]);
	return m->alive && able < v->rules.standbys;
}

/* Standbys and outsiders that came or went. */
static struct voters_change rule_members(const struct view *v)
{
	unsigned limit = v->rules.standbys;

	for (size_t i = 0; i < v->n; i++)
		if (v->m[i].role == VOTERS_STANDBY && v->m[i].gone)
			return change(VOTERS_REMOVE, i, "it is no member any more");
	if (limit && count_role(v, VOTERS_STANDBY) > limit)
		return change(VOTERS_REMOVE, spare_standby(v), "standbys enough");
	for (size_t i = 0; i < v->n; i++)
		if (may_add(v, &v->m[i]))
			return change(VOTERS_ADD, i, "it is a member");
	return change(VOTERS_NOTHING, 0, "");
}

static struct voters_change promote(const struct view *v, const char *why)
{
	size_t best = best_standby(v);

	return best == v->n ? change(VOTERS_NOTHING, 0, "")
			    : change(VOTERS_PROMOTE, best, why);
}

/* Away with the worst; one that left the pool goes altogether. */
static struct voters_change demote(const struct view *v, const char *why)
{
	size_t worst = worst_voter(v);

	if (worst == v->n)
		return change(VOTERS_NOTHING, 0, "");
	return change(v->m[worst].gone ? VOTERS_REMOVE : VOTERS_DEMOTE, worst, why);
}

/* How many voters it should be now: what is wanted, less pairs of silent ones that
 * nobody can replace. */
static unsigned goal_of(const struct view *v)
{
	unsigned able = count_fit(v) + count_ready(v), goal = v->wanted;

	while (goal > 3 && able + 2 <= goal)
		goal -= 2;
	return goal;
}

static bool standby_lives(const struct view *v)
{
	for (size_t i = 0; i < v->n; i++)
		if (v->m[i].role == VOTERS_STANDBY && has_place(v, &v->m[i]) &&
			!is_silent(v, &v->m[i]))
			return true;
	return false;
}

static struct voters_change rule_voters(const struct view *v)
{
	unsigned voters = count_role(v, VOTERS_VOTER), fit = count_fit(v);
	unsigned ready = count_ready(v), goal = goal_of(v);

	if (voters > goal)
		return demote(v, fit < voters ? "another host took its place"
					      : "there are voters enough");
	if (voters > 3 && voters % 2 == 0 && !standby_lives(v))
		return demote(v, "an even number is of no use");
	/* From an odd number only by two, else an even one would stay. */
	if (voters < goal && (voters % 2 == 0 || voters + 2 <= fit + ready))
		return promote(v, "the pool should have more voters");
	if (fit < voters && ready > 0)
		return promote(v, "to take the place of a voter");
	return change(VOTERS_NOTHING, 0, "");
}

/* A voter of a crowded domain gives way to a standby of an empty one. */
static struct voters_change rule_domains(const struct view *v)
{
	size_t best = best_standby(v), worst = worst_voter(v);

	if (best == v->n || worst == v->n || !*v->m[best].domain ||
		crowd(v, &v->m[best]) > 0 || crowd(v, &v->m[worst]) < 2)
		return change(VOTERS_NOTHING, 0, "");
	return change(VOTERS_PROMOTE, best, "its failure domain has no voter");
}

/* Would those that are heard now be a majority of the voters, after the change too? */
static bool keeps_quorum(const struct view *v, const struct voters_change *c)
{
	unsigned voters = 0, alive = 0;

	for (size_t i = 0; i < v->n; i++) {
		bool votes = v->m[i].role == VOTERS_VOTER;

		if (c && i == c->which && c->kind != VOTERS_ADD)
			votes = c->kind == VOTERS_PROMOTE;
		voters += votes;
		alive += votes && (v->m[i].self || v->m[i].alive);
	}
	return 2 * alive > voters;
}

struct voters_change voters_decide(const struct voters_member *members, size_t count,
	const struct voters_rules *rules)
{
	struct view v = view_of(members, count, rules);
	struct voters_change c = rule_leader(&v);

	if (c.kind == VOTERS_NOTHING)
		c = rule_members(&v);
	if (c.kind == VOTERS_NOTHING)
		c = rule_voters(&v);
	if (c.kind == VOTERS_NOTHING && count_role(&v, VOTERS_VOTER) == goal_of(&v))
		c = rule_domains(&v);
	if (c.kind != VOTERS_NOTHING && c.kind != VOTERS_HAND_OVER &&
		(!keeps_quorum(&v, NULL) || !keeps_quorum(&v, &c)))
		return change(VOTERS_NOTHING, 0, "");
	return c;
}

const char *voters_kind_name(enum voters_kind kind)
{
	static const char *const names[] = {
		[VOTERS_NOTHING] = "nothing",
		[VOTERS_ADD] = "add",
		[VOTERS_PROMOTE] = "promote",
		[VOTERS_DEMOTE] = "demote",
		[VOTERS_REMOVE] = "remove",
		[VOTERS_HAND_OVER] = "hand-over",
	};

	return names[kind];
}
