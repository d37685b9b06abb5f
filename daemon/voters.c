#include "daemon/voters.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "daemon/cpu_level.h"
#include "daemon/daemon.h"
#include "daemon/members.h"
#include "daemon/witness.h"
#include "pool/voters.h"

enum {
	LOOK_MS = 500,
	ALIVE_US = 1500 * 1000, /* answers come with every heartbeat */
	MOST_MEMBERS = 64,	/* of the configuration, and outsiders looked at */
	STANDBYS = 2,		/* besides the voters; other hosts are learners */
	GIVE_AGAIN_US = 600 * 1000 * 1000,
};

/* One member as this master has seen it. */
struct seen {
	struct uuid host;
	bool alive;
	int64_t since_us;
};

struct voters {
	struct daemon *daemon;
	struct timer timer;
	bool leads;    /* as last looked at */
	bool changing; /* a change of the configuration is under way */
	bool recording;
	int64_t full_us;      /* since when this host's disk is full; 0: it is not */
	int64_t gave_us;      /* when it gave the lead away for that */
	struct uuid outsider; /* being given an id, to be added then */
	uint64_t outsider_id;
	struct pool_commit commit;

	struct seen seen[MOST_MEMBERS];
	struct voters_member members[MOST_MEMBERS];
	struct rlog_member servers[MOST_MEMBERS];
	size_t count; /* of members and of seen, in one order */
};

static struct pool *pool_of(const struct voters *v)
{
	return v->daemon->pool;
}

/* --- what the master sees --- */

static bool is_alive(
	struct voters *v, const struct uuid *host, const struct rlog_member *s)
{
	struct daemon *d = v->daemon;

	if (uuid_eq(host, &d->host))
		return true;
	if (!s)
		return d->members && members_is_up(d->members, host);
	return s->heard_us && loop_now_us(d->loop) - s->heard_us < ALIVE_US;
}

static void member_add(struct voters *v, const struct uuid *host,
	const struct rlog_member *s, uint64_t last, const struct seen *before, size_t n)
{
	const struct row *row = db_row(pool_db(pool_of(v)), CLASS_HOST, *host);
	struct voters_member *m = &v->members[v->count];
	struct seen *seen = &v->seen[v->count];
	int64_t now = loop_now_us(v->daemon->loop);

	if (v->count == MOST_MEMBERS)
		return;
	*seen = (struct seen){
		.host = *host, .alive = is_alive(v, host, s), .since_us = now};
	for (size_t i = 0; i < n; i++)
		if (uuid_eq(&before[i].host, host) && before[i].alive == seen->alive)
			seen->since_us = before[i].since_us;
	*m = (struct voters_member){.raft_id = s ? s->id : 1,
		.role = !s	   ? VOTERS_OUTSIDE
			: s->voter ? VOTERS_VOTER
				   : VOTERS_STANDBY,
		.self = uuid_eq(host, &v->daemon->host),
		.gone = !row,
		.witness = row && witness_is(row),
		.full_ms = v->full_us ? (now - v->full_us) / 1000 : 0,
		.alive = seen->alive,
		.since_ms = (now - seen->since_us) / 1000,
		.lag = s && last > s->match ? last - s->match : 0,
		.domain = row ? db_string(row, HOST_FAILURE_DOMAIN) : ""};
	v->count++;
}

static bool is_member(const struct voters *v, const struct uuid *host)
{
	for (size_t i = 0; i < v->count; i++)
		if (uuid_eq(&v->seen[i].host, host))
			return true;
	return false;
}

/* The servers of the configuration, then hosts on record that are outside; v->seen in the
 * same order. */
static void members_read(struct voters *v)
{
	const struct db *db = pool_db(pool_of(v));
	struct seen before[MOST_MEMBERS];
	size_t n = v->count;
	struct rlog_status status;
	int servers;

	memcpy(before, v->seen, sizeof before);
	v->count = 0;
	rlog_status(pool_log(pool_of(v)), &status);
	/* Where all disks are full nobody leads better: not again and again. */
	if (!status.low_space ||
		(v->gave_us && loop_now_us(v->daemon->loop) - v->gave_us < GIVE_AGAIN_US))
		v->full_us = 0;
	else if (!v->full_us)
		v->full_us = loop_now_us(v->daemon->loop);
	servers = rlog_members(pool_log(pool_of(v)), v->servers, MOST_MEMBERS);
	for (int i = 0; i < servers; i++) {
		const char *text = v->servers[i].address;
		struct uuid host;

		if (!uuid_parse(&host, text, strlen(text)))
			member_add(
				v, &host, &v->servers[i], status.last_index, before, n);
	}
	for (const struct row *h = db_next(db, CLASS_HOST, NULL); h;
		h = db_next(db, CLASS_HOST, h)) {
		struct uuid host = row_uuid(h);

		if (!is_member(v, &host))
			member_add(v, &host, NULL, 0, before, n);
	}
}

/* --- one change --- */

static void on_changed(void *arg, int rc)
{
	struct voters *v = arg;

	v->changing = false;
	if (rc)
		log_warn("voters.change", "rc=%s msg=\"it is tried again\"",
			rv_error_symbol(rc));
	timer_start_ms(&v->timer, rc ? LOOK_MS : 0);
}

static void on_outsider(struct pool_commit *commit)
{
	struct voters *v = CONTAINER_OF(commit, struct voters, commit);
	struct rv_error e = commit->error;

	v->recording = false;
	if (!commit->rc && !v->changing)
		v->changing = pool_member_add(pool_of(v), v->outsider_id, &v->outsider,
				      on_changed, v, &e) == 0;
	if (!v->changing)
		log_info("voters.add", "error=\"%s\"", e.detail);
}

/* Ids are never used twice: an outsider that becomes a standby gets a new one. */
static void outsider_add(struct voters *v, const struct uuid *host)
{
	const struct row *pool = db_pool(pool_db(pool_of(v)));
	int64_t id = db_int(pool, POOL_NEXT_RAFT_ID);
	struct rv_error e = {0};
	struct txn t;

	v->outsider = *host;
	v->outsider_id = (uint64_t)id;
	txn_init(&t, pool_db(pool_of(v)), loop_wall_ms(v->daemon->loop));
	txn_expect_exists(&t, CLASS_HOST, *host);
	txn_expect_int(&t, row_uuid(pool), POOL_NEXT_RAFT_ID, id);
	txn_set_int(&t, row_uuid(pool), POOL_NEXT_RAFT_ID, id + 1);
	txn_set_int(&t, *host, HOST_RAFT_ID, id);
	v->recording = !pool_commit(pool_of(v), &v->commit, &t, on_outsider, &e);
	if (!v->recording)
		log_info("voters.add", "error=\"%s\"", e.detail);
}

static void change_begin(struct voters *v, const struct voters_change *c)
{
	struct rlog *log = pool_log(pool_of(v));
	const struct voters_member *m = &v->members[c->which];
	char text[UUID_TEXT_SIZE];
	struct rv_error e = {0};
	int rc = 0;

	log_info("voters.change", "what=%s host=%s why=\"%s\"", voters_kind_name(c->kind),
		uuid_format(&v->seen[c->which].host, text), c->why);
	switch (c->kind) {
	case VOTERS_ADD:
		outsider_add(v, &v->seen[c->which].host);
		return;
	case VOTERS_PROMOTE:
		rc = rlog_assign(log, m->raft_id, true, on_changed, v, &e);
		break;
	case VOTERS_DEMOTE:
		rc = rlog_assign(log, m->raft_id, false, on_changed, v, &e);
		break;
	case VOTERS_REMOVE:
		rc = rlog_remove(log, m->raft_id, on_changed, v, &e);
		break;
	case VOTERS_HAND_OVER:
		if (v->full_us)
			v->gave_us = loop_now_us(v->daemon->loop);
		rc = rlog_transfer(log, m->raft_id, on_changed, v, &e);
		break;
	case VOTERS_NOTHING:
		return;
	}
	v->changing = rc == 0;
	if (rc)
		log_info("voters.change", "error=\"%s\"", e.detail);
}

/* --- the records --- */

static void on_recorded(struct pool_commit *commit)
{
	struct voters *v = CONTAINER_OF(commit, struct voters, commit);

	v->recording = false;
	if (commit->rc)
		log_info("voters.record", "error=\"%s\"", commit->error.detail);
}

static int role_of(const struct voters_member *m)
{
	if (m->witness && m->role == VOTERS_VOTER)
		return HOST_RAFT_ROLE_WITNESS;
	return m->role == VOTERS_VOTER	   ? HOST_RAFT_ROLE_VOTER
	       : m->role == VOTERS_STANDBY ? HOST_RAFT_ROLE_STANDBY
					   : HOST_RAFT_ROLE_LEARNER;
}

/* Who leads and who votes, for people, nothing is decided by it; and the CPU level. */
static void record(struct voters *v)
{
	const struct db *db = pool_db(pool_of(v));
	const struct row *pool = db_pool(db);
	struct uuid master = db_ref(pool, POOL_MASTER);
	struct rv_error e = {0};
	struct txn t;

	if (!db_row(db, CLASS_HOST, v->daemon->host))
		return;
	txn_init(&t, db, loop_wall_ms(v->daemon->loop));
	if (!uuid_eq(&master, &v->daemon->host))
		txn_set_ref(&t, row_uuid(pool), POOL_MASTER, v->daemon->host);
	for (size_t i = 0; i < v->count; i++) {
		const struct row *h = db_row(db, CLASS_HOST, v->seen[i].host);

		if (!h || db_enum(h, HOST_RAFT_ROLE) == role_of(&v->members[i]))
			continue;
		txn_expect_exists(&t, CLASS_HOST, row_uuid(h));
		txn_set_enum(&t, row_uuid(h), HOST_RAFT_ROLE, role_of(&v->members[i]));
	}
	if (!witness_is_here(v->daemon))
		cpu_level_txn(v->daemon->hyper, db, &t);
	if (txn_is_empty(&t)) {
		txn_fini(&t);
		return;
	}
	v->recording = !pool_commit(pool_of(v), &v->commit, &t, on_recorded, &e);
}

/* --- the master's rounds --- */

static void on_timer(void *arg)
{
	struct voters *v = arg;
	const struct voters_rules rules = {.standbys = STANDBYS};
	struct voters_change c;

	if (!v->leads || !pool_is_master(pool_of(v)))
		return;
	timer_start_about_ms(&v->timer, LOOK_MS);
	if (!db_pool(pool_db(pool_of(v))))
		return; /* the very first start */
	members_read(v);
	if (v->recording)
		return;
	record(v);
	if (v->changing || v->recording || rlog_is_transferring(pool_log(pool_of(v))))
		return;
	c = voters_decide(v->members, v->count, &rules);
	if (c.kind != VOTERS_NOTHING)
		change_begin(v, &c);
}

static void take_over(struct voters *v)
{
	struct daemon *d = v->daemon;

	log_info("voters.master", "msg=\"this host leads the pool\"");
	v->count = 0; /* whatever was seen, was long ago */
	v->full_us = 0;
	members_tell_live(d->members);
	d->vm_live_token = (struct changes_token){0};
	vm_manager_take_over(d->vms);
	timer_start_ms(&v->timer, 0);
}

void voters_look(struct voters *v)
{
	bool leads = pool_is_master(pool_of(v));

	if (leads == v->leads)
		return;
	v->leads = leads;
	if (leads) {
		take_over(v);
	} else {
		log_info("voters.master", "msg=\"this host leads the pool no more\"");
		timer_stop(&v->timer);
	}
}

int voters_new(struct voters **out, struct daemon *d)
{
	struct voters *v = calloc(1, sizeof *v);

	if (!v)
		return RV_ENOMEM;
	v->daemon = d;
	timer_init(&v->timer, d->loop, "daemon.voters", on_timer, v);
	*out = v;
	return 0;
}

void voters_stop(struct voters *v)
{
	if (v)
		timer_stop(&v->timer);
}

void voters_free(struct voters *v)
{
	voters_stop(v);
	free(v);
}
