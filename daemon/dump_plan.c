#include "daemon/dump_plan.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/limits.h"
#include "daemon/names.h"
#include "pool/db/message.h"

enum {
	PLAN_TASK_BYTES = 64 << 10, /* the call's task, in the same entry */
	/* Beyond what a VM that is forgotten now can have had since the dump. */
	GENERATION_LEAP = 1 << 20,
};

enum policy {
	LEAVE,	 /* as now */
	SETTING, /* as now, with the dump's settings */
	UNITE,	 /* SETTING, and those that only the dump knows */
	TAKE,	 /* as in the dump */
};

static const enum policy policies[CLASS_COUNT] = {
	[CLASS_POOL] = SETTING,
	[CLASS_HOST] = SETTING,
	[CLASS_SR] = UNITE,
	[CLASS_VDI] = UNITE,
	[CLASS_PBD] = UNITE,
	[CLASS_NETWORK] = UNITE,
	[CLASS_VM] = TAKE,
	[CLASS_VM_METRICS] = TAKE,
	[CLASS_VM_GUEST_METRICS] = TAKE,
	[CLASS_VBD] = TAKE,
	[CLASS_VIF] = TAKE,
	[CLASS_CONSOLE] = TAKE,
	[CLASS_USER] = TAKE,
	[CLASS_SECRET] = TAKE,
};

struct plan {
	const struct db *now, *then;
	struct txn *t;
	unsigned made[CLASS_COUNT], changed[CLASS_COUNT], gone[CLASS_COUNT];
	unsigned dropped; /* of the dump: what they belong to is not there */
};

/* What an operation at work or a running domain leaves: of the moment, not the dump's. */
static bool is_of_the_moment(enum schema_field_id id)
{
	switch (id) {
	case VM_CURRENT_OPERATIONS:
	case VM_POWER_STATE:
	case VM_RESIDENT_ON:
	case VM_OWNER_GENERATION:
	case VM_DOMID:
	case VM_DOMAIN_HANDLE:
	case VM_HOST_BOOT_ID:
	case VM_SUSPEND_VDI:
	case VM_SUSPEND_IMAGE:
	case VM_INTENT:
	case VM_INTENT_TASK:
	case VM_INTENT_HOST:
	case VM_INTENT_STARTED:
	case VM_INTENT_DATA:
	case VM_MIGRATION:
	case VM_MIGRATION_PHASE:
	case VM_MIGRATION_TARGET:
	case VM_HA_ARMED:
	case VM_HA_RESTART_TASK:
	case VM_BALLOON_PROVEN:
	case VM_PAUSED_BY:
	case VM_DEVICES_LEFT_ON:
	case VM_GHOSTS:
	case VM_CLAIMS_VOID:
	case VBD_CURRENT_OPERATIONS:
	case VBD_CURRENTLY_ATTACHED:
	case VIF_CURRENT_OPERATIONS:
	case VIF_CURRENTLY_ATTACHED:
	case PBD_CURRENT_OPERATIONS:
	case PBD_CURRENTLY_ATTACHED:
	case NETWORK_CURRENT_OPERATIONS:
	case SR_CURRENT_OPERATIONS:
	case SR_INTENT:
	case VDI_CURRENT_OPERATIONS:
	case VDI_INTENT:
	case VDI_INTENT_DATA:
	case VDI_WRITER:
	case VDI_MISSING:
		return true;
	default:
		return false;
	}
}

static bool is_stored(const struct schema_field *f)
{
	return !f->key && !f->live && f->ref != REF_BACK;
}

/* --- what there will be --- */

static bool can_be_made(const struct plan *p, const struct row *row);

static bool will_be(const struct plan *p, struct uuid uuid)
{
	const struct row *row = db_row_any(p->now, uuid);

	if (row && policies[row_class(row)] != TAKE)
		return true;
	row = db_row_any(p->then, uuid);
	return row && policies[row_class(row)] >= UNITE && can_be_made(p, row);
}

/* All that it belongs to is there. Owners form no circle: see the schema. */
static bool can_be_made(const struct plan *p, const struct row *row)
{
	const struct schema_class *c = schema_class(row_class(row));

	for (int i = 0; i < c->field_count; i++)
		if (c->fields[i].ref == REF_OWNER &&
			!will_be(p, db_ref(row, c->fields[i].id)))
			return false;
	return true;
}

/* --- one object --- */

/* The dump's value; a reference to what will not be there is none. */
static struct value wanted(
	const struct plan *p, const struct row *row, const struct schema_field *f)
{
	const struct value *v = row_value(row, f->id);

	if (f->type == VALUE_REF && (f->ref == REF_HARD || f->ref == REF_WEAK) &&
		!will_be(p, value_get_ref(v)))
		return value_zero(VALUE_REF);
	return value_copy(v);
}

/* True: it is another one than before. */
static bool put(struct plan *p, struct uuid uuid, const struct schema_field *f,
	const struct value *before, struct value *v)
{
	bool differs = !value_eq(before, v);

	if (differs)
		txn_set_value(p->t, uuid, f->id, v);
	value_fini(v);
	return differs;
}

static void change(struct plan *p, const struct row *now, const struct row *then)
{
	const struct schema_class *c = schema_class(row_class(now));
	bool changed = false;

	for (int i = 0; i < c->field_count; i++) {
		const struct schema_field *f = &c->fields[i];
		bool take = policies[c->id] == TAKE ? !is_of_the_moment(f->id)
						    : f->writer == WRITER_USER;
		struct value v;

		if (!is_stored(f) || !take)
			continue;
		v = wanted(p, then, f);
		changed |= put(p, row_uuid(now), f, row_value(now, f->id), &v);
	}
	p->changed[c->id] += changed;
}

static int make(struct plan *p, const struct row *then, struct rv_error *e)
{
	const struct schema_class *c = schema_class(row_class(then));
	struct uuid uuid = row_uuid(then);
	struct value before, v;
	int rc;

	txn_create(p->t, c->id, uuid);
	for (int i = 0; i < c->field_count; i++) {
		const struct schema_field *f = &c->fields[i];

		if (!is_stored(f) || is_of_the_moment(f->id))
			continue;
		rc = schema_initial(f, &before);
		if (rc)
			return rv_error_set(e, rc, "out of memory; try again later");
		v = wanted(p, then, f);
		put(p, uuid, f, &before, &v);
		value_fini(&before);
	}
	if (c->id == CLASS_VM)
		txn_set_int(p->t, uuid, VM_OWNER_GENERATION,
			db_int(then, VM_OWNER_GENERATION) + GENERATION_LEAP);
	if (c->id == CLASS_VDI)
		txn_set_bool(p->t, uuid, VDI_MISSING, true);
	p->made[c->id]++;
	return 0;
}

/* --- all of a class --- */

static int restore_class(struct plan *p, enum schema_class_id cls, struct rv_error *e)
{
	char text[UUID_TEXT_SIZE];
	int rc = 0;

	for (const struct row *r = NULL; !rc && (r = db_next(p->then, cls, r));) {
		struct uuid uuid = row_uuid(r);
		const struct row *now = db_row_any(p->now, uuid);

		if (now && row_class(now) != cls)
			return rv_error_set(e, RV_ECORRUPT,
				"the dump says that %s is a %s, but it is a %s of this "
				"pool",
				uuid_format(&uuid, text), schema_class(cls)->name,
				schema_class(row_class(now))->name);
		if (policies[cls] >= UNITE && !can_be_made(p, r))
			p->dropped++; /* and is gone, if it is there: below */
		else if (now)
			change(p, now, r);
		else if (policies[cls] >= UNITE)
			rc = make(p, r, e);
	}
	return rc;
}

/* Parts go before what they belong to: an entry's effects are checked as a whole. */
static void remove_class(struct plan *p, enum schema_class_id cls)
{
	for (const struct row *r = NULL; (r = db_next(p->now, cls, r));) {
		if (will_be(p, row_uuid(r)))
			continue;
		txn_delete(p->t, cls, row_uuid(r));
		p->gone[cls]++;
	}
}

/* --- what stands in the way --- */

static int check_vms(struct plan *p, struct rv_error *e)
{
	struct names names = {.show = NAMES_SHOWN};

	for (const struct row *vm = NULL; (vm = db_next(p->now, CLASS_VM, vm));) {
		struct uuid on = db_ref(vm, VM_RESIDENT_ON);
		struct uuid intent = db_ref(vm, VM_INTENT_HOST), uuid = row_uuid(vm);

		if (db_enum(vm, VM_POWER_STATE) != VM_POWER_STATE_HALTED ||
			!uuid_is_none(&on) || !uuid_is_none(&intent) ||
			db_enum(vm, VM_INTENT) != VM_INTENT_NONE ||
			value_count(row_value(vm, VM_CURRENT_OPERATIONS)))
			names_add(&names, row_name(vm));
		/* Nor does one begin meanwhile. */
		txn_expect_ref(p->t, uuid, VM_INTENT_HOST, UUID_NONE);
		txn_expect_int(
			p->t, uuid, VM_OWNER_GENERATION, db_int(vm, VM_OWNER_GENERATION));
	}
	return names.count
		       ? rv_error_set(e, RV_ENOTALLOWED,
				 "%u VMs are not halted or have an operation at work: "
				 "%s. "
				 "A restore can't tell what they do from what the dump "
				 "says: shut them down first",
				 names.count, names_end(&names))
		       : 0;
}

static int check_pool(struct plan *p, bool other_pool, struct rv_error *e)
{
	const struct row *now = db_pool(p->now), *then = db_pool(p->then);
	struct uuid a, b;

	if (!then)
		return rv_error_set(e, RV_ECORRUPT, "the dump holds no pool");
	a = row_uuid(now);
	b = row_uuid(then);
	if (!uuid_eq(&a, &b) && !other_pool)
		return rv_error_set(e, RV_ENOTALLOWED,
			"the dump is of another pool, '%.64s': its hosts stay out, its "
			"VMs, users and settings would replace this pool's. Say "
			"force=true to do it",
			row_name(then));
	if (db_level(p->then) > db_level(p->now))
		return rv_error_set(e, RV_EUNSUPPORTED,
			"the dump is of level %u, this pool of level %u: update the "
			"hosts first",
			db_level(p->then), db_level(p->now));
	return 0;
}

/* --- what comes of it --- */

static void add_counts(
	char *text, size_t size, const char *label, const unsigned counts[CLASS_COUNT])
{
	bool any = false;

	for (int i = CLASS_NONE + 1; i < CLASS_COUNT; i++) {
		size_t len = strlen(text);

		if (!counts[i])
			continue;
		snprintf(text + len, size - len, "%s%u %s", any ? ", " : label, counts[i],
			schema_class((enum schema_class_id)i)->name);
		any = true;
	}
}

static void add_lost_names(const struct plan *p, char *text, size_t size)
{
	struct names names = {.show = NAMES_SHOWN};
	size_t len;

	for (const struct row *vm = NULL; (vm = db_next(p->now, CLASS_VM, vm));)
		if (!will_be(p, row_uuid(vm)))
			names_add(&names, row_name(vm));
	len = strlen(text);
	if (names.count)
		snprintf(text + len, size - len,
			". VMs that are forgotten (their disks stay): %s",
			names_end(&names));
}

static void tell(const struct plan *p, char account[static DUMP_WORDS_MAX])
{
	size_t len;

	snprintf(account, DUMP_WORDS_MAX,
		"all that was changed after entry %" PRIu64 " is lost", db_seq(p->then));
	add_counts(account, DUMP_WORDS_MAX, ". Made: ", p->made);
	add_counts(account, DUMP_WORDS_MAX, ". Changed: ", p->changed);
	add_counts(account, DUMP_WORDS_MAX, ". Forgotten: ", p->gone);
	add_lost_names(p, account, DUMP_WORDS_MAX);
	len = strlen(account);
	if (p->dropped)
		snprintf(account + len, DUMP_WORDS_MAX - len,
			". Left out, since what they belong to is not there: %u",
			p->dropped);
}

static void add_message(
	struct plan *p, const char *user, struct uuid uuid, const char *account)
{
	char body[DUMP_WORDS_MAX + 120];

	snprintf(body, sizeof body, "%.64s%srestored the pool's database from a dump: %s",
		user, *user ? " " : "Somebody ", account);
	message_add(p->t, uuid,
		&(struct message){.name = "POOL_DATABASE_RESTORED",
			.priority = 2,
			.cls = "pool",
			.obj = row_uuid(db_pool(p->now)),
			.body = body});
}

static void begin_generation(struct plan *p, struct uuid id)
{
	const struct row *now = db_pool(p->now), *then = db_pool(p->then);
	struct uuid pool = row_uuid(now), former = row_uuid(then);
	int64_t number = db_int(now, POOL_GENERATION_NUMBER), next = number;

	if (uuid_eq(&pool, &former) && db_int(then, POOL_GENERATION_NUMBER) > next)
		next = db_int(then, POOL_GENERATION_NUMBER);
	txn_expect_int(p->t, pool, POOL_GENERATION_NUMBER, number);
	txn_expect_ref(p->t, pool, POOL_GENERATION_ID, db_ref(now, POOL_GENERATION_ID));
	change(p, now, then);
	txn_set_int(p->t, pool, POOL_GENERATION_NUMBER, next + 1);
	txn_set_ref(p->t, pool, POOL_GENERATION_ID, id);
}

/* One entry, so that no moment shows half of it; the log takes none that is larger. */
static int check_size(struct txn *t, struct rv_error *e)
{
	size_t size = txn_size(t), most = RV_MAX_ENTRY_BYTES - PLAN_TASK_BYTES;

	if (t->error.code || size <= most)
		return 0; /* whoever finishes it is told */
	return rv_error_set(e, RV_ETOOBIG,
		"nothing was changed: this restore would be one entry of %zu KiB in the "
		"log, and it takes %zu KiB at most. What is the same in the dump and in "
		"the pool needs no room: a newer dump may fit. A pool whose database is "
		"lost is founded again from a host's state directory, of any size "
		"(pool-emergency-transition-to-master)",
		(size + 1023) >> 10, most >> 10);
}

int dump_plan(const struct db *now, const struct db *then, bool other_pool,
	const char *user, struct uuid generation, struct uuid message, struct txn *t,
	char account[static DUMP_WORDS_MAX], struct rv_error *e)
{
	struct plan p = {.now = now, .then = then, .t = t};
	int rc = check_pool(&p, other_pool, e);

	if (!rc)
		rc = check_vms(&p, e);
	if (rc)
		return rc;
	txn_measure(t);
	begin_generation(&p, generation);
	for (int i = CLASS_NONE + 1; !rc && i < CLASS_COUNT; i++)
		if (i != CLASS_POOL && policies[i] != LEAVE)
			rc = restore_class(&p, (enum schema_class_id)i, e);
	for (int i = CLASS_NONE + 1; !rc && i < CLASS_COUNT; i++)
		if (policies[i] == TAKE)
			remove_class(&p, (enum schema_class_id)i);
	if (rc)
		return rc;
	tell(&p, account);
	add_message(&p, user, message, account);
	return check_size(t, e);
}
