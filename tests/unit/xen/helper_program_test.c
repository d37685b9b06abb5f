/*
 * reeve-xen-helper itself, where there is no Xen: what it answers when it can't do its
 * work, is asked nonsense, or is told to end.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "xen/real/helper_wire.h"
#include "xen/real/job.h"
#include "xen/real/process.h"

enum { PATIENCE_MS = 60 * 1000 };

struct probe {
	struct loop *loop;
	struct xen_helpers helpers;
	struct timer patience;
	struct rv_error error;
	struct xen_job_result result;
	bool done;
};

static void out_of_patience(void *arg)
{
	(void)arg;
	fail_msg("the helper did not end");
}

static void probe_done(void *arg, const struct xen_job_result *r)
{
	struct probe *p = arg;

	p->done = true;
	p->result = *r;
	p->error = *r->error;
	loop_stop(p->loop);
}

static void run(struct probe *p, enum hyper_call call, bool cancel)
{
	const struct hyper_domain_spec domain = {
		.handle = {{1}},
		.vm = {{7}},
		.name = "web1",
		.type = HYPER_PVH,
		.vcpus_max = 1,
		.static_max_kib = 131072,
		.target_kib = 131072,
		.kernel = "/boot/vmlinuz",
	};
	const struct hyper_vbd_spec vbd = {.devid = 51712,
		.device = "xvda",
		.backend = "phy",
		.params = "/dev/null"};
	struct xen_job_spec spec = {
		.helpers = &p->helpers,
		.call = call,
		.spec = &domain,
		.domid = 3,
		.handle = {{1}},
		.name = "web1",
		.vbd = &vbd,
	};
	struct rv_error e = {0};
	struct xen_job *job;

	p->done = false;
	timer_start_ms(&p->patience, PATIENCE_MS);
	if (xen_job_start(&job, p->loop, &spec, probe_done, p, &e) != 0)
		fail_msg("%s", e.detail);
	if (cancel)
		xen_job_cancel(job);
	loop_run(p->loop);
	assert_true(p->done);
	timer_stop(&p->patience);
}

static void says_that_there_is_no_xen(void **state)
{
	const enum hyper_call calls[] = {HYPER_CALL_CREATE, HYPER_CALL_RESUME,
		HYPER_CALL_DESTROY, HYPER_CALL_ATTACH_VBD, HYPER_CALL_DETACH_VIF,
		HYPER_CALL_CONSOLE};
	struct probe p = {.loop = NULL};
	struct rv_error e = {0};

	(void)state;
	if (access("/dev/xen/privcmd", F_OK) == 0 ||
		access("/proc/xen/privcmd", F_OK) == 0)
		skip();
	assert_int_equal(loop_new(&p.loop, &e), 0);
	xen_helpers_init(&p.helpers, p.loop, HELPER_PROGRAM);
	timer_init(&p.patience, p.loop, "test.patience", out_of_patience, &p);
	for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
		run(&p, calls[i], false);
		assert_int_equal(p.result.rc, RV_EHYPERVISOR);
		assert_false(p.result.left); /* nothing was begun */
		assert_non_null(strstr(p.error.detail, "web1: Xen's interface"));
	}
	run(&p, HYPER_CALL_CREATE, true);
	assert_int_equal(p.result.rc, RV_ECANCELLED);
	timer_stop(&p.patience);
	xen_helpers_fini(&p.helpers);
	loop_free(p.loop);
}

/* The three descriptors of a helper, ours and its; started. */
static pid_t start(int *control, int *life)
{
	int c[2], l[2], null = open("/dev/null", O_RDWR);
	pid_t pid;

	assert_true(null >= 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, c), 0);
	assert_int_equal(pipe(l), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		int in[3] = {fcntl(c[1], F_DUPFD, 20), fcntl(null, F_DUPFD, 20),
			fcntl(l[0], F_DUPFD, 20)};

		for (int i = 0; i < 3; i++)
			dup2(in[i], HELPER_FD_CONTROL + i);
		for (int fd = HELPER_FD_LIFE + 1; fd < 40; fd++)
			close(fd);
		execl(HELPER_PROGRAM, HELPER_PROGRAM, "--job", NULL);
		_exit(99);
	}
	close(c[1]);
	close(l[0]);
	close(null);
	*control = c[0];
	*life = l[1];
	return pid;
}

static int ended(pid_t pid)
{
	int status = 0;

	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static void refuses_nonsense(void **state)
{
	static const char nonsense[] = "\x81\xa4kind\x01";
	struct helper_message m = {0};
	struct rv_error e = {0};
	uint8_t packet[4096];
	int control, life;
	pid_t pid = start(&control, &life);
	ssize_t r;

	(void)state;
	assert_true(send(control, nonsense, sizeof nonsense - 1, 0) > 0);
	r = recv(control, packet, sizeof packet, 0);
	assert_true(r > 0);
	assert_int_equal(helper_wire_decode(&m, packet, (size_t)r, &e), 0);
	assert_int_equal(m.kind, HELPER_RESULT);
	assert_int_equal(m.result.rc, RV_EPROTO);
	assert_int_equal(ended(pid), 1);
	close(control);
	close(life);
}

static void refuses_another_version(void **state)
{
	struct helper_request *request = calloc(1, sizeof *request);
	struct helper_message m = {.kind = HELPER_REQUEST, .request = request};
	struct rv_error e = {0};
	uint8_t packet[4096];
	int control, life;
	pid_t pid = start(&control, &life);
	struct buf b;
	ssize_t r;

	(void)state;
	assert_non_null(request);
	request->version = HELPER_WIRE_VERSION + 1;
	request->call = HYPER_CALL_DESTROY;
	buf_init(&b, HELPER_WIRE_MAX * 2);
	assert_int_equal(helper_wire_encode(&b, &m, &e), 0);
	assert_true(send(control, buf_data(&b), buf_len(&b), 0) > 0);
	r = recv(control, packet, sizeof packet, 0);
	assert_true(r > 0);
	m.request = NULL;
	assert_int_equal(helper_wire_decode(&m, packet, (size_t)r, &e), 0);
	assert_int_equal(m.result.rc, RV_EPROTO);
	assert_non_null(strstr(m.result.detail, "another version"));
	assert_int_equal(ended(pid), 1);
	close(control);
	close(life);
	buf_fini(&b);
	free(request);
}

/* The daemon died before it asked. */
static void ends_with_the_daemon(void **state)
{
	int control, life;
	pid_t pid = start(&control, &life);

	(void)state;
	close(life);
	close(control);
	assert_int_equal(ended(pid), 1);
}

static void is_not_started_by_hand(void **state)
{
	(void)state;
	assert_int_equal(WEXITSTATUS(system(HELPER_PROGRAM " 2>/dev/null")), 2);
	assert_int_equal(
		WEXITSTATUS(system(HELPER_PROGRAM " --job 2>/dev/null 3>&- 4>&-")), 2);
	assert_int_equal(WEXITSTATUS(system(HELPER_PROGRAM " --version >/dev/null")), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(says_that_there_is_no_xen),
		cmocka_unit_test(refuses_nonsense),
		cmocka_unit_test(refuses_another_version),
		cmocka_unit_test(ends_with_the_daemon),
		cmocka_unit_test(is_not_started_by_hand),
	};

	return cmocka_run_group_tests_name("xen/helper_program", tests, NULL, NULL);
}
