/* Conformance: memory given, taken, saved and restored. */
#include <string.h>

#include "xen/conformance_case.h"

typedef unsigned long long ull;

/* Longer than any guest of the suite: the stream is kept whole. */
enum { STREAM_CAP = 512 * 1024 * 1024 };

int cf_memory_refused(struct hyper_conformance *c, struct rv_error *e)
{
	uint64_t before_kib, after_kib;
	struct hyper_domain_spec spec;
	struct cf_vm vm;
	int rc;

	cf_vm_init(&vm, c, "toobig");
	spec = vm.spec;
	CF_TRY(cf_free_kib(c, &before_kib, e));
	vm.spec.static_max_kib = vm.spec.target_kib = before_kib / 4 * 4;
	CF_REFUSED(e, RV_EMEMORY, cf_vm_create(&vm, e)); /* its overhead is too much */
	vm.spec.target_kib = vm.spec.static_max_kib + 4;
	CF_REFUSED(e, RV_EINVAL, cf_vm_create(&vm, e));
	CF_TRY(cf_free_kib(c, &after_kib, e));
	CF_CHECK(e, cf_same_kib(c, before_kib, after_kib), "%llu KiB before, %llu after",
		(ull)before_kib, (ull)after_kib);
	CF_CHECK(e, vm.introduced == 0, "introduced %u times", vm.introduced);
	vm.spec.static_max_kib = spec.static_max_kib;
	vm.spec.target_kib = spec.target_kib;
	CF_TRY(cf_vm_create(&vm, e));
	CF_TRY(cf_free_kib(c, &after_kib, e));
	CF_CHECK(e,
		before_kib - after_kib <=
			spec.static_max_kib + hyper_overhead_kib(c->hyper, &spec),
		"it took %llu KiB, more than memory and overhead",
		(ull)(before_kib - after_kib));
out:
	return cf_vm_fini(&vm, rc, e);
}

static int set_target(struct cf_vm *vm, uint64_t kib, struct rv_error *e)
{
	struct cf_call call;

	cf_call_init(&call, vm->c);
	hyper_set_target(vm->c->hyper, &call.req, &vm->id, kib);
	return cf_answer(&call, e);
}

static int set_maxmem(struct cf_vm *vm, uint64_t kib, struct rv_error *e)
{
	struct cf_call call;

	cf_call_init(&call, vm->c);
	hyper_set_maxmem(vm->c->hyper, &call.req, &vm->id, kib);
	return cf_answer(&call, e);
}

/* Looks until its memory is within a page of `kib`. */
static int reaches(struct cf_vm *vm, uint64_t kib, struct rv_error *e)
{
	struct hyper_domain d;
	int rc;

	for (int64_t ms = 0; ms <= vm->c->limit_ms; ms += 20) {
		rc = cf_vm_info(vm, &d, e);
		if (rc != 0)
			return rc;
		if (d.actual_kib + 4 >= kib && d.actual_kib <= kib + 4)
			return 0;
		cf_sleep(vm->c, 20);
	}
	return rv_error_set(e, RV_ETIMEDOUT, "it holds %llu KiB, should come to %llu",
		(ull)d.actual_kib, (ull)kib);
}

int cf_balloon(struct hyper_conformance *c, struct rv_error *e)
{
	uint64_t high_kib, low_kib, free_kib, freed_kib;
	struct cf_vm vm;
	int rc;

	cf_vm_init(&vm, c, "balloon");
	high_kib = vm.spec.target_kib;
	low_kib = high_kib * 3 / 4 / 4 * 4;
	CF_TRY(cf_vm_boot(&vm, e));
	CF_TRY(reaches(&vm, high_kib, e));
	CF_TRY(cf_free_kib(c, &free_kib, e));
	CF_TRY(set_target(&vm, low_kib, e));
	CF_TRY(reaches(&vm, low_kib, e));
	CF_TRY(cf_free_kib(c, &freed_kib, e));
	CF_CHECK(e, freed_kib - free_kib + 8 >= high_kib - low_kib,
		"it gave %llu KiB, the host got %llu", (ull)(high_kib - low_kib),
		(ull)(freed_kib - free_kib));
	CF_CHECK(e, vm.moved > 0, "no event told that its memory moved");
	CF_TRY(set_maxmem(&vm, high_kib, e));
	CF_TRY(set_target(&vm, high_kib, e));
	CF_TRY(set_target(&vm, high_kib, e));
	CF_TRY(reaches(&vm, high_kib, e));
	CF_REFUSED(e, RV_EINVAL, set_target(&vm, vm.spec.static_max_kib + 4, e));
out:
	return cf_vm_fini(&vm, rc, e);
}

int cf_maxmem(struct hyper_conformance *c, struct rv_error *e)
{
	uint64_t high_kib, low_kib;
	struct hyper_domain d;
	struct cf_vm vm;
	int rc;

	cf_vm_init(&vm, c, "maxmem");
	high_kib = vm.spec.target_kib;
	low_kib = high_kib * 3 / 4 / 4 * 4;
	CF_TRY(cf_vm_boot(&vm, e));
	CF_TRY(set_target(&vm, low_kib, e));
	CF_TRY(reaches(&vm, low_kib, e));
	CF_TRY(set_maxmem(&vm, low_kib, e));
	CF_TRY(set_target(&vm, high_kib, e));
	cf_sleep(c, 200);
	CF_TRY(cf_vm_info(&vm, &d, e));
	CF_CHECK(e, d.actual_kib <= low_kib, "it holds %llu KiB, its limit is %llu",
		(ull)d.actual_kib, (ull)low_kib);
	CF_TRY(set_maxmem(&vm, high_kib, e));
	CF_TRY(reaches(&vm, high_kib, e));
out:
	return cf_vm_fini(&vm, rc, e);
}

/* --- streams --- */

/* Keeps a save's bytes. It has room now and then, and little, so that a driver that does
 * not wait, or takes more than it is given, is found out. */
struct keep {
	struct hyper_conformance *c;
	struct hyper_req *req;
	struct buf bytes;
	size_t offered, rooms, at;
	struct timer later;
	uint32_t suspended, rounds;
	enum hyper_precopy_verdict verdict;
	uint64_t dirty_seen, stop_below;
	struct hyper_precopy last;
	bool started;
};

static void keep_later(void *arg)
{
	struct keep *k = arg;

	if (hyper_req_busy(k->req))
		hyper_kick(k->req);
}

static size_t keep_room(void *arg, uint8_t **room)
{
	struct keep *k = arg;
	size_t n = k->rooms % 3 == 0 ? 1 + k->rooms % 5000 : 256 * 1024;

	k->started = true;
	if (++k->rooms % 7 == 0) {
		timer_start_ms(&k->later, 1);
		return 0;
	}
	k->offered = buf_reserve(&k->bytes, n, room) == 0 ? n : 0;
	return k->offered;
}

static void keep_filled(void *arg, size_t n)
{
	struct keep *k = arg;

	if (n > k->offered)
		n = 0; /* and the stream will not restore */
	buf_commit(&k->bytes, n);
}

static size_t keep_peek(void *arg, const uint8_t **data, bool *end)
{
	struct keep *k = arg;
	size_t left = buf_len(&k->bytes) - k->at;
	size_t n = k->rooms % 3 == 0 ? 1 + k->rooms % 5000 : 256 * 1024;

	if (++k->rooms % 7 == 0) {
		timer_start_ms(&k->later, 1);
		*end = false;
		return 0;
	}
	*data = buf_data(&k->bytes) + k->at;
	*end = n >= left;
	return n < left ? n : left;
}

static void keep_consumed(void *arg, size_t n)
{
	struct keep *k = arg;

	k->at += n;
}

static void keep_suspended(void *arg)
{
	struct keep *k = arg;

	k->suspended++;
}

static enum hyper_precopy_verdict keep_policy(void *arg, const struct hyper_precopy *p)
{
	struct keep *k = arg;

	k->rounds++;
	k->dirty_seen += p->dirty_pages;
	k->last = *p;
	if (k->verdict == HYPER_PRECOPY_ABORT)
		return HYPER_PRECOPY_ABORT;
	if (p->dirty_pages < k->stop_below || k->rounds >= 8)
		return HYPER_PRECOPY_STOP;
	return HYPER_PRECOPY_CONTINUE;
}

static void keep_init(struct keep *k, struct hyper_conformance *c)
{
	memset(k, 0, sizeof *k);
	k->c = c;
	buf_init(&k->bytes, STREAM_CAP);
	timer_init(&k->later, c->loop, "conformance.keep", keep_later, k);
}

static void keep_fini(struct keep *k)
{
	timer_stop(&k->later);
	buf_fini(&k->bytes);
}

static void save_start(struct keep *k, struct cf_call *call, struct cf_vm *vm, bool live)
{
	struct hyper_save_spec spec = {
		.live = live,
		.sink = {keep_room, keep_filled, k},
		.policy = keep_policy,
		.suspended = keep_suspended,
		.arg = k,
	};

	cf_call_init(call, vm->c);
	k->req = &call->req;
	hyper_save(vm->c->hyper, &call->req, &vm->id, &spec);
}

static int save(struct keep *k, struct cf_vm *vm, bool live, struct rv_error *e)
{
	struct cf_call call;
	int rc;

	save_start(k, &call, vm, live);
	rc = cf_answer(&call, e);
	k->req = NULL;
	timer_stop(&k->later);
	if (rc == 0 && (call.req.domain.state != HYPER_SHUTDOWN ||
			       call.req.domain.reason != HYPER_REASON_SUSPEND))
		rc = rv_error_set(e, RV_EINTERNAL, "after its save it is %s",
			hyper_state_name(call.req.domain.state));
	if (rc == 0 && k->suspended != 1)
		rc = rv_error_set(e, RV_EINTERNAL, "its suspension was told %u times",
			k->suspended);
	return rc;
}

/* RV_EUNSUPPORTED where guests of this type can't be saved while they run. */
static int need_live(struct cf_vm *vm, struct rv_error *e)
{
	uint32_t cap = vm->spec.type == HYPER_PV ? HYPER_CAP_LIVE_PV : HYPER_CAP_LIVE_HVM;
	struct cf_call call;
	int rc;

	cf_call_init(&call, vm->c);
	hyper_host(vm->c->hyper, &call.req);
	rc = cf_answer(&call, e);
	if (rc != 0 || (call.req.host->caps & cap))
		return rc;
	return rv_error_set(e, RV_EUNSUPPORTED, "they can't be saved while they run");
}

/* Restores as the next incarnation. */
static int restore(struct keep *k, struct cf_vm *vm, struct rv_error *e)
{
	struct hyper_source source = {
		.peek = keep_peek, .consumed = keep_consumed, .arg = k};
	struct cf_call call;
	int rc;

	vm->spec.handle = uuid_random(loop_prng(vm->c->loop));
	vm->spec.generation++;
	vm->there = true;
	k->at = 0;
	cf_call_init(&call, vm->c);
	k->req = &call.req;
	hyper_restore(vm->c->hyper, &call.req, &vm->spec, &source);
	rc = cf_answer(&call, e);
	k->req = NULL;
	timer_stop(&k->later);
	vm->id = call.req.id;
	return rc;
}

static int check_damage(struct cf_vm *vm, struct rv_error *e)
{
	uint64_t pages = 0;
	int rc = 0;

	if (vm->c->damage != NULL)
		rc = vm->c->damage(vm->c->arg, &vm->spec.vm, &pages);
	if (rc == 0 && pages != 0)
		rc = rv_error_set(
			e, RV_EINTERNAL, "%llu pages were lost or are wrong", (ull)pages);
	return rc;
}

static int memory_hash(struct cf_vm *vm, uint64_t *hash)
{
	*hash = 0;
	return vm->c->memory_hash != NULL
		       ? vm->c->memory_hash(vm->c->arg, &vm->spec.vm, hash)
		       : 0;
}

int cf_save_restore(struct hyper_conformance *c, struct rv_error *e)
{
	uint64_t before, after;
	struct hyper_domain saved, restored;
	struct cf_vm vm;
	struct keep k;
	int rc;

	keep_init(&k, c);
	cf_vm_init(&vm, c, "save");
	CF_TRY(cf_vm_boot(&vm, e));
	if (c->dirty != NULL)
		CF_TRY(c->dirty(c->arg, &vm.spec.vm, 1000));
	cf_sleep(c, 500);
	CF_TRY(save(&k, &vm, false, e));
	CF_TRY(memory_hash(&vm, &before));
	CF_TRY(cf_vm_info(&vm, &saved, e));
	CF_TRY(cf_vm_call(&vm, hyper_destroy, e));
	vm.introduced = vm.shutdowns = vm.released = 0;
	CF_TRY(restore(&k, &vm, e));
	CF_CHECK(e, vm.introduced == 1, "introduced %u times", vm.introduced);
	CF_TRY(cf_vm_state(&vm, HYPER_PAUSED, HYPER_REASON_NONE, e));
	CF_TRY(cf_vm_info(&vm, &restored, e));
	CF_CHECK(e, restored.actual_kib == saved.actual_kib,
		"%llu KiB saved, %llu restored", (ull)saved.actual_kib,
		(ull)restored.actual_kib);
	CF_TRY(memory_hash(&vm, &after));
	CF_CHECK(e, before == after, "its memory differs");
	CF_TRY(check_damage(&vm, e));
	CF_TRY(cf_vm_call(&vm, hyper_unpause, e));
	cf_sleep(c, 100);
	CF_TRY(cf_vm_state(&vm, HYPER_RUNNING, HYPER_REASON_NONE, e));
out:
	rc = cf_vm_fini(&vm, rc, e);
	keep_fini(&k);
	return rc;
}

/* Cancelled in the middle of a live save: it runs on, and can be saved again. */
int cf_save_cancelled(struct hyper_conformance *c, struct rv_error *e)
{
	struct cf_call call;
	struct cf_vm vm;
	struct keep k;
	int rc;

	keep_init(&k, c);
	cf_vm_init(&vm, c, "cancelsave");
	CF_TRY(need_live(&vm, e));
	CF_TRY(cf_vm_boot(&vm, e));
	save_start(&k, &call, &vm, true);
	rc = cf_wait(c, &k.started, e);
	hyper_cancel(&call.req);
	CF_CHECK(e, rc == 0, "the save did not begin");
	CF_REFUSED(e, RV_ECANCELLED, cf_answer(&call, e));
	CF_CHECK(e, call.req.domain.state == HYPER_RUNNING, "it is %s",
		hyper_state_name(call.req.domain.state));
	cf_sleep(c, 200);
	CF_CHECK(e, call.answers == 1, "answered %u times", call.answers);
	CF_TRY(cf_vm_state(&vm, HYPER_RUNNING, HYPER_REASON_NONE, e));
	CF_CHECK(e, vm.shutdowns == 0, "it was suspended");
	buf_consume(&k.bytes, buf_len(&k.bytes));
	CF_TRY(save(&k, &vm, true, e));
	CF_TRY(cf_vm_call(&vm, hyper_destroy, e));
	CF_TRY(restore(&k, &vm, e));
	CF_TRY(check_damage(&vm, e));
out:
	rc = cf_vm_fini(&vm, rc, e);
	keep_fini(&k);
	return rc;
}

/* A guest that ignores the suspend: the request is taken back. */
int cf_save_deaf(struct hyper_conformance *c, struct rv_error *e)
{
	struct cf_call call;
	struct cf_vm vm;
	struct keep k;
	int rc;

	if (c->deafen == NULL)
		return rv_error_set(e, RV_EUNSUPPORTED, "guests can't be made deaf");
	keep_init(&k, c);
	cf_vm_init(&vm, c, "deaf");
	CF_TRY(cf_vm_boot(&vm, e));
	CF_TRY(c->deafen(c->arg, &vm.spec.vm));
	save_start(&k, &call, &vm, false);
	cf_sleep(c, 500);
	CF_CHECK(e, !call.answered, "answered %d", call.req.rc);
	hyper_cancel(&call.req);
	CF_REFUSED(e, RV_ECANCELLED, cf_answer(&call, e));
	CF_CHECK(e, call.req.domain.state == HYPER_RUNNING, "it is %s",
		hyper_state_name(call.req.domain.state));
	CF_CHECK(e, k.suspended == 0, "told that it is suspended");
out:
	rc = cf_vm_fini(&vm, rc, e);
	keep_fini(&k);
	return rc;
}

int cf_resume_after_save(struct hyper_conformance *c, struct rv_error *e)
{
	uint64_t before, after;
	struct cf_vm vm;
	struct rv_error none;
	struct keep k;
	bool live;
	int rc;

	keep_init(&k, c);
	cf_vm_init(&vm, c, "resume");
	/* By suspending it, where it can't run on meanwhile. */
	live = need_live(&vm, &none) == 0;
	CF_TRY(cf_vm_boot(&vm, e));
	CF_TRY(save(&k, &vm, live, e));
	CF_TRY(memory_hash(&vm, &before));
	CF_TRY(cf_vm_call(&vm, hyper_resume, e));
	CF_TRY(cf_vm_call(&vm, hyper_resume, e));
	CF_TRY(cf_vm_state(&vm, HYPER_RUNNING, HYPER_REASON_NONE, e));
	CF_TRY(memory_hash(&vm, &after));
	CF_CHECK(e, c->dirty != NULL || before == after, "its memory differs");
	CF_TRY(check_damage(&vm, e));
	CF_CHECK(e, vm.shutdowns == 1 && vm.released == 0,
		"%u ends and %u releases were told", vm.shutdowns, vm.released);
out:
	rc = cf_vm_fini(&vm, rc, e);
	keep_fini(&k);
	return rc;
}

int cf_live_save(struct hyper_conformance *c, struct rv_error *e)
{
	uint64_t before, after;
	struct cf_vm vm;
	struct keep k;
	int rc;

	keep_init(&k, c);
	k.stop_below = 20;
	cf_vm_init(&vm, c, "live");
	CF_TRY(need_live(&vm, e));
	CF_TRY(cf_vm_boot(&vm, e));
	if (c->dirty != NULL)
		CF_TRY(c->dirty(c->arg, &vm.spec.vm, 20000));
	cf_sleep(c, 200);
	CF_TRY(save(&k, &vm, true, e));
	CF_CHECK(e, k.rounds >= 1, "the policy was not asked");
	CF_CHECK(e, c->dirty == NULL || k.dirty_seen > 0, "no page became dirty");
	CF_CHECK(e, k.last.total_pages > 0 && k.last.total_bytes > 0,
		"the policy was told of no pages");
	CF_TRY(memory_hash(&vm, &before));
	CF_TRY(cf_vm_call(&vm, hyper_destroy, e));
	CF_TRY(restore(&k, &vm, e));
	CF_TRY(memory_hash(&vm, &after));
	CF_CHECK(e, before == after, "its memory differs");
	CF_TRY(check_damage(&vm, e));
out:
	rc = cf_vm_fini(&vm, rc, e);
	keep_fini(&k);
	return rc;
}

int cf_live_abort(struct hyper_conformance *c, struct rv_error *e)
{
	struct cf_vm vm;
	struct keep k;
	int rc;

	keep_init(&k, c);
	k.verdict = HYPER_PRECOPY_ABORT;
	cf_vm_init(&vm, c, "abort");
	CF_TRY(need_live(&vm, e));
	CF_TRY(cf_vm_boot(&vm, e));
	CF_REFUSED(e, RV_ECANCELLED, save(&k, &vm, true, e));
	CF_CHECK(e, k.rounds == 1 && k.suspended == 0, "%u rounds, %u suspensions",
		k.rounds, k.suspended);
	CF_TRY(cf_vm_state(&vm, HYPER_RUNNING, HYPER_REASON_NONE, e));
	CF_CHECK(e, vm.shutdowns == 0, "it was suspended");
out:
	rc = cf_vm_fini(&vm, rc, e);
	keep_fini(&k);
	return rc;
}

/* Streams cut short or of another VM leave nothing behind. */
int cf_restore_damaged(struct hyper_conformance *c, struct rv_error *e)
{
	uint64_t before_kib, after_kib;
	struct uuid own;
	struct cf_vm vm;
	struct keep k;
	size_t whole;
	int rc;

	keep_init(&k, c);
	cf_vm_init(&vm, c, "damaged");
	own = vm.spec.vm;
	CF_TRY(cf_free_kib(c, &before_kib, e));
	CF_TRY(cf_vm_boot(&vm, e));
	CF_TRY(save(&k, &vm, false, e));
	CF_TRY(cf_vm_call(&vm, hyper_destroy, e));
	whole = buf_len(&k.bytes);
	for (int i = 0; i < 4; i++) {
		k.bytes.end = k.bytes.start + whole * (size_t)i / 4 + (size_t)i;
		rc = restore(&k, &vm, e);
		CF_CHECK(e, rc == RV_ECORRUPT || rc == RV_EPROTO || rc == RV_EHYPERVISOR,
			"%d/4 of the stream: %d", i, rc);
		rc = 0;
	}
	k.bytes.end = k.bytes.start + whole;
	vm.spec.vm = uuid_random(loop_prng(c->loop));
	CF_REFUSED(e, RV_ESTATE, restore(&k, &vm, e));
	vm.spec.vm = own;
	CF_TRY(cf_free_kib(c, &after_kib, e));
	CF_CHECK(e, cf_same_kib(c, before_kib, after_kib),
		"%llu KiB free before, %llu after", (ull)before_kib, (ull)after_kib);
	CF_TRY(restore(&k, &vm, e)); /* and whole it works */
	CF_TRY(check_damage(&vm, e));
out:
	rc = cf_vm_fini(&vm, rc, e);
	keep_fini(&k);
	return rc;
}

/* The daemon dies during a live save: the guest runs on and can be saved again. */
int cf_killed_in_save(struct hyper_conformance *c, struct rv_error *e)
{
	struct cf_call call;
	struct cf_vm vm;
	struct keep k;
	int rc;

	if (c->restart == NULL)
		return rv_error_set(e, RV_EUNSUPPORTED, "the driver can't be restarted");
	keep_init(&k, c);
	cf_vm_init(&vm, c, "killsave");
	CF_TRY(need_live(&vm, e));
	CF_TRY(cf_vm_boot(&vm, e));
	save_start(&k, &call, &vm, true);
	CF_TRY(cf_wait(c, &k.started, e));
	timer_stop(&k.later);
	CF_TRY(c->restart(c, e));
	cf_vm_listen_again(&vm);
	cf_sleep(c, 100);
	CF_CHECK(e, call.answers == 0, "answered after the driver's end");
	CF_TRY(cf_vm_state(&vm, HYPER_RUNNING, HYPER_REASON_NONE, e));
	buf_consume(&k.bytes, buf_len(&k.bytes));
	CF_TRY(save(&k, &vm, false, e));
	CF_TRY(cf_vm_call(&vm, hyper_resume, e));
out:
	rc = cf_vm_fini(&vm, rc, e);
	keep_fini(&k);
	return rc;
}
