/* Both disks behind the same port. */
#include <assert.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "pool/disk.h"

struct ground {
	struct loop *loop;
	struct disk *disk;
	struct disk_sim_medium *medium; /* NULL: a real directory */
	char dir[64];
};

static int ground_dir(void **state)
{
	struct ground *g = calloc(1, sizeof *g);
	struct rv_error e;

	snprintf(g->dir, sizeof g->dir, "/tmp/reeve-disk-XXXXXX");
	assert_non_null(mkdtemp(g->dir));
	assert_int_equal(loop_new(&g->loop, &e), 0);
	assert_int_equal(disk_open_dir(&g->disk, g->loop, g->dir, &e), 0);
	*state = g;
	return 0;
}

static int ground_sim(void **state)
{
	struct ground *g = calloc(1, sizeof *g);

	assert_int_equal(loop_new_sim(&g->loop, 1), 0);
	assert_int_equal(disk_sim_medium_new(&g->medium, 1), 0);
	assert_int_equal(disk_new_sim(&g->disk, g->loop, g->medium), 0);
	*state = g;
	return 0;
}

static int ground_end(void **state)
{
	struct ground *g = *state;
	char command[128];

	disk_free(g->disk);
	loop_free(g->loop);
	disk_sim_medium_free(g->medium);
	if (g->dir[0]) {
		snprintf(command, sizeof command, "rm -rf %s", g->dir);
		assert_int_equal(system(command), 0);
	}
	free(g);
	return 0;
}

static void assert_content(struct disk *d, const char *name, const char *want)
{
	struct rv_error e;
	uint8_t *bytes;
	size_t len;

	assert_int_equal(disk_read(d, name, &bytes, &len, &e), 0);
	assert_int_equal(len, strlen(want));
	assert_memory_equal(bytes, want, len);
	free(bytes);
}

static void count_files(void *arg, const char *name, uint64_t bytes)
{
	(void)name;
	(void)bytes;
	++*(int *)arg;
}

static void test_files(void **state)
{
	struct disk *d = ((struct ground *)*state)->disk;
	struct disk_file *f;
	struct rv_error e;
	uint64_t space;
	uint8_t *bytes;
	size_t len;
	int files = 0;

	assert_int_equal(disk_read(d, "none", &bytes, &len, &e), RV_ENOENT);
	assert_non_null(strstr(e.detail, "none"));
	assert_int_equal(disk_open(d, "none", &f, &e), RV_ENOENT);
	assert_int_equal(disk_create(d, "one", 0, &f, &e), 0);
	assert_int_equal(disk_write(f, 0, "hello world", 11, &e), 0);
	assert_int_equal(disk_write(f, 6, "W", 1, &e), 0);
	assert_int_equal(disk_sync(f, &e), 0);
	assert_content(d, "one", "hello World");
	assert_int_equal(disk_truncate(f, 5, &e), 0);
	assert_content(d, "one", "hello");
	assert_int_equal(disk_write_now(f, 5, "!", 1, &e), 0);
	disk_close(f);
	assert_int_equal(disk_rename(d, "one", "two", &e), 0);
	assert_content(d, "two", "hello!");
	assert_int_equal(disk_replace(d, "two", "new", 3, &e), 0);
	assert_content(d, "two", "new");
	assert_int_equal(disk_create(d, "big", 10000, &f, &e), 0);
	assert_int_equal(disk_read(d, "big", &bytes, &len, &e), 0);
	assert_int_equal(len, 10000);
	for (size_t i = 0; i < len; i++)
		assert_int_equal(bytes[i], 0);
	free(bytes);
	disk_close(f);
	assert_int_equal(disk_list(d, count_files, &files, &e), 0);
	assert_int_equal(files, 2);
	assert_int_equal(disk_remove(d, "big", &e), 0);
	assert_int_equal(disk_remove(d, "big", &e), 0);
	files = 0;
	assert_int_equal(disk_list(d, count_files, &files, &e), 0);
	assert_int_equal(files, 1);
	assert_int_equal(disk_space(d, &space, &e), 0);
	assert_true(space > 0);
}

struct task {
	struct job job;
	int *order, at, rc;
	struct loop *loop;
};

static void task_run(struct job *job)
{
	(void)job;
}

static void task_done(struct job *job, int rc)
{
	struct task *t = CONTAINER_OF(job, struct task, job);

	t->at = ++*t->order;
	t->rc = rc;
	if (*t->order == 3)
		loop_stop(t->loop);
}

static void test_jobs(void **state)
{
	struct ground *g = *state;
	struct task tasks[3], late = {.job = {.run = task_run, .done = task_done}};
	int order = 0;

	for (int i = 0; i < 3; i++) {
		tasks[i] = (struct task){
			.job = {.run = task_run, .done = task_done, .name = "task"},
			.order = &order,
			.loop = g->loop,
		};
		assert_int_equal(disk_submit(g->disk, DISK_LANE_LOG, &tasks[i].job), 0);
	}
	loop_run(g->loop);
	for (int i = 0; i < 3; i++)
		assert_int_equal(tasks[i].at, i + 1);
	/* Quiet: what waits is cancelled, and new jobs are taken afterwards. */
	late.order = &order;
	late.loop = g->loop;
	late.rc = 4711;
	assert_int_equal(disk_submit(g->disk, DISK_LANE_BULK, &late.job), 0);
	disk_quiesce(g->disk);
	assert_true(late.rc == RV_ECANCELLED || late.rc == 0);
	order = 2;
	assert_int_equal(disk_submit(g->disk, DISK_LANE_BULK, &late.job), 0);
	loop_run(g->loop);
	assert_int_equal(late.rc, 0);
}

static void test_lock(void **state)
{
	struct ground *g = *state;
	struct disk *second;
	struct rv_error e;

	assert_int_equal(disk_open_dir(&second, g->loop, g->dir, &e), RV_EBUSY);
	assert_non_null(strstr(e.detail, g->dir));
	assert_int_equal(
		disk_open_dir(&second, g->loop, "/proc/nowhere/dir", &e), RV_ENOENT);
}

static void test_crash(void **state)
{
	struct ground *g = *state;
	struct disk_file *f;
	struct rv_error e;
	uint8_t *bytes;
	size_t len;

	assert_int_equal(disk_create(g->disk, "f", 0, &f, &e), 0);
	assert_int_equal(disk_write(f, 0, "synced", 6, &e), 0);
	assert_int_equal(disk_sync(f, &e), 0);
	assert_int_equal(disk_write(f, 6, "lost?", 5, &e), 0);
	disk_sim_crash(g->medium);
	assert_int_equal(disk_write(f, 6, "dead", 4, &e), RV_EIO);
	disk_close(f);
	disk_free(g->disk);
	assert_int_equal(disk_new_sim(&g->disk, g->loop, g->medium), 0);
	assert_int_equal(disk_read(g->disk, "f", &bytes, &len, &e), 0);
	assert_true(len == 6 || len == 11);
	assert_memory_equal(bytes, "synced", 6);
	free(bytes);
}

static void test_faults(void **state)
{
	struct ground *g = *state;
	struct disk_file *f;
	struct rv_error e;

	assert_int_equal(disk_create(g->disk, "f", 0, &f, &e), 0);
	disk_sim_inject(g->medium, DISK_SIM_FAIL_SYNC, 0);
	assert_int_equal(disk_write(f, 0, "abc", 3, &e), 0);
	assert_int_equal(disk_sync(f, &e), RV_EIO);
	/* As on Linux: the next sync knows nothing of the lost bytes. */
	assert_int_equal(disk_sync(f, &e), 0);
	disk_sim_set_capacity(g->medium, disk_sim_used(g->medium) + 2);
	assert_int_equal(disk_write(f, 3, "de", 2, &e), 0);
	assert_int_equal(disk_write(f, 5, "f", 1, &e), RV_ESPACE);
	assert_int_equal(disk_write(f, 0, "xyz", 3, &e), 0);
	disk_sim_inject(g->medium, DISK_SIM_CRASH, 1);
	assert_int_equal(disk_write(f, 0, "A", 1, &e), 0);
	assert_int_equal(disk_sync(f, &e), RV_EIO);
	assert_int_equal(disk_write(f, 0, "A", 1, &e), RV_EIO);
	disk_close(f);
}

/* Gone, or another in its place: nothing more is synced, nor read as if it were empty. */
static void expect_gone(struct ground *g, struct disk_file *f)
{
	struct rv_error e = {0};
	int count = 0;

	assert_int_equal(disk_sync(f, &e), RV_EIO);
	assert_non_null(strstr(e.detail, "deleted or moved away"));
	assert_int_equal(disk_list(g->disk, count_files, &count, &e), RV_EIO);
	assert_int_equal(disk_create(g->disk, "b", 0, &f, &e), RV_EIO);
}

static void test_deleted(void **state)
{
	struct ground *g = *state;
	char command[200];
	struct disk_file *f;
	struct rv_error e = {0};

	assert_int_equal(disk_create(g->disk, "a", 0, &f, &e), 0);
	assert_int_equal(disk_sync(f, &e), 0);
	snprintf(command, sizeof command, "rm -rf %s && mkdir %s", g->dir, g->dir);
	assert_int_equal(system(command), 0);
	expect_gone(g, f);
	disk_close(f);
}

static void test_moved(void **state)
{
	struct ground *g = *state;
	char command[300];
	struct disk_file *f;
	struct rv_error e = {0};

	assert_int_equal(disk_create(g->disk, "a", 0, &f, &e), 0);
	snprintf(command, sizeof command, "mv %s %s.away", g->dir, g->dir);
	assert_int_equal(system(command), 0);
	expect_gone(g, f);
	snprintf(command, sizeof command, "mv %s.away %s", g->dir, g->dir);
	assert_int_equal(system(command), 0);
	expect_gone(g, f); /* what was not synced meanwhile is not known */
	disk_close(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_files, ground_dir, ground_end),
		cmocka_unit_test_setup_teardown(test_files, ground_sim, ground_end),
		cmocka_unit_test_setup_teardown(test_jobs, ground_dir, ground_end),
		cmocka_unit_test_setup_teardown(test_jobs, ground_sim, ground_end),
		cmocka_unit_test_setup_teardown(test_lock, ground_dir, ground_end),
		cmocka_unit_test_setup_teardown(test_deleted, ground_dir, ground_end),
		cmocka_unit_test_setup_teardown(test_moved, ground_dir, ground_end),
		cmocka_unit_test_setup_teardown(test_crash, ground_sim, ground_end),
		cmocka_unit_test_setup_teardown(test_faults, ground_sim, ground_end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
