/* The state file of the simulated host: what survives, what is refused. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "xen/sim_machine.h"

static char path[64];
static const struct uuid boot_one = {{1}}, boot_two = {{2}};

static struct hyper_sim_machine *open_machine(const struct uuid *boot)
{
	struct hyper_sim_machine *m;
	struct rv_error e;

	if (sim_machine_open(&m, path, 7, boot, &e) != 0)
		fail_msg("%s", e.detail);
	return m;
}

static int refused(const char *word)
{
	struct hyper_sim_machine *m;
	struct rv_error e;
	int rc = sim_machine_open(&m, path, 7, &boot_one, &e);

	if (rc == 0)
		fail_msg("it was taken");
	if (strstr(e.detail, word) == NULL)
		fail_msg("'%s' does not say '%s'", e.detail, word);
	return rc;
}

static void keeps_domains(void **state)
{
	struct sim_record r = {.in_use = 1, .domid = 9, .name = "web"}, got;
	struct hyper_sim_machine *m;
	struct uuid boot_id;

	(void)state;
	unlink(path);
	m = open_machine(&boot_one);
	boot_id = sim_machine_head(m)->boot_id;
	assert_false(sim_machine_load(m, 5, &got));
	for (int i = 0; i < 5; i++) {
		r.generation = (uint64_t)i;
		sim_machine_store(m, 5, &r);
	}
	hyper_sim_machine_free(m);

	m = open_machine(&boot_one);
	assert_true(uuid_eq(&boot_id, &sim_machine_head(m)->boot_id));
	assert_true(sim_machine_load(m, 5, &got));
	assert_memory_equal(&got, &r, sizeof r);
	hyper_sim_machine_free(m);

	/* The machine below rebooted: so did the host. */
	m = open_machine(&boot_two);
	assert_false(uuid_eq(&boot_id, &sim_machine_head(m)->boot_id));
	assert_false(sim_machine_load(m, 5, &got));
	hyper_sim_machine_free(m);
	unlink(path);
}

static void one_process_at_a_time(void **state)
{
	struct hyper_sim_machine *m;

	(void)state;
	unlink(path);
	m = open_machine(&boot_one);
	assert_int_equal(refused("another process"), RV_EBUSY);
	hyper_sim_machine_free(m);
	unlink(path);
}

static void other_files_are_refused(void **state)
{
	struct hyper_sim_machine *m;
	struct stat st;
	int fd;

	(void)state;
	unlink(path);
	fd = open(path, O_RDWR | O_CREAT, 0600);
	assert_int_equal(write(fd, "hello", 5), 5);
	assert_int_equal(refused("remove it"), RV_ECORRUPT);
	assert_int_equal(ftruncate(fd, 0), 0);
	m = open_machine(&boot_one); /* an empty one is a new one */
	hyper_sim_machine_free(m);
	assert_int_equal(fstat(fd, &st), 0);
	assert_int_equal(pwrite(fd, "R", 1, 0), 1);
	assert_int_equal(refused("move it away"), RV_ECORRUPT);
	assert_int_equal(pwrite(fd, "r", 1, 0), 1);
	assert_int_equal(pwrite(fd, "\377", 1, 16), 1); /* the layout's version */
	assert_int_equal(refused("another version"), RV_ECORRUPT);
	close(fd);
	unlink(path);
}

/* Killed at any instruction of a store, the domain is as before it or after it. */
static void survives_kill_in_store(void **state)
{
	struct sim_record r = {.in_use = 1, .domid = 9}, got;
	struct hyper_sim_machine *m;

	(void)state;
	unlink(path);
	m = open_machine(&boot_one);
	sim_machine_store(m, 0, &r);
	hyper_sim_machine_free(m);
	for (int round = 0; round < 20; round++) {
		pid_t pid = fork();

		if (pid == 0) {
			m = open_machine(&boot_one);
			for (uint64_t i = 1;; i++) {
				memset(r.name, (int)i, sizeof r.name);
				r.generation = i;
				r.actual_kib = i;
				r.ran_us = ~i;
				sim_machine_store(m, 0, &r);
			}
		}
		usleep(2000 + round * 137);
		kill(pid, SIGKILL);
		assert_int_equal(waitpid(pid, NULL, 0), pid);
		m = open_machine(&boot_one);
		assert_true(sim_machine_load(m, 0, &got));
		if (got.generation != 0) {
			assert_int_equal(got.actual_kib, got.generation);
			assert_true(got.ran_us == ~got.generation);
			assert_int_equal((uint8_t)got.name[77], (uint8_t)got.generation);
		}
		hyper_sim_machine_free(m);
	}
	unlink(path);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(keeps_domains),
		cmocka_unit_test(one_process_at_a_time),
		cmocka_unit_test(other_files_are_refused),
		cmocka_unit_test(survives_kill_in_store),
	};

	snprintf(path, sizeof path, "/tmp/reeve-machine-%d", getpid());
	return cmocka_run_group_tests(tests, NULL, NULL);
}
