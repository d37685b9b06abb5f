#include "daemon/object_live.h"

#include <string.h>

#include "base/buf.h"
#include "base/limits.h"
#include "base/log.h"

/* Of one look: a pool that was just started has many. */
enum { OBJECT_LIVE_BATCH = 512 };

/* Setting what it is already is no change, so this comes to rest. */
static void set_live(struct daemon *d, const struct row *row, enum schema_field_id field,
	struct value v)
{
	struct rv_error e = {0};

	if (!value_eq(row_value(row, field), &v) &&
		pool_set_live(d->pool, row_uuid(row), field, &v, &e))
		log_warn("daemon.object-live", "object=%s error=\"%s\"", row_name(row),
			e.detail);
}

/* The host that worked on it tells. */
static void task_one(struct daemon *d, const struct row *task)
{
	struct uuid host = db_ref(task, TASK_RESIDENT_ON);

	if (db_enum(task, TASK_STATUS) == TASK_STATUS_SUCCESS && uuid_eq(&host, &d->host))
		set_live(d, task, TASK_PROGRESS, value_float(1));
}

/* The master tells. */
static void sr_all(struct daemon *d)
{
	const struct db *db = pool_db(d->pool);

	for (const struct row *sr = NULL; (sr = db_next(db, CLASS_SR, sr));) {
		int64_t sum = 0;

		for (const struct row *vdi = NULL;
			(vdi = db_next_ref(db, VDI_SR, row_uuid(sr), vdi));)
			sum += db_int(vdi, VDI_VIRTUAL_SIZE);
		set_live(d, sr, SR_VIRTUAL_ALLOCATION, value_int(sum));
	}
}

struct object_walk {
	struct buf tasks; /* their UUIDs */
	bool disks;
};

/* The walk must not change what it walks over: it only collects. */
static int object_collect(void *arg, const struct change *c)
{
	struct object_walk *w = arg;

	if (c->cls != CLASS_TASK)
		w->disks = true;
	else if (c->row)
		return buf_append(&w->tasks, &c->uuid, sizeof c->uuid);
	return 0;
}

void object_live_look(struct daemon *d)
{
	enum changes_status status;
	struct object_walk w = {.disks = false};
	int rc;

	buf_init(&w.tasks, RV_MAX_OBJECTS * sizeof(struct uuid));
	rc = changes_since(pool_db(d->pool), &d->object_live_token,
		CHANGES_CLASS(CLASS_TASK) | CHANGES_CLASS(CLASS_SR) |
			CHANGES_CLASS(CLASS_VDI),
		OBJECT_LIVE_BATCH, object_collect, &w, &status);
	if (rc)
		log_warn("daemon.object-live", "error=%s", rv_error_symbol(rc));
	for (size_t at = 0; at < buf_len(&w.tasks); at += sizeof(struct uuid)) {
		const struct row *task;
		struct uuid uuid;

		memcpy(&uuid, buf_data(&w.tasks) + at, sizeof uuid);
		task = db_row(pool_db(d->pool), CLASS_TASK, uuid);
		if (task)
			task_one(d, task);
	}
	buf_fini(&w.tasks);
	if (w.disks && pool_is_master(d->pool))
		sr_all(d);
	if (!rc && (status == CHANGES_SOME || status == CHANGES_FRESH))
		timer_start_ms(&d->object_live_turn, 0);
}

static void object_live_turn(void *arg)
{
	object_live_look(arg);
}

void object_live_init(struct daemon *d)
{
	timer_init(
		&d->object_live_turn, d->loop, "daemon.object-live", object_live_turn, d);
}

void object_live_stop(struct daemon *d)
{
	timer_stop(&d->object_live_turn);
}
