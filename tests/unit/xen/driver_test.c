/* The simulated driver's own promises: faults, foreign hands, downtime, consoles. */
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/buf.h"
#include "base/units.h"
#include "xen/sim.h"

struct host {
	struct loop *loop;
	struct hyper *hyper;
	struct hyper_sim_config config;
	struct hyper_listener listener;
	uint32_t events[HYPER_EV_STORED_BACK + 1];
	struct uuid boot_id;
	bool done;
};

static void on_event(void *arg, const struct hyper_event *event)
{
	struct host *h = arg;

	h->events[event->kind]++;
}

static void on_done(void *arg, struct hyper_req *req)
{
	struct host *h = arg;

	assert_false(h->done);
	h->done = true;
	if (!loop_is_sim(h->loop))
		loop_stop(h->loop);
	(void)req;
}

static void host_open(struct host *h)
{
	struct rv_error e;

	if (hyper_sim_new(&h->hyper, h->loop, &h->config, &e) != 0)
		fail_msg("%s", e.detail);
	hyper_listen(h->hyper, &h->listener, on_event, h);
}

static void host_init(struct host *h, bool real)
{
	struct rv_error e;

	memset(h, 0, sizeof *h);
	if (real)
		assert_int_equal(loop_new(&h->loop, &e), 0);
	else
		assert_int_equal(loop_new_sim(&h->loop, 1), 0);
	hyper_sim_config_init(&h->config);
	h->config.step_us = 1000;
	h->config.memory_kib = 3 * GIB / KIB;
	h->config.guest.boot_us = 10000;
	host_open(h);
}

static void host_fini(struct host *h)
{
	struct rv_error e;

	if (hyper_sim_check(h->hyper, &e) != 0)
		fail_msg("%s", e.detail);
	hyper_free(h->hyper);
	loop_free(h->loop);
}

static void wait_done(struct host *h)
{
	if (loop_is_sim(h->loop)) {
		while (!h->done && loop_sim_step(h->loop))
			;
	} else {
		loop_run(h->loop);
	}
	assert_true(h->done);
	h->done = false;
}

static void pass(struct host *h, int64_t ms)
{
	loop_sim_run_until(h->loop, loop_now_us(h->loop) + ms * 1000);
}

struct guest {
	struct hyper_domain_spec spec;
	struct hyper_domain_id id;
};

static void guest_spec(struct host *h, struct guest *g)
{
	memset(g, 0, sizeof *g);
	g->spec.vm = uuid_random(loop_prng(h->loop));
	g->spec.handle = uuid_random(loop_prng(h->loop));
	g->spec.generation = 1;
	g->spec.name = "web";
	g->spec.type = HYPER_PVH;
	g->spec.vcpus_max = 1;
	g->spec.static_max_kib = g->spec.target_kib = 256 * MIB / KIB;
	g->spec.console = true;
}

static int create(struct host *h, struct guest *g)
{
	struct hyper_req req;

	hyper_req_init(&req, on_done, h);
	hyper_create(h->hyper, &req, &g->spec);
	wait_done(h);
	g->id = req.id;
	return req.rc;
}

typedef void call_fn(
	struct hyper *h, struct hyper_req *req, const struct hyper_domain_id *id);

static int call(struct host *h, struct guest *g, call_fn *fn)
{
	struct hyper_req req;

	hyper_req_init(&req, on_done, h);
	fn(h->hyper, &req, &g->id);
	wait_done(h);
	if (req.rc != 0 && req.error.detail[0] == '\0')
		fail_msg("rc %d without words", req.rc);
	return req.rc;
}

static enum hyper_state state_of(struct host *h, struct guest *g)
{
	struct hyper_req req;

	hyper_req_init(&req, on_done, h);
	hyper_info(h->hyper, &req, &g->id);
	wait_done(h);
	return req.rc == 0 ? req.domain.state : HYPER_DYING;
}

static size_t count_domains(struct host *h, struct hyper_domain_id *last)
{
	struct hyper_req req;

	hyper_req_init(&req, on_done, h);
	hyper_list(h->hyper, &req);
	wait_done(h);
	if (req.domain_count > 0 && last != NULL)
		*last = req.domains[req.domain_count - 1].id;
	return req.domain_count;
}

static void faults_of_one_step(void **state)
{
	struct hyper_req req;
	struct host h;
	struct guest g;
	int64_t at_us;

	(void)state;
	host_init(&h, false);
	guest_spec(&h, &g);
	assert_int_equal(create(&h, &g), 0);
	hyper_sim_inject(h.hyper, HYPER_CALL_UNPAUSE, HYPER_SIM_FAULT_ERROR, 1, 0);
	assert_int_equal(call(&h, &g, hyper_unpause), RV_EHYPERVISOR);
	assert_int_equal(state_of(&h, &g), HYPER_PAUSED);
	hyper_sim_inject(h.hyper, HYPER_CALL_UNPAUSE, HYPER_SIM_FAULT_EFFECT_ERROR, 1, 0);
	assert_int_equal(call(&h, &g, hyper_unpause), RV_EHYPERVISOR);
	assert_int_equal(state_of(&h, &g), HYPER_RUNNING);
	assert_int_equal(call(&h, &g, hyper_unpause), 0);

	/* Late: the cancel changes nothing, and nothing happens after the answer. */
	hyper_sim_inject(h.hyper, HYPER_CALL_PAUSE, HYPER_SIM_FAULT_LATE, 1, 5000000);
	hyper_req_init(&req, on_done, &h);
	hyper_pause(h.hyper, &req, &g.id);
	at_us = loop_now_us(h.loop);
	hyper_cancel(&req);
	pass(&h, 4000);
	assert_false(h.done);
	assert_int_equal(state_of(&h, &g), HYPER_RUNNING);
	wait_done(&h);
	assert_int_equal(req.rc, 0);
	assert_true(loop_now_us(h.loop) - at_us >= 5000000);
	assert_int_equal(state_of(&h, &g), HYPER_PAUSED);

	/* Lost: done, and no answer until somebody gives up waiting. */
	hyper_sim_inject(h.hyper, HYPER_CALL_UNPAUSE, HYPER_SIM_FAULT_LOST, 1, 0);
	hyper_req_init(&req, on_done, &h);
	hyper_unpause(h.hyper, &req, &g.id);
	pass(&h, 60000);
	assert_false(h.done);
	assert_int_equal(state_of(&h, &g), HYPER_RUNNING);
	hyper_cancel(&req);
	assert_false(h.done);
	wait_done(&h);
	assert_int_equal(req.rc, RV_EOUTCOME);

	hyper_sim_inject(h.hyper, HYPER_CALL_NONE, HYPER_SIM_FAULT_CRASH, 1, 0);
	assert_int_equal(call(&h, &g, hyper_pause), RV_ECHILD);
	assert_int_equal(call(&h, &g, hyper_pause), 0);
	for (int f = 1; f < HYPER_SIM_FAULT_COUNT; f++)
		assert_int_equal(hyper_sim_faults_fired(h.hyper, f), 1);
	host_fini(&h);
}

static int it_may(void *arg, struct rv_error *e)
{
	return *(bool *)arg ? 0 : rv_error_set(e, RV_EAGAIN, "it may not");
}

static int unpause_if(struct host *h, struct guest *g, bool may)
{
	struct hyper_req req;

	hyper_req_init(&req, on_done, h);
	hyper_unpause_if(h->hyper, &req, &g->id, it_may, &may);
	wait_done(h);
	return req.rc;
}

/* Paused once more by who fences, it goes on only where that is asked for and granted. */
static void fenced_stays_paused(void **state)
{
	struct host h;
	struct guest g;

	(void)state;
	host_init(&h, false);
	guest_spec(&h, &g);
	assert_int_equal(create(&h, &g), 0);
	hyper_sim_fence(
		NULL, h.hyper, g.id.domid, &g.id.handle, false, loop_now_us(h.loop));
	assert_int_equal(call(&h, &g, hyper_unpause), RV_ESTATE);
	assert_int_equal(unpause_if(&h, &g, false), RV_EAGAIN);
	assert_int_equal(state_of(&h, &g), HYPER_PAUSED);
	assert_int_equal(unpause_if(&h, &g, true), 0);
	assert_int_equal(state_of(&h, &g), HYPER_RUNNING);
	host_fini(&h);
}

static void faults_of_create_and_destroy(void **state)
{
	struct host h;
	struct guest g;

	(void)state;
	host_init(&h, false);
	guest_spec(&h, &g);
	hyper_sim_inject(h.hyper, HYPER_CALL_CREATE, HYPER_SIM_FAULT_ERROR, 1, 0);
	assert_int_equal(create(&h, &g), RV_EHYPERVISOR);
	assert_int_equal(count_domains(&h, NULL), 0);
	hyper_sim_inject(h.hyper, HYPER_CALL_CREATE, HYPER_SIM_FAULT_CRASH, 1, 0);
	assert_int_equal(create(&h, &g), RV_EOUTCOME);
	assert_int_equal(count_domains(&h, NULL), 1);
	assert_int_equal(state_of(&h, &g), HYPER_BUILDING);
	assert_int_equal(create(&h, &g), RV_ESTATE); /* half-made */
	g.id.domid = HYPER_DOMID_ANY;
	g.id.handle = g.spec.handle;
	g.id.generation = 1;
	assert_int_equal(count_domains(&h, &g.id), 1);
	hyper_sim_inject(h.hyper, HYPER_CALL_DESTROY, HYPER_SIM_FAULT_CRASH, 1, 0);
	assert_int_equal(call(&h, &g, hyper_destroy), RV_ECHILD);
	assert_int_equal(state_of(&h, &g), HYPER_DYING);
	assert_int_equal(call(&h, &g, hyper_destroy), 0);
	assert_int_equal(count_domains(&h, NULL), 0);
	assert_int_equal(h.events[HYPER_EV_RELEASED], 1);
	/* It worked but the answer was bad: asking again finds it. */
	hyper_sim_inject(h.hyper, HYPER_CALL_CREATE, HYPER_SIM_FAULT_EFFECT_ERROR, 1, 0);
	assert_int_equal(create(&h, &g), RV_EOUTCOME);
	assert_int_equal(create(&h, &g), 0);
	assert_int_equal(h.events[HYPER_EV_INTRODUCED], 1);
	host_fini(&h);
}

/* Two builds at once can't have the same memory, and a build that is cancelled half-way
 * gives its share back. */
static void memory_is_claimed_once(void **state)
{
	struct hyper_req one, two;
	struct guest a, b;
	struct host h;

	(void)state;
	host_init(&h, false);
	guest_spec(&h, &a);
	guest_spec(&h, &b);
	a.spec.static_max_kib = a.spec.target_kib = 1200 * MIB / KIB;
	b.spec.static_max_kib = b.spec.target_kib = 1200 * MIB / KIB;
	hyper_req_init(&one, on_done, &h);
	hyper_req_init(&two, on_done, &h);
	hyper_create(h.hyper, &one, &a.spec);
	hyper_create(h.hyper, &two, &b.spec);
	wait_done(&h);
	assert_int_equal(two.rc, RV_EMEMORY);
	assert_non_null(strstr(two.error.detail, "claimed"));
	assert_true(hyper_req_busy(&one));
	hyper_cancel(&one);
	wait_done(&h);
	assert_int_equal(one.rc, RV_ECANCELLED);
	assert_int_equal(count_domains(&h, NULL), 0);
	assert_int_equal(create(&h, &b), 0);
	host_fini(&h);
}

static void foreign_hands(void **state)
{
	struct hyper_domain_id ghost;
	struct host h;
	struct guest g;

	(void)state;
	host_init(&h, false);
	guest_spec(&h, &g);
	assert_int_equal(create(&h, &g), 0);
	assert_int_equal(hyper_sim_make_ghost(h.hyper, "ghost", 65536, &ghost), 0);
	assert_int_equal(h.events[HYPER_EV_INTRODUCED], 1);
	pass(&h, 1);
	assert_int_equal(h.events[HYPER_EV_INTRODUCED], 2);
	assert_int_equal(count_domains(&h, NULL), 2);
	assert_int_equal(hyper_sim_destroy_behind(h.hyper, g.id.domid), 0);
	assert_int_equal(h.events[HYPER_EV_RELEASED], 0);
	pass(&h, 1);
	assert_int_equal(h.events[HYPER_EV_RELEASED], 1);
	assert_int_equal(call(&h, &g, hyper_unpause), RV_ENOENT);
	assert_int_equal(call(&h, &g, hyper_destroy), 0);
	g.id = ghost;
	assert_int_equal(call(&h, &g, hyper_destroy), 0);
	assert_int_equal(count_domains(&h, NULL), 0);
	host_fini(&h);
}

static void xenstored_away(void **state)
{
	struct hyper_req req, other;
	struct host h;
	struct guest g;

	(void)state;
	host_init(&h, false);
	guest_spec(&h, &g);
	assert_int_equal(create(&h, &g), 0);
	assert_int_equal(call(&h, &g, hyper_unpause), 0);
	hyper_sim_set_stored(h.hyper, false);
	hyper_req_init(&req, on_done, &h);
	hyper_set_target(h.hyper, &req, &g.id, 100 * MIB / KIB);
	pass(&h, 5000);
	assert_int_equal(h.events[HYPER_EV_STORED_LOST], 1);
	assert_false(h.done);
	assert_int_equal(state_of(&h, &g), HYPER_RUNNING); /* what needs none goes on */
	hyper_cancel(&req);
	wait_done(&h);
	assert_int_equal(req.rc, RV_ECANCELLED);
	hyper_req_init(&other, on_done, &h);
	hyper_set_target(h.hyper, &other, &g.id, 100 * MIB / KIB);
	pass(&h, 100);
	assert_false(h.done);
	hyper_sim_set_stored(h.hyper, true);
	wait_done(&h);
	assert_int_equal(other.rc, 0);
	pass(&h, 1000);
	assert_int_equal(h.events[HYPER_EV_STORED_BACK], 1);
	assert_true(h.events[HYPER_EV_BALLOON] > 5);
	host_fini(&h);
}

/* A balloon that wants memory which is not there takes it when it comes, and does not
 * burn time waiting. */
static void starved_balloon(void **state)
{
	struct hyper_sim_view view;
	struct hyper_req req;
	struct host h;
	struct guest a, b;
	uint64_t events;

	(void)state;
	host_init(&h, false);
	guest_spec(&h, &a);
	a.spec.type = HYPER_PV;
	a.spec.static_max_kib = 2 * GIB / KIB;
	a.spec.target_kib = GIB / KIB;
	assert_int_equal(create(&h, &a), 0);
	assert_int_equal(call(&h, &a, hyper_unpause), 0);
	guest_spec(&h, &b);
	b.spec.static_max_kib = b.spec.target_kib = 900 * MIB / KIB;
	assert_int_equal(create(&h, &b), 0);
	pass(&h, 100);
	hyper_req_init(&req, on_done, &h);
	hyper_set_maxmem(h.hyper, &req, &a.id, 2 * GIB / KIB);
	wait_done(&h);
	hyper_req_init(&req, on_done, &h);
	hyper_set_target(h.hyper, &req, &a.id, 2 * GIB / KIB);
	wait_done(&h);
	events = loop_sim_event_count(h.loop);
	pass(&h, 10000);
	assert_true(loop_sim_event_count(h.loop) - events < 1200); /* ticks of 10 ms */
	hyper_req_init(&req, on_done, &h);
	hyper_info(h.hyper, &req, &a.id);
	wait_done(&h);
	assert_in_range(req.domain.actual_kib, 1100 * MIB / KIB, 1150 * MIB / KIB);
	assert_int_equal(call(&h, &b, hyper_destroy), 0);
	pass(&h, 2000);
	hyper_req_init(&req, on_done, &h);
	hyper_info(h.hyper, &req, &a.id);
	wait_done(&h);
	assert_in_range(req.domain.actual_kib, 2000 * MIB / KIB, 2 * GIB / KIB);
	assert_int_equal(hyper_sim_look(h.hyper, &a.spec.vm, &view), 0);
	assert_true(view.booted);
	host_fini(&h);
}

/* --- a guest moves from one host to another --- */

struct pipe {
	struct buf bytes;
	struct hyper_req *from, *to;
	bool ended;
	int64_t stop_us;
	struct loop *loop;
};

static size_t pipe_room(void *arg, uint8_t **room)
{
	struct pipe *p = arg;

	if (buf_len(&p->bytes) > 1 << 20)
		return 0;
	return buf_reserve(&p->bytes, 1 << 18, room) == 0 ? 1 << 18 : 0;
}

static void pipe_filled(void *arg, size_t n)
{
	struct pipe *p = arg;

	buf_commit(&p->bytes, n);
	hyper_kick(p->to);
}

static size_t pipe_peek(void *arg, const uint8_t **data, bool *end)
{
	struct pipe *p = arg;

	*data = buf_data(&p->bytes);
	*end = p->ended;
	return buf_len(&p->bytes);
}

static void pipe_consumed(void *arg, size_t n)
{
	struct pipe *p = arg;

	buf_consume(&p->bytes, n);
	hyper_kick(p->from);
}

static void pipe_suspended(void *arg)
{
	struct pipe *p = arg;

	p->stop_us = loop_now_us(p->loop);
}

static void live_migration_downtime(void **state)
{
	struct hyper_save_spec save = {.live = true};
	struct hyper_source source;
	struct hyper_sim_view view;
	struct hyper_req from, to;
	struct host a, b;
	struct guest g;
	struct pipe p;
	int64_t gap_us;

	(void)state;
	host_init(&a, false);
	memset(&b, 0, sizeof b);
	b.loop = a.loop;
	b.config = a.config;
	b.config.seed = 2;
	host_open(&b);
	memset(&p, 0, sizeof p);
	buf_init(&p.bytes, 1 << 22);
	p.loop = a.loop;
	p.from = &from;
	p.to = &to;

	guest_spec(&a, &g);
	g.spec.platform = "sim.dirty_pages_per_s=20000 sim.working_set=32MiB "
			  "sim.suspend=30ms sim.used_ppm=500000";
	assert_int_equal(create(&a, &g), 0);
	assert_int_equal(call(&a, &g, hyper_unpause), 0);
	pass(&a, 2000);
	save.sink =
		(struct hyper_sink){.room = pipe_room, .filled = pipe_filled, .arg = &p};
	save.suspended = pipe_suspended;
	save.arg = &p;
	source = (struct hyper_source){
		.peek = pipe_peek, .consumed = pipe_consumed, .arg = &p};
	hyper_req_init(&from, on_done, &a);
	hyper_req_init(&to, on_done, &b);
	hyper_save(a.hyper, &from, &g.id, &save);
	g.spec.handle = uuid_random(loop_prng(a.loop));
	g.spec.generation = 2;
	hyper_restore(b.hyper, &to, &g.spec, &source);
	wait_done(&a);
	assert_int_equal(from.rc, 0);
	wait_done(&b);
	if (to.rc != 0)
		fail_msg("%s", to.error.detail);
	assert_int_equal(call(&a, &g, hyper_destroy), 0);
	g.id = to.id;
	assert_int_equal(call(&b, &g, hyper_unpause), 0);
	gap_us = loop_now_us(b.loop) - p.stop_us;
	assert_int_equal(hyper_sim_look(b.hyper, &g.spec.vm, &view), 0);
	assert_int_equal(view.damaged_pages, 0);
	assert_int_equal(view.restores, 1);
	assert_in_range(view.longest_gap_us, gap_us - 1, gap_us + 1);
	assert_true(view.ran_us > 2000000 && view.writes > 40000);
	buf_fini(&p.bytes);
	hyper_free(b.hyper);
	host_fini(&a);
}

/* A save that is cancelled while the guest still thinks about suspending: it must not
 * suspend later, and a save in the way keeps others out. */
static void suspend_is_taken_back(void **state)
{
	struct hyper_save_spec save = {.live = false};
	struct hyper_req req;
	struct host h;
	struct guest g;
	struct pipe p;

	(void)state;
	host_init(&h, false);
	memset(&p, 0, sizeof p);
	buf_init(&p.bytes, 1 << 28);
	p.loop = h.loop;
	hyper_req_init(&req, on_done, &h);
	p.to = p.from = &req;
	guest_spec(&h, &g);
	g.spec.platform = "sim.suspend=2s";
	assert_int_equal(create(&h, &g), 0);
	assert_int_equal(call(&h, &g, hyper_unpause), 0);
	pass(&h, 100);
	save.sink =
		(struct hyper_sink){.room = pipe_room, .filled = pipe_filled, .arg = &p};
	hyper_save(h.hyper, &req, &g.id, &save);
	pass(&h, 1000);
	assert_false(h.done);
	{
		struct hyper_req other;
		hyper_req_init(&other, on_done, &h);
		hyper_destroy(h.hyper, &other, &g.id);
		wait_done(&h);
		assert_int_equal(other.rc, RV_EBUSY);
	}
	hyper_cancel(&req);
	wait_done(&h);
	assert_int_equal(req.rc, RV_ECANCELLED);
	assert_int_equal(req.domain.state, HYPER_RUNNING);
	pass(&h, 5000);
	assert_int_equal(state_of(&h, &g), HYPER_RUNNING);
	assert_int_equal(h.events[HYPER_EV_SHUTDOWN], 0);
	buf_fini(&p.bytes);
	host_fini(&h);
}

/* --- the real clock --- */

static void console_talks(void **state)
{
	char text[256] = "";
	struct pollfd poll_fd;
	struct hyper_req req;
	struct host h;
	struct guest g;
	size_t len = 0;

	(void)state;
	host_init(&h, true);
	guest_spec(&h, &g);
	assert_int_equal(create(&h, &g), 0);
	assert_int_equal(call(&h, &g, hyper_unpause), 0);
	hyper_req_init(&req, on_done, &h);
	hyper_console_open(h.hyper, &req, &g.id);
	wait_done(&h);
	assert_int_equal(req.rc, 0);
	assert_int_equal(write(req.fd, "uptime\n", 7), 7);
	for (int i = 0; i < 1000 && strstr(text, "up ") == NULL; i++) {
		ssize_t r;

		(void)state_of(&h, &g); /* lets the loop turn */
		poll_fd = (struct pollfd){.fd = req.fd, .events = POLLIN};
		if (poll(&poll_fd, 1, 0) <= 0)
			continue;
		r = read(req.fd, text + len, sizeof text - 1 - len);
		assert_true(r > 0);
		len += (size_t)r;
	}
	assert_non_null(strstr(text, "web# "));
	assert_non_null(strstr(text, " MiB"));
	close(req.fd);
	(void)state_of(&h, &g);
	assert_int_equal(call(&h, &g, hyper_destroy), 0);
	host_fini(&h);
}

/* reeved is killed -9; its guests run on, with their clocks. */
static void guests_survive_kill(void **state)
{
	char path[64];
	struct hyper_sim_view view;
	struct hyper_domain_id id;
	struct host h;
	struct guest g;
	int ready[2];
	char byte;
	pid_t pid;

	(void)state;
	snprintf(path, sizeof path, "/tmp/reeve-sim-kill-%d", getpid());
	unlink(path);
	assert_int_equal(pipe(ready), 0);
	pid = fork();
	if (pid == 0) {
		memset(&h, 0, sizeof h);
		host_init(&h, true);
		hyper_free(h.hyper);
		h.config.state_path = path;
		host_open(&h);
		guest_spec(&h, &g);
		if (create(&h, &g) != 0 || call(&h, &g, hyper_unpause) != 0)
			_exit(1);
		if (write(ready[1], "r", 1) != 1)
			_exit(1);
		for (;;)
			pause();
	}
	assert_int_equal(read(ready[0], &byte, 1), 1);
	kill(pid, SIGKILL);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
	host_init(&h, true);
	hyper_free(h.hyper);
	h.config.state_path = path;
	usleep(30000);
	host_open(&h);
	assert_int_equal(count_domains(&h, &id), 1);
	g.id = id;
	assert_int_equal(state_of(&h, &g), HYPER_RUNNING);
	{
		struct hyper_req req;

		hyper_req_init(&req, on_done, &h);
		hyper_info(h.hyper, &req, &id);
		wait_done(&h);
		assert_int_equal(hyper_sim_look(h.hyper, &req.domain.vm, &view), 0);
	}
	assert_true(view.ran_us >= 30000 && view.longest_gap_us == 0);
	assert_int_equal(call(&h, &g, hyper_destroy), 0);
	host_fini(&h);
	close(ready[0]);
	close(ready[1]);
	unlink(path);
}

static void cpu_levels(void **state)
{
	uint8_t common[HYPER_MAX_CPU_POLICY], old[HYPER_MAX_CPU_POLICY];
	struct hyper_req req;
	struct host h, other;
	size_t len, old_len;
	struct rv_error e;
	struct guest g;

	(void)state;
	host_init(&h, false);
	memset(&other, 0, sizeof other);
	other.loop = h.loop;
	other.config = h.config;
	other.config.cpu_features = HYPER_SIM_CPU_SSE42 | HYPER_SIM_CPU_SHA;
	host_open(&other);
	hyper_req_init(&req, on_done, &other);
	hyper_host(other.hyper, &req);
	wait_done(&other);
	old_len = req.host->cpu_policy_len;
	memcpy(old, req.host->cpu_policy, old_len);
	hyper_req_init(&req, on_done, &h);
	hyper_host(h.hyper, &req);
	wait_done(&h);
	assert_int_equal(hyper_cpu_check(h.hyper, req.host->cpu_policy,
				 req.host->cpu_policy_len, old, old_len, &e),
		RV_ECPU);
	assert_non_null(strstr(e.detail, "sha"));
	assert_null(strstr(e.detail, "sse4.2"));
	assert_int_equal(
		hyper_cpu_common(h.hyper, req.host->cpu_policy, req.host->cpu_policy_len,
			old, old_len, common, &len, &e),
		0);
	assert_int_equal(hyper_cpu_check(h.hyper, old, old_len, common, len, &e), 0);
	assert_int_equal(
		hyper_cpu_check(h.hyper, old, old_len, common, len - 1, &e), RV_EINVAL);
	guest_spec(&h, &g);
	g.spec.cpu_policy = old;
	g.spec.cpu_policy_len = old_len;
	assert_int_equal(create(&h, &g), RV_ECPU);
	hyper_free(other.hyper);
	host_fini(&h);
}

/* Random faults, calls and cancels: every request answers once, memory adds up. */
static void storm(void **state)
{
	enum { GUESTS = 6, ROUNDS = 1500 };
	struct hyper_req req[GUESTS];
	struct guest g[GUESTS];
	struct rv_error e;
	struct host h;

	(void)state;
	host_init(&h, false);
	hyper_free(h.hyper);
	for (int f = 1; f < HYPER_SIM_FAULT_COUNT; f++)
		h.config.fault_ppm[f] = 40000;
	host_open(&h);
	for (int round = 0; round < ROUNDS; round++) {
		int i = (int)prng_below(loop_prng(h.loop), GUESTS);
		struct hyper_domain_id id = {.domid = HYPER_DOMID_ANY};

		if (round < GUESTS)
			guest_spec(&h, &g[i = round]);
		id.handle = g[i].spec.handle;
		id.generation = 1;
		if (g[i].id.domid != 0)
			id.boot_id = g[i].id.boot_id;
		hyper_req_init(&req[i], on_done, &h);
		switch (prng_below(loop_prng(h.loop), 6)) {
		case 0:
		case 1:
			hyper_create(h.hyper, &req[i], &g[i].spec);
			break;
		case 2:
			hyper_unpause(h.hyper, &req[i], &id);
			break;
		case 3:
			hyper_set_target(h.hyper, &req[i], &id,
				prng_range(loop_prng(h.loop), 1000, 262144));
			break;
		case 4:
			hyper_request_shutdown(
				h.hyper, &req[i], &id, HYPER_REASON_POWEROFF);
			break;
		default:
			hyper_destroy(h.hyper, &req[i], &id);
		}
		pass(&h, (int64_t)prng_below(loop_prng(h.loop), 3));
		if (!h.done)
			hyper_cancel(&req[i]);
		wait_done(&h);
		if (req[i].rc == 0 && req[i].call == HYPER_CALL_CREATE)
			g[i].id = req[i].id;
		if (hyper_sim_check(h.hyper, &e) != 0)
			fail_msg("round %d: %s", round, e.detail);
		pass(&h, (int64_t)prng_below(loop_prng(h.loop), 100));
	}
	for (int f = 1; f < HYPER_SIM_FAULT_COUNT; f++)
		assert_true(hyper_sim_faults_fired(h.hyper, f) > 10);
	host_fini(&h);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(faults_of_one_step),
		cmocka_unit_test(fenced_stays_paused),
		cmocka_unit_test(faults_of_create_and_destroy),
		cmocka_unit_test(memory_is_claimed_once),
		cmocka_unit_test(foreign_hands),
		cmocka_unit_test(xenstored_away),
		cmocka_unit_test(starved_balloon),
		cmocka_unit_test(live_migration_downtime),
		cmocka_unit_test(suspend_is_taken_back),
		cmocka_unit_test(console_talks),
		cmocka_unit_test(guests_survive_kill),
		cmocka_unit_test(cpu_levels),
		cmocka_unit_test(storm),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
