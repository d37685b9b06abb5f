#include "daemon/ca_change.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "daemon/ca_known.h"
#include "daemon/daemon.h"
#include "daemon/members.h"
#include "daemon/names.h"
#include "daemon/pool_ca.h"
#include "daemon/rotation_plan.h"
#include "link/ca.h"
#include "pool/db/message.h"

enum {
	CA_LOOK_MS = 1000,
	CA_TURN = 8,		    /* hosts looked at in one callback */
	CA_EXPIRY_MS = 3600 * 1000, /* between looks whether something expires */
	CA_NAMED = 4,		    /* hosts named in one sentence */
};

struct ca_change {
	struct daemon *daemon;
	struct timer timer;
	struct pool_commit commit;
	struct ca_known *known;
	bool committing, stopped;
	/* A walk over the hosts: the master's, or one to know who has what. */
	bool walking, master;
	struct uuid at;	    /* looked at last */
	uint64_t began_seq; /* of the database */
	bool all_have;	    /* a certificate of the next CA, as far as it came */
	int64_t expiry_us;  /* of the next walk for that */
	bool expiry;	    /* this walk is one */
};

static const struct db *db_of(const struct ca_change *k)
{
	return pool_db(k->daemon->pool);
}

/* --- who lacks one --- */

const char *ca_change_advice(struct daemon *d, char *text, size_t size)
{
	struct names away = {.show = CA_NAMED}, busy = {.show = CA_NAMED};
	const struct db *db = pool_db(d->pool);
	int checks = CA_TURN, unknown = 0;
	size_t used;

	text[0] = '\0';
	if (!d->ca_change || !db_pool(db) || !*pool_ca_certificate(db, POOL_CA_NEXT))
		return text;
	for (const struct row *h = NULL; (h = db_next(db, CLASS_HOST, h));)
		switch (ca_known_ask(d->ca_change->known, db, h, &checks)) {
		case CA_KNOWN_HAS:
			break;
		case CA_KNOWN_LACKS:
			names_add(db_bool(h, HOST_LIVE) ? &busy : &away, row_name(h));
			break;
		case CA_KNOWN_NOT_YET:
			unknown++;
			break;
		}
	snprintf(text, size,
		"the pool's CA is being replaced: every host takes a certificate of the "
		"next one, and the present one goes when all have");
	used = strlen(text);
	if (busy.count)
		snprintf(text + used, size - used, "; at work: %s", names_end(&busy));
	used = strlen(text);
	if (away.count)
		snprintf(text + used, size - used,
			"; away, and so waited for: %s (bring it back, or pool-eject it)",
			names_end(&away));
	used = strlen(text);
	if (unknown)
		snprintf(text + used, size - used, "; not looked at yet: %d", unknown);
	return text;
}

/* --- committing --- */

static void on_committed(struct pool_commit *commit)
{
	struct ca_change *k = CONTAINER_OF(commit, struct ca_change, commit);

	k->committing = false;
	if (commit->rc) /* the next look sees what is so */
		log_info("ca_change.commit", "error=\"%s\"", commit->error.detail);
}

static void commit(struct ca_change *k, struct txn *t)
{
	struct rv_error e = {0};

	k->committing = true;
	if (!pool_commit(k->daemon->pool, &k->commit, t, on_committed, &e))
		return;
	k->committing = false;
	log_info("ca_change.commit", "error=\"%s\"", e.detail);
}

/* All have one of the next CA. Who is just joining has none: its entry changes the
 * tokens, and this one then does nothing. */
static void finish(struct ca_change *k)
{
	const struct db *db = db_of(k);
	const struct row *pool = db_pool(db);
	struct uuid uuid = row_uuid(pool);
	struct loop *loop = k->daemon->loop;
	char *kept = pool_ca_crosses_to_keep(db);
	struct txn t;

	if (!kept)
		return; /* out of memory: the next walk tries again */
	txn_init(&t, db, loop_wall_ms(loop));
	txn_expect_string(&t, uuid, POOL_CA_NEXT_CERTIFICATE,
		db_string(pool, POOL_CA_NEXT_CERTIFICATE));
	txn_expect_value(&t, uuid, POOL_JOIN_TOKENS, row_value(pool, POOL_JOIN_TOKENS));
	txn_set_string(
		&t, uuid, POOL_CA_CERTIFICATE, db_string(pool, POOL_CA_NEXT_CERTIFICATE));
	txn_set_string(&t, uuid, POOL_CA_KEY, db_string(pool, POOL_CA_NEXT_KEY));
	txn_set_string(&t, uuid, POOL_CA_NEXT_CERTIFICATE, "");
	txn_set_string(&t, uuid, POOL_CA_NEXT_KEY, "");
	txn_set_string(&t, uuid, POOL_CA_CROSS_CERTIFICATE, "");
	txn_set_string(&t, uuid, POOL_CA_FORMER_CROSS_CERTIFICATES, kept);
	free(kept);
	message_add(&t, uuid_random(loop_prng(loop)),
		&(struct message){.name = "POOL_CA_ROTATED",
			.priority = 5,
			.cls = "pool",
			.obj = uuid,
			.body = "Every host of the pool has a certificate of the new CA; "
				"the former CA counts no more. Join tokens that were "
				"issued before are of no use now"});
	log_info("ca_change.done", "msg=\"the former CA counts no more\"");
	commit(k, &t);
}

/* --- what expires --- */

static bool is_told(const struct db *db, struct uuid obj)
{
	for (const struct row *m = NULL; (m = db_next(db, CLASS_MESSAGE, m));) {
		struct uuid of = db_ref(m, MESSAGE_OBJ_UUID);

		if (uuid_eq(&of, &obj) &&
			strcmp(db_string(m, MESSAGE_NAME), "CERTIFICATE_EXPIRES") == 0)
			return true;
	}
	return false;
}

static bool expires_soon(struct ca_change *k, const char *pem, int64_t *days)
{
	int64_t now_s = loop_wall_ms(k->daemon->loop) / 1000, issued_s, expires_s;
	struct rv_error e;

	if (!*pem || ca_times(pem, &issued_s, &expires_s, &e) ||
		!rotation_expires_soon(issued_s, expires_s, now_s))
		return false;
	*days = (expires_s - now_s) / 86400;
	return true;
}

static void warn_host(struct ca_change *k, const struct row *host)
{
	struct uuid uuid = row_uuid(host);
	int64_t days;
	char body[400];
	struct txn t;

	if (k->committing || !expires_soon(k, db_string(host, HOST_CERTIFICATE), &days) ||
		is_told(db_of(k), uuid))
		return;
	snprintf(body, sizeof body,
		"The certificate of host %.128s expires in %lld days. A host renews its "
		"own by itself: look why it does not (is it up, is its clock right?), or "
		"use host-refresh-server-certificate. It is admitted all the same, also "
		"later",
		row_name(host), (long long)days);
	txn_init(&t, db_of(k), loop_wall_ms(k->daemon->loop));
	txn_expect_exists(&t, CLASS_HOST, uuid);
	message_add(&t, uuid_random(loop_prng(k->daemon->loop)),
		&(struct message){.name = "CERTIFICATE_EXPIRES",
			.priority = 3,
			.cls = "host",
			.obj = uuid,
			.body = body});
	commit(k, &t);
}

static void warn_pool(struct ca_change *k)
{
	const struct db *db = db_of(k);
	struct uuid uuid = row_uuid(db_pool(db));
	int64_t days;
	char body[300];
	struct txn t;

	if (k->committing ||
		!expires_soon(k, pool_ca_certificate(db, POOL_CA_NOW), &days) ||
		is_told(db, uuid))
		return;
	snprintf(body, sizeof body,
		"The certificate of the pool's CA expires in %lld days: pool-rotate-ca "
		"makes a new one, while everything runs. Hosts admit each other all the "
		"same, also later",
		(long long)days);
	txn_init(&t, db, loop_wall_ms(k->daemon->loop));
	message_add(&t, uuid_random(loop_prng(k->daemon->loop)),
		&(struct message){.name = "CERTIFICATE_EXPIRES",
			.priority = 3,
			.cls = "pool",
			.obj = uuid,
			.body = body});
	commit(k, &t);
}

/* --- looks --- */

/* Those looked at first may have changed meanwhile, or joined. */
static bool hosts_are_as_they_were(const struct ca_change *k)
{
	for (const struct row *h = NULL; (h = db_next(db_of(k), CLASS_HOST, h));)
		if (row_seq(h) > k->began_seq)
			return false;
	return true;
}

static void walk_begin(struct ca_change *k)
{
	int64_t now_us = loop_now_us(k->daemon->loop);
	bool changing = *pool_ca_certificate(db_of(k), POOL_CA_NEXT);

	k->expiry = k->master && now_us >= k->expiry_us;
	if (!changing)
		ca_known_forget(k->known);
	if (!changing && !k->expiry)
		return;
	if (k->expiry) {
		k->expiry_us = now_us + (int64_t)CA_EXPIRY_MS * 1000;
		warn_pool(k);
	}
	k->walking = true;
	k->all_have = changing;
	k->at = UUID_NONE;
	k->began_seq = pool_seq(k->daemon->pool);
}

static void walk_end(struct ca_change *k)
{
	k->walking = false;
	if (k->master && k->all_have && !k->committing && hosts_are_as_they_were(k) &&
		*pool_ca_certificate(db_of(k), POOL_CA_NEXT))
		finish(k);
}

static void walk(struct ca_change *k)
{
	const struct db *db = db_of(k);
	const struct row *h = db_row(db, CLASS_HOST, k->at);
	bool changing = *pool_ca_certificate(db, POOL_CA_NEXT);
	int checks = CA_TURN;

	if (!h && !uuid_is_none(&k->at)) { /* it went just now: from the beginning */
		k->walking = false;
		return;
	}
	for (int i = 0; i < CA_TURN; i++) {
		h = db_next(db, CLASS_HOST, h);
		if (!h) {
			walk_end(k);
			return;
		}
		k->at = row_uuid(h);
		if (changing && ca_known_ask(k->known, db, h, &checks) != CA_KNOWN_HAS)
			k->all_have = false;
		if (k->expiry)
			warn_host(k, h);
	}
}

static void on_timer(void *arg)
{
	struct ca_change *k = arg;

	if (k->stopped)
		return;
	if (!db_pool(db_of(k)) || k->master != pool_is_master(k->daemon->pool)) {
		k->master = pool_is_master(k->daemon->pool);
		k->walking = false;
		k->expiry_us = 0;
	} else if (k->walking) {
		walk(k);
	} else {
		walk_begin(k);
	}
	timer_start_ms(&k->timer, k->walking ? 1 : CA_LOOK_MS);
}

/* --- the method --- */

/* False: the call has been failed. */
static bool next_ca(struct call *c, struct txn *t)
{
	struct daemon *d = c->daemon;
	const struct db *db = pool_db(d->pool);
	const struct identity *id = members_identity(d->members);
	struct uuid pool = row_uuid(db_pool(db));
	const char *now = pool_ca_certificate(db, POOL_CA_NOW);
	char *now_key = NULL, *cert = NULL, *key = NULL, *cross = NULL, *sealed = NULL;
	struct rv_error e = {0};
	int rc = pool_ca_open(db, POOL_CA_NOW, id->secret, &now_key, &e);

	if (!rc)
		rc = ca_successor(now, now_key, &cert, &key, &cross, &e);
	if (!rc)
		rc = pool_ca_seal(cert, key, id->secret, &sealed, &e);
	if (!rc) {
		txn_expect_string(t, pool, POOL_CA_CERTIFICATE, now);
		txn_expect_string(t, pool, POOL_CA_NEXT_CERTIFICATE, "");
		txn_set_string(t, pool, POOL_CA_NEXT_CERTIFICATE, cert);
		txn_set_string(t, pool, POOL_CA_NEXT_KEY, sealed);
		txn_set_string(t, pool, POOL_CA_CROSS_CERTIFICATE, cross);
	} else {
		call_fail(c, &e);
	}
	ca_key_free(now_key);
	free(cert);
	ca_key_free(key);
	free(cross);
	free(sealed);
	return rc == 0;
}

/* In words who will keep the present CA for now. */
static int first_words(const struct db *db, struct value *out)
{
	struct names away = {.show = CA_NAMED};
	char text[500];

	for (const struct row *h = NULL; (h = db_next(db, CLASS_HOST, h));)
		if (!db_bool(h, HOST_LIVE))
			names_add(&away, row_name(h));
	snprintf(text, sizeof text,
		"A next CA is made: every host takes a certificate of it, and the "
		"present "
		"CA goes when all have; pool-status tells how far that is");
	if (away.count)
		snprintf(text + strlen(text), sizeof text - strlen(text),
			". Away, and so waited for: %s (bring it back, or pool-eject it)",
			names_end(&away));
	return value_from_cstr(out, text);
}

void pool_rotate_ca(struct call *c)
{
	struct daemon *d = c->daemon;
	const struct db *db = pool_db(d->pool);
	struct value words;
	char text[600];
	struct txn t;

	if (!d->members) {
		call_failf(c, RV_ENOTALLOWED,
			"this host takes no links, and so its pool needs no CA: set "
			"[pool] listen in its configuration");
		return;
	}
	if (*ca_change_advice(d, text, sizeof text)) {
		if (value_from_cstr(&words, text)) {
			call_failf(c, RV_ENOMEM, "out of memory; ask again later");
			return;
		}
		call_reply(c, &words);
		value_fini(&words);
		return;
	}
	txn_init(&t, db, loop_wall_ms(d->loop));
	if (!next_ca(c, &t)) {
		txn_fini(&t);
		return;
	}
	if (first_words(db, &words)) {
		txn_fini(&t);
		call_failf(c, RV_ENOMEM, "out of memory; ask again later");
		return;
	}
	log_info("ca_change.begin", "user=\"%s\"", c->who.user);
	call_commit(c, &t, words, row_uuid(db_pool(db)));
}

/* --- beginning and ending --- */

int ca_change_new(struct ca_change **out, struct daemon *d)
{
	struct ca_change *k = calloc(1, sizeof *k);

	*out = k;
	if (!k)
		return RV_ENOMEM;
	k->daemon = d;
	if (ca_known_new(&k->known, prng_next(loop_prng(d->loop))))
		return RV_ENOMEM;
	timer_init(&k->timer, d->loop, "daemon.ca_change", on_timer, k);
	timer_start_ms(&k->timer, CA_LOOK_MS);
	return 0;
}

void ca_change_stop(struct ca_change *k)
{
	if (!k)
		return;
	k->stopped = true;
	timer_stop(&k->timer);
}

void ca_change_free(struct ca_change *k)
{
	ca_change_stop(k);
	if (k)
		ca_known_free(k->known);
	free(k);
}
