/* Migrations that go as they should, and refusals. */
#include "world.h"

#include "migrate/migrate_internal.h"

struct outcome {
	unsigned downtime_ms, total_ms, rounds;
	unsigned long long bytes;
};

static struct outcome outcome(struct world *w)
{
	struct outcome o = {0};

	if (world_status(w) != TASK_STATUS_SUCCESS)
		fail_msg("%s", world_why(w));
	if (sscanf(world_result(w), "downtime_ms=%u total_ms=%u bytes=%llu rounds=%u",
		    &o.downtime_ms, &o.total_ms, &o.bytes, &o.rounds) != 4)
		fail_msg("result: %s", world_result(w));
	return o;
}

static void go(struct world *w, int to)
{
	if (world_migrate(w, to))
		fail_msg("%s", w->error.detail);
	if (!world_settle(w, 300 * 1000))
		fail_msg("does not come to rest: %s", world_why(w));
}

static void stayed(struct world *w, int code, const char *word)
{
	const struct row *task = db_row(pool_db(w->pool), CLASS_TASK, w->task);

	assert_int_equal(world_where(w), 0);
	world_check_end(w);
	assert_int_equal(db_int(task, TASK_ERROR_NUMBER), -code);
	if (!strstr(world_why(w), word))
		fail_msg("\"%s\" does not say \"%s\"", world_why(w), word);
}

static void test_there_and_back(void **state)
{
	struct world *w = world_new(1, 0, VM_DOMAIN_TYPE_PVH);
	uint64_t before, after;
	struct outcome o;

	(void)state;
	assert_int_equal(hyper_sim_memory_hash(w->hosts[0].hyper, &w->vm, &before), 0);
	go(w, 1);
	assert_int_equal(world_where(w), 1);
	assert_int_equal(hyper_sim_memory_hash(w->hosts[1].hyper, &w->vm, &after), 0);
	assert_true(before == after);
	world_check_end(w);
	o = outcome(w);
	assert_true(o.downtime_ms < 100 && o.total_ms >= o.downtime_ms);
	assert_true(o.bytes > 12 << 20 && o.bytes < 32 << 20);
	for (int i = 0; i < 6; i++) {
		go(w, i % 2);
		assert_int_equal(world_where(w), i % 2);
		outcome(w);
	}
	world_free(w);
}

/* What the guest itself saw is what is reported, and within the limit. */
static void test_busy(void **state)
{
	struct world *w = world_new(2, 8000, VM_DOMAIN_TYPE_PVH);
	struct hyper_sim_view v;
	struct outcome o;

	(void)state;
	w->max_downtime_ms = 60;
	go(w, 1);
	o = outcome(w);
	assert_int_equal(hyper_sim_look(w->hosts[1].hyper, &w->vm, &v), 0);
	assert_int_equal(v.damaged_pages, 0);
	assert_true(o.rounds >= 2 && o.downtime_ms <= 60);
	assert_true(llabs((long long)v.longest_gap_us / 1000 - o.downtime_ms) <= 3);
	world_free(w);
}

static void test_does_not_converge(void **state)
{
	struct world *w = world_new(3, 60000, VM_DOMAIN_TYPE_PVH);

	(void)state;
	w->max_downtime_ms = 40;
	go(w, 1);
	stayed(w, RV_ELIMIT, "max-downtime");
	w->accept = true;
	go(w, 1);
	assert_int_equal(world_where(w), 1);
	assert_true(outcome(w).downtime_ms > 40);
	world_free(w);
}

static void test_bandwidth(void **state)
{
	struct world *w = world_new(4, 0, VM_DOMAIN_TYPE_PVH);
	struct outcome o;

	(void)state;
	w->bandwidth = 4 << 20;
	go(w, 1);
	o = outcome(w);
	/* 16 MiB at 4 MiB/s, but for the first burst. */
	assert_true(o.total_ms > 3500 && o.total_ms < 4500);
	world_free(w);
}

static void test_pv(void **state)
{
	struct world *w = world_new(5, 0, VM_DOMAIN_TYPE_PV);

	(void)state;
	go(w, 1);
	stayed(w, RV_EUNSUPPORTED, "live=false");
	w->live = false;
	go(w, 1);
	assert_int_equal(world_where(w), 1);
	assert_int_equal(outcome(w).rounds, 0);
	world_check_end(w);
	world_free(w);
}

static void test_refused_at_once(void **state)
{
	struct world *w = world_new(6, 0, VM_DOMAIN_TYPE_PVH);
	struct migrate_args args = {.host = w->hosts[0].uuid, .live = true};
	struct migrate *m = w->hosts[0].migrate;
	struct uuid task = world_uuid(w);
	struct rv_error e;

	(void)state;
	assert_int_equal(
		migrate_start(m, &w->vm, &args, task, NULL, NULL, &e), RV_EPARAM);
	args.host = world_uuid(w);
	assert_int_equal(
		migrate_start(m, &w->vm, &args, task, NULL, NULL, &e), RV_ENOENT);
	args.host = w->hosts[1].uuid;
	args.max_downtime_ms = -1;
	assert_int_equal(
		migrate_start(m, &w->vm, &args, task, NULL, NULL, &e), RV_EPARAM);
	args.max_downtime_ms = 0;
	assert_int_equal(world_migrate(w, 1), 0);
	assert_int_equal(migrate_start(m, &w->vm, &args, task, NULL, NULL, &e), RV_EBUSY);
	assert_true(world_settle(w, 60 * 1000));
	outcome(w);
	world_free(w);
}

static int check_no(void *arg, const struct migrate_prepare *p, struct rv_error *e)
{
	(void)arg;
	(void)p;
	return rv_error_set(e, RV_ECLOCK, "the clocks differ by 2 s; look at NTP");
}

static void test_refused_by_the_target(void **state)
{
	struct world *w = world_new(7, 0, VM_DOMAIN_TYPE_PVH);

	(void)state;
	world_kill(&w->hosts[1], false);
	w->check = check_no;
	world_start(&w->hosts[1]);
	world_run_ms(w, 1000);
	go(w, 1);
	stayed(w, RV_ECLOCK, "NTP");
	world_free(w);
}

/* One that has just started, or joined, compares what runs with the database first. */
static void test_target_just_started(void **state)
{
	struct world *w = world_new(20, 0, VM_DOMAIN_TYPE_PVH);

	(void)state;
	world_kill(&w->hosts[1], false);
	world_start(&w->hosts[1]);
	assert_false(w->hosts[1].migrate->begun);
	go(w, 1);
	outcome(w);
	assert_int_equal(world_where(w), 1);
	world_check_end(w);
	/* It takes its time. */
	w->hosts[0].migrate->begun = false;
	if (world_migrate(w, 0))
		fail_msg("%s", w->error.detail);
	world_run_ms(w, 5000);
	assert_int_equal(world_status(w), TASK_STATUS_PENDING);
	assert_int_equal(world_where(w), 1);
	w->hosts[0].migrate->begun = true;
	assert_true(world_settle(w, 60 * 1000));
	outcome(w);
	assert_int_equal(world_where(w), 0);
	world_free(w);
}

static void test_target_never_ready(void **state)
{
	struct world *w = world_new(21, 0, VM_DOMAIN_TYPE_PVH);
	int64_t before = loop_now_us(w->loop);

	(void)state;
	w->hosts[1].migrate->begun = false;
	go(w, 1);
	stayed(w, RV_EAGAIN, "still starting");
	assert_in_range(loop_now_us(w->loop) - before, MIGRATE_READY_AT_MS * 1000,
		MIGRATE_PREPARE_MS * 1000);
	w->hosts[1].migrate->begun = true;
	go(w, 1);
	outcome(w);
	world_free(w);
}

/* A host that has less of something. */
static void lesser(struct world *w, void (*change)(struct hyper_sim_config *c))
{
	world_kill(&w->hosts[1], false);
	hyper_sim_machine_free(w->hosts[1].machine);
	change(&w->hosts[1].config);
	w->hosts[1].config.machine = NULL;
	assert_int_equal(
		hyper_sim_machine_new(&w->hosts[1].machine, &w->hosts[1].config), 0);
	world_start(&w->hosts[1]);
	world_run_ms(w, 1000);
	go(w, 1);
}

static void no_avx(struct hyper_sim_config *c)
{
	c->cpu_features &= ~(uint32_t)HYPER_SIM_CPU_AVX;
}

static void older(struct hyper_sim_config *c)
{
	c->version_minor--;
}

static void small(struct hyper_sim_config *c)
{
	c->memory_kib = c->dom0_kib + (40 << 10);
}

static void test_lesser_hosts(void **state)
{
	struct world *w = world_new(8, 0, VM_DOMAIN_TYPE_PVH);

	(void)state;
	lesser(w, no_avx);
	stayed(w, RV_ECPU, "");
	w->hosts[1].config.cpu_features = w->hosts[0].config.cpu_features;
	lesser(w, older);
	stayed(w, RV_EUNSUPPORTED, "newer");
	w->hosts[1].config.version_minor++;
	lesser(w, small);
	stayed(w, RV_EMEMORY, "MiB");
	world_free(w);
}

static void test_sr_not_there(void **state)
{
	struct world *w = world_new(9, 0, VM_DOMAIN_TYPE_PVH);
	struct storage_call detach = {.verb = STORAGE_SR_DETACH};

	(void)state;
	world_storage(&w->hosts[1], &detach);
	go(w, 1);
	stayed(w, RV_ENOTATTACHED, "pbd-plug");
	world_free(w);
}

static bool cancel_here(struct world *w, struct world_host *h, const char *point)
{
	struct rv_error e;

	(void)h;
	if (strcmp(point, "migrate.begun") == 0)
		assert_int_equal(vm_op_cancel(w->hosts[0].mgr, &w->task, &e), 0);
	return false;
}

static void test_cancel(void **state)
{
	struct world *w = world_new(10, 4000, VM_DOMAIN_TYPE_PVH);

	(void)state;
	w->point = cancel_here;
	go(w, 1);
	assert_int_equal(world_status(w), TASK_STATUS_CANCELLED);
	stayed(w, RV_ECANCELLED, "cancelled");
	world_free(w);
}

static bool cut_here(struct world *w, struct world_host *h, const char *point)
{
	(void)h;
	if (strcmp(point, "migrate.begun") == 0)
		stream_sim_cut(w->link, true, true);
	return false;
}

/* A cable that is pulled shows in nothing but silence. */
static void test_silence(void **state)
{
	struct world *w = world_new(12, 4000, VM_DOMAIN_TYPE_PVH);
	int64_t since = loop_now_us(w->loop);

	(void)state;
	w->point = cut_here;
	assert_int_equal(world_migrate(w, 1), 0);
	while (world_status(w) == TASK_STATUS_PENDING && world_step(w))
		;
	assert_true(loop_now_us(w->loop) - since < 15 * 1000000);
	assert_true(world_settle(w, 300 * 1000));
	stayed(w, RV_ETIMEDOUT, "network");
	world_free(w);
}

static bool target_dies(struct world *w, struct world_host *h, const char *point)
{
	if (h != &w->hosts[1] || strcmp(point, "target.restored") != 0)
		return false;
	w->point = NULL;
	h->doomed = true;
	h->back_us = loop_now_us(w->loop) + 500 * 1000;
	return true;
}

/* What a dead target left is looked for, and ended, also by a hypervisor whose answers
 * are lost: it is asked again. */
static void test_no_answers_after_a_crash(void **state)
{
	struct world *w = world_new(13, 4000, VM_DOMAIN_TYPE_PVH);
	struct world_host *target = &w->hosts[1];

	(void)state;
	w->point = target_dies;
	assert_int_equal(world_migrate(w, 1), 0);
	while (!target->back_us && world_step(w))
		;
	while ((target->back_us || !target->ready) && world_step(w))
		;
	/* What comes next is the list that migrations ask for, then a destroy. */
	hyper_sim_inject(target->hyper, HYPER_CALL_LIST, HYPER_SIM_FAULT_LOST, 1, 0);
	hyper_sim_inject(target->hyper, HYPER_CALL_DESTROY, HYPER_SIM_FAULT_LOST, 1, 0);
	assert_true(world_settle(w, 900 * 1000));
	assert_true(hyper_sim_faults_fired(target->hyper, HYPER_SIM_FAULT_LOST) == 2);
	assert_int_equal(world_where(w), 0);
	world_check_end(w);
	world_free(w);
}

/* Bytes that are no migration, and those that stop half-way: the host lives. */
static void test_strangers(void **state)
{
	static const struct stream_events nobody = {
		.data = world_eat, .closed = world_closed};
	struct world *w = world_new(11, 0, VM_DOMAIN_TYPE_PVH);
	struct stream_config config = {.events = &nobody, .name = "test"};
	struct stream *mine[40], *theirs;

	(void)state;
	for (int i = 0; i < 40; i++) {
		struct stream_sim_link *link;
		uint8_t bytes[300];
		struct iovec piece = {bytes, 1 + prng_below(&w->prng, 299)};

		for (size_t n = 0; n < sizeof bytes; n++)
			bytes[n] = (uint8_t)prng_next(&w->prng);
		assert_int_equal(stream_sim_pair(w->loop, &config, &config, &mine[i],
					 &theirs, &link),
			0);
		stream_sim_link_free(link);
		migrate_accept(w->hosts[1].migrate, theirs);
		if (i % 2)
			assert_int_equal(stream_write(mine[i], &piece, 1), 0);
		assert_true(migrate_incoming_count(w->hosts[1].migrate) <=
			    MIGRATE_MAX_INCOMING);
	}
	world_run_ms(w, 11000);
	assert_int_equal(migrate_incoming_count(w->hosts[1].migrate), 0);
	for (int i = 0; i < 40; i++)
		stream_free(mine[i]);
	go(w, 1);
	outcome(w);
	world_free(w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_there_and_back),
		cmocka_unit_test(test_busy),
		cmocka_unit_test(test_does_not_converge),
		cmocka_unit_test(test_bandwidth),
		cmocka_unit_test(test_pv),
		cmocka_unit_test(test_refused_at_once),
		cmocka_unit_test(test_refused_by_the_target),
		cmocka_unit_test(test_target_just_started),
		cmocka_unit_test(test_target_never_ready),
		cmocka_unit_test(test_lesser_hosts),
		cmocka_unit_test(test_sr_not_there),
		cmocka_unit_test(test_cancel),
		cmocka_unit_test(test_silence),
		cmocka_unit_test(test_no_answers_after_a_crash),
		cmocka_unit_test(test_strangers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
