#include "reactor/child.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/limits.h"
#include "base/log.h"
#include "reactor/child_internal.h"

struct run {
	struct loop *loop;
	struct child *child;
	int *left; /* stops the loop at 0 */
	int done, rc, exit_status, signal;
	char out[RV_MAX_CHILD_OUTPUT_BYTES + 1], err[RV_MAX_CHILD_OUTPUT_BYTES + 1];
	size_t out_len, err_len;
	struct rv_error words;
};

static int setup(void **state)
{
	struct rv_error e = {0};

	log_set_level(LOG_ERROR);
	return loop_new((struct loop **)state, &e);
}

static int setup_sigchld(void **state)
{
	int r = setup(state);

	if (r == 0)
		child_force_sigchld(*state);
	return r;
}

static int teardown(void **state)
{
	loop_free(*state);
	return 0;
}

static void run_done(void *arg, const struct child_result *result)
{
	struct run *r = arg;

	r->done++;
	r->rc = result->rc;
	r->exit_status = result->exit_status;
	r->signal = result->signal;
	memcpy(r->out, result->out, result->out_len + 1);
	memcpy(r->err, result->err, result->err_len + 1);
	r->out_len = result->out_len;
	r->err_len = result->err_len;
	child_describe(result, "prog", &r->words);
	if (!r->left || --*r->left == 0)
		loop_stop(r->loop);
}

static void run_start(struct run *r, struct loop *l, struct child_spec spec)
{
	struct rv_error e = {0};

	r->loop = l;
	if (child_start(&r->child, l, "test.child", &spec, run_done, r, &e) != 0)
		fail_msg("%s", e.detail);
	assert_int_equal(r->done, 0);
}

static struct run *shell_spec(struct loop *l, const char *script, struct child_spec spec)
{
	const char *const argv[] = {"sh", "-c", script, NULL};
	struct run *r = calloc(1, sizeof *r);

	spec.argv = argv;
	run_start(r, l, spec);
	loop_run(l);
	assert_int_equal(r->done, 1);
	return r;
}

static struct run *shell(struct loop *l, const char *script)
{
	return shell_spec(l, script, (struct child_spec){.timeout_ms = 60000});
}

static int open_fds(void)
{
	DIR *dir = opendir("/proc/self/fd");
	int count = 0;

	while (readdir(dir))
		count++;
	closedir(dir);
	return count;
}

static void test_output_and_status(void **state)
{
	struct run *r = shell(*state, "true"); /* the first signal opens a descriptor */
	int before = open_fds();

	free(r);
	r = shell(*state, "echo out; echo err >&2");

	assert_int_equal(r->rc, 0);
	assert_int_equal(r->exit_status, 0);
	assert_string_equal(r->out, "out\n");
	assert_string_equal(r->err, "err\n");
	free(r);

	r = shell(*state, "echo first >&2; echo 'no such disk' >&2; echo >&2; exit 3");
	assert_int_equal(r->rc, RV_ECHILD);
	assert_int_equal(r->exit_status, 3);
	assert_string_equal(r->words.detail, "prog exited with status 3: no such disk");
	free(r);

	r = shell(*state, "kill -SEGV $$");
	assert_int_equal(r->rc, RV_ECHILD);
	assert_int_equal(r->exit_status, -1);
	assert_int_equal(r->signal, SIGSEGV);
	assert_non_null(strstr(r->words.detail, "signal 11"));
	free(r);
	assert_int_equal(open_fds(), before);
}

static void test_input(void **state)
{
	enum { SIZE = 1 << 20 };
	char *input = malloc(SIZE);
	struct child_spec spec = {.input = input, .input_len = SIZE};
	struct run *r;

	memset(input, 'i', SIZE);
	r = shell_spec(*state, "wc -c", spec);
	assert_int_equal(atoi(r->out), SIZE);
	free(r);
	/* Never reading it harms nobody. */
	r = shell_spec(*state, "exit 0", spec);
	assert_int_equal(r->rc, 0);
	free(r);
	r = shell(*state, "wc -c; readlink /proc/self/fd/0");
	assert_non_null(strstr(r->out, "0\n/dev/null"));
	free(r);
	free(input);
}

static void test_missing_program(void **state)
{
	const char *const argv[] = {"reeve-no-such-program", NULL};
	struct child_spec spec = {.argv = argv};
	struct rv_error e = {0};
	struct child *c;
	int before = open_fds();

	assert_int_equal(child_start(&c, *state, "test.child", &spec, run_done, NULL, &e),
		RV_ENOENT);
	assert_null(c);
	assert_non_null(strstr(e.detail, "reeve-no-such-program"));
	assert_int_equal(open_fds(), before);
}

static void test_big_output_is_cut(void **state)
{
	struct run *r = shell(*state, "yes abcdefg | head -c 3000000; "
				      "yes hijklmn | head -c 3000000 >&2; exit 1");

	assert_int_equal(r->exit_status, 1);
	assert_int_equal(r->out_len, RV_MAX_CHILD_OUTPUT_BYTES);
	assert_int_equal(r->err_len, RV_MAX_CHILD_OUTPUT_BYTES);
	assert_int_equal(strncmp(r->out, "abcdefg\nabcdefg\n", 16), 0);
	assert_int_equal(strncmp(r->err, "hijklmn\nhijklmn\n", 16), 0);
	free(r);
}

/* Nothing of ours leaks in: descriptors, ignored or blocked signals, environment. */
static void test_clean_surroundings(void **state)
{
	struct child_spec spec = {.fd_count = 2};
	int leak = open("/dev/zero", O_RDONLY), a[2]; /* without O_CLOEXEC */
	sigset_t set, old;
	struct run *r;
	char got[8] = "";

	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigprocmask(SIG_BLOCK, &set, &old);
	signal(SIGHUP, SIG_IGN);
	setenv("SECRET", "x", 1);
	assert_int_equal(pipe(a), 0);
	spec.fds[0] = a[1];
	spec.fds[1] = a[1];
	r = shell_spec(*state,
		"ls -m /proc/self/fd; grep -E 'Sig(Blk|Ign)' /proc/self/status; "
		"ps -o sid= -p $$ | grep -qw $$ && echo own session; "
		"env | grep SECRET; echo $LANG; echo x >&3; echo y >&4",
		spec);
	signal(SIGHUP, SIG_DFL);
	sigprocmask(SIG_SETMASK, &old, NULL);
	assert_non_null(strstr(r->out, "0, 1, 2, 3, 4, 5\n")); /* 5: ls' directory */
	assert_non_null(strstr(r->out, "SigBlk:\t0000000000000000"));
	/* glibc keeps its own two (32 and 33) ignored. */
	assert_non_null(strstr(r->out, "SigIgn:\t0000000180000000"));
	assert_null(strstr(r->out, "SECRET"));
	assert_non_null(strstr(r->out, "\nC\n"));
	assert_int_equal(read(a[0], got, 4), 4);
	assert_string_equal(got, "x\ny\n");
	free(r);
	close(a[0]);
	close(a[1]);
	close(leak);
}

/* Given descriptors whose numbers are those the child will use, crosswise. */
static void test_crossed_descriptors(void **state)
{
	struct child_spec spec = {.fd_count = 2, .timeout_ms = 60000, .fds = {4, 3}};
	int a[2], b[2], saved[2];
	struct rv_error e = {0};
	char got[8] = "";
	struct loop *l;
	struct run *r;

	(void)state;
	saved[0] = fcntl(3, F_DUPFD, 200);
	saved[1] = fcntl(4, F_DUPFD, 200);
	assert_int_equal(pipe(a), 0);
	assert_int_equal(pipe(b), 0);
	for (int i = 0; i < 2; i++) {
		a[i] = fcntl(a[i], F_DUPFD, 100);
		b[i] = fcntl(b[i], F_DUPFD, 100);
	}
	dup2(a[1], 4);
	dup2(b[1], 3);
	assert_int_equal(loop_new(&l, &e), 0);
	r = shell_spec(l, "echo a >&3; echo b >&4", spec);
	assert_int_equal(r->rc, 0);
	free(r);
	loop_free(l);
	assert_int_equal(read(a[0], got, 4), 2);
	assert_string_equal(got, "a\n");
	assert_int_equal(read(b[0], got, 4), 2);
	assert_string_equal(got, "b\n");
	for (int i = 0; i < 2; i++)
		if (saved[i] >= 0)
			dup2(saved[i], 3 + i);
		else
			close(3 + i);
}

/* The time-out ends the child and those it started, even stubborn ones: the last holder
 * of the pipe is gone when reading it ends. */
static void kill_group(struct loop *l, const char *script, bool cancel, int rc)
{
	const char *const argv[] = {"sh", "-c", script, NULL};
	struct run *r = calloc(1, sizeof *r);
	struct child_spec spec = {.argv = argv, .fd_count = 1};
	int pipe_fds[2];
	char byte;

	assert_int_equal(pipe(pipe_fds), 0);
	spec.fds[0] = pipe_fds[1];
	spec.timeout_ms = cancel ? 0 : 300;
	run_start(r, l, spec);
	close(pipe_fds[1]);
	assert_int_equal(read(pipe_fds[0], &byte, 1), 1); /* its traps are set */
	if (cancel) {
		child_kill(r->child);
		child_kill(r->child);
	}
	loop_run(l);
	assert_int_equal(r->rc, rc);
	assert_int_equal(read(pipe_fds[0], &byte, 1), 0);
	close(pipe_fds[0]);
	free(r);
}

static void test_timeout_kills_the_group(void **state)
{
	kill_group(*state, "sleep 1000 & echo >&3; wait", false, RV_ETIMEDOUT);
	kill_group(*state, "(trap '' TERM; echo >&3; sleep 1000) & wait", false,
		RV_ETIMEDOUT);
	/* The leader itself is stubborn: SIGKILL follows. */
	kill_group(*state, "trap '' TERM; sleep 1000 & echo >&3; wait; wait; sleep 1000",
		false, RV_ETIMEDOUT);
}

static void test_kill(void **state)
{
	kill_group(*state, "sleep 1000 & echo >&3; wait", true, RV_ECANCELLED);
}

/* Its own end counts, not that of what it left behind with its stdout. */
static void test_left_behind(void **state)
{
	struct run *r = shell(*state, "sleep 1000 & echo $!");

	assert_int_equal(r->rc, 0);
	assert_int_equal(kill((pid_t)atoi(r->out), SIGKILL), 0);
	free(r);
}

static void test_hundred_at_once(void **state)
{
	enum { COUNT = 100 };
	struct run *runs = calloc(COUNT, sizeof *runs);
	int before, left = COUNT;

	free(shell(*state, "true"));
	before = open_fds();
	for (int i = 0; i < COUNT; i++) {
		char script[64];
		const char *const argv[] = {"sh", "-c", script, NULL};

		snprintf(script, sizeof script, "echo %d; exit %d", i, i % 7);
		runs[i].left = &left;
		run_start(&runs[i], *state, (struct child_spec){.argv = argv});
	}
	loop_run(*state);
	for (int i = 0; i < COUNT; i++) {
		assert_int_equal(runs[i].done, 1);
		assert_int_equal(runs[i].exit_status, i % 7);
		assert_int_equal(atoi(runs[i].out), i);
	}
	assert_int_equal(open_fds(), before);
	free(runs);
}

/* --- simulation --- */

static int64_t simulate(
	void *arg, const struct child_spec *spec, struct child_result *result)
{
	(void)arg;
	result->exit_status = strcmp(spec->argv[0], "true") != 0;
	result->rc = result->exit_status ? RV_ECHILD : 0;
	result->out = "simulated";
	result->out_len = 9;
	return 5000;
}

static void test_sim(void **state)
{
	const char *const argv[] = {"true", NULL};
	struct child_spec spec = {.argv = argv};
	struct run *r = calloc(1, sizeof *r);
	struct child *c;
	struct loop *l;

	(void)state;
	assert_int_equal(loop_new_sim(&l, 1), 0);
	assert_int_equal(child_start(&c, l, "test.child", &spec, run_done, r, NULL),
		RV_EUNSUPPORTED);
	child_sim_set(l, simulate, NULL);
	run_start(r, l, spec);
	loop_run(l);
	assert_int_equal(r->rc, 0);
	assert_string_equal(r->out, "simulated");
	assert_int_equal(loop_now_us(l), 1005000);
	spec.timeout_ms = 2;
	r->done = 0;
	run_start(r, l, spec);
	loop_run(l);
	assert_int_equal(r->rc, RV_ETIMEDOUT);
	assert_int_equal(loop_now_us(l), 1007000);
	r->done = 0;
	run_start(r, l, spec);
	child_kill(r->child);
	loop_run(l);
	assert_int_equal(r->rc, RV_ECANCELLED);
	loop_free(l);
	free(r);
}

/* The loop is freed right after: it asserts that nothing of the child is left in it. */
static void test_abandon(void **state)
{
	static const char *const argv[] = {"sleep", "100", NULL};
	struct run *r = calloc(1, sizeof *r);

	assert_non_null(r);
	run_start(r, *state, (struct child_spec){.argv = argv, .timeout_ms = 60000});
	child_abandon(r->child);
	assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
	assert_int_equal(errno, ECHILD);
	assert_int_equal(r->done, 0);
	free(r);
}

#define BOTH(test)                                                                       \
	{#test " pidfd", test, setup, teardown, NULL},                                   \
	{                                                                                \
#test " sigchld", test, setup_sigchld, teardown, NULL                    \
	}
#define TEST(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		BOTH(test_output_and_status),
		BOTH(test_hundred_at_once),
		BOTH(test_kill),
		BOTH(test_abandon),
		TEST(test_input),
		TEST(test_missing_program),
		TEST(test_big_output_is_cut),
		TEST(test_clean_surroundings),
		cmocka_unit_test(test_crossed_descriptors),
		TEST(test_timeout_kills_the_group),
		TEST(test_left_behind),
		cmocka_unit_test(test_sim),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
