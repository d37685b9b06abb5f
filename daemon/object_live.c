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

/* --- what the disks of each SR come to --- */

static void sums_begin(struct daemon *d)
{
	const struct row *sr = db_next(pool_db(d->pool), CLASS_SR, NULL);

	d->sums = (struct object_sums){.sr = sr ? row_uuid(sr) : UUID_NONE};
	if (sr)
		timer_start_ms(&d->object_live_turn, 0);
}

static void sums_told(struct daemon *d, const struct row *sr)
{
	const struct db *db = pool_db(d->pool);

	set_live(d, sr, SR_VIRTUAL_ALLOCATION, value_int(d->sums.sum));
	sr = db_next(db, CLASS_SR, db_row(db, CLASS_SR, d->sums.sr));
	d->sums.sr = sr ? row_uuid(sr) : UUID_NONE;
	d->sums.vdi = UUID_NONE;
	d->sums.sum = 0;
}

/* Where the last turn ended; false: that is gone. `vdi` NULL: at the SR's first. */
static bool sums_at(struct daemon *d, const struct row **sr, const struct row **vdi)
{
	const struct db *db = pool_db(d->pool);
	const struct object_sums *s = &d->sums;
	struct uuid of;

	*sr = db_row(db, CLASS_SR, s->sr);
	*vdi = db_row(db, CLASS_VDI, s->vdi);
	of = *vdi ? db_ref(*vdi, VDI_SR) : UUID_NONE;
	return *sr && (uuid_is_none(&s->vdi) || uuid_eq(&of, &s->sr));
}

static void sums_next(struct daemon *d)
{
	struct object_sums *s = &d->sums;
	const struct row *sr, *vdi;

	if (!pool_is_master(d->pool) || !sums_at(d, &sr, &vdi)) {
		s->sr = UUID_NONE; /* a change: it begins anew, where this host leads */
		return;
	}
	vdi = db_next_ref(pool_db(d->pool), VDI_SR, s->sr, vdi);
	if (!vdi) {
		sums_told(d, sr);
		return;
	}
	s->sum += db_int(vdi, VDI_VIRTUAL_SIZE);
	s->vdi = row_uuid(vdi);
}

/* The master tells, a batch of disks in each turn. What changes meanwhile has all of it
 * summed up once more, when this is through: so it comes to an end however often disks
 * change, and to rest with what is so. */
static void sums_turn(struct daemon *d)
{
	struct object_sums *s = &d->sums;

	for (int i = 0; i < OBJECT_LIVE_BATCH && !uuid_is_none(&s->sr); i++)
		sums_next(d);
	if (!uuid_is_none(&s->sr))
		timer_start_ms(&d->object_live_turn, 0);
	else if (s->again)
		sums_begin(d);
}

/* --- what changed --- */

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
	d->sums.again |= w.disks && pool_is_master(d->pool);
	if (uuid_is_none(&d->sums.sr) && d->sums.again)
		sums_begin(d);
	if (!rc && (status == CHANGES_SOME || status == CHANGES_FRESH))
		timer_start_ms(&d->object_live_turn, 0);
}

static void object_live_turn(void *arg)
{
	struct daemon *d = arg;

	object_live_look(d);
	sums_turn(d);
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
