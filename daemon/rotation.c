#include "daemon/rotation.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/log.h"
#include "daemon/daemon.h"
#include "daemon/eject.h"
#include "daemon/members.h"
#include "daemon/pool_ca.h"
#include "daemon/rotation_plan.h"
#include "reactor/worker.h"

enum {
	ROTATION_LOOK_MS = 60 * 1000, /* whether it is due; a clock may be set */
	ROTATION_RETRY_MS = 1000,
};

/* What is decided on, as last looked at: the pool's record changes often, these hardly
 * ever. */
enum seen { SEEN_SHOWN, SEEN_NEXT, SEEN_CA, SEEN_CA_NEXT, SEEN_CROSS, SEEN_COUNT };

/* One step on the disk. */
struct rotation_job {
	struct job job;
	enum rotation_step step;
	const char *state_dir;
	struct uuid host;
	char *ca_pem, *cross_pem; /* TRUST: what to write down */
	char *ca_key_pem;	  /* PREPARE: with the CA's certificate in ca_pem */
	int64_t after_s;	  /* ... and when the latest one was issued */
	char *cert_pem, *key_pem; /* ... and what was made */
	bool keep;		  /* FORCE: what is in force, as the prior one */
	struct rv_error error;
};

struct rotation {
	struct daemon *daemon;
	struct worker *worker;
	struct rotation_job job;
	struct pool_commit commit;
	struct timer timer;
	struct list waiting; /* calls, by their `waiting` */
	char *seen[SEEN_COUNT];
	bool shown_believed; /* as last looked at: one of the pool's CAs signed it */
	bool started, stopped, busy;
	bool asked; /* another certificate is wanted, whenever this one expires */
};

/* --- what is so --- */

static const struct row *own_row(const struct rotation *r)
{
	return db_row(pool_db(r->daemon->pool), CLASS_HOST, r->daemon->host);
}

static void read_record(const struct rotation *r, const char *now[SEEN_COUNT])
{
	const struct db *db = pool_db(r->daemon->pool);
	const struct row *host = own_row(r);

	now[SEEN_SHOWN] = db_string(host, HOST_CERTIFICATE);
	now[SEEN_NEXT] = db_string(host, HOST_CERTIFICATE_NEXT);
	now[SEEN_CA] = pool_ca_certificate(db, POOL_CA_NOW);
	now[SEEN_CA_NEXT] = pool_ca_certificate(db, POOL_CA_NEXT);
	now[SEEN_CROSS] = db_string(db_pool(db), POOL_CA_FORMER_CROSS_CERTIFICATES);
}

/* Whether the record is another than at the last look. */
static bool record_changed(struct rotation *r)
{
	const char *now[SEEN_COUNT];
	bool changed = false;

	read_record(r, now);
	for (int i = 0; i < SEEN_COUNT; i++) {
		if (r->seen[i] && strcmp(r->seen[i], now[i]) == 0)
			continue;
		free(r->seen[i]);
		r->seen[i] = strdup(now[i]);
		changed = true;
	}
	return changed;
}

/* The CAs to believe: the pool's, and one that signed what is shown for as long as it is.
 * Returned owned; NULL: out of memory. */
static char *trust_text(const struct rotation *r)
{
	const struct identity *id = members_identity(r->daemon->members);
	char *signer = NULL, *text;

	if (!r->shown_believed)
		signer = ca_signer(id->ca_pem, id->cert_pem);
	if (asprintf(&text, "%s%s%s", r->seen[SEEN_CA], r->seen[SEEN_CA_NEXT],
		    signer ? signer : "") < 0)
		text = NULL;
	free(signer);
	return text;
}

/* Likewise the cross certificates: as long as what is shown is of a CA that the pool does
 * not have, that one's. Returned owned; "": none; NULL: out of memory. */
static char *crosses_text(const struct rotation *r)
{
	const struct identity *id = members_identity(r->daemon->members);
	return id->cross_pem && !r->shown_believed
		       ? strdup(id->cross_pem)
		       : pool_ca_crosses(pool_db(r->daemon->pool));
}

static bool trust_is_right(const struct rotation *r)
{
	const struct identity *id = members_identity(r->daemon->members);
	char *crosses = crosses_text(r);
	char *text = trust_text(r);
	bool right = text && crosses && strcmp(text, id->ca_pem) == 0 &&
		     strcmp(crosses, id->cross_pem ? id->cross_pem : "") == 0;

	free(text);
	free(crosses);
	return right;
}

static bool is_due(const struct rotation *r)
{
	const struct identity *id = members_identity(r->daemon->members);
	int64_t issued_s, expires_s;
	struct rv_error e;

	return !ca_times(id->cert_pem, &issued_s, &expires_s, &e) &&
	       rotation_is_due(issued_s, expires_s, loop_wall_ms(r->daemon->loop) / 1000);
}

/* Each certificate is held against each CA once: that takes a while. */
static void read_facts(struct rotation *r, struct rotation_facts *f)
{
	const struct db *db = pool_db(r->daemon->pool);
	const struct identity *id = members_identity(r->daemon->members);
	enum pool_ca signing = pool_ca_signing(db);
	const char *ca = pool_ca_certificate(db, signing);
	bool right = ca_signed(ca, id->cert_pem);

	r->shown_believed =
		right ||
		(signing == POOL_CA_NEXT &&
			ca_signed(pool_ca_certificate(db, POOL_CA_NOW), id->cert_pem));
	*f = (struct rotation_facts){.trust_right = trust_is_right(r),
		.wanted = r->asked || !right || is_due(r),
		.prepared = id->next_cert_pem,
		.prepared_right = id->next_cert_pem && ca_signed(ca, id->next_cert_pem),
		.shown_recorded = strcmp(r->seen[SEEN_SHOWN], id->cert_pem) == 0,
		.next_recorded = *r->seen[SEEN_NEXT],
		.prepared_recorded = id->next_cert_pem &&
				     strcmp(r->seen[SEEN_NEXT], id->next_cert_pem) == 0,
		.shown_believed = r->shown_believed,
		.prior = id->prior_cert_pem,
		.prior_believed =
			id->prior_cert_pem && pool_ca_signed(db, id->prior_cert_pem)};
}

/* --- who waits --- */

static void end_calls(struct rotation *r, const struct rv_error *e)
{
	LIST_FOR_EACH_SAFE (node, &r->waiting) {
		struct call *c = CONTAINER_OF(node, struct call, waiting);

		list_remove(node);
		call_on_gone(c, NULL);
		if (e)
			call_fail(c, e);
		else
			call_reply_nil(c);
	}
}

/* It is tried again by itself. */
static void rotation_failed(struct rotation *r, const struct rv_error *e)
{
	log_warn("rotation.failed", "error=\"%s\" msg=\"it is tried again\"", e->detail);
	end_calls(r, e);
	if (!r->stopped)
		timer_start_ms(&r->timer, ROTATION_RETRY_MS);
}

/* --- steps on the disk --- */

static int prepare(struct rotation_job *j)
{
	char *request = NULL;
	int rc = ca_request_new(&j->host, &request, &j->key_pem, &j->error);

	if (!rc)
		rc = ca_renew(j->ca_pem, j->ca_key_pem, request, &j->host, j->after_s,
			CA_HOST_DAYS, &j->cert_pem, &j->error);
	if (!rc)
		rc = identity_write_prepared(
			j->state_dir, j->cert_pem, j->key_pem, &j->error);
	free(request);
	return rc;
}

static void job_run(struct job *job)
{
	struct rotation_job *j = CONTAINER_OF(job, struct rotation_job, job);
	int rc = 0;

	switch (j->step) {
	case ROTATION_TRUST:
		rc = identity_write_trust(
			j->state_dir, j->ca_pem, j->cross_pem, &j->error);
		break;
	case ROTATION_PREPARE:
		rc = prepare(j);
		break;
	case ROTATION_DISCARD:
		rc = identity_discard_prepared(j->state_dir, &j->error);
		break;
	case ROTATION_FORCE:
		rc = identity_put_in_force(j->state_dir, j->keep, &j->error);
		break;
	case ROTATION_FALL_BACK:
		rc = identity_fall_back(j->state_dir, &j->error);
		break;
	case ROTATION_FORGET:
		rc = identity_forget_prior(j->state_dir, &j->error);
		break;
	default:
		break;
	}
	if (rc && !j->error.code)
		(void)rv_error_set(&j->error, rc, "%s", rv_error_text(rc));
}

static void set_text(char **text, char **to)
{
	ca_key_free(*text);
	*text = *to;
	*to = NULL;
}

static void take_in_force(struct identity *id, bool keep)
{
	if (keep) {
		set_text(&id->prior_cert_pem, &id->cert_pem);
		set_text(&id->prior_key_pem, &id->key_pem);
	}
	set_text(&id->cert_pem, &id->next_cert_pem);
	set_text(&id->key_pem, &id->next_key_pem);
}

static void forget_prior(struct identity *id)
{
	free(id->prior_cert_pem);
	ca_key_free(id->prior_key_pem);
	id->prior_cert_pem = id->prior_key_pem = NULL;
}

static int show(struct rotation *r, struct rv_error *e)
{
	int rc = members_use_identity(r->daemon->members, e);

	return rc ? rc : ejection_own_certificate(r->daemon, e);
}

/* What is on the disk now is what this daemon has, too. */
static int job_take(struct rotation *r, struct rotation_job *j, struct rv_error *e)
{
	struct identity *id = members_identity_edit(r->daemon->members);

	switch (j->step) {
	case ROTATION_TRUST:
		set_text(&id->ca_pem, &j->ca_pem);
		set_text(&id->cross_pem, &j->cross_pem);
		return show(r, e);
	case ROTATION_PREPARE:
		r->asked = false;
		set_text(&id->next_cert_pem, &j->cert_pem);
		set_text(&id->next_key_pem, &j->key_pem);
		return 0;
	case ROTATION_FORCE:
		take_in_force(id, j->keep);
		return show(r, e);
	case ROTATION_FALL_BACK:
		set_text(&id->cert_pem, &id->prior_cert_pem);
		set_text(&id->key_pem, &id->prior_key_pem);
		return show(r, e);
	case ROTATION_FORGET:
		forget_prior(id);
		return 0;
	default:
		set_text(&id->next_cert_pem, &j->cert_pem);
		set_text(&id->next_key_pem, &j->key_pem);
		return 0;
	}
}

static void job_clear(struct rotation_job *j)
{
	free(j->ca_pem);
	free(j->cross_pem);
	ca_key_free(j->ca_key_pem);
	free(j->cert_pem);
	ca_key_free(j->key_pem);
	memset(j, 0, sizeof *j);
}

static void job_done(struct job *job, int rc)
{
	struct rotation *r = CONTAINER_OF(job, struct rotation, job.job);
	struct rv_error e = r->job.error;

	r->busy = false;
	if (!rc && !r->stopped && !e.code && job_take(r, &r->job, &e))
		log_error("rotation.use", "error=\"%s\"", e.detail);
	job_clear(&r->job);
	if (rc || r->stopped)
		return;
	if (e.code)
		rotation_failed(r, &e);
	else
		timer_start_ms(&r->timer, 0); /* each step a callback of its own */
}

/* The latest of those that others may know of this host. */
static int64_t latest_issued_s(const struct rotation *r)
{
	const char *const known[] = {members_identity(r->daemon->members)->cert_pem,
		r->seen[SEEN_SHOWN], r->seen[SEEN_NEXT]};
	int64_t latest_s = 0, issued_s, expires_s;
	struct rv_error e;

	for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
		if (*known[i] && !ca_times(known[i], &issued_s, &expires_s, &e) &&
			issued_s > latest_s)
			latest_s = issued_s;
	return latest_s;
}

/* What the job needs of the database. */
static int job_fill(struct rotation *r, enum rotation_step step, struct rv_error *e)
{
	struct daemon *d = r->daemon;
	const struct db *db = pool_db(d->pool);
	const struct identity *id = members_identity(d->members);
	struct rotation_job *j = &r->job;

	*j = (struct rotation_job){
		.job = {.run = job_run, .done = job_done, .name = "rotation"},
		.step = step,
		.state_dir = d->config->state_dir,
		.host = d->host};
	if (step == ROTATION_TRUST) {
		j->ca_pem = trust_text(r);
		j->cross_pem = crosses_text(r);
		if (!j->cross_pem)
			return rv_error_set(e, RV_ENOMEM, "out of memory");
		if (!*j->cross_pem) {
			free(j->cross_pem);
			j->cross_pem = NULL;
		}
	}
	if (step == ROTATION_FORCE)
		j->keep = ca_signed(r->seen[SEEN_CA], id->cert_pem) &&
			  !ca_signed(r->seen[SEEN_CA], id->next_cert_pem);
	if (step == ROTATION_PREPARE) {
		j->after_s = latest_issued_s(r);
		j->ca_pem = strdup(pool_ca_certificate(db, pool_ca_signing(db)));
		if (pool_ca_open(db, pool_ca_signing(db), id->secret, &j->ca_key_pem, e))
			return e->code;
	}
	if ((step == ROTATION_TRUST || step == ROTATION_PREPARE) && !j->ca_pem)
		return rv_error_set(e, RV_ENOMEM, "out of memory");
	return 0;
}

static void job_begin(struct rotation *r, enum rotation_step step)
{
	struct rv_error e = {0};

	r->busy = true;
	if (!job_fill(r, step, &e) && worker_submit(r->worker, &r->job.job))
		(void)rv_error_set(&e, RV_ELIMIT, "the worker has too much to do");
	if (!e.code)
		return;
	r->busy = false;
	job_clear(&r->job);
	rotation_failed(r, &e);
}

/* --- steps in the record --- */

static void on_committed(struct pool_commit *commit)
{
	struct rotation *r = CONTAINER_OF(commit, struct rotation, commit);

	r->busy = false;
	if (r->stopped)
		return;
	/* Where something changed meanwhile, it is decided anew. */
	if (commit->rc && commit->rc != RV_ECONFLICT)
		rotation_failed(r, &commit->error);
	else
		timer_start_ms(&r->timer, 0);
}

/* The CA that signed must not go meanwhile: this host would not be believed. */
static void record(struct rotation *r, enum rotation_step step)
{
	struct daemon *d = r->daemon;
	const struct db *db = pool_db(d->pool);
	const struct identity *id = members_identity(d->members);
	struct uuid pool = row_uuid(db_pool(db));
	struct rv_error e = {0};
	struct txn t;

	txn_init(&t, db, loop_wall_ms(d->loop));
	txn_expect_exists(&t, CLASS_HOST, d->host);
	txn_expect_string(&t, d->host, HOST_CERTIFICATE, r->seen[SEEN_SHOWN]);
	txn_expect_string(&t, pool, POOL_CA_CERTIFICATE, r->seen[SEEN_CA]);
	txn_expect_string(&t, pool, POOL_CA_NEXT_CERTIFICATE, r->seen[SEEN_CA_NEXT]);
	if (step == ROTATION_RECORD) {
		txn_set_string(&t, d->host, HOST_CERTIFICATE_NEXT, id->next_cert_pem);
	} else {
		txn_set_string(&t, d->host, HOST_CERTIFICATE, id->cert_pem);
		txn_set_string(&t, d->host, HOST_CERTIFICATE_NEXT, "");
	}
	r->busy = true;
	if (!pool_commit(d->pool, &r->commit, &t, on_committed, &e))
		return;
	r->busy = false;
	rotation_failed(r, &e);
}

/* --- step by step --- */

static void say_shown(const struct rotation *r)
{
	const struct identity *id = members_identity(r->daemon->members);
	uint8_t digest[CA_FINGERPRINT_SIZE];
	char text[2 * CA_FINGERPRINT_SIZE + 1];
	struct rv_error e;

	if (!ca_fingerprint(id->cert_pem, digest, &e))
		log_info("rotation.certificate", "fingerprint=%s",
			bytes_hex(digest, sizeof digest, text));
}

static void rotation_next(struct rotation *r)
{
	struct rotation_facts facts;
	enum rotation_step step;

	if (!r->started || r->stopped || r->busy || ejection_is_leaving(r->daemon) ||
		!own_row(r) || !db_pool(pool_db(r->daemon->pool)))
		return;
	record_changed(r);
	for (int i = 0; i < SEEN_COUNT; i++)
		if (!r->seen[i])
			return; /* out of memory: the next look tries again */
	read_facts(r, &facts);
	step = rotation_decide(&facts);
	if (step != ROTATION_NOTHING)
		log_info("rotation.step", "step=%s", rotation_step_name(step));
	switch (step) {
	case ROTATION_NOTHING:
		end_calls(r, NULL);
		timer_start_ms(&r->timer, ROTATION_LOOK_MS);
		break;
	case ROTATION_RECORD:
	case ROTATION_CONFIRM:
		if (step == ROTATION_CONFIRM)
			say_shown(r);
		record(r, step);
		break;
	default:
		job_begin(r, step);
		break;
	}
}

static void on_timer(void *arg)
{
	rotation_next(arg);
}

void rotation_look(struct rotation *r)
{
	if (!r || !r->started || r->busy || !own_row(r) ||
		!db_pool(pool_db(r->daemon->pool)))
		return;
	if (record_changed(r))
		rotation_next(r);
}

/* --- the method --- */

static void on_gone(void *arg)
{
	struct call *c = arg;

	list_remove(&c->waiting);
	call_failf(c, RV_ECLOSED, "the client has gone");
}

void host_refresh_server_certificate(struct call *c)
{
	struct rotation *r = c->daemon->rotation;
	const struct row *host = call_row(c, "self");
	struct uuid uuid;

	if (!host)
		return;
	uuid = row_uuid(host);
	if (!uuid_eq(&uuid, &c->daemon->host)) {
		call_failf(c, RV_ENOTALLOWED, "host %s is another machine; ask it there",
			row_name(host));
		return;
	}
	if (!r || !r->started) {
		call_failf(c, RV_ENOTALLOWED,
			"this host takes no links, and so has no certificate for them: "
			"set [pool] listen in its configuration");
		return;
	}
	if (call_keep(c)) {
		call_failf(c, RV_ENOMEM, "out of memory; ask again later");
		return;
	}
	log_info("rotation.asked", "user=\"%s\"", c->who.user);
	r->asked = true;
	list_push_back(&r->waiting, &c->waiting);
	call_on_gone(c, on_gone);
	rotation_next(r);
}

/* --- beginning and ending --- */

int rotation_new(struct rotation **out, struct daemon *d)
{
	struct rotation *r = calloc(1, sizeof *r);

	*out = r;
	if (!r)
		return RV_ENOMEM;
	r->daemon = d;
	list_init(&r->waiting);
	timer_init(&r->timer, d->loop, "daemon.rotation", on_timer, r);
	return worker_new(&r->worker, d->loop, "daemon.rotation");
}

void rotation_start(struct rotation *r)
{
	if (!r)
		return;
	r->started = true;
	timer_start_ms(&r->timer, 0);
}

void rotation_stop(struct rotation *r)
{
	if (!r || r->stopped)
		return;
	r->stopped = true;
	timer_stop(&r->timer);
	worker_free(r->worker);
	r->worker = NULL;
}

void rotation_free(struct rotation *r)
{
	if (!r)
		return;
	rotation_stop(r);
	for (int i = 0; i < SEEN_COUNT; i++)
		free(r->seen[i]);
	list_remove(&r->waiting);
	free(r);
}
