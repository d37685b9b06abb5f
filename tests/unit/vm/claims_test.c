/* Claims on disks that could not be released when they should have been: who releases
 * them later, and what is refused meanwhile. */
#include "scenario.h"

#include "vm/vm_claims.h"
#include "vm/vm_lost.h"

/* Another host of the pool, which has the SR too; it runs no daemon here. */
struct other {
	struct uuid host, pbd;
	struct storage *storage;
};

static void other_add(struct world *w, struct other *o)
{
	struct storage_call attach = {.verb = STORAGE_SR_ATTACH, .sr = w->sr};
	struct storage *own = w->storage;
	struct txn t;

	o->host = world_uuid(w);
	o->pbd = world_uuid(w);
	world_txn(w, &t);
	txn_create(&t, CLASS_HOST, o->host);
	txn_set_string(&t, o->host, HOST_NAME_LABEL, "host2");
	txn_create(&t, CLASS_PBD, o->pbd);
	txn_set_ref(&t, o->pbd, PBD_HOST, o->host);
	txn_set_ref(&t, o->pbd, PBD_SR, w->sr);
	world_commit(w, &t);
	assert_int_equal(storage_new(&o->storage, w->loop, o->host), 0);
	assert_int_equal(storage_sim_add(o->storage, w->bytes, "file",
				 STORAGE_CAN_READ_WRITE | STORAGE_CAN_COPY |
					 STORAGE_CAN_RESIZE | STORAGE_CAN_SHARE),
		0);
	w->storage = o->storage;
	world_storage(w, &attach);
	w->storage = own;
}

static void claim(struct world *w, struct storage *by, struct uuid vdi,
	struct uuid holder, uint64_t generation, bool write)
{
	struct storage_call call = {.verb = STORAGE_VDI_ACTIVATE,
		.sr = w->sr,
		.vdi = vdi,
		.holder = holder,
		.generation = generation,
		.write = write};
	struct storage *own = w->storage;

	w->storage = by;
	world_storage(w, &call);
	w->storage = own;
}

static struct uuid disk_of(struct world *w, size_t vm)
{
	return db_ref(db_next_ref(pool_db(w->pool), VBD_VM, w->vm[vm], NULL), VBD_VDI);
}

static uint32_t claims(struct world *w, struct uuid vdi)
{
	struct storage_sim_claims c = storage_sim_vdi_claims(w->bytes, vdi);

	return c.writers + c.readers;
}

static bool is_attached(struct world *w, size_t vm)
{
	return db_bool(db_next_ref(pool_db(w->pool), VBD_VM, w->vm[vm], NULL),
		VBD_CURRENTLY_ATTACHED);
}

static const struct row *left_on(struct world *w, size_t vm)
{
	return db_follow(pool_db(w->pool), world_row(w, vm), VM_DEVICES_LEFT_ON);
}

static void disk_fails(struct world *w, bool fails)
{
	struct storage_sim_faults f = {.fail_ppm = fails ? 1000000 : 0,
		.latency_min_us = 200,
		.latency_max_us = 2000,
		.copy_bytes_per_s = 1 << 28};

	storage_sim_set_faults(w->bytes, &f);
}

/* The host that has left a disk tries again at each look, and is told of until then. */
static void test_tried_again(void **state)
{
	struct world *w = world_new(300);
	size_t vm = world_add_vm(w, 2, 1);
	struct uuid task;

	(void)state;
	world_must(w, VM_OP_START, vm);
	disk_fails(w, true);
	world_must(w, VM_OP_HARD_SHUTDOWN, vm);
	assert_int_equal(world_state(w, vm), VM_POWER_STATE_HALTED);
	assert_true(is_attached(w, vm));
	assert_ptr_equal(left_on(w, vm), db_row(pool_db(w->pool), CLASS_HOST, w->host));
	assert_int_equal(world_begin(w, VM_OP_DESTROY, vm, &task), RV_EBUSY);
	/* A start there may fail too: it says nothing about what it did not touch. */
	assert_int_not_equal(world_do(w, VM_OP_START, vm), TASK_STATUS_SUCCESS);
	assert_non_null(left_on(w, vm));
	/* No entry with each try. */
	world_run_ms(w, 30000);
	uint64_t seq = row_seq(world_row(w, vm));
	world_run_ms(w, 60000);
	assert_int_equal(row_seq(world_row(w, vm)), seq);
	assert_true(is_attached(w, vm));
	disk_fails(w, false);
	world_run_ms(w, 15000);
	assert_false(is_attached(w, vm));
	assert_null(left_on(w, vm));
	assert_int_equal(claims(w, disk_of(w, vm)), 0);
	check_world(w);
	world_free(w);
}

/* It can be started where it was left: the disk is its own. */
static void test_started_where_it_was_left(void **state)
{
	struct world *w = world_new(301);
	size_t vm = world_add_vm(w, 1, 0);

	(void)state;
	world_must(w, VM_OP_START, vm);
	disk_fails(w, true);
	world_must(w, VM_OP_HARD_SHUTDOWN, vm);
	disk_fails(w, false);
	assert_non_null(left_on(w, vm));
	world_must(w, VM_OP_START, vm);
	assert_null(left_on(w, vm));
	world_run_ms(w, 400000);
	world_assert_runs(w, vm);
	assert_int_equal(claims(w, disk_of(w, vm)), 1);
	world_must(w, VM_OP_HARD_SHUTDOWN, vm);
	check_world(w);
	world_free(w);
}

/* The drive is destroyed meanwhile, since its SR is lost: nothing is left to wait for. */
static void test_drive_is_gone(void **state)
{
	struct world *w = world_new(308);
	size_t vm = world_add_vm(w, 1, 0);
	struct uuid disk, vbd;
	struct txn t;

	(void)state;
	world_must(w, VM_OP_START, vm);
	disk_fails(w, true);
	world_must(w, VM_OP_HARD_SHUTDOWN, vm);
	disk = disk_of(w, vm);
	vbd = row_uuid(db_next_ref(pool_db(w->pool), VBD_VM, w->vm[vm], NULL));
	world_txn(w, &t);
	txn_delete(&t, CLASS_VBD, vbd);
	world_commit(w, &t);
	world_run_ms(w, 15000);
	assert_null(left_on(w, vm));
	assert_int_equal(claims(w, disk), 1);
	disk_fails(w, false);
	world_run_ms(w, 45000);
	assert_int_equal(claims(w, disk), 0);
	check_world(w);
	world_free(w);
}

/* As the former host's daemon left it. */
static void left_by(struct world *w, struct other *o, size_t vm)
{
	struct uuid vbd =
		row_uuid(db_next_ref(pool_db(w->pool), VBD_VM, w->vm[vm], NULL));
	struct txn t;

	claim(w, o->storage, disk_of(w, vm), w->vm[vm], 4, true);
	world_txn(w, &t);
	txn_set_int(&t, w->vm[vm], VM_OWNER_GENERATION, 4);
	txn_set_ref(&t, w->vm[vm], VM_DEVICES_LEFT_ON, o->host);
	txn_set_bool(&t, vbd, VBD_CURRENTLY_ATTACHED, true);
	world_commit(w, &t);
}

/* The master neither settles it nor lets it start here, until the host is dead for sure.
 */
static void test_left_by_another(void **state)
{
	struct world *w = world_new(302);
	size_t vm = world_add_vm(w, 1, 0);
	struct other o;
	struct uuid task;
	struct txn t;

	(void)state;
	other_add(w, &o);
	left_by(w, &o, vm);
	world_run_ms(w, 700 * 1000);
	assert_true(is_attached(w, vm));
	assert_int_equal(claims(w, disk_of(w, vm)), 1);
	assert_int_equal(world_begin(w, VM_OP_START, vm, &task), RV_ENOHOST);
	assert_non_null(strstr(w->accepted_error.detail, "host2 has not released disk"));
	assert_non_null(strstr(w->accepted_error.detail, "host-declare-dead"));
	world_txn(w, &t);
	txn_set_bool(&t, o.host, HOST_DECLARED_DEAD, true);
	vm_left_txn(pool_db(w->pool), world_row(w, vm), &t);
	world_commit(w, &t);
	assert_false(is_attached(w, vm));
	world_must(w, VM_OP_START, vm);
	assert_int_equal(claims(w, disk_of(w, vm)), 1);
	world_must(w, VM_OP_HARD_SHUTDOWN, vm);
	assert_int_equal(claims(w, disk_of(w, vm)), 0);
	storage_free(o.storage);
	check_world(w);
	world_free(w);
}

static void record_left(struct world *w, size_t vm, struct uuid host)
{
	struct uuid vbd =
		row_uuid(db_next_ref(pool_db(w->pool), VBD_VM, w->vm[vm], NULL));
	struct txn t;

	world_txn(w, &t);
	txn_set_ref(&t, w->vm[vm], VM_DEVICES_LEFT_ON, host);
	txn_set_bool(&t, vbd, VBD_CURRENTLY_ATTACHED, true);
	world_commit(w, &t);
}

/* What an operation did not bring down stays on record: a resume that failed before it
 * came to the disks, a shutdown on another host. */
static void test_not_touched(void **state)
{
	struct world *w = world_new(307);
	size_t vm = world_add_vm(w, 1, 0);
	struct other o;

	(void)state;
	other_add(w, &o);
	world_must(w, VM_OP_START, vm);
	world_must(w, VM_OP_SUSPEND, vm);
	disk_fails(w, true);
	record_left(w, vm, w->host);
	assert_int_not_equal(world_do(w, VM_OP_RESUME, vm), TASK_STATUS_SUCCESS);
	assert_true(is_attached(w, vm));
	assert_non_null(left_on(w, vm));
	disk_fails(w, false);
	record_left(w, vm, o.host);
	world_must(w, VM_OP_HARD_SHUTDOWN, vm);
	assert_int_equal(world_state(w, vm), VM_POWER_STATE_HALTED);
	assert_true(is_attached(w, vm));
	assert_ptr_equal(left_on(w, vm), db_row(pool_db(w->pool), CLASS_HOST, o.host));
	storage_free(o.storage);
	world_free(w);
}

/* A running VM whose host was lost is started elsewhere, with its disk. */
static void test_lost_with_its_disk(void **state)
{
	struct world *w = world_new(303);
	size_t vm = world_add_vm(w, 1, 0);
	struct other o;
	struct txn t;

	(void)state;
	other_add(w, &o);
	claim(w, o.storage, disk_of(w, vm), w->vm[vm], 9, true);
	world_txn(w, &t);
	txn_set_int(&t, w->vm[vm], VM_OWNER_GENERATION, 8);
	txn_set_ref(&t, w->vm[vm], VM_RESIDENT_ON, o.host);
	txn_set_enum(&t, w->vm[vm], VM_POWER_STATE, VM_POWER_STATE_RUNNING);
	world_commit(w, &t);
	world_txn(w, &t);
	assert_true(vm_lost_txn(pool_db(w->pool), world_row(w, vm), "lost", 1, &t));
	world_commit(w, &t);
	world_must(w, VM_OP_START, vm);
	/* The former host's, of the generation that began later, is not void. */
	world_must(w, VM_OP_HARD_SHUTDOWN, vm);
	claim(w, o.storage, disk_of(w, vm), w->vm[vm],
		(uint64_t)db_int(world_row(w, vm), VM_OWNER_GENERATION), true);
	assert_int_not_equal(world_do(w, VM_OP_START, vm), TASK_STATUS_SUCCESS);
	assert_int_equal(world_state(w, vm), VM_POWER_STATE_HALTED);
	storage_free(o.storage);
	world_free(w);
}

static int no_lease(void *arg, const struct uuid *host, struct rv_error *e)
{
	(void)arg;
	(void)host;
	return rv_error_set(e, RV_EAGAIN, "no lease");
}

/* Nobody holds them any more: those of a VM that is gone, of a VM that has no domain, of
 * a host that was ejected. What is held, or may be, stays. */
static void test_swept(void **state)
{
	struct world *w = world_new(304);
	size_t runs = world_add_vm(w, 1, 0), other = world_add_vm(w, 3, 0);
	struct uuid disk[3], gone = world_uuid(w);
	struct other o;
	struct txn t;
	char text[100], host[UUID_TEXT_SIZE];
	int n = 0;

	(void)state;
	other_add(w, &o);
	for (const struct row *r = NULL;
		(r = db_next_ref(pool_db(w->pool), VBD_VM, w->vm[other], r));)
		disk[n++] = db_ref(r, VBD_VDI);
	world_must(w, VM_OP_START, runs);
	claim(w, w->storage, disk[0], gone, 3, true);
	claim(w, w->storage, disk[1], w->vm[other], 1, false);
	claim(w, o.storage, disk[2], w->vm[other], 1, true);
	world_run_ms(w, 340 * 1000);
	assert_int_equal(claims(w, disk[0]), 0);
	assert_int_equal(claims(w, disk[1]), 0);
	assert_int_equal(claims(w, disk[2]), 1); /* that one's own business */
	assert_int_equal(claims(w, disk_of(w, runs)), 1);
	/* A host without a record is not dead for that: this database may be older. */
	world_txn(w, &t);
	txn_delete(&t, CLASS_PBD, o.pbd);
	txn_delete(&t, CLASS_HOST, o.host);
	world_commit(w, &t);
	world_run_ms(w, 340 * 1000);
	assert_int_equal(claims(w, disk[2]), 1);
	world_txn(w, &t);
	snprintf(text, sizeof text, "1 %s host2", uuid_format(&o.host, host));
	txn_map_put(&t, w->pool_uuid, POOL_EJECTED, "print", text);
	world_commit(w, &t);
	/* Nor does a host judge that may itself be cut off from the pool. */
	w->mgr->config.may_run = no_lease;
	world_run_ms(w, 340 * 1000);
	assert_int_equal(claims(w, disk[2]), 1);
	w->mgr->config.may_run = NULL;
	world_run_ms(w, 340 * 1000);
	assert_int_equal(claims(w, disk[2]), 0);
	assert_int_equal(claims(w, disk_of(w, runs)), 1);
	storage_free(o.storage);
	world_must(w, VM_OP_HARD_SHUTDOWN, runs);
	check_world(w);
	world_free(w);
}

/* The memory that a running VM was resumed from is not in use, whatever runs; a disk that
 * it has no record of may be. */
static void test_swept_image(void **state)
{
	struct world *w = world_new(307);
	size_t runs = world_add_vm(w, 0, 0), other = world_add_vm(w, 2, 0);
	struct uuid image = disk_of(w, other), disk = image;
	struct txn t;

	(void)state;
	for (const struct row *r = NULL;
		(r = db_next_ref(pool_db(w->pool), VBD_VM, w->vm[other], r));)
		disk = db_ref(r, VBD_VDI);
	assert_false(uuid_eq(&image, &disk));
	world_txn(w, &t);
	txn_set_enum(&t, image, VDI_TYPE, VDI_TYPE_SUSPEND);
	world_commit(w, &t);
	world_must(w, VM_OP_START, runs);
	claim(w, w->storage, image, w->vm[runs], 1, false);
	claim(w, w->storage, disk, w->vm[runs], 1, true);
	world_run_ms(w, 340 * 1000);
	assert_int_equal(claims(w, image), 0);
	assert_int_equal(claims(w, disk), 1);
	world_must(w, VM_OP_HARD_SHUTDOWN, runs);
	world_run_ms(w, 340 * 1000);
	assert_int_equal(claims(w, disk), 0);
	check_world(w);
	world_free(w);
}

/* After a restart, and after a failure, it does not take five minutes. */
static void test_swept_soon(void **state)
{
	struct world *w = world_new(305);
	size_t vm = world_add_vm(w, 1, 0);
	struct uuid gone = world_uuid(w);

	(void)state;
	world_run_ms(w, 20000);
	claim(w, w->storage, disk_of(w, vm), gone, 3, true);
	/* Refused: somebody has the disk. */
	assert_int_not_equal(world_do(w, VM_OP_START, vm), TASK_STATUS_SUCCESS);
	world_run_ms(w, 25000);
	assert_int_equal(claims(w, disk_of(w, vm)), 0);
	claim(w, w->storage, disk_of(w, vm), gone, 3, true);
	world_restart(w);
	world_run_ms(w, 25000);
	assert_int_equal(claims(w, disk_of(w, vm)), 0);
	world_must(w, VM_OP_START, vm);
	world_must(w, VM_OP_HARD_SHUTDOWN, vm);
	check_world(w);
	world_free(w);
}

/* The VM was taken from this host while that was not heard, and its fencing ended the
 * domain: no operation of this daemon brings the disk down. */
static void test_swept_soon_when_taken(void **state)
{
	struct world *w = world_new(309);
	size_t vm = world_add_vm(w, 1, 0);
	uint32_t domid;
	struct txn t;

	(void)state;
	world_must(w, VM_OP_START, vm);
	world_run_ms(w, 20000);
	domid = (uint32_t)db_int(world_row(w, vm), VM_DOMID);
	w->unchecked = true; /* the domain is a ghost for a moment */
	world_txn(w, &t);
	assert_true(vm_lost_txn(pool_db(w->pool), world_row(w, vm), "lost", 1, &t));
	world_commit(w, &t);
	assert_int_equal(claims(w, disk_of(w, vm)), 1);
	assert_int_equal(hyper_sim_destroy_behind(w->hyper, domid), 0);
	world_run_ms(w, 25000);
	w->unchecked = false;
	assert_int_equal(claims(w, disk_of(w, vm)), 0);
	world_must(w, VM_OP_START, vm);
	world_must(w, VM_OP_HARD_SHUTDOWN, vm);
	check_world(w);
	world_free(w);
}

/* What runs keeps its disks; while something is at work nothing is said. */
static void test_what_runs_keeps_it(void **state)
{
	struct world *w = world_new(306);
	size_t vm = world_add_vm(w, 1, 0);
	struct storage_claim c = {.host = w->host, .holder = w->vm[vm], .generation = 1};
	struct uuid none = UUID_NONE;

	(void)state;
	c.vdi = disk_of(w, vm);
	world_must(w, VM_OP_START, vm);
	assert_int_equal(
		vm_claim_decide(pool_db(w->pool), w->host, true, &c), VM_CLAIM_KEPT);
	c.vdi = w->vm[vm]; /* a disk that it has not */
	assert_int_equal(
		vm_claim_decide(pool_db(w->pool), w->host, true, &c), VM_CLAIM_STALE);
	/* Another host's are for the first one to judge, and for nobody while it lives.
	 */
	c.host = none;
	assert_int_equal(
		vm_claim_decide(pool_db(w->pool), w->host, true, &c), VM_CLAIM_KEPT);
	w->unchecked = true;
	world_set_enum(w, vm, VM_INTENT, VM_INTENT_REBOOT);
	c.host = w->host;
	assert_int_equal(
		vm_claim_decide(pool_db(w->pool), w->host, true, &c), VM_CLAIM_UNSURE);
	world_set_enum(w, vm, VM_INTENT, VM_INTENT_NONE);
	w->unchecked = false;
	world_must(w, VM_OP_HARD_SHUTDOWN, vm);
	world_free(w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_tried_again),
		cmocka_unit_test(test_started_where_it_was_left),
		cmocka_unit_test(test_drive_is_gone),
		cmocka_unit_test(test_left_by_another),
		cmocka_unit_test(test_not_touched),
		cmocka_unit_test(test_lost_with_its_disk),
		cmocka_unit_test(test_swept),
		cmocka_unit_test(test_swept_image),
		cmocka_unit_test(test_swept_soon),
		cmocka_unit_test(test_swept_soon_when_taken),
		cmocka_unit_test(test_what_runs_keeps_it),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
