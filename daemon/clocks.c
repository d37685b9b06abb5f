#include "daemon/clocks.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "daemon/files.h"
#include "daemon/members.h"
#include "pool/db/message.h"

enum {
	CLOCKS_LOOK_MS = 1000,
	CLOCKS_TOLD_AT_ONCE = 32, /* changes in one entry; the rest a second later */
};

struct clocks {
	struct daemon *daemon;
	struct timer timer;
	struct pool_commit commit;
	bool committing;
	int64_t *offsets_us; /* room for `room` hosts */
	size_t room;
	int64_t ahead_ms; /* by the tests' file */
};

/* --- the pool's time --- */

/* How far the host's clock is ahead of this one. */
static bool offset_of(struct clocks *c, struct uuid host, struct clock_estimate *out)
{
	*out = (struct clock_estimate){.known = true};
	return uuid_eq(&host, &c->daemon->host) ||
	       members_clock(c->daemon->members, &host, out);
}

/* False: out of memory; the next look tries again. */
static bool pool_offset(struct clocks *c, int64_t *offset_us)
{
	const struct db *db = pool_db(c->daemon->pool);
	size_t count = db_count(db, CLASS_HOST), n = 0;
	struct clock_estimate estimate;

	if (count > c->room) {
		int64_t *more = realloc(c->offsets_us, count * sizeof *more);

		if (!more)
			return false;
		c->offsets_us = more;
		c->room = count;
	}
	for (const struct row *h = NULL; (h = db_next(db, CLASS_HOST, h));)
		if (offset_of(c, row_uuid(h), &estimate))
			c->offsets_us[n++] = estimate.offset_us;
	*offset_us = clock_pool_offset_us(c->offsets_us, n);
	return true;
}

/* --- telling --- */

/* "1204 ms ahead of" */
static const char *skew_text(double skew_ms, char *text, size_t size)
{
	snprintf(text, size, "%.0f ms %s", skew_ms < 0 ? -skew_ms : skew_ms,
		skew_ms < 0 ? "behind" : "ahead of");
	return text;
}

static void tell(struct clocks *c, struct txn *t, const struct row *host, bool off,
	double skew_ms, int64_t limit_ms)
{
	struct loop *loop = c->daemon->loop;
	struct uuid message = uuid_random(loop_prng(loop)), uuid = row_uuid(host);
	char body[400], text[48];

	if (off)
		snprintf(body, sizeof body,
			"The clock of host %.128s is %s the pool's, more than the limit "
			"of %lld ms (clock-skew-limit-ms of the pool). VMs are not "
			"migrated to or from it until it is right again: let chrony or "
			"another NTP service keep it",
			row_name(host), skew_text(skew_ms, text, sizeof text),
			(long long)limit_ms);
	else
		snprintf(body, sizeof body,
			"The clock of host %.128s is right again (%s the pool's): VMs "
			"can be migrated to and from it",
			row_name(host), skew_text(skew_ms, text, sizeof text));
	log_warn("clocks.host", "host=%s off=%s skew-ms=%.0f limit-ms=%lld",
		row_name(host), off ? "true" : "false", skew_ms, (long long)limit_ms);
	txn_expect_bool(t, uuid, HOST_CLOCK_OFF, !off);
	txn_set_bool(t, uuid, HOST_CLOCK_OFF, off);
	message_add(t, message,
		&(struct message){.name = off ? "HOST_CLOCK_SKEW_DETECTED"
					      : "HOST_CLOCK_SKEW_CLEARED",
			.priority = off ? 2 : 4,
			.cls = "host",
			.obj = uuid,
			.body = body});
}

static void on_told(struct pool_commit *commit)
{
	struct clocks *c = CONTAINER_OF(commit, struct clocks, commit);

	/* Refused or unknown: the next look sees what is so. */
	c->committing = false;
}

static void set_skew(struct clocks *c, struct uuid host, double skew_ms)
{
	struct value v = value_float(skew_ms);
	struct rv_error e = {0};

	if (pool_set_live(c->daemon->pool, host, HOST_CLOCK_SKEW_MS, &v, &e))
		log_debug("clocks.set", "error=\"%s\"", e.detail);
}

/* --- looking --- */

static void compare(struct clocks *c)
{
	struct daemon *d = c->daemon;
	const struct db *db = pool_db(d->pool);
	int64_t limit_ms = db_int(db_pool(db), POOL_CLOCK_SKEW_LIMIT_MS), pool_us;
	struct rv_error e = {0};
	unsigned told = 0;
	struct txn t;

	if (!pool_offset(c, &pool_us))
		return;
	txn_init(&t, db, loop_wall_ms(d->loop));
	for (const struct row *h = NULL; (h = db_next(db, CLASS_HOST, h));) {
		bool was_off = db_bool(h, HOST_CLOCK_OFF), off;
		struct clock_estimate s;
		double skew_ms;

		if (!offset_of(c, row_uuid(h), &s))
			continue;
		off = clock_is_off(
			was_off, s.offset_us - pool_us, s.error_us, limit_ms * 1000);
		skew_ms = (double)((s.offset_us - pool_us) / 1000);
		if (off != was_off && told < CLOCKS_TOLD_AT_ONCE && ++told)
			tell(c, &t, h, off, skew_ms, limit_ms);
		set_skew(c, row_uuid(h), skew_ms);
	}
	if (!told || c->committing) {
		txn_fini(&t);
		return;
	}
	c->committing = true;
	if (pool_commit(d->pool, &c->commit, &t, on_told, &e)) {
		c->committing = false;
		log_warn("clocks.tell", "error=\"%s\"", e.detail);
	}
}

/* Tests give a daemon a wrong clock: docs/testing.md. */
static void obey_tests(struct clocks *c)
{
	const char *path = c->daemon->config->test_clock_file;
	char *text = *path ? files_read(path) : NULL;
	long long ahead_ms = text ? strtoll(text, NULL, 10) : 0;

	free(text);
	if (ahead_ms == c->ahead_ms)
		return;
	c->ahead_ms = ahead_ms;
	loop_set_wall_ahead_ms(c->daemon->loop, ahead_ms);
	log_warn("clocks.test",
		"ahead-ms=%lld msg=\"THE CLOCK IS WRONG: [test] clock-file\"", ahead_ms);
}

static void on_look(void *arg)
{
	struct clocks *c = arg;
	struct daemon *d = c->daemon;

	timer_start_about_ms(&c->timer, CLOCKS_LOOK_MS);
	obey_tests(c);
	if (d->members && pool_is_master(d->pool) && db_pool(pool_db(d->pool)))
		compare(c);
}

int clocks_check(struct daemon *d, const struct row *host, struct rv_error *e)
{
	int64_t limit_ms = db_int(db_pool(pool_db(d->pool)), POOL_CLOCK_SKEW_LIMIT_MS);
	char text[48];

	if (!db_bool(host, HOST_CLOCK_OFF))
		return 0;
	return rv_error_set(e, RV_ECLOCK,
		"the clock of host %.128s is %s the pool's, more than the limit of %lld "
		"ms: "
		"no VM is migrated to or from it; set its clock by NTP (chronyc tracking "
		"shows what is wrong), a few seconds later it is allowed again",
		row_name(host),
		skew_text(db_float(host, HOST_CLOCK_SKEW_MS), text, sizeof text),
		(long long)limit_ms);
}

/* --- beginning and ending --- */

int clocks_new(struct clocks **out, struct daemon *d)
{
	struct clocks *c = calloc(1, sizeof *c);

	if (!c)
		return RV_ENOMEM;
	c->daemon = d;
	timer_init(&c->timer, d->loop, "clocks.look", on_look, c);
	*out = c;
	return 0;
}

void clocks_start(struct clocks *c)
{
	if (*c->daemon->config->test_clock_file)
		obey_tests(c);
	timer_start_about_ms(&c->timer, CLOCKS_LOOK_MS);
}

void clocks_stop(struct clocks *c)
{
	if (c)
		timer_stop(&c->timer);
}

void clocks_free(struct clocks *c)
{
	if (!c)
		return;
	clocks_stop(c);
	/* A daemon that begins anew begins with the right clock. */
	if (c->ahead_ms)
		loop_set_wall_ahead_ms(c->daemon->loop, 0);
	free(c->offsets_us);
	free(c);
}
