/*
 * Helper processes, and those that wait: this program, started again, is the helper.
 * It answers a request with its process id, and writes to the descriptor that came along.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

#include "xen/real/process.h"
#include "xen/real/request.h"

enum { PATIENCE_MS = 60 * 1000 };

static int fake_helper(void)
{
	struct pollfd life = {.fd = HELPER_FD_LIFE};
	pid_t pid = getpid();
	char text[64];
	int data_fd;

	for (;;) {
		ssize_t r = xen_request_receive(
			HELPER_FD_CONTROL, text, sizeof text, &data_fd);

		if (r <= 0)
			return 1;
		if (data_fd >= 0 && write(data_fd, text, (size_t)r) != r)
			return 2;
		if (send(HELPER_FD_CONTROL, &pid, sizeof pid, 0) < 0)
			return 3;
		if (memcmp(text, "stay", 4) == 0)
			(void)poll(&life, 1, PATIENCE_MS);
		else
			return 0;
	}
}

/* --- the test's side --- */

struct world {
	struct loop *loop;
	struct xen_helpers helpers;
	struct timer patience, look;
	int ended;
	bool (*until)(const struct world *w);
	struct xen_process *process; /* whose end is waited for */
};

static void out_of_patience(void *arg)
{
	(void)arg;
	fail_msg("it did not come to it");
}

static int set_up(void **state)
{
	struct world *w = calloc(1, sizeof *w);
	struct rv_error e = {0};

	assert_non_null(w);
	assert_int_equal(loop_new(&w->loop, &e), 0);
	xen_helpers_init(&w->helpers, w->loop, "/proc/self/exe");
	timer_init(&w->patience, w->loop, "test.patience", out_of_patience, w);
	timer_start_ms(&w->patience, PATIENCE_MS);
	*state = w;
	return 0;
}

static int tear_down(void **state)
{
	struct world *w = *state;

	timer_stop(&w->patience);
	timer_stop(&w->look);
	xen_helpers_fini(&w->helpers);
	xen_helpers_fini(&w->helpers);
	loop_free(w->loop);
	free(w);
	return 0;
}

static void on_end(void *arg, const struct child_result *result)
{
	struct world *w = arg;

	(void)result;
	w->ended++;
	loop_stop(w->loop);
}

static struct xen_process *get(struct world *w)
{
	struct xen_process *p = NULL;
	struct rv_error e = {0};

	if (xen_process_get(&p, &w->helpers, on_end, w, &e) != 0)
		fail_msg("%s", e.detail);
	return p;
}

/* Its process id, after a request. */
static pid_t ask(struct xen_process *p, const char *text, int data_fd)
{
	pid_t pid = 0;

	assert_true(xen_request_send(p->control_fd, text, strlen(text) + 1, data_fd) > 0);
	assert_int_equal(recv(p->control_fd, &pid, sizeof pid, 0), sizeof pid);
	return pid;
}

static bool has_spares(const struct world *w)
{
	return xen_helpers_waiting(&w->helpers) == XEN_HELPERS_SPARES;
}

static bool has_one_less(const struct world *w)
{
	return xen_helpers_waiting(&w->helpers) == XEN_HELPERS_SPARES - 1;
}

/* The one that is taken next. */
static struct xen_process *spare(const struct world *w)
{
	for (const struct list *at = w->helpers.all.next; at != &w->helpers.all;
		at = at->next) {
		struct xen_process *p = CONTAINER_OF(at, struct xen_process, node);

		if (p->waits)
			return p;
	}
	fail_msg("none waits");
	return NULL;
}

static bool is_gone(const struct world *w)
{
	for (const struct list *at = w->helpers.all.next; at != &w->helpers.all;
		at = at->next)
		if (at == &w->process->node)
			return false;
	return true;
}

static void look(void *arg)
{
	struct world *w = arg;

	if (w->until(w))
		loop_stop(w->loop);
	else
		timer_start_ms(&w->look, 20);
}

static void run_until(struct world *w, bool (*until)(const struct world *w))
{
	w->until = until;
	timer_init(&w->look, w->loop, "test.look", look, w);
	timer_start_ms(&w->look, 1);
	loop_run(w->loop);
	assert_true(until(w));
}

static void the_next_one_waits(void **state)
{
	struct world *w = *state;
	struct xen_process *p = get(w), *next;

	assert_int_equal(xen_helpers_waiting(&w->helpers), 0);
	assert_true(ask(p, "end", -1) > 0);
	loop_run(w->loop);
	assert_int_equal(w->ended, 1);
	run_until(w, has_spares);
	next = spare(w);
	assert_ptr_equal(get(w), next);
	assert_int_equal(xen_helpers_waiting(&w->helpers), XEN_HELPERS_SPARES - 1);
	assert_true(ask(next, "end", -1) > 0);
	loop_run(w->loop);
	assert_int_equal(w->ended, 2);
	/* And the place that was left is taken again. */
	run_until(w, has_spares);
}

/* A suspend, which saves and destroys, and a resume right after it: no time to start
 * another one in between. */
static void three_in_a_row_find_one(void **state)
{
	struct world *w = *state;
	struct xen_process *next;

	assert_true(ask(get(w), "end", -1) > 0);
	loop_run(w->loop);
	run_until(w, has_spares);
	for (int i = 0; i < 3; i++) {
		next = spare(w);
		assert_ptr_equal(get(w), next);
		assert_true(ask(next, "end", -1) > 0);
		loop_run(w->loop);
	}
	assert_int_equal(w->ended, 4);
}

/* To start one takes from those at work what they need themselves. */
static void none_is_started_beside_others(void **state)
{
	struct world *w = *state;
	struct xen_process *p = get(w);

	assert_true(ask(p, "stay", -1) > 0);
	assert_true(ask(get(w), "end", -1) > 0);
	loop_run(w->loop);
	assert_int_equal(w->ended, 1);
	timer_init(&w->look, w->loop, "test.stop", (timer_fn *)loop_stop, w->loop);
	timer_start_ms(&w->look, XEN_HELPERS_SPARE_MS + 500);
	loop_run(w->loop);
	assert_int_equal(xen_helpers_waiting(&w->helpers), 0);
	xen_process_let_go(p);
	run_until(w, has_spares);
}

static void a_dead_one_is_not_taken(void **state)
{
	struct world *w = *state;
	struct xen_process *dead, *p;
	struct pollfd end;

	assert_true(ask(get(w), "end", -1) > 0);
	loop_run(w->loop);
	run_until(w, has_spares);
	/* It ends, and the loop has not told yet. */
	dead = spare(w);
	end = (struct pollfd){.fd = dead->control_fd};
	child_kill(dead->child);
	assert_int_equal(poll(&end, 1, PATIENCE_MS), 1);
	p = get(w);
	assert_ptr_not_equal(p, dead);
	assert_true(ask(p, "end", -1) > 0);
	loop_run(w->loop);
	assert_int_equal(w->ended, 2);
	/* And told: it is forgotten. */
	run_until(w, has_spares);
	child_kill(spare(w)->child);
	run_until(w, has_one_less);
}

static void data_goes_with_the_request(void **state)
{
	struct world *w = *state;
	struct xen_process *p = get(w);
	char text[8] = "";
	int ends[2];

	assert_int_equal(pipe(ends), 0);
	assert_true(ask(p, "end", ends[1]) > 0);
	close(ends[1]);
	assert_int_equal(read(ends[0], text, sizeof text), 4);
	assert_string_equal(text, "end");
	loop_run(w->loop);
	/* Nobody but the helper had it. */
	assert_int_equal(read(ends[0], text, sizeof text), 0);
	close(ends[0]);
}

static void none_outlives_its_daemon(void **state)
{
	struct world *w = *state;
	struct xen_process *p = get(w);
	pid_t pid = ask(p, "stay", -1);

	xen_process_let_go(p);
	xen_helpers_fini(&w->helpers);
	assert_int_equal(kill(pid, 0), -1);
	assert_int_equal(errno, ESRCH);
	assert_int_equal(w->ended, 0);
}

static void who_is_let_go_ends_by_itself(void **state)
{
	struct world *w = *state;
	struct xen_process *p = get(w);

	assert_true(ask(p, "stay", -1) > 0);
	xen_process_let_go(p);
	xen_process_cut(p);
	xen_process_cut(p);
	shutdown(p->control_fd, SHUT_RDWR);
	w->process = p;
	run_until(w, is_gone);
	assert_int_equal(w->ended, 0);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(the_next_one_waits, set_up, tear_down),
		cmocka_unit_test_setup_teardown(
			three_in_a_row_find_one, set_up, tear_down),
		cmocka_unit_test_setup_teardown(
			none_is_started_beside_others, set_up, tear_down),
		cmocka_unit_test_setup_teardown(
			a_dead_one_is_not_taken, set_up, tear_down),
		cmocka_unit_test_setup_teardown(
			data_goes_with_the_request, set_up, tear_down),
		cmocka_unit_test_setup_teardown(
			none_outlives_its_daemon, set_up, tear_down),
		cmocka_unit_test_setup_teardown(
			who_is_let_go_ends_by_itself, set_up, tear_down),
	};

	if (argc == 2 && strcmp(argv[1], "--job") == 0)
		return fake_helper();
	return cmocka_run_group_tests_name("xen/helper_process", tests, NULL, NULL);
}
