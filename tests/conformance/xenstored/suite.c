/*
 * The real driver over a real xenstored and an imitation of Xen: the suite of all
 * drivers, and what xenstore alone can do to it.
 */
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/units.h"
#include "imitation.h"
#include "xen/conformance.h"

struct bench {
	struct hyper_conformance c;
	struct world world;
	struct hyper_listener listener;
	uint32_t events[HYPER_EV_STORED_BACK + 1];
	struct hyper_domain last[HYPER_EV_STORED_BACK + 1];
	char label[XEN_LABEL_PATH_SIZE];
};

static void spec(void *arg, struct hyper_domain_spec *s)
{
	(void)arg;
	memset(s, 0, sizeof *s);
	s->type = HYPER_PVH;
	s->vcpus_max = 2;
	s->static_max_kib = 64 * MIB / KIB;
	s->target_kib = 48 * MIB / KIB;
	s->kernel = "/boot/guest";
}

static int restart(struct hyper_conformance *c, struct rv_error *e)
{
	struct bench *b = c->arg;

	hyper_free(c->hyper);
	c->hyper = NULL;
	return world_driver(&b->world, &c->hyper, e);
}

static int end_guest(void *arg, const struct uuid *vm, enum hyper_reason reason)
{
	struct bench *b = arg;
	struct world_domain *d = world_find(&b->world, vm);

	if (d == NULL)
		return RV_ENOENT;
	world_end(&b->world, d, reason);
	return 0;
}

static int deafen(void *arg, const struct uuid *vm)
{
	struct bench *b = arg;

	world_find(&b->world, vm)->deaf = true;
	return 0;
}

static void on_event(void *arg, const struct hyper_event *event)
{
	struct bench *b = arg;

	b->events[event->kind]++;
	b->last[event->kind] = event->domain;
}

static void bench_init(struct bench *b)
{
	struct rv_error e = {0};

	memset(b, 0, sizeof *b);
	assert_int_equal(loop_new(&b->c.loop, &e), 0);
	assert_int_equal(world_init(&b->world, b->c.loop), 0);
	if (world_driver(&b->world, &b->c.hyper, &e) != 0)
		fail_msg("%s", e.detail);
	hyper_listen(b->c.hyper, &b->listener, on_event, b);
	b->c.arg = b;
	b->c.spec = spec;
	b->c.boot_ms = 80;
	b->c.limit_ms = 60000;
	b->c.restart = restart;
	b->c.end_guest = end_guest;
	b->c.deafen = deafen;
}

static void bench_fini(struct bench *b)
{
	hyper_free(b->c.hyper);
	world_fini(&b->world);
	assert_int_equal(b->world.jobs_alive, 0);
	loop_free(b->c.loop);
}

/* --- waiting --- */

struct wait {
	struct bench *b;
	bool (*is_so)(struct bench *b);
	bool over;
	struct timer look, limit;
};

static void wait_looks(void *arg)
{
	struct wait *w = arg;

	if (w->is_so(w->b))
		loop_stop(w->b->c.loop);
	else
		timer_start_ms(&w->look, 2);
}

static void wait_ends(void *arg)
{
	struct wait *w = arg;

	w->over = true;
	loop_stop(w->b->c.loop);
}

static void wait_for(struct bench *b, bool (*is_so)(struct bench *b), const char *what)
{
	struct wait w = {.b = b, .is_so = is_so};

	timer_init(&w.look, b->c.loop, "suite.look", wait_looks, &w);
	timer_init(&w.limit, b->c.loop, "suite.limit", wait_ends, &w);
	timer_start_ms(&w.look, 0);
	timer_start_ms(&w.limit, 60000);
	loop_run(b->c.loop);
	timer_stop(&w.look);
	timer_stop(&w.limit);
	if (w.over)
		fail_msg("it never came that %s", what);
}

struct asked {
	struct hyper_req req;
	uint32_t answers;
};

static struct asked *asked_now; /* for the predicate below */

static void asked_done(void *arg, struct hyper_req *req)
{
	struct asked *a = arg;

	(void)req;
	a->answers++;
}

static void asked_init(struct asked *a)
{
	memset(a, 0, sizeof *a);
	hyper_req_init(&a->req, asked_done, a);
	asked_now = a;
}

static bool is_answered(struct bench *b)
{
	(void)b;
	return asked_now->answers > 0;
}

static int answer(struct bench *b, struct asked *a)
{
	wait_for(b, is_answered, "a call was answered");
	a->answers = 0;
	return a->req.rc;
}

/* --- the suite --- */

static void passes_the_suite(void **state)
{
	const struct hyper_conformance_case *one = hyper_conformance_cases;
	const char *only = getenv("CASE");
	struct bench b;
	uint32_t failed = 0;

	(void)state;
	bench_init(&b);
	for (; one->name != NULL; one++) {
		struct rv_error e = {0};
		int rc;

		if (only != NULL && strcmp(only, one->name) != 0)
			continue;
		hyper_unlisten(&b.listener);
		rc = one->run(&b.c, &e);
		if (rc == 0)
			continue;
		print_error("%s: %d: %s\n", one->name, rc, e.detail);
		failed++;
	}
	hyper_listen(b.c.hyper, &b.listener, on_event, &b);
	bench_fini(&b);
	assert_int_equal(failed, 0);
}

/* --- ghosts --- */

static bool has_introduced(struct bench *b)
{
	return b->events[HYPER_EV_INTRODUCED] > 0;
}

static bool has_released(struct bench *b)
{
	return b->events[HYPER_EV_RELEASED] > 0;
}

static bool has_no_label(struct bench *b)
{
	char text[XEN_LABEL_TEXT_SIZE];

	world_read(&b->world, b->label, text, sizeof text);
	return text[0] == '\0';
}

static void sees_and_adopts_ghosts(void **state)
{
	struct bench b;
	struct asked a;
	struct uuid vm;
	struct world_domain *d;
	struct hyper_domain_id id;
	char text[XEN_LABEL_TEXT_SIZE];

	(void)state;
	bench_init(&b);
	d = world_half_ghost(&b.world);
	asked_init(&a);
	hyper_list(b.c.hyper, &a.req);
	assert_int_equal(answer(&b, &a), 0);
	assert_int_equal(a.req.domain_count, 1);
	id = (struct hyper_domain_id){.boot_id = a.req.domains[0].id.boot_id,
		.domid = d->info.domid,
		.handle = d->info.handle};
	assert_int_equal(a.req.domains[0].state, HYPER_BUILDING);
	assert_int_equal(b.events[HYPER_EV_INTRODUCED], 0);
	asked_init(&a);
	hyper_unpause(b.c.hyper, &a.req, &id);
	assert_int_equal(answer(&b, &a), RV_ESTATE);
	world_destroy(&b.world, d);

	d = world_ghost(&b.world, "made-by-xl", 32768);
	wait_for(&b, has_introduced, "the ghost was introduced");
	assert_true(uuid_is_none(&b.last[HYPER_EV_INTRODUCED].vm));
	assert_string_equal(b.last[HYPER_EV_INTRODUCED].name, "made-by-xl");
	assert_int_equal(b.last[HYPER_EV_INTRODUCED].state, HYPER_RUNNING);
	assert_int_equal(b.last[HYPER_EV_INTRODUCED].static_max_kib, 32768);
	id = b.last[HYPER_EV_INTRODUCED].id;

	vm = uuid_random(loop_prng(b.c.loop));
	asked_init(&a);
	hyper_relabel(b.c.hyper, &a.req, &id, &vm, 5);
	assert_int_equal(answer(&b, &a), 0);
	id.generation = 5;
	asked_init(&a);
	hyper_info(b.c.hyper, &a.req, &id);
	assert_int_equal(answer(&b, &a), 0);
	assert_true(uuid_eq(&a.req.domain.vm, &vm));
	world_read(&b.world, xen_label_path(&id.handle, b.label), text, sizeof text);
	assert_non_null(strstr(text, "generation=5"));

	/* `xl destroy`: told once, and its label goes. */
	world_destroy(&b.world, d);
	wait_for(&b, has_released, "its end was told");
	asked_init(&a);
	hyper_info(b.c.hyper, &a.req, &id);
	assert_int_equal(answer(&b, &a), RV_ENOENT);
	wait_for(&b, has_no_label, "its label was removed");
	assert_int_equal(b.events[HYPER_EV_RELEASED], 1);
	bench_fini(&b);
}

/* --- xenstored stops --- */

static bool is_lost(struct bench *b)
{
	return b->events[HYPER_EV_STORED_LOST] > 0;
}

static bool is_back(struct bench *b)
{
	return b->events[HYPER_EV_STORED_BACK] > 0;
}

static bool has_ended(struct bench *b)
{
	return b->events[HYPER_EV_SHUTDOWN] > 0;
}

static void make(struct bench *b, struct hyper_domain_spec *s, struct hyper_domain_id *id)
{
	struct asked a;

	spec(NULL, s);
	s->name = "guest";
	s->vm = uuid_random(loop_prng(b->c.loop));
	s->handle = uuid_random(loop_prng(b->c.loop));
	s->generation = 1;
	asked_init(&a);
	hyper_create(b->c.hyper, &a.req, s);
	assert_int_equal(answer(b, &a), 0);
	*id = a.req.id;
	/* Special pages are neither memory nor limit. */
	asked_init(&a);
	hyper_info(b->c.hyper, &a.req, id);
	assert_int_equal(answer(b, &a), 0);
	assert_int_equal(a.req.domain.actual_kib, s->static_max_kib);
	assert_int_equal(a.req.domain.maxmem_kib, s->static_max_kib);
	assert_int_equal(a.req.domain.target_kib, s->target_kib);
	asked_init(&a);
	hyper_unpause(b->c.hyper, &a.req, id);
	assert_int_equal(answer(b, &a), 0);
}

static void freezes_while_xenstored_hangs(void **state)
{
	pid_t stored = (pid_t)atoi(getenv("XENSTORED_PID"));
	struct hyper_domain_spec s;
	struct hyper_domain_id id;
	struct bench b;
	struct asked sent, a;

	(void)state;
	bench_init(&b);
	make(&b, &s, &id);
	b.world.frozen = true;
	kill(stored, SIGSTOP);
	/* It was sent: nobody knows whether it happens. */
	asked_init(&sent);
	hyper_set_target(b.c.hyper, &sent.req, &id, 40 * MIB / KIB);
	wait_for(&b, is_lost, "xenstored was found lost");
	asked_now = &sent;
	assert_int_equal(answer(&b, &sent), RV_EOUTCOME);
	/* What needs it is refused, what doesn't goes on. */
	asked_init(&a);
	hyper_set_target(b.c.hyper, &a.req, &id, 40 * MIB / KIB);
	assert_int_equal(answer(&b, &a), RV_EBUSY);
	assert_non_null(strstr(a.req.error.detail, "xenstored"));
	asked_init(&a);
	hyper_destroy(b.c.hyper, &a.req, &id);
	assert_int_equal(answer(&b, &a), RV_EBUSY);
	asked_init(&a);
	hyper_pause(b.c.hyper, &a.req, &id);
	assert_int_equal(answer(&b, &a), 0);
	asked_init(&a);
	hyper_unpause(b.c.hyper, &a.req, &id);
	assert_int_equal(answer(&b, &a), 0);
	asked_init(&a);
	hyper_info(b.c.hyper, &a.req, &id);
	assert_int_equal(answer(&b, &a), 0);
	assert_int_equal(a.req.domain.state, HYPER_RUNNING);
	/* No watch tells that it ended: the hypercalls do. */
	world_end(&b.world, world_find(&b.world, &s.vm), HYPER_REASON_CRASH);
	wait_for(&b, has_ended, "the guest's end was told");
	kill(stored, SIGCONT);
	b.world.frozen = false;
	wait_for(&b, is_back, "xenstored came back");
	asked_init(&a);
	hyper_destroy(b.c.hyper, &a.req, &id);
	assert_int_equal(answer(&b, &a), 0);
	assert_int_equal(b.events[HYPER_EV_STORED_LOST], 1);
	assert_int_equal(b.events[HYPER_EV_STORED_BACK], 1);
	bench_fini(&b);
}

/* --- consoles --- */

static int console_fd; /* for the predicates */
static char console_text[64];

static bool has_text(struct bench *b)
{
	ssize_t r = read(console_fd, console_text, sizeof console_text - 1);

	(void)b;
	if (r > 0)
		console_text[r] = '\0';
	return r > 0;
}

static bool has_end(struct bench *b)
{
	char byte;

	(void)b;
	return read(console_fd, &byte, 1) == 0;
}

static int open_console(struct bench *b, const struct hyper_domain_id *id, int *fd)
{
	struct asked a;
	int rc;

	asked_init(&a);
	hyper_console_open(b->c.hyper, &a.req, id);
	rc = answer(b, &a);
	*fd = a.req.fd;
	return rc;
}

static void consoles_are_taken_over(void **state)
{
	int master = posix_openpt(O_RDWR | O_NOCTTY | O_NONBLOCK), first, second;
	struct hyper_domain_spec s;
	struct hyper_domain_id id;
	char path[64];
	struct bench b;

	(void)state;
	bench_init(&b);
	make(&b, &s, &id);
	assert_int_equal(grantpt(master) + unlockpt(master), 0);
	assert_int_equal(open_console(&b, &id, &first), RV_EAGAIN); /* none yet */
	snprintf(path, sizeof path, "/local/domain/%u/console/tty", id.domid);
	world_write(&b.world, path, "/dev/../etc/passwd");
	assert_int_equal(open_console(&b, &id, &first), RV_EHYPERVISOR);
	world_write(&b.world, path, ptsname(master));
	assert_int_equal(open_console(&b, &id, &first), 0);

	assert_int_equal(write(master, "login: ", 7), 7);
	console_fd = first;
	wait_for(&b, has_text, "the guest's text came");
	assert_string_equal(console_text, "login: ");
	assert_int_equal(write(first, "root\r", 5), 5);
	console_fd = master;
	wait_for(&b, has_text, "the guest got what was typed");
	assert_string_equal(console_text, "root\r"); /* raw */

	assert_int_equal(open_console(&b, &id, &second), 0);
	console_fd = first;
	wait_for(&b, has_end, "the first reader read an end");
	assert_int_equal(write(master, "again", 5), 5);
	console_fd = second;
	wait_for(&b, has_text, "the second one got the text");
	assert_string_equal(console_text, "again");
	/* A reader that goes away, and a guest that ends. */
	close(first);
	close(second);
	assert_int_equal(open_console(&b, &id, &first), 0);
	world_destroy(&b.world, world_find(&b.world, &s.vm));
	console_fd = first;
	wait_for(&b, has_end, "the console ended with its guest");
	close(first);
	close(master);
	bench_fini(&b);
}

/* --- helpers that die --- */

static void undoes_what_a_helper_left(void **state)
{
	struct hyper_domain_spec s;
	struct bench b;
	struct asked a;

	(void)state;
	bench_init(&b);
	spec(NULL, &s);
	s.name = "guest";
	s.vm = uuid_random(loop_prng(b.c.loop));
	s.handle = uuid_random(loop_prng(b.c.loop));
	b.world.crash_next = true;
	b.world.undo_failures = 1;
	asked_init(&a);
	hyper_create(b.c.hyper, &a.req, &s);
	assert_int_equal(answer(&b, &a), RV_ECHILD);
	assert_null(world_find(&b.world, &s.vm));
	/* And when it can't be undone it says so; a destroy by handle ends it. */
	b.world.crash_next = true;
	b.world.undo_failures = REAL_UNDO_TRIES;
	asked_init(&a);
	hyper_create(b.c.hyper, &a.req, &s);
	assert_int_equal(answer(&b, &a), RV_EOUTCOME);
	assert_non_null(world_find(&b.world, &s.vm));
	asked_init(&a);
	hyper_create(b.c.hyper, &a.req, &s);
	assert_int_equal(answer(&b, &a), RV_ESTATE);
	assert_int_equal(restart(&b.c, &a.req.error), 0);
	hyper_listen(b.c.hyper, &b.listener, on_event, &b);
	asked_init(&a);
	hyper_list(b.c.hyper, &a.req);
	assert_int_equal(answer(&b, &a), 0);
	asked_init(&a);
	hyper_host(b.c.hyper, &a.req);
	assert_int_equal(answer(&b, &a), 0);
	struct hyper_domain_id id = {.boot_id = a.req.host->boot_id,
		.domid = HYPER_DOMID_ANY,
		.handle = s.handle};
	asked_init(&a);
	hyper_info(b.c.hyper, &a.req, &id);
	assert_int_equal(answer(&b, &a), 0);
	assert_int_equal(a.req.domain.state, HYPER_BUILDING);
	asked_init(&a);
	hyper_destroy(b.c.hyper, &a.req, &id);
	assert_int_equal(answer(&b, &a), 0);
	assert_null(world_find(&b.world, &s.vm));
	bench_fini(&b);
}

/* --- hostile guests --- */

static bool has_features(struct bench *b)
{
	return b->events[HYPER_EV_FEATURES] > 0;
}

static void bears_a_guest_that_writes_without_end(void **state)
{
	struct hyper_domain_spec s;
	struct hyper_domain_id id;
	struct bench b;
	struct asked a;

	(void)state;
	bench_init(&b);
	make(&b, &s, &id);
	world_write(&b.world, "/local/domain/0/nothing", "");
	world_find(&b.world, &s.vm)->wild = true;
	wait_for(&b, has_features, "it was seen that it says it can balloon");
	for (int i = 0; i < 30; i++) {
		asked_init(&a);
		hyper_set_target(b.c.hyper, &a.req, &id, (32 + (uint64_t)i) * 1024);
		assert_int_equal(answer(&b, &a), 0);
	}
	/* Each write was a watch event; what it said was looked at a few times. */
	assert_in_range(b.events[HYPER_EV_FEATURES], 1, 60);
	bench_fini(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(passes_the_suite),
		cmocka_unit_test(sees_and_adopts_ghosts),
		cmocka_unit_test(freezes_while_xenstored_hangs),
		cmocka_unit_test(consoles_are_taken_over),
		cmocka_unit_test(undoes_what_a_helper_left),
		cmocka_unit_test(bears_a_guest_that_writes_without_end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
