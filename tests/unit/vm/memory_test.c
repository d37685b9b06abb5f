/* The memory of a host (vm/vm_memory.h) beside a hypervisor that answers when the test
 * says so: what a guest may still take is not promised to anybody. */
#include "vm/vm_memory.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/log.h"
#include "base/units.h"

#define MIB_KIB (MIB / KIB)

enum { DOMID = 5, SOON_MS = 50, RETRY_MS = 1100 };

static const struct uuid owner = {{7}};

struct rig {
	struct loop *loop;
	struct hyper hyper;
	struct vm_memory *memory;
	struct hyper_req *asked, *host_asked; /* not answered yet */
	struct hyper_domain now;	      /* the truth */
	struct hyper_host host;
	struct vm_reservation reservation;
	int answers, rc;
};

static struct rig *rig_of(struct hyper *h)
{
	return CONTAINER_OF(h, struct rig, hyper);
}

static void rig_submit(struct hyper *h, struct hyper_req *req)
{
	struct hyper_req **slot =
		req->call == HYPER_CALL_HOST ? &rig_of(h)->host_asked : &rig_of(h)->asked;

	assert_null(*slot);
	*slot = req;
}

static void rig_cancel(struct hyper *h, struct hyper_req *req)
{
	(void)h;
	(void)req;
}

static const struct hyper_ops rig_ops = {.submit = rig_submit, .cancel = rig_cancel};

/* Some time passes; the hypervisor says at any time how much is free. */
static void run(struct rig *r, int64_t ms)
{
	int64_t until_us = loop_now_us(r->loop) + ms * 1000;

	do {
		struct hyper_req *req = r->host_asked;

		r->host_asked = NULL;
		r->host.free_kib = r->host.total_kib - r->now.actual_kib;
		if (req) {
			req->host = &r->host;
			hyper_finish(req);
		}
		loop_sim_run_until(r->loop, loop_now_us(r->loop) + 1000);
	} while (loop_now_us(r->loop) < until_us);
}

static void answer(struct rig *r, int rc)
{
	struct hyper_req *req = r->asked;

	r->asked = NULL;
	req->rc = rc;
	if (rc)
		rv_error_set(&req->error, rc, "the answer was lost");
	req->domain = r->now;
	hyper_finish(req);
	run(r, SOON_MS);
}

/* The order that waits for its answer is this one; it takes effect. */
static uint64_t carried_out(struct rig *r, enum hyper_call call)
{
	assert_non_null(r->asked);
	assert_int_equal(r->asked->call, call);
	if (call == HYPER_CALL_SET_TARGET)
		r->now.target_kib = r->asked->in.kib;
	else
		r->now.maxmem_kib = r->asked->in.kib;
	return r->asked->in.kib;
}

static void expect(struct rig *r, enum hyper_call call)
{
	assert_non_null(r->asked);
	assert_int_equal(r->asked->call, call);
}

static void balloons(struct rig *r, uint64_t actual_kib)
{
	struct hyper_event event = {.kind = HYPER_EV_BALLOON};

	r->now.actual_kib = actual_kib;
	event.domain = r->now;
	hyper_emit(&r->hyper, &event);
	run(r, SOON_MS);
}

static void reserved(void *arg, uint64_t token, int rc, uint64_t short_kib)
{
	struct rig *r = arg;

	(void)token;
	(void)short_kib;
	r->answers++;
	r->rc = rc;
}

static void reserve(struct rig *r, uint64_t mib)
{
	struct rv_error e;

	assert_int_equal(vm_memory_reserve(r->memory, &r->reservation, &owner,
				 mib * MIB_KIB, reserved, r, 1, &e),
		0);
	run(r, SOON_MS);
}

/* A host with so much, and one guest that has its target, and maxmem. */
static struct rig *rig_new(uint64_t total_mib, uint64_t guest_mib, bool proven)
{
	struct rig *r = calloc(1, sizeof *r);
	struct memctl_domain d = {.domid = DOMID,
		.static_max_kib = 1024 * MIB_KIB,
		.dynamic_min_kib = 256 * MIB_KIB,
		.dynamic_max_kib = 1024 * MIB_KIB,
		.actual_kib = guest_mib * MIB_KIB,
		.target_kib = guest_mib * MIB_KIB,
		.maxmem_kib = guest_mib * MIB_KIB,
		.proven = proven,
		.mode = MEMCTL_RUNNING};
	struct rv_error e;

	log_setup(getenv("VM_LOG") ? LOG_DEBUG : LOG_ERROR + 1, NULL, NULL);
	assert_int_equal(loop_new_sim(&r->loop, 1), 0);
	hyper_init(&r->hyper, &rig_ops, r->loop);
	r->now = (struct hyper_domain){.id = {.domid = DOMID, .handle = {{9}}},
		.state = HYPER_RUNNING,
		.actual_kib = d.actual_kib,
		.target_kib = d.target_kib,
		.maxmem_kib = d.maxmem_kib};
	r->host.total_kib = total_mib * MIB_KIB;
	r->host.free_kib = r->host.total_kib - d.actual_kib;
	assert_int_equal(
		vm_memory_new(&r->memory, r->loop, &r->hyper, NULL, NULL, NULL), 0);
	vm_memory_sync(r->memory, &r->host);
	assert_int_equal(vm_memory_add(r->memory, &r->now.id, &d, 0, NULL, &e), 0);
	run(r, SOON_MS);
	return r;
}

static void rig_free(struct rig *r)
{
	vm_memory_release(&r->reservation);
	vm_memory_stop(r->memory);
	if (r->asked)
		r->asked->hyper = NULL;
	if (r->host_asked)
		r->host_asked->hyper = NULL;
	vm_memory_free(r->memory);
	loop_free(r->loop);
	free(r);
}

/* A guest gave memory back, and its maxmem follows: what that frees is known only once it
 * was looked at after that, however often the look fails. */
static void a_lowered_maxmem_is_looked_at(void **state)
{
	struct rig *r = rig_new(1024, 1024, true);
	uint64_t target_kib;

	(void)state;
	vm_memory_seen(r->memory, &r->now); /* as it was set here */
	expect(r, HYPER_CALL_INFO);
	answer(r, 0);
	reserve(r, 256);
	target_kib = carried_out(r, HYPER_CALL_SET_TARGET);
	assert_true(target_kib <= 768 * MIB_KIB);
	answer(r, 0);
	balloons(r, target_kib);
	assert_int_equal(r->answers, 0);
	assert_int_equal(carried_out(r, HYPER_CALL_SET_MAXMEM), target_kib);
	answer(r, 0);
	assert_int_equal(r->answers, 0);
	for (int i = 0; i < 3; i++) {
		expect(r, HYPER_CALL_INFO);
		answer(r, RV_EHYPERVISOR);
		assert_null(r->asked);
		run(r, RETRY_MS);
		assert_int_equal(r->answers, 0);
	}
	expect(r, HYPER_CALL_INFO);
	/* It had grown on its way, before the limit was in place. */
	r->now.actual_kib = target_kib + 64 * MIB_KIB;
	answer(r, 0);
	assert_int_equal(r->answers, 0);
	balloons(r, target_kib);
	assert_int_equal(r->answers, 1);
	assert_int_equal(r->rc, 0);
	rig_free(r);
}

/* A raise that failed may be in place: the guest could grow up to it. */
static void a_raise_that_failed_may_be_in_place(void **state)
{
	struct rig *r = rig_new(1024, 512, true);
	uint64_t raised_kib;

	(void)state;
	raised_kib = carried_out(r, HYPER_CALL_SET_MAXMEM);
	assert_true(raised_kib > 900 * MIB_KIB);
	answer(r, RV_EHYPERVISOR);
	reserve(r, 400);
	run(r, RETRY_MS);
	assert_int_equal(r->answers, 0);
	expect(r, HYPER_CALL_INFO);
	answer(r, RV_EHYPERVISOR);
	run(r, RETRY_MS);
	assert_int_equal(r->answers, 0);
	expect(r, HYPER_CALL_INFO);
	answer(r, 0);
	/* It is there indeed, and is lowered first. */
	assert_int_equal(r->answers, 0);
	assert_true(carried_out(r, HYPER_CALL_SET_MAXMEM) < raised_kib);
	answer(r, 0);
	assert_int_equal(r->answers, 0);
	expect(r, HYPER_CALL_INFO);
	answer(r, 0);
	assert_int_equal(r->answers, 1);
	assert_int_equal(r->rc, 0);
	rig_free(r);
}

/* One that is not in place is ordered anew, together with what was to follow it. */
static void a_failed_raise_is_made_again(void **state)
{
	struct rig *r = rig_new(1024, 512, true);
	uint64_t raised_kib;

	(void)state;
	expect(r, HYPER_CALL_SET_MAXMEM);
	raised_kib = r->asked->in.kib;
	answer(r, RV_EHYPERVISOR);
	run(r, RETRY_MS);
	expect(r, HYPER_CALL_INFO);
	answer(r, 0);
	assert_int_equal(carried_out(r, HYPER_CALL_SET_MAXMEM), raised_kib);
	answer(r, 0);
	assert_int_equal(carried_out(r, HYPER_CALL_SET_TARGET), raised_kib);
	answer(r, 0);
	assert_null(r->asked);
	assert_int_equal(vm_memory_ordered_kib(r->memory, &r->now.id), raised_kib);
	rig_free(r);
}

/* What a frozen guest may still come to hold: a target that failed, too. */
static void a_failed_target_counts_as_ordered(void **state)
{
	struct rig *r = rig_new(1024, 512, true);
	uint64_t raised_kib = carried_out(r, HYPER_CALL_SET_MAXMEM);

	(void)state;
	answer(r, 0);
	expect(r, HYPER_CALL_INFO); /* what it was before is not known */
	answer(r, 0);
	assert_int_equal(carried_out(r, HYPER_CALL_SET_TARGET), raised_kib);
	answer(r, RV_EHYPERVISOR);
	vm_memory_mode(r->memory, &r->now.id, MEMCTL_FROZEN);
	assert_int_equal(vm_memory_ordered_kib(r->memory, &r->now.id), raised_kib);
	run(r, RETRY_MS);
	assert_int_equal(vm_memory_ordered_kib(r->memory, &r->now.id), raised_kib);
	answer(r, 0);
	assert_int_equal(vm_memory_ordered_kib(r->memory, &r->now.id), raised_kib);
	assert_null(r->asked);
	rig_free(r);
}

/* Another tool's change is undone until that succeeds, also of a guest that the
 * controller leaves alone. */
static void another_tools_change_is_undone(void **state)
{
	struct rig *r = rig_new(1024, 1024, false);

	(void)state;
	vm_memory_seen(r->memory, &r->now); /* as it was set here */
	expect(r, HYPER_CALL_INFO);
	answer(r, 0);
	r->now.target_kib = 512 * MIB_KIB;
	vm_memory_seen(r->memory, &r->now);
	expect(r, HYPER_CALL_INFO);
	answer(r, 0);
	for (int i = 0; i < 2; i++) {
		expect(r, HYPER_CALL_SET_TARGET);
		assert_int_equal(r->asked->in.kib, 1024 * MIB_KIB);
		answer(r, RV_EHYPERVISOR);
		run(r, RETRY_MS);
		expect(r, HYPER_CALL_INFO);
		answer(r, 0);
	}
	/* The last one took effect, though its answer was lost. */
	assert_int_equal(carried_out(r, HYPER_CALL_SET_TARGET), 1024 * MIB_KIB);
	answer(r, RV_EHYPERVISOR);
	run(r, RETRY_MS);
	expect(r, HYPER_CALL_INFO);
	answer(r, 0);
	run(r, RETRY_MS);
	assert_null(r->asked);
	rig_free(r);
}

/* The controller's own lowering comes while that is still being undone, takes effect, and
 * its answer is lost: what it frees counts as soon as it was looked at. */
static void a_lowering_while_a_change_is_undone(void **state)
{
	struct rig *r = rig_new(1024, 1024, true);
	uint64_t target_kib;

	(void)state;
	vm_memory_seen(r->memory, &r->now); /* as it was set here */
	expect(r, HYPER_CALL_INFO);
	answer(r, 0);
	r->now.maxmem_kib = 1100 * MIB_KIB;
	vm_memory_seen(r->memory, &r->now);
	expect(r, HYPER_CALL_INFO);
	answer(r, 0);
	expect(r, HYPER_CALL_SET_MAXMEM);
	answer(r, RV_EHYPERVISOR);
	reserve(r, 256);
	run(r, RETRY_MS);
	expect(r, HYPER_CALL_INFO);
	answer(r, 0);
	target_kib = carried_out(r, HYPER_CALL_SET_TARGET);
	assert_true(target_kib <= 768 * MIB_KIB);
	answer(r, 0);
	assert_int_equal(carried_out(r, HYPER_CALL_SET_MAXMEM), 1024 * MIB_KIB);
	balloons(r, target_kib);
	answer(r, 0);
	expect(r, HYPER_CALL_INFO);
	answer(r, 0);
	assert_int_equal(carried_out(r, HYPER_CALL_SET_MAXMEM), target_kib);
	answer(r, RV_EHYPERVISOR);
	run(r, RETRY_MS);
	assert_int_equal(r->answers, 0);
	expect(r, HYPER_CALL_INFO);
	answer(r, 0);
	assert_null(r->asked);
	assert_int_equal(r->answers, 1);
	assert_int_equal(r->rc, 0);
	rig_free(r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_lowered_maxmem_is_looked_at),
		cmocka_unit_test(a_raise_that_failed_may_be_in_place),
		cmocka_unit_test(a_failed_raise_is_made_again),
		cmocka_unit_test(a_failed_target_counts_as_ordered),
		cmocka_unit_test(another_tools_change_is_undone),
		cmocka_unit_test(a_lowering_while_a_change_is_undone),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
