/*
 * A real process with a log in a real directory, killed with -9 again and again: what it
 * had reported as committed is there in each later life.
 *
 * The program runs itself as the child: kill_test --child DIR, reports on descriptor 1.
 */
#include "rig.h"

#include <errno.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/prng.h"

enum { LIVES = 25, AHEAD = 32, ENOUGH = 12000 };

/* --- the child --- */

static struct rig child;
static struct rig_write writes[AHEAD];
static uint64_t salt;

static void say(const void *bytes, size_t len)
{
	while (len > 0) {
		ssize_t r = write(STDOUT_FILENO, bytes, len);

		if (r < 0 && errno == EINTR)
			continue;
		if (r <= 0)
			_exit(3);
		bytes = (const uint8_t *)bytes + r;
		len -= (size_t)r;
	}
}

static void child_propose(struct rig_write *w);

static void child_ended(struct rlog_proposal *p, enum rlog_outcome outcome, int rc)
{
	struct rig_write *w = CONTAINER_OF(p, struct rig_write, p);
	uint64_t report[2] = {
		child.machine.count, child.machine.chain[child.machine.count - 1]};

	if (outcome != RLOG_COMMITTED || rc)
		_exit(4);
	say(report, sizeof report);
	if (child.machine.count < ENOUGH)
		child_propose(w);
}

static void child_propose(struct rig_write *w)
{
	for (size_t i = 0; i < sizeof w->bytes; i++)
		w->bytes[i] = (uint8_t)(++salt * 31);
	if (rlog_propose(
		    child.log, &w->p, 1, w->bytes, 100 + salt % 300, false, child_ended))
		_exit(5);
}

static void child_opened(void *arg, int rc, const struct rv_error *e)
{
	uint64_t count = child.machine.count;

	(void)arg;
	if (rc) {
		fprintf(stderr, "child: %s\n", e->detail);
		_exit(6);
	}
	say(&count, sizeof count);
	say(child.machine.chain, count * sizeof count);
	salt = count * 1000 + (uint64_t)getpid();
	for (int i = 0; i < AHEAD; i++)
		child_propose(&writes[i]);
}

static int child_main(const char *dir)
{
	static const struct rlog_events events = {
		.changed = rig_changed, .opened = child_opened, .stopped = rig_stopped};
	struct rlog_config config = {
		.id = 1,
		.address = "one",
		.bootstrap_count = 1,
		.bootstrap = {{.id = 1, .address = "one", .voter = true}},
		.segment_bytes = 64 << 10,
		.snapshot_entries = 500,
	};
	struct rv_error e;

	log_setup(LOG_ERROR, NULL, NULL);
	if (loop_new(&child.loop, &e) ||
		disk_open_dir(&child.disk, child.loop, dir, &e) ||
		rlog_open(&child.log, child.loop, child.disk, NULL, &config, &rig_fsm,
			&events, &child, &e)) {
		fprintf(stderr, "child: %s\n", e.detail);
		return 7;
	}
	loop_run(child.loop);
	return 0;
}

/* --- the parent --- */

static pid_t child_start(const char *dir, int *from)
{
	int fds[2];
	pid_t pid;

	assert_int_equal(pipe(fds), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		dup2(fds[1], STDOUT_FILENO);
		close(fds[0]);
		close(fds[1]);
		execl("/proc/self/exe", "kill_test", "--child", dir, (char *)NULL);
		_exit(8);
	}
	close(fds[1]);
	*from = fds[0];
	return pid;
}

static bool hear(int fd, void *bytes, size_t len)
{
	size_t got = 0;

	while (got < len) {
		ssize_t r = read(fd, (uint8_t *)bytes + got, len - got);

		if (r < 0 && errno == EINTR)
			continue;
		if (r <= 0)
			return false;
		got += (size_t)r;
	}
	return true;
}

static void test_kill(void **state)
{
	static uint64_t chain[RIG_MAX];
	char dir[] = "/tmp/reeve-kill-XXXXXX", command[64];
	uint64_t acked[2] = {0}, total = 0;
	struct prng prng;

	(void)state;
	prng_seed(&prng, 7);
	assert_non_null(mkdtemp(dir));
	for (int life = 0; life < LIVES; life++) {
		uint64_t count, report[2], wanted = 1 + prng_below(&prng, 400);
		int from, status;
		pid_t pid = child_start(dir, &from);

		assert_true(hear(from, &count, sizeof count));
		assert_true(count <= RIG_MAX);
		assert_true(hear(from, chain, count * sizeof count));
		if (count < acked[0] || (acked[0] && chain[acked[0] - 1] != acked[1]))
			fail_msg("life %d: %llu were committed, %llu are there", life,
				(unsigned long long)acked[0], (unsigned long long)count);
		for (uint64_t i = 0; count + i < ENOUGH; i++) {
			if (i == wanted)
				kill(pid, SIGKILL);
			if (!hear(from, report, sizeof report))
				break;
			memcpy(acked, report, sizeof acked);
			total++;
		}
		kill(pid, SIGKILL);
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
		close(from);
	}
	printf("%llu commits in %d lives\n", (unsigned long long)total, LIVES);
	assert_true(total > LIVES);
	snprintf(command, sizeof command, "rm -rf %s", dir);
	assert_int_equal(system(command), 0);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_kill)};

	if (argc == 3 && strcmp(argv[1], "--child") == 0)
		return child_main(argv[2]);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
