#include "daemon/recover.h"

#include <string.h>

#include "base/log.h"
#include "daemon/chore.h"
#include "daemon/tasks.h"

enum { RECOVER_RETRY_MS = 500 };

/* Whether a chore of this daemon has the task: then it began after the start. */
static bool is_at_work(struct daemon *d, struct uuid task)
{
	LIST_FOR_EACH (node, &d->chores) {
		struct chore *c = CONTAINER_OF(node, struct chore, node);

		if (uuid_eq(&c->task, &task))
			return true;
	}
	return false;
}

/* The operations of vm/ settle their own tasks. */
static bool is_chore(const struct row *task)
{
	const struct schema_method *m = schema_method_by_name(
		db_string(task, TASK_METHOD), strlen(db_string(task, TASK_METHOD)));

	return !m || (m->cls != CLASS_VM && m->cls != CLASS_VBD && m->cls != CLASS_VIF);
}

/* Other hosts recover theirs. */
static bool is_ours(struct daemon *d, const struct row *task)
{
	struct uuid host = db_ref(task, TASK_RESIDENT_ON);

	return uuid_eq(&host, &d->host);
}

static const struct row *pbd_of_host(
	const struct db *db, struct uuid sr, struct uuid host)
{
	for (const struct row *pbd = NULL; (pbd = db_next_ref(db, PBD_SR, sr, pbd));) {
		struct uuid of = db_ref(pbd, PBD_HOST);

		if (uuid_eq(&of, &host))
			return pbd;
	}
	return NULL;
}

/* What the journal asks to do again; NULL: nothing, the task just ends. */
static struct chore *chore_again(struct daemon *d, const struct row *task)
{
	const struct db *db = pool_db(d->pool);
	struct uuid subject = db_ref(task, TASK_SUBJECT);
	const struct row *vdi = db_row(db, CLASS_VDI, subject);
	const struct row *sr = db_row(db, CLASS_SR, subject), *pbd;

	if (vdi && *db_string(vdi, VDI_INTENT))
		return vdi_chore_again(d, vdi);
	if (!sr)
		return NULL;
	pbd = pbd_of_host(db, subject, d->host);
	if (pbd && strcmp(db_string(task, TASK_METHOD), "SR.create") == 0)
		return sr_create_again(d, sr, pbd);
	if (pbd && strcmp(db_string(sr, SR_INTENT), "destroy") == 0)
		return sr_destroy_again(d, sr, pbd);
	return NULL;
}

static void end_interrupted(struct daemon *d, struct txn *t, const struct row *task)
{
	struct rv_error e = {0};

	rv_error_set(&e, RV_EOUTCOME,
		"%s was interrupted by a restart of reeved; look, and ask again",
		db_string(task, TASK_METHOD));
	tasks_end(t, row_uuid(task), loop_wall_ms(d->loop), NULL, &e);
}

/* What is still pending then is looked for again: it may have taken effect. */
static void recover_later(struct daemon *d, const struct rv_error *e)
{
	log_warn("daemon.recover", "error=\"%s\" msg=\"it is tried again\"", e->detail);
	if (!d->stopping)
		timer_start_ms(&d->recover, RECOVER_RETRY_MS);
}

static void on_committed(struct pool_commit *commit)
{
	struct daemon *d = CONTAINER_OF(commit, struct daemon, commit);

	if (commit->rc)
		recover_later(d, &commit->error);
}

static void recover_again(void *arg)
{
	recover_chores(arg);
}

void recover_init(struct daemon *d)
{
	timer_init(&d->recover, d->loop, "daemon.recover", recover_again, d);
}

void recover_chores(struct daemon *d)
{
	const struct db *db = pool_db(d->pool);
	struct rv_error e = {0};
	struct txn t;

	txn_init(&t, db, loop_wall_ms(d->loop));
	for (const struct row *task = db_next(db, CLASS_TASK, NULL); task;
		task = db_next(db, CLASS_TASK, task)) {
		int status = db_enum(task, TASK_STATUS);
		struct chore *c;

		if ((status != TASK_STATUS_PENDING && status != TASK_STATUS_CANCELLING) ||
			!is_chore(task) || !is_ours(d, task) ||
			is_at_work(d, row_uuid(task)))
			continue;
		log_info("daemon.recover", "task=%s method=%s", row_name(task),
			db_string(task, TASK_METHOD));
		c = chore_again(d, task);
		if (!c) {
			end_interrupted(d, &t, task);
			continue;
		}
		c->task = row_uuid(task);
		chore_start(c);
	}
	if (txn_is_empty(&t))
		txn_fini(&t);
	else if (pool_commit(d->pool, &d->commit, &t, on_committed, &e))
		recover_later(d, &e);
}
