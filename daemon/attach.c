#include "daemon/attach.h"

#include <stdlib.h>

#include "base/log.h"
#include "daemon/chore.h"
#include "daemon/eject.h"

/* After a failure: doubled up to the second, so that an SR that is late is there soon,
 * and one that is lost costs little. */
enum { ATTACH_FIRST_MS = 1000, ATTACH_RETRY_MS = 30000 };

struct attach {
	struct daemon *daemon;
	struct timer retry;
	unsigned waiting; /* chores without an answer */
	unsigned begun;	  /* of this round */
	int64_t retry_ms;
	timer_fn *done;
	void *arg;
};

/* One chore has ended; the last one ends the round. */
static void on_answer(void *arg)
{
	struct attach *a = arg;
	timer_fn *done = a->done;

	if (--a->waiting)
		return;
	if (!a->begun) /* all is well: what fails next is tried again soon */
		a->retry_ms = ATTACH_FIRST_MS;
	timer_start_ms(&a->retry, a->begun ? a->retry_ms : ATTACH_RETRY_MS);
	if (a->begun && a->retry_ms < ATTACH_RETRY_MS)
		a->retry_ms *= 2;
	a->done = NULL;
	if (done)
		done(a->arg);
}

static void attach_one(struct attach *a, struct chore *c)
{
	if (!c) {
		log_error("daemon.attach",
			"msg=\"out of memory; tried again within %d s\"",
			ATTACH_RETRY_MS / 1000);
		return;
	}
	a->waiting++;
	a->begun++;
	chore_start(c);
}

/* Wanted, and not attached as the port itself knows: the database may say "attached" from
 * before a reboot. */
static bool pbd_is_due(struct attach *a, const struct row *pbd)
{
	struct uuid sr = db_ref(pbd, PBD_SR);

	return db_bool(pbd, PBD_WANTED) && !storage_sr_attached(a->daemon->storage, &sr);
}

static void attach_round(struct attach *a, bool first)
{
	const struct db *db = pool_db(a->daemon->pool);

	a->begun = 0;
	if (ejection_is_leaving(a->daemon)) /* what is plugged is taken down */
		return;
	a->waiting++; /* the round itself, so that it can't end while it is begun */
	for (const struct row *pbd = db_next_ref(db, PBD_HOST, a->daemon->host, NULL);
		pbd; pbd = db_next_ref(db, PBD_HOST, a->daemon->host, pbd))
		if (pbd_is_due(a, pbd))
			attach_one(a, pbd_plug_chore(a->daemon, pbd, on_answer, a));
	for (const struct row *pif = db_next_ref(db, PIF_HOST, a->daemon->host, NULL);
		pif; pif = db_next_ref(db, PIF_HOST, a->daemon->host, pif))
		if (db_bool(pif, PIF_WANTED) &&
			(first || !db_bool(pif, PIF_CURRENTLY_ATTACHED)))
			attach_one(a, pif_plug_chore(a->daemon, pif, on_answer, a));
	on_answer(a);
}

static void on_retry(void *arg)
{
	attach_round(arg, false);
}

void attach_all(struct attach *a, timer_fn *done, void *arg)
{
	a->done = done;
	a->arg = arg;
	attach_round(a, true);
}

int attach_new(struct attach **out, struct daemon *d)
{
	struct attach *a = calloc(1, sizeof *a);

	if (!a)
		return RV_ENOMEM;
	a->daemon = d;
	a->retry_ms = ATTACH_FIRST_MS;
	timer_init(&a->retry, d->loop, "daemon.attach.retry", on_retry, a);
	*out = a;
	return 0;
}

void attach_free(struct attach *a)
{
	if (!a)
		return;
	timer_stop(&a->retry);
	free(a);
}
