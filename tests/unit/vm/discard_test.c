/* Disks that nobody uses are deleted: wherever they stand among many others, in slices,
 * and whichever of them can't be. */
#include "scenario.h"

#include "vm/vm_op.h"

enum { OTHERS = 1200 }; /* more than two slices */

static void others(struct world *w)
{
	struct txn t;

	world_txn(w, &t);
	for (int i = 0; i < OTHERS; i++) {
		struct uuid vdi = world_uuid(w);

		txn_create(&t, CLASS_VDI, vdi);
		txn_set_ref(&t, vdi, VDI_SR, w->sr);
	}
	world_commit(w, &t);
}

static struct uuid disk(struct world *w)
{
	struct storage_call call = {.verb = STORAGE_VDI_CREATE,
		.sr = w->sr,
		.vdi = world_uuid(w),
		.size = 1 << 20,
		.format = STORAGE_FORMAT_RAW};
	struct txn t;

	world_storage(w, &call);
	world_txn(w, &t);
	txn_create(&t, CLASS_VDI, call.vdi);
	txn_set_ref(&t, call.vdi, VDI_SR, w->sr);
	world_commit(w, &t);
	return call.vdi;
}

static void drop(struct world *w, const struct uuid *disks, size_t n)
{
	struct txn t;

	world_txn(w, &t);
	for (size_t i = 0; i < n; i++)
		txn_set_string(&t, disks[i], VDI_INTENT, VM_VDI_DISCARD);
	world_commit(w, &t);
}

static bool is_there(struct world *w, struct uuid vdi)
{
	return db_row(pool_db(w->pool), CLASS_VDI, vdi) != NULL;
}

static void claim(struct world *w, struct uuid vdi, enum storage_verb verb)
{
	struct storage_call call = {.verb = verb,
		.sr = w->sr,
		.vdi = vdi,
		.holder = w->pool_uuid,
		.generation = 1,
		.write = true};

	world_storage(w, &call);
}

static void test_among_many(void **state)
{
	struct world *w = world_new(78);
	struct vm_discard *d = &w->mgr->hosts[0]->discard;
	struct uuid disks[5];

	(void)state;
	disks[0] = disk(w);
	disks[1] = disk(w);
	others(w);
	disks[2] = disk(w);
	others(w);
	disks[3] = disk(w);
	disks[4] = disk(w);
	drop(w, disks, 5);
	/* Who has it active is in the way of the first, and of the last but one. */
	claim(w, disks[0], STORAGE_VDI_ACTIVATE);
	claim(w, disks[3], STORAGE_VDI_ACTIVATE);
	world_run_ms(w, 60 * 1000);
	assert_false(d->walking);
	assert_true(is_there(w, disks[0]));
	assert_false(is_there(w, disks[1]));
	assert_false(is_there(w, disks[2]));
	assert_true(is_there(w, disks[3]));
	assert_false(is_there(w, disks[4]));
	assert_int_equal(world_messages(w, "SUSPEND_IMAGE_LEFT"), 2);
	claim(w, disks[0], STORAGE_VDI_DEACTIVATE);
	claim(w, disks[3], STORAGE_VDI_DEACTIVATE);
	world_run_ms(w, 60 * 1000);
	assert_false(is_there(w, disks[0]));
	assert_false(is_there(w, disks[3]));
	assert_int_equal(db_count(pool_db(w->pool), CLASS_VDI), 2 * OTHERS);
	world_free(w);
}

/* What it had come to is deleted by somebody else: the next look has the rest. */
static void test_place_is_lost(void **state)
{
	struct world *w = world_new(79);
	struct vm_discard *d = &w->mgr->hosts[0]->discard;
	struct uuid vdi;
	struct txn t;

	(void)state;
	others(w);
	vdi = disk(w);
	world_run_ms(w, 60 * 1000);
	assert_false(d->walking);
	vm_discard_look(w->mgr->hosts[0]);
	assert_true(d->walking);
	assert_true(timer_active(&d->turn)); /* not all of them in one callback */
	assert_false(uuid_is_none(&d->at));
	timer_stop(&d->turn);
	world_txn(w, &t);
	txn_delete(&t, CLASS_VDI, d->at);
	world_commit(w, &t);
	drop(w, &vdi, 1);
	timer_start_ms(&d->turn, 0);
	world_run_ms(w, 60 * 1000);
	assert_false(d->walking);
	assert_false(is_there(w, vdi));
	world_free(w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_among_many),
		cmocka_unit_test(test_place_is_lost),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
