/*
 * The daemon's side of a helper, against helpers of this test's own: this program,
 * started again. What the helper does stands in the request's name.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

#include "xen/real/envelope.h"
#include "xen/real/helper_wire.h"
#include "xen/real/job.h"
#include "xen/real/process.h"
#include "xen/real/request.h"

enum {
	PATIENCE_MS = 60 * 1000,
	STREAM_BYTES = 3 * 1000 * 1000, /* more than the pipe and a chunk hold */
	SINK_BYTES = STREAM_BYTES + 65536,
};

static uint8_t content(size_t at)
{
	return (uint8_t)(at * 13 + at / 509);
}

/* --- the other program --- */

static void fake_send(const struct helper_message *m)
{
	struct rv_error e = {0};
	struct buf b;

	buf_init(&b, HELPER_WIRE_MAX * 2);
	if (helper_wire_encode(&b, m, &e) != 0 ||
		send(HELPER_FD_CONTROL, buf_data(&b), buf_len(&b), 0) < 0)
		_exit(9);
	buf_fini(&b);
}

static void fake_result(int rc, const char *detail, uint32_t domid, bool flag)
{
	struct helper_message m = {.kind = HELPER_RESULT};

	m.result.rc = rc;
	m.result.domid = domid;
	m.result.left = m.result.suspended = flag;
	snprintf(m.result.detail, sizeof m.result.detail, "%s", detail);
	snprintf(m.result.console, sizeof m.result.console, "/dev/pts/%u", domid);
	fake_send(&m);
}

/* Until the daemon wants an end. */
static void fake_wait(void)
{
	struct pollfd p = {.fd = HELPER_FD_LIFE};

	(void)poll(&p, 1, PATIENCE_MS);
}

static void fake_write(size_t from, size_t to)
{
	uint8_t piece[70001];

	while (from < to) {
		size_t n = to - from < sizeof piece ? to - from : sizeof piece;
		ssize_t r;

		for (size_t i = 0; i < n; i++)
			piece[i] = content(from + i);
		r = write(HELPER_FD_DATA, piece, n);
		if (r <= 0) { /* a real one is stopped by its life line */
			fake_wait();
			fake_result(RV_ECANCELLED, "undone", 0, false);
			_exit(0);
		}
		from += (size_t)r;
	}
}

static uint32_t fake_ask(uint32_t iteration)
{
	struct helper_message m = {.kind = HELPER_PRECOPY,
		.precopy = {iteration, 1000 * iteration, 500, 1000, 250000}};
	uint8_t packet[1024];
	struct rv_error e = {0};
	ssize_t r;

	fake_send(&m);
	r = recv(HELPER_FD_CONTROL, packet, sizeof packet, 0);
	m = (struct helper_message){0};
	if (r <= 0 || helper_wire_decode(&m, packet, (size_t)r, &e) != 0 ||
		m.kind != HELPER_VERDICT)
		_exit(7);
	return m.verdict;
}

static void fake_save(const char *how)
{
	struct helper_message suspended = {.kind = HELPER_SUSPENDED};
	uint32_t iteration = 0, verdict;

	fake_write(0, STREAM_BYTES / 2);
	do
		verdict = fake_ask(++iteration);
	while (verdict == HYPER_PRECOPY_CONTINUE);
	if (verdict == HYPER_PRECOPY_ABORT) {
		fake_result(RV_EHYPERVISOR, "libxenguest says aborted", 0, false);
		_exit(0);
	}
	fake_send(&suspended);
	if (strcmp(how, "save-dies") == 0)
		raise(SIGKILL);
	fake_write(STREAM_BYTES / 2, STREAM_BYTES);
	fake_result(0, "", 0, true);
	if (strcmp(how, "save-lingers") == 0) {
		close(HELPER_FD_DATA);
		fake_wait();
	}
}

static void fake_restore(const char *how)
{
	uint8_t piece[65536];
	size_t at = 0;
	ssize_t r;

	if (strcmp(how, "restore-deaf") == 0) {
		close(HELPER_FD_DATA);
		fake_result(RV_EHYPERVISOR, "libxl says no", 0, false);
		return;
	}
	for (;;) {
		struct pollfd p[2] = {
			{.fd = HELPER_FD_DATA, .events = POLLIN}, {.fd = HELPER_FD_LIFE}};

		(void)poll(p, 2, PATIENCE_MS);
		if (p[1].revents) {
			fake_result(RV_ECANCELLED, "undone", 0, false);
			return;
		}
		r = read(HELPER_FD_DATA, piece, sizeof piece);
		if (r <= 0)
			break;
		for (ssize_t i = 0; i < r; i++)
			if (piece[i] != content(at++))
				_exit(6);
	}
	fake_result(at == STREAM_BYTES ? 0 : RV_ECORRUPT, "", 5, false);
}

/* A helper that writes or reads its file by itself: the name tells how. */
static void fake_file(const struct helper_request *req)
{
	struct helper_message m = {.kind = HELPER_WRITTEN, .written = 4096};

	if (req->file_at != 4096 || req->file_size != 1 << 20 || req->vm.b[0] != 7 ||
		req->vm_type != HYPER_PVH)
		_exit(8);
	if (req->call == HYPER_CALL_SAVE) {
		fake_send(&m);
		m.written = 700000;
		fake_send(&m);
		m.written = 5; /* never less */
		fake_send(&m);
	}
	m = (struct helper_message){.kind = HELPER_RESULT};
	m.result.file_bytes = 800000;
	m.result.extra_kib = req->call == HYPER_CALL_SAVE ? req->vm_extra_kib : 44;
	m.result.domid = 5;
	if (strstr(req->file, "full")) {
		m.result.rc = RV_ESPACE;
		snprintf(m.result.detail, sizeof m.result.detail, "no room");
	}
	fake_send(&m);
}

static int fake_helper(void)
{
	static uint8_t packet[HELPER_WIRE_MAX];
	struct helper_request *req = calloc(1, sizeof *req);
	struct helper_message m = {.request = req};
	struct rv_error e = {0};
	int data_fd;
	ssize_t r =
		xen_request_receive(HELPER_FD_CONTROL, packet, sizeof packet, &data_fd);
	const char *how;

	if (data_fd >= 0) {
		dup2(data_fd, HELPER_FD_DATA);
		close(data_fd);
	}
	if (!req || r <= 0 || helper_wire_decode(&m, packet, (size_t)r, &e) != 0 ||
		m.kind != HELPER_REQUEST)
		_exit(5);
	signal(SIGPIPE, SIG_IGN);
	how = req->has_domain ? req->domain.name : req->scripts;
	if (req->file[0]) {
		fake_file(req);
	} else if (strncmp(how, "save", 4) == 0) {
		fake_save(how);
	} else if (strncmp(how, "restore", 7) == 0) {
		fake_restore(how);
	} else if (strcmp(how, "dies") == 0) {
		raise(SIGKILL);
	} else if (strcmp(how, "silent") == 0) {
		fprintf(stderr, "nothing to say\n");
		_exit(4);
	} else if (strcmp(how, "babble") == 0) {
		(void)!write(HELPER_FD_CONTROL, "hello", 5);
		fake_wait();
		fake_result(RV_ECANCELLED, "cancelled", 0, false);
	} else if (strcmp(how, "patient") == 0) {
		fake_wait();
		fake_result(RV_ECANCELLED, "undone", 0, false);
	} else if (strcmp(how, "too-late") == 0) {
		fake_wait();
		fake_result(0, "", 9, false);
	} else if (strcmp(how, "undo-fails") == 0) {
		fake_wait();
		fake_result(RV_EOUTCOME, "could not be undone", 0, true);
	} else if (strcmp(how, "lingers") == 0) {
		fake_result(0, "", 9, false);
		fake_wait();
	} else if (strcmp(how, "refuses") == 0) {
		fake_result(RV_EMEMORY, "7 KiB are free", 0, false);
	} else {
		fake_result(0, "", 9, false);
	}
	free(req);
	return 0;
}

/* --- the test's end of it --- */

struct probe {
	struct loop *loop;
	struct xen_helpers helpers;
	struct timer patience, later;
	struct xen_job *job;
	struct xen_job_result result;
	struct rv_error error;
	bool done;
	/* A sink or a source. */
	uint8_t *bytes;
	size_t len, at, limit;
	unsigned int turns;
	uint32_t rounds, stop_at, abort_at;
	bool suspended, ended, hold;
	struct hyper_precopy last;
};

static void probe_done(void *arg, const struct xen_job_result *r)
{
	struct probe *p = arg;

	assert_false(p->done);
	p->done = true;
	p->result = *r;
	p->error = *r->error;
	p->job = NULL;
	assert_int_equal(r->rc, r->error->code);
	loop_stop(p->loop);
}

static void out_of_patience(void *arg)
{
	(void)arg;
	fail_msg("the job did not end");
}

static void kick_later(void *arg)
{
	struct probe *p = arg;

	if (p->job)
		xen_job_kick(p->job);
}

static void cancel_later(void *arg)
{
	struct probe *p = arg;

	if (p->job) {
		xen_job_cancel(p->job);
		xen_job_cancel(p->job); /* idempotent */
	}
}

/* Room now and then, and of odd sizes. */
static size_t sink_room(void *arg, uint8_t **room)
{
	struct probe *p = arg;
	size_t n = p->turns % 3 == 0 ? 1 + p->turns % 4999 : 100 * 1000;

	if (p->hold || ++p->turns % 5 == 0) {
		timer_start_us(&p->later, 200);
		return 0;
	}
	assert_true(p->len < SINK_BYTES);
	*room = p->bytes + p->len;
	return n < SINK_BYTES - p->len ? n : SINK_BYTES - p->len;
}

static void sink_filled(void *arg, size_t n)
{
	struct probe *p = arg;

	p->len += n;
}

static size_t source_peek(void *arg, const uint8_t **data, bool *end)
{
	struct probe *p = arg;
	size_t left = (p->limit ? p->limit : p->len) - p->at;
	size_t n = p->turns % 3 == 0 ? 1 + p->turns % 4999 : 100 * 1000;

	if (++p->turns % 5 == 0 && left > 0) {
		timer_start_us(&p->later, 200);
		return 0;
	}
	*data = p->bytes + p->at;
	*end = n >= left;
	return n < left ? n : left;
}

static void source_consumed(void *arg, size_t n)
{
	struct probe *p = arg;

	p->at += n;
}

static enum hyper_precopy_verdict decide(void *arg, const struct hyper_precopy *round)
{
	struct probe *p = arg;

	p->last = *round;
	p->rounds++;
	if (p->abort_at && round->iteration >= p->abort_at)
		return HYPER_PRECOPY_ABORT;
	return round->iteration >= p->stop_at ? HYPER_PRECOPY_STOP
					      : HYPER_PRECOPY_CONTINUE;
}

static void on_suspended(void *arg)
{
	struct probe *p = arg;

	p->suspended = true;
}

static struct xen_job_spec job_spec(enum hyper_call call, const char *how)
{
	return (struct xen_job_spec){
		.scripts = how,
		.call = call,
		.handle = {{1}},
		.vm = {{7}},
		.type = HYPER_PVH,
		.actual_kib = 98304,
		.extra_kib = 36,
	};
}

static struct hyper_domain_spec domain_spec(const char *how)
{
	return (struct hyper_domain_spec){
		.vm = {{7}},
		.handle = {{1}},
		.name = how,
		.type = HYPER_PVH,
		.vcpus_max = 1,
		.static_max_kib = 131072,
		.target_kib = 98304,
		.kernel = "/boot/vmlinuz",
	};
}

static void probe_init(struct probe *p)
{
	struct rv_error e = {0};

	memset(p, 0, sizeof *p);
	p->stop_at = 3;
	p->bytes = malloc(SINK_BYTES);
	assert_non_null(p->bytes);
	assert_int_equal(loop_new(&p->loop, &e), 0);
	xen_helpers_init(&p->helpers, p->loop, "/proc/self/exe");
	timer_init(&p->patience, p->loop, "test.patience", out_of_patience, p);
	timer_init(&p->later, p->loop, "test.later", kick_later, p);
}

static void probe_run(struct probe *p, const struct xen_job_spec *given)
{
	struct xen_job_spec spec = *given;
	struct rv_error e = {0};

	p->done = false;
	p->turns = 0;
	timer_start_ms(&p->patience, PATIENCE_MS);
	spec.helpers = &p->helpers;
	if (xen_job_start(&p->job, p->loop, &spec, probe_done, p, &e) != 0)
		fail_msg("%s", e.detail);
	assert_false(p->done);
	loop_run(p->loop);
	assert_true(p->done);
	timer_stop(&p->patience);
	timer_stop(&p->later);
}

static void probe_fini(struct probe *p)
{
	timer_stop(&p->patience);
	timer_stop(&p->later);
	xen_helpers_fini(&p->helpers);
	loop_free(p->loop);
	free(p->bytes);
}

static void run_create(struct probe *p, const char *how)
{
	struct hyper_domain_spec domain = domain_spec(how);
	struct xen_job_spec spec = job_spec(HYPER_CALL_CREATE, NULL);

	spec.spec = &domain;
	probe_run(p, &spec);
}

static void run_save(struct probe *p, const char *how)
{
	struct xen_job_spec spec = job_spec(HYPER_CALL_SAVE, how);

	spec.save = (struct hyper_save_spec){.live = true,
		.sink = {.room = sink_room, .filled = sink_filled, .arg = p},
		.policy = decide,
		.suspended = on_suspended,
		.arg = p};
	p->len = 0;
	probe_run(p, &spec);
}

static size_t no_room(void *arg, uint8_t **room)
{
	(void)arg;
	(void)room;
	fail_msg("the file's bytes don't pass here");
	return 0;
}

static void run_file(struct probe *p, enum hyper_call call, const char *path)
{
	struct hyper_domain_spec domain = domain_spec("file");
	struct xen_job_spec spec =
		job_spec(call, call == HYPER_CALL_SAVE ? "file" : NULL);
	struct hyper_file file = {.path = path, .at = 4096, .size = 1 << 20};

	if (call == HYPER_CALL_RESTORE)
		spec.spec = &domain;
	spec.save.sink = (struct hyper_sink){no_room, sink_filled, p, file};
	spec.source = (struct hyper_source){.arg = p, .file = file};
	p->len = 0;
	probe_run(p, &spec);
}

static void run_restore(struct probe *p, const char *how, const struct uuid *vm)
{
	struct hyper_domain_spec domain = domain_spec(how);
	struct xen_job_spec spec = job_spec(HYPER_CALL_RESTORE, NULL);

	if (vm)
		domain.vm = *vm;
	spec.spec = &domain;
	spec.source = (struct hyper_source){
		.peek = source_peek, .consumed = source_consumed, .arg = p};
	p->at = 0;
	probe_run(p, &spec);
}

/* --- tests --- */

static void a_file_is_the_helpers_own(void **state)
{
	struct probe p;

	(void)state;
	probe_init(&p);
	run_file(&p, HYPER_CALL_SAVE, "/srv/vm.raw");
	assert_int_equal(p.result.rc, 0);
	/* What it told on the way, and the rest with its answer. */
	assert_int_equal(p.len, 800000);
	assert_int_equal(p.result.stream_bytes, 800000);
	run_file(&p, HYPER_CALL_RESTORE, "/srv/vm.raw");
	assert_int_equal(p.result.rc, 0);
	assert_int_equal(p.result.domid, 5);
	assert_int_equal(p.result.extra_kib, 44);
	run_file(&p, HYPER_CALL_SAVE, "/srv/full.raw");
	assert_int_equal(p.result.rc, RV_ESPACE);
	assert_int_equal(p.len, 700000);
	probe_fini(&p);
}

static void answers_are_passed_on(void **state)
{
	struct probe p;

	(void)state;
	probe_init(&p);
	run_create(&p, "makes");
	assert_int_equal(p.result.rc, 0);
	assert_int_equal(p.result.domid, 9);
	assert_string_equal(p.result.console, "/dev/pts/9");
	run_create(&p, "refuses");
	assert_int_equal(p.result.rc, RV_EMEMORY);
	assert_string_equal(p.error.detail, "refuses: 7 KiB are free");
	assert_false(p.result.left);
	probe_fini(&p);
}

static void silence_leaves_the_outcome_open(void **state)
{
	struct probe p;

	(void)state;
	probe_init(&p);
	run_create(&p, "dies");
	assert_int_equal(p.result.rc, RV_EOUTCOME);
	assert_true(p.result.left);
	run_create(&p, "silent");
	assert_int_equal(p.result.rc, RV_EOUTCOME);
	assert_non_null(strstr(p.error.detail, "nothing to say"));
	run_create(&p, "babble");
	assert_int_equal(p.result.rc, RV_EPROTO);
	probe_fini(&p);
}

static void a_missing_program_is_told(void **state)
{
	struct xen_job_spec spec = job_spec(HYPER_CALL_DESTROY, NULL);
	struct probe p;

	(void)state;
	probe_init(&p);
	p.helpers.program = "/nonexistent/reeve-xen-helper";
	probe_run(&p, &spec);
	/* RV_ENOENT would be the domain. */
	assert_int_equal(p.result.rc, RV_ECHILD);
	assert_false(p.result.left);
	probe_fini(&p);
}

static void a_cancel_waits_for_the_undoing(void **state)
{
	struct probe p;

	(void)state;
	probe_init(&p);
	timer_init(&p.later, p.loop, "test.cancel", cancel_later, &p);
	timer_start_ms(&p.later, 50);
	run_create(&p, "patient");
	assert_int_equal(p.result.rc, RV_ECANCELLED);
	assert_false(p.result.left);
	/* It was done already: then so it is. */
	timer_start_ms(&p.later, 50);
	run_create(&p, "too-late");
	assert_int_equal(p.result.rc, 0);
	assert_int_equal(p.result.domid, 9);
	timer_start_ms(&p.later, 50);
	run_create(&p, "undo-fails");
	assert_int_equal(p.result.rc, RV_EOUTCOME);
	assert_true(p.result.left);
	probe_fini(&p);
}

static void a_saved_stream_is_restored(void **state)
{
	struct probe p;

	(void)state;
	probe_init(&p);
	run_save(&p, "save");
	assert_int_equal(p.result.rc, 0);
	assert_true(p.result.suspended && p.suspended);
	assert_int_equal(p.rounds, 3);
	assert_int_equal(p.result.stream_bytes, p.len);
	assert_int_equal(p.last.round_pages, 1000);
	assert_int_equal(p.last.dirty_per_s, 2000); /* 500 in a quarter of a second */
	run_restore(&p, "restore", NULL);
	assert_int_equal(p.result.rc, 0);
	assert_int_equal(p.result.domid, 5);
	assert_int_equal(p.result.extra_kib, 36);
	assert_int_equal(p.at, p.len);
	probe_fini(&p);
}

static void a_save_ends_early(void **state)
{
	struct probe p;

	(void)state;
	probe_init(&p);
	p.abort_at = 2;
	run_save(&p, "save");
	assert_int_equal(p.result.rc, RV_ECANCELLED);
	assert_false(p.result.suspended);
	assert_int_equal(p.rounds, 2);
	p.abort_at = 0;
	run_save(&p, "save-dies");
	assert_int_equal(p.result.rc, RV_EOUTCOME);
	/* What came out can't pass for a whole stream. */
	run_restore(&p, "restore", NULL);
	assert_int_equal(p.result.rc, RV_EPROTO);
	probe_fini(&p);
}

/* What is done is not held up by a process that takes its time to end. */
static void an_end_is_not_waited_for(void **state)
{
	struct probe p;

	(void)state;
	probe_init(&p);
	run_create(&p, "lingers");
	assert_int_equal(p.result.rc, 0);
	assert_int_equal(p.result.domid, 9);
	run_save(&p, "save-lingers");
	assert_int_equal(p.result.rc, 0);
	assert_int_equal(p.result.stream_bytes, p.len);
	run_restore(&p, "restore", NULL);
	assert_int_equal(p.result.rc, 0);
	probe_fini(&p);
}

static void a_slow_sink_holds_the_helper_back(void **state)
{
	struct probe p;

	(void)state;
	probe_init(&p);
	timer_init(&p.later, p.loop, "test.cancel", cancel_later, &p);
	p.hold = true; /* sink_room starts the timer */
	run_save(&p, "save");
	assert_int_equal(p.result.rc, RV_ECANCELLED);
	assert_int_equal(p.len, 0);
	probe_fini(&p);
}

static void a_wrong_stream_is_refused(void **state)
{
	const struct uuid another = {{8}};
	struct probe p;

	(void)state;
	probe_init(&p);
	run_save(&p, "save");
	assert_int_equal(p.result.rc, 0);
	run_restore(&p, "restore", &another);
	assert_int_equal(p.result.rc, RV_ESTATE);
	assert_false(p.result.left);
	p.bytes[p.len / 2] ^= 4;
	run_restore(&p, "restore", NULL);
	assert_int_equal(p.result.rc, RV_ECORRUPT);
	assert_false(p.result.left);
	p.bytes[p.len / 2] ^= 4;
	p.limit = p.len - 1;
	run_restore(&p, "restore", NULL);
	assert_int_equal(p.result.rc, RV_EPROTO);
	p.limit = 0;
	run_restore(&p, "restore-deaf", NULL);
	assert_int_equal(p.result.rc, RV_EHYPERVISOR);
	assert_string_equal(p.error.detail, "restore-deaf: libxl says no");
	probe_fini(&p);
}

static void an_abandoned_one_is_gone(void **state)
{
	struct hyper_domain_spec domain = domain_spec("patient");
	struct xen_job_spec spec = job_spec(HYPER_CALL_CREATE, NULL);
	struct rv_error e = {0};
	struct probe p;

	(void)state;
	probe_init(&p);
	spec.spec = &domain;
	spec.helpers = &p.helpers;
	assert_int_equal(xen_job_start(&p.job, p.loop, &spec, probe_done, &p, &e), 0);
	xen_job_abandon(p.job); /* not yet started */
	assert_int_equal(xen_job_start(&p.job, p.loop, &spec, probe_done, &p, &e), 0);
	timer_init(&p.later, p.loop, "test.stop", (timer_fn *)loop_stop, p.loop);
	timer_start_ms(&p.later, 100);
	loop_run(p.loop);
	xen_job_abandon(p.job);
	assert_false(p.done);
	probe_fini(&p);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_file_is_the_helpers_own),
		cmocka_unit_test(answers_are_passed_on),
		cmocka_unit_test(silence_leaves_the_outcome_open),
		cmocka_unit_test(a_missing_program_is_told),
		cmocka_unit_test(a_cancel_waits_for_the_undoing),
		cmocka_unit_test(a_saved_stream_is_restored),
		cmocka_unit_test(a_save_ends_early),
		cmocka_unit_test(an_end_is_not_waited_for),
		cmocka_unit_test(a_slow_sink_holds_the_helper_back),
		cmocka_unit_test(a_wrong_stream_is_refused),
		cmocka_unit_test(an_abandoned_one_is_gone),
	};

	if (argc == 2 && strcmp(argv[1], "--job") == 0)
		return fake_helper();
	return cmocka_run_group_tests_name("xen/helper_job", tests, NULL, NULL);
}
