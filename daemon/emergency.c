#include "daemon/emergency.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "daemon/daemon.h"
#include "daemon/files.h"
#include "daemon/members.h"
#include "daemon/names.h"
#include "link/frame.h"
#include "pool/db/message.h"

enum {
	EMERGENCY_ANSWERS_MS = 3000,
	EMERGENCY_RESTART_MS = 200, /* for the reply to leave */
	STANDING_BYTES = 41,	    /* generation, term, index: u64; u8 has_master; id */
	UNSEEN_IDS = 1000,	    /* raft ids that the lost hosts may have given */
};

struct answer {
	struct list node;
	struct uuid host;
	bool known;
	struct emergency_standing standing;
};

struct emergency {
	struct daemon *daemon;
	struct call *call; /* NULL: nobody asks */
	struct list answers;
	struct timer late, restart;
};

/* --- the plan --- */

static void plan_path(char path[static PATH_MAX], const char *state_dir)
{
	snprintf(path, PATH_MAX, "%s/emergency", state_dir);
}

bool emergency_planned(const char *state_dir, struct emergency_plan *plan)
{
	char path[PATH_MAX], *text;
	bool good;

	*plan = (struct emergency_plan){0};
	plan_path(path, state_dir);
	text = files_read(path);
	good = text &&
	       sscanf(text, "%" SCNu64 " %" SCNu64 " %63[^\n]", &plan->generation,
		       &plan->raft_id, plan->user) >= 2 &&
	       plan->generation && plan->raft_id;
	if (text && !good)
		log_error("emergency.plan",
			"path=%s msg=\"says nothing that makes sense: "
			"passed over\"",
			path);
	free(text);
	return good;
}

static int plan_write(struct daemon *d, const char *user, struct rv_error *e)
{
	const struct row *pool = db_pool(pool_db(d->pool));
	char path[PATH_MAX], text[160];
	int len = snprintf(text, sizeof text, "%" PRId64 " %" PRId64 " %.60s\n",
		db_int(pool, POOL_GENERATION_NUMBER) + 1,
		db_int(pool, POOL_NEXT_RAFT_ID) + UNSEEN_IDS, user);

	plan_path(path, d->config->state_dir);
	return files_write(path, text, (size_t)len, e);
}

void emergency_txn(struct daemon *d, struct txn *t)
{
	const struct row *pool = db_pool(pool_db(d->pool));
	struct uuid uuid, message = uuid_random(loop_prng(d->loop));
	struct emergency_plan plan;
	char body[400];

	if (!pool || !emergency_planned(d->config->state_dir, &plan) ||
		db_int(pool, POOL_GENERATION_NUMBER) >= (int64_t)plan.generation)
		return;
	uuid = row_uuid(pool);
	txn_expect_int(
		t, uuid, POOL_GENERATION_NUMBER, db_int(pool, POOL_GENERATION_NUMBER));
	txn_set_int(t, uuid, POOL_GENERATION_NUMBER, (int64_t)plan.generation);
	txn_set_ref(t, uuid, POOL_GENERATION_ID, uuid_random(loop_prng(d->loop)));
	txn_set_ref(t, uuid, POOL_MASTER, d->host);
	if (db_int(pool, POOL_NEXT_RAFT_ID) <= (int64_t)plan.raft_id)
		txn_set_int(t, uuid, POOL_NEXT_RAFT_ID, (int64_t)plan.raft_id + 1);
	snprintf(body, sizeof body,
		"%s%sdeclared the pool's quorum lost for good: this host is the master "
		"of "
		"generation %" PRIu64 ". Changes that only the lost hosts had are gone. "
		"VMs on hosts that can't "
		"be reached stay there until host-declare-dead",
		plan.user, *plan.user ? " " : "Somebody ", plan.generation);
	message_add(t, message,
		&(struct message){.name = "POOL_EMERGENCY_TRANSITION",
			.priority = 1,
			.cls = "pool",
			.obj = uuid,
			.body = body});
	log_warn("emergency.generation", "number=%" PRIu64, plan.generation);
}

void emergency_recorded(struct daemon *d)
{
	char path[PATH_MAX];

	plan_path(path, d->config->state_dir);
	if (unlink(path) != 0 && errno == ENOENT)
		return;
	/* A plan that is found again would make this host the only voter once more,
	 * beside those that have a vote by then. */
	if (access(path, F_OK) == 0 ||
		files_sync_directory(d->config->state_dir, &(struct rv_error){0})) {
		log_error("emergency.recorded",
			"path=%s error=\"%s\" msg=\"this file can't be removed for good, "
			"and "
			"must not be found again: remove it, then start reeved\"",
			path, strerror(errno));
		*d->exit_status = EXIT_FAILURE;
		loop_stop(d->loop);
	}
}

/* --- how far everybody is --- */

int emergency_compare(
	const struct emergency_standing *a, const struct emergency_standing *b)
{
	if (a->generation != b->generation)
		return a->generation < b->generation ? -1 : 1;
	if (a->term != b->term)
		return a->term < b->term ? -1 : 1;
	return (a->index > b->index) - (a->index < b->index);
}

bool emergency_other_life(
	const struct emergency_standing *a, const struct emergency_standing *b)
{
	return a->generation && a->generation == b->generation &&
	       !uuid_eq(&a->generation_id, &b->generation_id);
}

static struct emergency_standing own_standing(struct daemon *d)
{
	const struct row *pool = db_pool(pool_db(d->pool));
	struct pool_status s;

	pool_status(d->pool, &s);
	return (struct emergency_standing){
		.generation = pool ? (uint64_t)db_int(pool, POOL_GENERATION_NUMBER) : 0,
		.term = s.log.last_term,
		.index = s.log.last_index,
		.has_master = pool_can_commit(d->pool),
		.generation_id = pool ? db_ref(pool, POOL_GENERATION_ID) : UUID_NONE,
	};
}

void emergency_asked(struct daemon *d, const struct uuid *by)
{
	struct emergency_standing s = own_standing(d);
	uint8_t bytes[STANDING_BYTES];

	link_put64(bytes, s.generation);
	link_put64(bytes + 8, s.term);
	link_put64(bytes + 16, s.index);
	bytes[24] = s.has_master;
	memcpy(bytes + 25, s.generation_id.b, 16);
	if (members_send(d->members, by, MEMBERS_STANDING, bytes, sizeof bytes))
		log_debug("emergency.asked", "msg=\"the link is gone\"");
}

static void decide(struct emergency *m);

void emergency_answered(
	struct daemon *d, const struct uuid *by, const uint8_t *bytes, size_t len)
{
	struct emergency *m = d->emergency;
	bool all = true;

	if (!m || !m->call || len < STANDING_BYTES)
		return;
	LIST_FOR_EACH (node, &m->answers) {
		struct answer *a = CONTAINER_OF(node, struct answer, node);

		if (uuid_eq(&a->host, by)) {
			a->known = true;
			a->standing = (struct emergency_standing){link_get64(bytes),
				link_get64(bytes + 8), link_get64(bytes + 16),
				bytes[24] != 0, {{0}}};
			memcpy(a->standing.generation_id.b, bytes + 25, 16);
		}
		all &= a->known;
	}
	if (all)
		decide(m);
}

/* --- the decision --- */

static void forget(struct emergency *m)
{
	timer_stop(&m->late);
	LIST_FOR_EACH_SAFE (node, &m->answers) {
		list_remove(node);
		free(CONTAINER_OF(node, struct answer, node));
	}
	m->call = NULL;
}

static const char *name_of(struct daemon *d, struct uuid host)
{
	const struct row *row = db_row(pool_db(d->pool), CLASS_HOST, host);

	return row ? row_name(row) : "that is not in the database";
}

/* What may be lost, in plain words. */
static void account(struct emergency *m, const struct emergency_standing *own, char *text,
	size_t size)
{
	struct daemon *d = m->daemon;
	const struct db *db = pool_db(d->pool);
	struct names here = {.show = NAMES_SHOWN}, away = {.show = NAMES_SHOWN};
	unsigned short vms = 0;

	for (const struct row *h = NULL; (h = db_next(db, CLASS_HOST, h));) {
		struct uuid uuid = row_uuid(h);

		if (uuid_eq(&uuid, &d->host) || members_is_up(d->members, &uuid)) {
			names_add(&here, row_name(h));
			continue;
		}
		names_add(&away, row_name(h));
		for (const struct row *vm = NULL;
			(vm = db_next_ref(db, VM_RESIDENT_ON, uuid, vm));)
			vms++;
	}
	snprintf(text, size,
		"this host would be the master of a new generation of the pool. Reached: "
		"%s; not reached: %s. What those have beyond entry %" PRIu64
		" of term %" PRIu64
		" is lost, also if it was reported as done. %u VMs stay with them until "
		"host-declare-dead. When they come back, they discard what they have and "
		"follow. Never do this while they may still be a pool by themselves",
		names_end(&here), away.count ? names_end(&away) : "none", own->index,
		own->term, vms);
}

static void on_restart(void *arg)
{
	struct emergency *m = arg;

	daemon_restart(m->daemon);
}

static void go(struct emergency *m, struct call *c, const char *text)
{
	struct daemon *d = m->daemon;
	struct rv_error e = {0};

	if (plan_write(d, c->who.user, &e)) {
		call_fail(c, &e);
		return;
	}
	log_warn("emergency.transition", "user=\"%s\" msg=\"%s\"", c->who.user, text);
	timer_start_ms(&m->restart, EMERGENCY_RESTART_MS);
	call_reply_nil(c);
}

static void decide(struct emergency *m)
{
	struct daemon *d = m->daemon;
	struct emergency_standing own = own_standing(d), best = own;
	struct uuid best_host = d->host, in_touch = UUID_NONE;
	struct call *c = m->call;
	char text[RV_ERROR_DETAIL_MAX - 80];

	LIST_FOR_EACH (node, &m->answers) {
		const struct answer *a = CONTAINER_OF(node, struct answer, node);

		if (!a->known || emergency_other_life(&a->standing, &own))
			continue;
		/* In a clash the master is this host, which takes no change. */
		if (a->standing.has_master && !rlog_clash(pool_log(d->pool), NULL))
			in_touch = a->host;
		if (emergency_compare(&a->standing, &best) > 0) {
			best = a->standing;
			best_host = a->host;
		}
	}
	account(m, &own, text, sizeof text);
	forget(m);
	if (pool_can_commit(d->pool))
		call_failf(c, RV_ENOTALLOWED,
			"the pool has a master again (host %s): nothing is to be done",
			name_of(d, pool_master(d->pool)));
	else if (!uuid_is_none(&in_touch))
		call_failf(c, RV_ENOTALLOWED,
			"the pool has a master: host %s is in touch with it. This host "
			"alone is cut off from it: mend its network",
			name_of(d, in_touch));
	else if (!uuid_eq(&best_host, &d->host))
		call_failf(c, RV_ENOTALLOWED,
			"host %s knows more of the pool's history (generation %" PRIu64
			", entry %" PRIu64 " of term %" PRIu64 "; this host: %" PRIu64
			", %" PRIu64 ", %" PRIu64
			"): say it there, or more than needs be is lost",
			name_of(d, best_host), best.generation, best.index, best.term,
			own.generation, own.index, own.term);
	else if (!call_bool(c, "force", false))
		call_failf(c, RV_ENOTALLOWED, "%s. Say force=true to do it", text);
	else
		go(m, c, text);
}

static void on_late(void *arg)
{
	struct emergency *m = arg;

	if (m->call)
		decide(m);
}

void pool_emergency_transition_to_master(struct call *c)
{
	struct daemon *d = c->daemon;
	struct emergency *m = d->emergency;
	const struct db *db = pool_db(d->pool);
	bool waits = false;

	if (!m || !db_pool(db) || db_count(db, CLASS_HOST) < 2) {
		call_failf(c, RV_ENOTALLOWED,
			"this host is in no pool with others: it needs nobody's vote");
		return;
	}
	if (pool_can_commit(d->pool)) {
		call_failf(c, RV_ENOTALLOWED,
			"the pool has a master, host %s: nothing is lost",
			name_of(d, pool_master(d->pool)));
		return;
	}
	if (m->call || timer_active(&m->restart)) {
		call_failf(c, RV_EBUSY, "this is under way already");
		return;
	}
	if (call_keep(c)) {
		call_failf(c, RV_ENOMEM, "out of memory; ask again later");
		return;
	}
	m->call = c;
	for (const struct row *h = NULL; (h = db_next(db, CLASS_HOST, h));) {
		struct uuid uuid = row_uuid(h);
		struct answer *a;

		if (uuid_eq(&uuid, &d->host) ||
			members_send(d->members, &uuid, MEMBERS_STANDING_ASK, "", 0))
			continue;
		a = calloc(1, sizeof *a);
		if (!a)
			continue;
		a->host = uuid;
		list_push_back(&m->answers, &a->node);
		waits = true;
	}
	timer_start_ms(&m->late, waits ? EMERGENCY_ANSWERS_MS : 0);
}

/* --- beginning and ending --- */

int emergency_new(struct emergency **out, struct daemon *d)
{
	struct emergency *m = calloc(1, sizeof *m);

	if (!m)
		return RV_ENOMEM;
	m->daemon = d;
	list_init(&m->answers);
	timer_init(&m->late, d->loop, "emergency.late", on_late, m);
	timer_init(&m->restart, d->loop, "emergency.restart", on_restart, m);
	*out = m;
	return 0;
}

void emergency_free(struct emergency *m)
{
	if (!m)
		return;
	forget(m); /* the call itself is ended with all others */
	timer_stop(&m->restart);
	free(m);
}
