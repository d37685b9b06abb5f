/* What a hypervisor tells: guests that end by themselves, domains that vanish or appear.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "vm/vm_look.h"
#include "vm/vm_op.h"

enum { EVENTS_CRASH_LOOP_MS = 30 * 1000 };

/* --- endings --- */

static enum vm_after after(const struct row *vm, enum hyper_reason reason)
{
	switch (reason) {
	case HYPER_REASON_REBOOT:
		return (enum vm_after)db_enum(vm, VM_ACTIONS_AFTER_REBOOT);
	case HYPER_REASON_CRASH:
	case HYPER_REASON_WATCHDOG:
		return (enum vm_after)db_enum(vm, VM_ACTIONS_AFTER_CRASH);
	default:
		return (enum vm_after)db_enum(vm, VM_ACTIONS_AFTER_SHUTDOWN);
	}
}

/* One that crashes as soon as it is up would do so for ever. */
static bool crash_loop(struct vm_host *h, const struct row *vm, enum hyper_reason reason)
{
	const struct row *metrics = db_follow(pool_db(h->mgr->pool), vm, VM_METRICS);

	return (reason == HYPER_REASON_CRASH || reason == HYPER_REASON_WATCHDOG) &&
	       metrics &&
	       loop_wall_ms(h->mgr->loop) - db_int(metrics, VM_METRICS_START_TIME) <
		       EVENTS_CRASH_LOOP_MS;
}

static void guest_ended_by(
	struct vm_host *h, const struct row *vm, enum hyper_reason reason)
{
	static const char *const names[] = {
		[HYPER_REASON_NONE] = "VM_SHUTDOWN",
		[HYPER_REASON_POWEROFF] = "VM_SHUTDOWN",
		[HYPER_REASON_REBOOT] = "VM_REBOOTED",
		[HYPER_REASON_SUSPEND] = "VM_SHUTDOWN",
		[HYPER_REASON_CRASH] = "VM_CRASHED",
		[HYPER_REASON_WATCHDOG] = "VM_CRASHED",
	};
	struct vm_op_args args = {.vm = row_uuid(vm)};
	enum vm_after action = after(vm, reason);
	enum vm_operation kind = VM_OP_HARD_SHUTDOWN;
	char note[160];
	struct rv_error e;

	snprintf(note, sizeof note, "VM %.80s: its guest ended by itself (%s)",
		row_name(vm), hyper_reason_name(reason));
	if (action == VM_AFTER_RESTART && !crash_loop(h, vm, reason))
		kind = VM_OP_HARD_REBOOT;
	if (action == VM_AFTER_PRESERVE) {
		vm_preserve(h, vm, note);
		return;
	}
	if (vm_op_start_internal(
		    h->mgr, kind, &args, UUID_NONE, names[reason], note, &e) &&
		vm_told_new(&h->mgr->told, args.vm, e.detail))
		vm_note(h->mgr, "VM_NOT_SETTLED", 2, args.vm, "%s; %s", note, e.detail);
}

static bool is_recorded(const struct row *vm, const struct hyper_domain *d)
{
	struct hyper_domain_id id;

	return vm && vm_recorded(vm, &id) && id.domid == d->id.domid &&
	       uuid_eq(&id.handle, &d->id.handle);
}

/* The VM was taken from this host, which was not heard, and its domain was ended by
 * something else than an operation: nobody has released what it had claimed. */
static bool was_taken(const struct row *vm, const struct hyper_domain *d)
{
	if (uuid_is_none(&d->vm))
		return false; /* it was none of ours */
	return !vm || d->id.generation <= (uint64_t)db_int(vm, VM_CLAIMS_VOID);
}

void vm_guest_ended(struct vm_host *h, const struct hyper_event *event)
{
	const struct hyper_domain *d = &event->domain;
	const struct row *vm = db_row(pool_db(h->mgr->pool), CLASS_VM, d->vm);
	struct uuid on = vm ? db_ref(vm, VM_RESIDENT_ON) : UUID_NONE;

	if (!is_recorded(vm, d) || !uuid_eq(&on, &h->uuid)) {
		if (event->kind == HYPER_EV_RELEASED && was_taken(vm, d))
			vm_claims_due(h);
		return;
	}
	if (vm_op_of(h->mgr, &d->vm))
		return; /* looked at again when that has ended */
	if (event->kind == HYPER_EV_RELEASED)
		vm_look_at(h, vm, NULL, NULL);
	else if (d->reason == HYPER_REASON_SUSPEND)
		vm_look_at(h, vm, d, NULL);
	else
		guest_ended_by(h, vm, d->reason);
}

void vm_host_event(void *arg, const struct hyper_event *event)
{
	struct vm_host *h = arg;
	const struct hyper_domain *d = &event->domain;
	struct vm_op *o;

	if (h->mgr->stopped || !h->seen)
		return;
	switch (event->kind) {
	case HYPER_EV_INTRODUCED:
		if (uuid_is_none(&d->vm))
			vm_ghost_seen(h, d);
		else if (!vm_op_of(h->mgr, &d->vm))
			vm_manager_look(h->mgr);
		return;
	case HYPER_EV_STORED_LOST:
		vm_note(h->mgr, "XENSTORED_LOST", 1, UUID_NONE,
			"xenstored answers no more: VMs run on, but can't be managed "
			"until it does again. If it is dead, the host must be restarted: "
			"it can't be started twice");
		return;
	case HYPER_EV_STORED_BACK:
		vm_note(h->mgr, "XENSTORED_BACK", 3, UUID_NONE,
			"xenstored answers again: VMs can be managed");
		vm_manager_look(h->mgr);
		return;
	case HYPER_EV_RELEASED:
		vm_ghost_forget(h, d->id.domid);
		break;
	case HYPER_EV_SHUTDOWN:
		break;
	default:
		return;
	}
	o = uuid_is_none(&d->vm) ? NULL : vm_op_of(h->mgr, &d->vm);
	if (!o) {
		vm_guest_ended(h, event);
	} else if (o->begun && o->verb->guest_ended) {
		o->verb->guest_ended(o, event);
	} else {
		o->guest_event = *event;
		o->guest_event_due = true;
	}
}
