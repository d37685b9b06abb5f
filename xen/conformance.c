#include "xen/conformance.h"

#include <stdio.h>
#include <string.h>

#include "xen/conformance_case.h"

const struct hyper_conformance_case hyper_conformance_cases[] = {
	{"lifecycle", cf_lifecycle},
	{"refusals", cf_refusals},
	{"create_again", cf_create_again},
	{"create_cancelled", cf_create_cancelled},
	{"destroy_again", cf_destroy_again},
	{"shutdown_reasons", cf_shutdown_reasons},
	{"guest_ends", cf_guest_ends},
	{"killed_in_create", cf_killed_in_create},
	{"survives_restart", cf_survives_restart},
	{"relabel", cf_relabel},
	{"host", cf_host},
	{"memory_refused", cf_memory_refused},
	{"balloon", cf_balloon},
	{"maxmem", cf_maxmem},
	{"save_restore", cf_save_restore},
	{"save_cancelled", cf_save_cancelled},
	{"save_deaf", cf_save_deaf},
	{"resume_after_save", cf_resume_after_save},
	{"live_save", cf_live_save},
	{"live_abort", cf_live_abort},
	{"restore_damaged", cf_restore_damaged},
	{"killed_in_save", cf_killed_in_save},
	{NULL, NULL},
};

/* --- waiting --- */

struct patience {
	struct loop *loop;
	struct timer limit, look;
	const bool *flag;
	bool over;
};

static void patience_ends(void *arg)
{
	struct patience *p = arg;

	p->over = true;
	loop_stop(p->loop);
}

/* On the real loop nobody else stops it when the flag is set. */
static void patience_looks(void *arg)
{
	struct patience *p = arg;

	if (*p->flag)
		loop_stop(p->loop);
	else
		timer_start_ms(&p->look, 1);
}

static bool wait_until(struct hyper_conformance *c, const bool *flag, int64_t limit_ms)
{
	struct patience p = {.loop = c->loop, .flag = flag};

	timer_init(&p.limit, c->loop, "conformance.limit", patience_ends, &p);
	timer_init(&p.look, c->loop, "conformance.look", patience_looks, &p);
	timer_start_ms(&p.limit, limit_ms);
	if (loop_is_sim(c->loop)) {
		while (!*flag && !p.over && loop_sim_step(c->loop))
			;
	} else {
		timer_start_ms(&p.look, 0);
		while (!*flag && !p.over)
			loop_run(c->loop);
	}
	timer_stop(&p.limit);
	timer_stop(&p.look);
	return *flag;
}

int cf_wait(struct hyper_conformance *c, const bool *flag, struct rv_error *e)
{
	if (wait_until(c, flag, c->limit_ms))
		return 0;
	return rv_error_set(e, RV_ETIMEDOUT, "nothing happened within %lld ms",
		(long long)c->limit_ms);
}

void cf_sleep(struct hyper_conformance *c, int64_t ms)
{
	static const bool never = false;

	(void)wait_until(c, &never, ms);
}

/* --- calls --- */

static void call_done(void *arg, struct hyper_req *req)
{
	struct cf_call *call = arg;

	(void)req;
	call->answered = true;
	call->answers++;
}

void cf_call_init(struct cf_call *call, struct hyper_conformance *c)
{
	memset(call, 0, sizeof *call);
	call->c = c;
	hyper_req_init(&call->req, call_done, call);
}

int cf_answer(struct cf_call *call, struct rv_error *e)
{
	int rc = cf_wait(call->c, &call->answered, e);

	if (rc != 0) {
		hyper_cancel(&call->req);
		(void)wait_until(call->c, &call->answered, call->c->limit_ms);
		return rv_error_prefix(e, "%s", hyper_call_name(call->req.call));
	}
	call->answered = false;
	if (call->req.rc != 0 && call->req.error.code != call->req.rc)
		return rv_error_set(e, RV_EINTERNAL, "%s: rc %d with an error of code %d",
			hyper_call_name(call->req.call), call->req.rc,
			call->req.error.code);
	if (call->req.rc != 0)
		*e = call->req.error;
	return call->req.rc;
}

int cf_free_kib(struct hyper_conformance *c, uint64_t *kib, struct rv_error *e)
{
	struct cf_call call;
	int rc;

	*kib = 0;
	cf_call_init(&call, c);
	hyper_host(c->hyper, &call.req);
	rc = cf_answer(&call, e);
	if (rc == 0)
		*kib = call.req.host->free_kib - call.req.host->claimed_kib;
	return rc;
}

bool cf_same_kib(
	const struct hyper_conformance *c, uint64_t before_kib, uint64_t after_kib)
{
	return after_kib <= before_kib + c->slack_kib &&
	       before_kib <= after_kib + c->slack_kib;
}

/* --- domains --- */

static void vm_event(void *arg, const struct hyper_event *event)
{
	struct cf_vm *vm = arg;

	if (!uuid_eq(&event->domain.id.handle, &vm->spec.handle))
		return;
	switch (event->kind) {
	case HYPER_EV_INTRODUCED:
		vm->introduced++;
		break;
	case HYPER_EV_SHUTDOWN:
		vm->shutdowns++;
		vm->reason = event->domain.reason;
		vm->ended = true;
		break;
	case HYPER_EV_RELEASED:
		vm->released++;
		vm->gone = true;
		break;
	case HYPER_EV_BALLOON:
		vm->moved++;
		break;
	default:
		break;
	}
}

void cf_vm_init(struct cf_vm *vm, struct hyper_conformance *c, const char *name)
{
	memset(vm, 0, sizeof *vm);
	vm->c = c;
	c->spec(c->arg, &vm->spec);
	snprintf(vm->name, sizeof vm->name, "cf-%s", name);
	vm->spec.name = vm->name;
	vm->spec.vm = uuid_random(loop_prng(c->loop));
	vm->spec.handle = uuid_random(loop_prng(c->loop));
	vm->spec.generation = 1;
	hyper_listen(c->hyper, &vm->listener, vm_event, vm);
}

void cf_vm_listen_again(struct cf_vm *vm)
{
	hyper_unlisten(&vm->listener);
	hyper_listen(vm->c->hyper, &vm->listener, vm_event, vm);
}

int cf_vm_create(struct cf_vm *vm, struct rv_error *e)
{
	struct cf_call call;
	int rc;

	cf_call_init(&call, vm->c);
	hyper_create(vm->c->hyper, &call.req, &vm->spec);
	rc = cf_answer(&call, e);
	vm->there = true; /* whatever it says, the end destroys by handle */
	vm->id = call.req.id;
	return rc;
}

int cf_vm_call(struct cf_vm *vm, cf_call_fn *fn, struct rv_error *e)
{
	struct cf_call call;

	cf_call_init(&call, vm->c);
	fn(vm->c->hyper, &call.req, &vm->id);
	return cf_answer(&call, e);
}

static int await_boot(struct cf_vm *vm, struct rv_error *e)
{
	struct hyper_conformance *c = vm->c;

	for (int64_t ms = 0; c->booted != NULL && !c->booted(c->arg, &vm->id);
		ms += 200) {
		if (ms > c->limit_ms)
			return rv_error_set(
				e, RV_ETIMEDOUT, "%s does not come up", vm->name);
		cf_sleep(c, 200);
	}
	cf_sleep(c, c->boot_ms);
	return 0;
}

int cf_vm_boot(struct cf_vm *vm, struct rv_error *e)
{
	int rc = cf_vm_create(vm, e);

	if (rc == 0)
		rc = cf_vm_call(vm, hyper_unpause, e);
	if (rc == 0)
		rc = await_boot(vm, e);
	return rc;
}

int cf_vm_info(struct cf_vm *vm, struct hyper_domain *out, struct rv_error *e)
{
	struct cf_call call;
	int rc;

	memset(out, 0, sizeof *out);
	cf_call_init(&call, vm->c);
	hyper_info(vm->c->hyper, &call.req, &vm->id);
	rc = cf_answer(&call, e);
	*out = call.req.domain;
	return rc;
}

int cf_vm_state(struct cf_vm *vm, enum hyper_state state, enum hyper_reason reason,
	struct rv_error *e)
{
	struct hyper_domain d;
	int rc = cf_vm_info(vm, &d, e);

	if (rc != 0)
		return rc;
	if (d.state != state || d.reason != reason)
		return rv_error_set(e, RV_EINTERNAL, "%s is %s (%s), should be %s (%s)",
			vm->name, hyper_state_name(d.state), hyper_reason_name(d.reason),
			hyper_state_name(state), hyper_reason_name(reason));
	return 0;
}

static int host_boot_id(struct hyper_conformance *c, struct uuid *id, struct rv_error *e)
{
	struct cf_call call;
	int rc;

	cf_call_init(&call, c);
	hyper_host(c->hyper, &call.req);
	rc = cf_answer(&call, e);
	if (rc == 0)
		*id = call.req.host->boot_id;
	return rc;
}

int cf_vm_fini(struct cf_vm *vm, int rc, struct rv_error *e)
{
	struct rv_error own;
	int undo = 0;

	if (vm->there) {
		struct hyper_domain_id id = {.domid = HYPER_DOMID_ANY,
			.handle = vm->spec.handle,
			.generation = vm->spec.generation};

		undo = host_boot_id(vm->c, &id.boot_id, &own);
		vm->id = id;
		for (int i = 0; undo == 0 && i < 3; i++) {
			undo = cf_vm_call(vm, hyper_destroy, &own);
			if (undo == 0)
				break;
		}
	}
	hyper_unlisten(&vm->listener);
	if (rc == 0 && undo != 0) {
		*e = own;
		rc = rv_error_prefix(e, "cleaning up");
	}
	return rc;
}
