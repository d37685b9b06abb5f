/* Conformance: domains come, live, end and go. */
#include "xen/conformance_case.h"

int cf_lifecycle(struct hyper_conformance *c, struct rv_error *e)
{
	struct hyper_domain d;
	struct cf_vm vm;
	int rc;

	cf_vm_init(&vm, c, "life");
	CF_TRY(cf_vm_create(&vm, e));
	CF_CHECK(e, vm.introduced == 1, "introduced %u times", vm.introduced);
	CF_TRY(cf_vm_state(&vm, HYPER_PAUSED, HYPER_REASON_NONE, e));
	CF_TRY(cf_vm_info(&vm, &d, e));
	CF_CHECK(e, uuid_eq(&d.vm, &vm.spec.vm), "another vm's uuid");
	CF_CHECK(e, d.actual_kib > 0 && d.static_max_kib == vm.spec.static_max_kib,
		"holds %llu KiB", (unsigned long long)d.actual_kib);
	CF_TRY(cf_vm_call(&vm, hyper_unpause, e));
	CF_TRY(cf_vm_state(&vm, HYPER_RUNNING, HYPER_REASON_NONE, e));
	CF_TRY(cf_vm_call(&vm, hyper_unpause, e)); /* again: no harm */
	CF_TRY(cf_vm_call(&vm, hyper_pause, e));
	CF_TRY(cf_vm_call(&vm, hyper_pause, e));
	CF_TRY(cf_vm_state(&vm, HYPER_PAUSED, HYPER_REASON_NONE, e));
	CF_TRY(cf_vm_call(&vm, hyper_unpause, e));
	CF_TRY(cf_vm_call(&vm, hyper_destroy, e));
	CF_CHECK(e, vm.released == 1, "released %u times", vm.released);
	CF_REFUSED(e, RV_ENOENT, cf_vm_info(&vm, &d, e));
out:
	return cf_vm_fini(&vm, rc, e);
}

/* Calls for a domain that is not the one that is there. */
int cf_refusals(struct hyper_conformance *c, struct rv_error *e)
{
	struct hyper_domain_id good;
	struct cf_vm vm;
	int rc;

	cf_vm_init(&vm, c, "refuse");
	CF_TRY(cf_vm_create(&vm, e));
	good = vm.id;

	vm.id.generation = 7;
	CF_REFUSED(e, RV_ESTALE, cf_vm_call(&vm, hyper_unpause, e));
	CF_REFUSED(e, RV_ESTALE, cf_vm_call(&vm, hyper_destroy, e));
	vm.id = good;
	vm.id.handle.b[3] ^= 1;
	CF_REFUSED(e, RV_ESTALE, cf_vm_call(&vm, hyper_unpause, e));
	CF_TRY(cf_vm_call(&vm, hyper_destroy, e)); /* not that one: nothing to do */
	vm.id = good;
	vm.id.boot_id.b[3] ^= 1;
	CF_REFUSED(e, RV_ESTALE, cf_vm_call(&vm, hyper_unpause, e));
	CF_TRY(cf_vm_call(&vm, hyper_destroy, e));
	vm.id = good;
	vm.id.domid += 1000;
	CF_REFUSED(e, RV_ENOENT, cf_vm_call(&vm, hyper_unpause, e));

	vm.id = good;
	CF_TRY(cf_vm_state(&vm, HYPER_PAUSED, HYPER_REASON_NONE, e));
	CF_REFUSED(e, RV_ESTATE, cf_vm_call(&vm, hyper_resume, e));
	CF_TRY(cf_vm_state(&vm, HYPER_PAUSED, HYPER_REASON_NONE, e));
out:
	return cf_vm_fini(&vm, rc, e);
}

int cf_create_again(struct hyper_conformance *c, struct rv_error *e)
{
	struct hyper_domain_id first;
	struct cf_vm vm;
	int rc;

	cf_vm_init(&vm, c, "again");
	CF_TRY(cf_vm_create(&vm, e));
	first = vm.id;
	CF_TRY(cf_vm_create(&vm, e));
	CF_CHECK(e, vm.id.domid == first.domid, "a second domain %u beside %u",
		vm.id.domid, first.domid);
	CF_CHECK(e, vm.introduced == 1, "introduced %u times", vm.introduced);
	vm.spec.generation = 2;
	CF_REFUSED(e, RV_EEXIST, cf_vm_create(&vm, e));
	vm.spec.generation = 1;
	vm.id = first;
	CF_TRY(cf_vm_state(&vm, HYPER_PAUSED, HYPER_REASON_NONE, e));
out:
	return cf_vm_fini(&vm, rc, e);
}

int cf_create_cancelled(struct hyper_conformance *c, struct rv_error *e)
{
	uint64_t before_kib, after_kib;
	struct hyper_domain d;
	struct cf_call call;
	struct cf_vm vm;
	int rc;

	cf_vm_init(&vm, c, "cancel");
	CF_TRY(cf_free_kib(c, &before_kib, e));
	cf_call_init(&call, c);
	hyper_create(c->hyper, &call.req, &vm.spec);
	hyper_cancel(&call.req);
	hyper_cancel(&call.req);
	CF_CHECK(e, !call.answered, "answered inside the call");
	CF_REFUSED(e, RV_ECANCELLED, cf_answer(&call, e));
	vm.there = true;
	CF_TRY(cf_free_kib(c, &after_kib, e));
	CF_CHECK(e, cf_same_kib(c, before_kib, after_kib), "%llu KiB are missing",
		(unsigned long long)(before_kib - after_kib));
	cf_sleep(c, 50);
	CF_CHECK(e, call.answers == 1, "answered %u times", call.answers);
	vm.id = call.req.id;
	vm.id.handle = vm.spec.handle;
	vm.id.domid = HYPER_DOMID_ANY;
	cf_call_init(&call, c);
	hyper_host(c->hyper, &call.req);
	CF_TRY(cf_answer(&call, e));
	vm.id.boot_id = call.req.host->boot_id;
	CF_REFUSED(e, RV_ENOENT, cf_vm_info(&vm, &d, e));
out:
	return cf_vm_fini(&vm, rc, e);
}

int cf_destroy_again(struct hyper_conformance *c, struct rv_error *e)
{
	uint64_t before_kib, after_kib;
	struct cf_vm vm;
	int rc;

	cf_vm_init(&vm, c, "destroy");
	CF_TRY(cf_free_kib(c, &before_kib, e));
	CF_TRY(cf_vm_boot(&vm, e));
	CF_TRY(cf_vm_call(&vm, hyper_destroy, e));
	CF_TRY(cf_vm_call(&vm, hyper_destroy, e));
	vm.id.domid = HYPER_DOMID_ANY;
	CF_TRY(cf_vm_call(&vm, hyper_destroy, e));
	CF_CHECK(e, vm.released == 1, "released %u times", vm.released);
	CF_TRY(cf_free_kib(c, &after_kib, e));
	CF_CHECK(e, cf_same_kib(c, before_kib, after_kib),
		"%llu KiB free before, %llu after", (unsigned long long)before_kib,
		(unsigned long long)after_kib);
out:
	return cf_vm_fini(&vm, rc, e);
}

static int ask_to_end(struct cf_vm *vm, enum hyper_reason reason, struct rv_error *e)
{
	struct cf_call call;
	int rc;

	cf_call_init(&call, vm->c);
	vm->ended = false;
	hyper_request_shutdown(vm->c->hyper, &call.req, &vm->id, reason);
	rc = cf_answer(&call, e);
	if (rc == 0)
		rc = cf_wait(vm->c, &vm->ended, e);
	return rc;
}

int cf_shutdown_reasons(struct hyper_conformance *c, struct rv_error *e)
{
	static const enum hyper_reason reasons[] = {
		HYPER_REASON_POWEROFF, HYPER_REASON_REBOOT, HYPER_REASON_SUSPEND};
	struct cf_vm vm;
	int rc = 0;

	for (size_t i = 0; rc == 0 && i < sizeof reasons / sizeof *reasons; i++) {
		cf_vm_init(&vm, c, hyper_reason_name(reasons[i]));
		CF_TRY(cf_vm_boot(&vm, e));
		CF_TRY(ask_to_end(&vm, reasons[i], e));
		CF_CHECK(e, vm.reason == reasons[i], "asked for %s, ended by %s",
			hyper_reason_name(reasons[i]), hyper_reason_name(vm.reason));
		CF_TRY(cf_vm_state(&vm, HYPER_SHUTDOWN, reasons[i], e));
		CF_REFUSED(e, RV_ESTATE, cf_vm_call(&vm, hyper_unpause, e));
		if (reasons[i] == HYPER_REASON_SUSPEND) {
			CF_TRY(cf_vm_call(&vm, hyper_resume, e));
			CF_TRY(cf_vm_state(&vm, HYPER_RUNNING, HYPER_REASON_NONE, e));
		}
		cf_sleep(c, 50);
		CF_CHECK(e, vm.shutdowns == 1, "its end was told %u times", vm.shutdowns);
	out:
		rc = cf_vm_fini(&vm, rc, e);
	}
	return rc;
}

int cf_guest_ends(struct hyper_conformance *c, struct rv_error *e)
{
	struct cf_vm vm;
	int rc;

	if (c->end_guest == NULL)
		return rv_error_set(e, RV_EUNSUPPORTED, "guests don't end on command");
	cf_vm_init(&vm, c, "ends");
	CF_TRY(cf_vm_boot(&vm, e));
	CF_TRY(c->end_guest(c->arg, &vm.spec.vm, HYPER_REASON_CRASH));
	CF_TRY(cf_wait(c, &vm.ended, e));
	CF_CHECK(e, vm.reason == HYPER_REASON_CRASH, "ended by %s",
		hyper_reason_name(vm.reason));
	cf_sleep(c, 50);
	CF_CHECK(e, vm.shutdowns == 1, "its end was told %u times", vm.shutdowns);
	CF_TRY(cf_vm_state(&vm, HYPER_SHUTDOWN, HYPER_REASON_CRASH, e));
out:
	return cf_vm_fini(&vm, rc, e);
}

/* The daemon dies while it builds: the next one finds what is there and can end it. */
int cf_killed_in_create(struct hyper_conformance *c, struct rv_error *e)
{
	uint64_t before_kib, after_kib;
	struct cf_call call;
	struct cf_vm vm;
	int rc;

	if (c->restart == NULL)
		return rv_error_set(e, RV_EUNSUPPORTED, "the driver can't be restarted");
	cf_vm_init(&vm, c, "killed");
	vm.there = true;
	CF_TRY(cf_free_kib(c, &before_kib, e));
	cf_call_init(&call, c);
	hyper_create(c->hyper, &call.req, &vm.spec);
	cf_sleep(c, 0);
	CF_TRY(c->restart(c, e));
	cf_vm_listen_again(&vm);
	CF_CHECK(e, call.answers == 0, "answered after the driver's end");
	/* By handle: the domid was never recorded. The end must find and take it. */
	rc = cf_vm_fini(&vm, 0, e);
	if (rc != 0)
		return rc;
	rc = cf_free_kib(c, &after_kib, e);
	if (rc == 0 && !cf_same_kib(c, before_kib, after_kib))
		rc = rv_error_set(e, RV_EINTERNAL, "%llu KiB free before, %llu after",
			(unsigned long long)before_kib, (unsigned long long)after_kib);
	return rc;
out:
	return cf_vm_fini(&vm, rc, e);
}

int cf_survives_restart(struct hyper_conformance *c, struct rv_error *e)
{
	struct hyper_domain before, after;
	struct cf_vm vm;
	int rc;

	if (c->restart == NULL)
		return rv_error_set(e, RV_EUNSUPPORTED, "the driver can't be restarted");
	cf_vm_init(&vm, c, "survive");
	CF_TRY(cf_vm_boot(&vm, e));
	CF_TRY(cf_vm_info(&vm, &before, e));
	CF_TRY(c->restart(c, e));
	cf_vm_listen_again(&vm);
	CF_TRY(cf_vm_info(&vm, &after, e)); /* the same boot id, domid, handle */
	CF_CHECK(e, after.state == HYPER_RUNNING, "it is %s",
		hyper_state_name(after.state));
	CF_CHECK(e, after.cpu_ns >= before.cpu_ns && after.actual_kib > 0,
		"it began anew");
	CF_TRY(ask_to_end(&vm, HYPER_REASON_POWEROFF, e));
	CF_CHECK(e, vm.shutdowns == 1, "its end was told %u times", vm.shutdowns);
out:
	return cf_vm_fini(&vm, rc, e);
}

int cf_relabel(struct hyper_conformance *c, struct rv_error *e)
{
	struct uuid other = uuid_random(loop_prng(c->loop));
	struct hyper_domain d;
	struct cf_call call;
	struct cf_vm vm;
	int rc;

	cf_vm_init(&vm, c, "relabel");
	CF_TRY(cf_vm_create(&vm, e));
	cf_call_init(&call, c);
	hyper_relabel(c->hyper, &call.req, &vm.id, &other, 9);
	CF_TRY(cf_answer(&call, e));
	CF_REFUSED(e, RV_ESTALE, cf_vm_info(&vm, &d, e));
	vm.id.generation = vm.spec.generation = 9;
	CF_TRY(cf_vm_info(&vm, &d, e));
	CF_CHECK(e, uuid_eq(&d.vm, &other) && d.id.generation == 9, "the old label");
out:
	return cf_vm_fini(&vm, rc, e);
}

int cf_host(struct hyper_conformance *c, struct rv_error *e)
{
	const struct hyper_host *host;
	struct cf_call call;
	struct cf_vm vm;
	bool found = false;
	int rc;

	cf_vm_init(&vm, c, "host");
	cf_call_init(&call, c);
	hyper_host(c->hyper, &call.req);
	CF_TRY(cf_answer(&call, e));
	host = call.req.host;
	CF_CHECK(e, !uuid_is_none(&host->boot_id), "no boot id");
	CF_CHECK(e, host->free_kib + host->dom0_kib <= host->total_kib,
		"more memory free than there is");
	CF_CHECK(e, host->cpus > 0 && host->driver[0] != '\0' && host->version_major > 0,
		"no cpus, driver or version");
	rc = hyper_cpu_check(c->hyper, host->cpu_policy, host->cpu_policy_len,
		host->cpu_policy, host->cpu_policy_len, e);
	CF_TRY(rc);
	CF_TRY(cf_vm_boot(&vm, e));
	cf_call_init(&call, c);
	hyper_list(c->hyper, &call.req);
	CF_TRY(cf_answer(&call, e));
	cf_call_init(&call, c);
	hyper_metrics(c->hyper, &call.req);
	CF_TRY(cf_answer(&call, e));
	cf_sleep(c, 100);
	cf_call_init(&call, c);
	hyper_metrics(c->hyper, &call.req);
	CF_TRY(cf_answer(&call, e));
	CF_CHECK(e, call.req.metrics->cpu_busy_ppm <= 1000000, "busier than it can be");
	CF_CHECK(e, call.req.metrics->interval_us > 0, "no interval");
	/* Borrowed for the callback only, but nothing ran since: see wait. */
	for (size_t i = 0; i < call.req.metrics->domain_count; i++)
		found |= uuid_eq(&call.req.metrics->domains[i].vm, &vm.spec.vm);
	CF_CHECK(e, found, "the metrics leave out the domain");
out:
	return cf_vm_fini(&vm, rc, e);
}
