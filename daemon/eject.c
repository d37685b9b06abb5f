#include "daemon/eject.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/log.h"
#include "daemon/daemon.h"
#include "daemon/departure.h"
#include "daemon/eject_check.h"
#include "daemon/forward.h"
#include "daemon/members.h"
#include "daemon/turnover.h"

enum {
	EJECT_RESTART_MS = 200, /* for replies to leave */
	EJECT_LOOK_MS = 100,	/* between looks whether this host leads yet */
	EJECT_PATIENCE = 100,	/* such looks */
	HEX_SIZE = 2 * CA_FINGERPRINT_SIZE + 1,
};

/* A call that waits for this host to be the master: the former one has handed over. */
struct ejecting {
	struct list node;
	struct call *call;
	struct timer timer;
	int looks;
};

struct ejection {
	struct daemon *daemon;
	char own[HEX_SIZE]; /* this host's certificate */
	struct list waiting;
	struct timer restart;
	struct departure *departure;
	bool leaving;
	char words[TURNOVER_WORDS_MAX / 2]; /* why it leaves */
	int64_t wall_ms;		    /* since when */
};

/* --- at the host that was ejected --- */

static void on_restart(void *arg)
{
	struct ejection *j = arg;

	daemon_restart(j->daemon);
}

/* Who asked for it here, and was forwarded to the master, is told now: the links are
 * gone, and sent again after the restart the call would reach another pool. */
static void tell_who_asked(struct daemon *d)
{
	LIST_FOR_EACH_SAFE (node, &d->calls) {
		struct call *c = CONTAINER_OF(node, struct call, node);
		struct uuid host;

		if (!c->port || c->forwarded || !c->method ||
			c->method->id != METHOD_POOL_EJECT)
			continue;
		host = call_ref(c, "host");
		if (uuid_eq(&host, &d->host))
			call_reply_nil(c);
	}
}

/* What the next life does and tells; `left`: what this one leaves plugged, or "". */
static int plan(struct ejection *j, const char *left, struct rv_error *e)
{
	char words[TURNOVER_WORDS_MAX];

	snprintf(words, sizeof words, "%s%s%.*s%s", j->words,
		*left ? " Of the pool this is still plugged here: " : "",
		(int)sizeof words / 3, left, *left ? "." : "");
	return turnover_plan(
		j->daemon->config->state_dir, TURNOVER_LEAVE, j->wall_ms, words, e);
}

static void on_departed(void *arg, const char *left)
{
	struct ejection *j = arg;
	struct rv_error e = {0};

	if (plan(j, left, &e))
		log_warn("eject.leave", "error=\"%s\"", e.detail);
	log_info("eject.departed", "left=\"%s\"", left);
	timer_start_ms(&j->restart, EJECT_RESTART_MS);
}

static void leave(struct daemon *d, const char *words)
{
	struct ejection *j = d->ejection;
	struct rv_error e = {0};

	if (j->leaving)
		return;
	snprintf(j->words, sizeof j->words, "%s", words);
	j->wall_ms = loop_wall_ms(d->loop);
	/* Should this life end now, the next one tells what may be plugged. */
	if (plan(j, d->storage ? departure_plugged(j->departure) : "", &e)) {
		log_error("eject.leave",
			"error=\"%s\" msg=\"this host was ejected from its pool but "
			"can't "
			"write down that it leaves; tried again when told again\"",
			e.detail);
		return;
	}
	j->leaving = true;
	tell_who_asked(d);
	log_warn("eject.leave",
		"msg=\"%s This daemon starts again as a pool of its own\"", words);
	departure_begin(j->departure, on_departed, j);
}

void ejection_told(struct daemon *d, const struct uuid *by, const char *reason)
{
	static const char closed[] = "the peer closed: ";
	char words[TURNOVER_WORDS_MAX], text[UUID_TEXT_SIZE];

	if (!d->ejection)
		return;
	if (strncmp(reason, closed, sizeof closed - 1) == 0)
		reason += sizeof closed - 1;
	snprintf(words, sizeof words, "Host %s of the pool says: %.200s.",
		uuid_format(by, text), reason);
	leave(d, words);
}

void ejection_look(struct daemon *d)
{
	const struct row *pool = db_pool(pool_db(d->pool));
	char words[TURNOVER_WORDS_MAX];

	if (d->ejection && pool)
		departure_note(d->ejection->departure);
	/* An old state of the database may not have this host yet: its certificate
	 * tells. */
	if (d->ejection && pool && !d->ejection->leaving &&
		db_map_get(pool, POOL_EJECTED, d->ejection->own)) {
		snprintf(words, sizeof words,
			"This host was ejected from the pool %.128s.", row_name(pool));
		leave(d, words);
	}
}

bool ejection_is_leaving(const struct daemon *d)
{
	return d->ejection && d->ejection->leaving;
}

/* --- at those that stay --- */

int ejection_admit(struct daemon *d, const struct uuid *host,
	const uint8_t fingerprint[static 32], int64_t issued_s, struct rv_error *e)
{
	const struct db *db = pool_db(d->pool);
	const struct row *pool = db_pool(db);
	char key[HEX_SIZE];

	if (!pool)
		return 0;
	if (!db_map_get(pool, POOL_EJECTED,
		    bytes_hex(fingerprint, CA_FINGERPRINT_SIZE, key)) &&
		(db_row(db, CLASS_HOST, *host) ||
			!eject_remembers(pool, *host, issued_s)))
		return 0;
	return rv_error_set(e, RV_EEJECTED,
		"this host was ejected from the pool %.64s; to come back, it needs a new "
		"token (pool-issue-join-token, pool-join)",
		row_name(pool));
}

/* --- the method --- */

static void on_removed(void *arg, int rc)
{
	(void)arg;
	if (rc) /* daemon/voters.c does it then */
		log_info("eject.server", "rc=%s", rv_error_symbol(rc));
}

/* The host's row is gone; its place in the log follows. */
static void on_ejected(struct call *c)
{
	struct rv_error e = {0};

	if (c->raft_id &&
		pool_member_remove(c->daemon->pool, c->raft_id, on_removed, NULL, &e))
		log_info("eject.server", "msg=\"%s\"", e.detail);
}

static void eject(struct call *c)
{
	struct daemon *d = c->daemon;
	const struct db *db = pool_db(d->pool);
	const struct row *host = call_row(c, "host");
	uint8_t fingerprint[CA_FINGERPRINT_SIZE];
	char key[HEX_SIZE] = "";
	struct rv_error e = {0};
	struct uuid uuid;
	struct txn t;

	if (!host)
		return;
	uuid = row_uuid(host);
	if (eject_check(db, uuid, &e)) {
		call_fail(c, &e);
		return;
	}
	if (!ca_fingerprint(db_string(host, HOST_CERTIFICATE), fingerprint, &e))
		bytes_hex(fingerprint, CA_FINGERPRINT_SIZE, key);
	if (call_keep(c)) {
		call_failf(c, RV_ENOMEM, "out of memory; ask again later");
		return;
	}
	c->again = pool_eject;
	txn_init(&t, db, loop_wall_ms(d->loop));
	eject_txn(db, uuid, key, d->host, uuid_random(loop_prng(d->loop)), c->who.user,
		loop_wall_ms(d->loop), &t);
	c->raft_id = (uint64_t)db_int(host, HOST_RAFT_ID);
	c->committed = on_ejected;
	log_info("eject.begin", "host=%s", row_name(host));
	call_commit(c, &t, (struct value){.type = VALUE_NULL}, uuid);
}

static void eject_as_master(struct call *c);

static void ejecting_free(struct ejecting *w)
{
	timer_stop(&w->timer);
	list_remove(&w->node);
	free(w);
}

static void on_waited(void *arg)
{
	struct ejecting *w = arg;
	struct call *c = w->call;

	if (!pool_is_master(c->daemon->pool) && ++w->looks < EJECT_PATIENCE) {
		timer_start_ms(&w->timer, EJECT_LOOK_MS);
		return;
	}
	ejecting_free(w);
	if (pool_is_master(c->daemon->pool))
		eject_as_master(c);
	else
		call_failf(c, RV_ENOTMASTER,
			"the pool's master has just changed; nothing was done: try "
			"again");
}

static void wait_for_mastery(struct call *c)
{
	struct daemon *d = c->daemon;
	struct ejecting *w = calloc(1, sizeof *w);

	if (!w || call_keep(c)) {
		free(w);
		call_failf(c, RV_ENOMEM, "out of memory; ask again later");
		return;
	}
	w->call = c;
	timer_init(&w->timer, d->loop, "eject.wait", on_waited, w);
	list_push_back(&d->ejection->waiting, &w->node);
	timer_start_ms(&w->timer, EJECT_LOOK_MS);
}

static void on_handed_over(void *arg, int rc)
{
	struct call *c = arg;
	struct daemon *d = c->daemon;
	struct uuid master = pool_master(d->pool);

	if (rc || uuid_is_none(&master) || uuid_eq(&master, &d->host))
		call_failf(c, RV_EBUSY,
			"this host is the pool's master, and no other host took that "
			"over "
			"(%s); nothing was done: try again",
			rv_error_text(rc ? rc : RV_ENOTMASTER));
	else
		forward_to(c, master, NULL);
}

/* The master can't take itself out: another one does. */
static void hand_over(struct call *c, const struct row *host)
{
	struct daemon *d = c->daemon;
	struct rv_error e = {0};

	if (call_keep(c)) {
		call_failf(c, RV_ENOMEM, "out of memory; ask again later");
		return;
	}
	if (!pool_designate(d->pool, 0, on_handed_over, c, &e)) {
		log_info("eject.hand_over", "host=%s", row_name(host));
		return;
	}
	rv_error_prefix(&e,
		"host %.64s is the pool's master and can't be ejected before another one "
		"is",
		row_name(host));
	call_fail(c, &e);
}

static void eject_as_master(struct call *c)
{
	const struct row *host = call_row(c, "host");
	struct daemon *d = c->daemon;
	struct rv_error e = {0};
	struct uuid uuid;

	if (!host)
		return;
	uuid = row_uuid(host);
	if (!uuid_eq(&uuid, &d->host))
		eject(c);
	else if (eject_check(pool_db(d->pool), uuid, &e))
		call_fail(c, &e);
	else
		hand_over(c, host);
}

void pool_eject(struct call *c)
{
	struct daemon *d = c->daemon;

	if (!d->members || pool_is_master(d->pool))
		eject_as_master(c);
	else if (c->forwarded)
		wait_for_mastery(c);
	else
		call_failf(c, RV_ENOTMASTER,
			"no master of the pool is known here; nothing was done: try "
			"again "
			"when this host is linked to the others");
}

/* --- beginning and ending --- */

int ejection_own_certificate(struct daemon *d, struct rv_error *e)
{
	uint8_t fingerprint[CA_FINGERPRINT_SIZE];
	int rc = ca_fingerprint(members_identity(d->members)->cert_pem, fingerprint, e);

	if (!rc)
		bytes_hex(fingerprint, CA_FINGERPRINT_SIZE, d->ejection->own);
	return rc;
}

int ejection_new(struct ejection **out, struct daemon *d, struct rv_error *e)
{
	struct ejection *j = calloc(1, sizeof *j);

	if (!j)
		return rv_error_set(e, RV_ENOMEM, "out of memory");
	j->daemon = d;
	list_init(&j->waiting);
	timer_init(&j->restart, d->loop, "eject.restart", on_restart, j);
	d->ejection = j; /* freed by ejection_free, whatever follows */
	*out = j;
	if (departure_new(&j->departure, d))
		return rv_error_set(e, RV_ENOMEM, "out of memory");
	return ejection_own_certificate(d, e);
}

void ejection_stop(struct ejection *j)
{
	if (j)
		departure_stop(j->departure);
}

void ejection_free(struct ejection *j)
{
	if (!j)
		return;
	timer_stop(&j->restart);
	departure_free(j->departure);
	LIST_FOR_EACH_SAFE (node, &j->waiting)
		ejecting_free(CONTAINER_OF(node, struct ejecting, node));
	free(j);
}
