#include "vm/vm_allowed.h"

#include <string.h>

#define STATE(s) (1u << VM_POWER_STATE_##s)

struct allowed_rule {
	const char *name, *method;
	const char *verb;      /* as people type it */
	unsigned states;       /* power states in which it makes sense */
	bool template;	       /* on templates too */
	bool snapshot;	       /* on snapshots too */
	const char *otherwise; /* what to do about another power state */
};

static const struct allowed_rule rules[VM_OP_COUNT] = {
	[VM_OP_START] = {"start", "VM.start", "vm-start", STATE(HALTED), false, false,
		"Shut it down first, or resume or unpause it"},
	[VM_OP_START_ON] = {"start_on", "VM.start_on", "vm-start", STATE(HALTED), false,
		false, "Shut it down first, or resume or unpause it"},
	[VM_OP_RESUME] = {"resume", "VM.resume", "vm-resume", STATE(SUSPENDED), false,
		false, "Only a suspended VM can be resumed; start or unpause this one"},
	[VM_OP_CLEAN_SHUTDOWN] = {"clean_shutdown", "VM.clean_shutdown", "vm-shutdown",
		STATE(RUNNING), false, false,
		"Only a running guest can shut itself down; use vm-shutdown --force "
		"for a paused or suspended one"},
	[VM_OP_HARD_SHUTDOWN] = {"hard_shutdown", "VM.hard_shutdown",
		"vm-shutdown --force", STATE(RUNNING) | STATE(PAUSED) | STATE(SUSPENDED),
		false, false, "There is nothing to shut down"},
	[VM_OP_CLEAN_REBOOT] = {"clean_reboot", "VM.clean_reboot", "vm-reboot",
		STATE(RUNNING), false, false, "Only a running guest can reboot itself"},
	[VM_OP_HARD_REBOOT] = {"hard_reboot", "VM.hard_reboot", "vm-reboot --force",
		STATE(RUNNING) | STATE(PAUSED), false, false, "Start or resume it"},
	[VM_OP_PAUSE] = {"pause", "VM.pause", "vm-pause", STATE(RUNNING), false, false,
		"Only a running VM can be paused"},
	[VM_OP_UNPAUSE] = {"unpause", "VM.unpause", "vm-unpause", STATE(PAUSED), false,
		false, "Only a paused VM can be unpaused"},
	[VM_OP_SUSPEND] = {"suspend", "VM.suspend", "vm-suspend", STATE(RUNNING), false,
		false, "Only a running VM can be suspended"},
	[VM_OP_CLONE] = {"clone", "VM.clone", "vm-clone", STATE(HALTED), true, true,
		"Shut it down first: its disks must not change while they are copied"},
	[VM_OP_PROVISION] = {"provision", "VM.provision", "vm-provision", STATE(HALTED),
		true, false, "Shut it down first"},
	[VM_OP_DESTROY] = {"destroy", "VM.destroy", "vm-destroy", STATE(HALTED), true,
		true,
		"Shut it down first (vm-shutdown --force discards a suspended state)"},
	[VM_OP_VBD_PLUG] = {"VBD.plug", "VBD.plug", "vbd-plug", STATE(RUNNING), false,
		false, "A drive of a halted VM is attached when it starts"},
	[VM_OP_VBD_UNPLUG] = {"VBD.unplug", "VBD.unplug", "vbd-unplug", STATE(RUNNING),
		false, false, "Only a running VM has drives attached"},
	[VM_OP_VIF_PLUG] = {"VIF.plug", "VIF.plug", "vif-plug", STATE(RUNNING), false,
		false, "An interface of a halted VM is attached when it starts"},
	[VM_OP_VIF_UNPLUG] = {"VIF.unplug", "VIF.unplug", "vif-unplug", STATE(RUNNING),
		false, false, "Only a running VM has interfaces attached"},
	[VM_OP_MIGRATE] = {"pool_migrate", "VM.migrate", "vm-migrate", STATE(RUNNING),
		false, false,
		"Only a running VM can be moved to another host; a halted one is started "
		"there"},
};

const char *vm_operation_name(enum vm_operation op)
{
	return op < VM_OP_COUNT ? rules[op].name : "";
}

const char *vm_operation_method(enum vm_operation op)
{
	return op < VM_OP_COUNT ? rules[op].method : "";
}

const char *vm_operation_verb(enum vm_operation op)
{
	return op < VM_OP_COUNT ? rules[op].verb : "";
}

int vm_operation_by_name(const char *name)
{
	for (int i = 0; i < VM_OP_COUNT; i++)
		if (strcmp(rules[i].name, name) == 0)
			return i;
	return -1;
}

/* What would write to its disks beside a domain that is not the VM, copy them while they
 * change, or take them away. */
static bool minds_a_ghost(enum vm_operation op)
{
	return op == VM_OP_START || op == VM_OP_START_ON || op == VM_OP_RESUME ||
	       op == VM_OP_DESTROY || op == VM_OP_CLONE;
}

int vm_allowed(const struct vm_condition *c, enum vm_operation op)
{
	const struct allowed_rule *r = &rules[op];

	if (c->is_a_snapshot && !r->snapshot)
		return RV_ENOTALLOWED;
	if (c->is_a_template && !r->template)
		return RV_ENOTALLOWED;
	if (!(r->states & (1u << c->power_state)))
		return RV_ESTATE;
	if (c->busy)
		return RV_EBUSY;
	/* The plug can be pulled while a guest takes its time to end. */
	if (c->current != VM_OP_COUNT &&
		(op != VM_OP_HARD_SHUTDOWN || c->current == VM_OP_HARD_SHUTDOWN ||
			!c->current_cancellable))
		return RV_EBUSY;
	if (c->has_domain && minds_a_ghost(op))
		return RV_ESTATE;
	return 0;
}

uint32_t vm_allowed_all(const struct vm_condition *c)
{
	uint32_t all = 0;

	for (int op = 0; op < VM_OP_COUNT; op++)
		if (vm_allowed(c, op) == 0)
			all |= 1u << op;
	return all;
}

static const char *state_text(enum vm_power_state state)
{
	static const char *const texts[VM_POWER_STATE_COUNT] = {
		[VM_POWER_STATE_HALTED] = "Halted",
		[VM_POWER_STATE_PAUSED] = "Paused",
		[VM_POWER_STATE_RUNNING] = "Running",
		[VM_POWER_STATE_SUSPENDED] = "Suspended",
	};

	return texts[state];
}

static int refuse_ghost(const struct vm_condition *c, const struct allowed_rule *r,
	int rc, const char *name, struct rv_error *e)
{
	if (!c->ghost_host[0])
		return rv_error_set(e, rc,
			"VM %s is %s in the database, but a domain of it may be there "
			"that the database does not know, since this host has more of "
			"them than it can remember: end unknown domains first (xl list, "
			"xl destroy)",
			name, state_text(c->power_state));
	return rv_error_set(e, rc,
		"VM %s is %s in the database, but host %s has domain %u (%s) of it, "
		"which "
		"the database does not know and which may be writing to its disks: no %s "
		"until that domain is ended (host-ghost-destroy host=%s domid=%u) or "
		"taken as the VM (vm-adopt host=%s domid=%u vm=%s); host-ghost-list "
		"host=%s shows it. If that host is off for good: host-declare-dead",
		name, state_text(c->power_state), c->ghost_host, c->ghost_domid,
		c->ghost_name, r->verb, c->ghost_host, c->ghost_domid, c->ghost_host,
		c->ghost_domid, name, c->ghost_host);
}

int vm_refuse(const struct vm_condition *c, enum vm_operation op, int rc,
	const char *name, const char *task, struct rv_error *e)
{
	const struct allowed_rule *r = &rules[op];

	if (rc == RV_ENOTALLOWED)
		return rv_error_set(e, rc,
			"VM %s is a %s: %s is for VMs. Clone it first (vm-clone)", name,
			c->is_a_snapshot ? "snapshot" : "template", r->verb);
	if (rc == RV_EBUSY)
		return rv_error_set(e, rc,
			"VM %s: %s has to wait, another operation is in progress: "
			"%s%s%s. "
			"Try again when it has ended, or cancel it",
			name, r->verb,
			c->current < VM_OP_COUNT ? rules[c->current].verb
						 : "another host's",
			task ? ", task " : "", task ? task : "");
	if (c->has_domain && (r->states & (1u << c->power_state)))
		return refuse_ghost(c, r, rc, name, e);
	if (c->restart_due && c->power_state == VM_POWER_STATE_HALTED &&
		(op == VM_OP_HARD_SHUTDOWN || op == VM_OP_CLEAN_SHUTDOWN))
		return rv_error_set(e, rc,
			"VM %s is Halted, but protected, and the pool is about to start "
			"it again. To keep it down: vm-param-set vm=%s "
			"ha-restart-priority=",
			name, name);
	return rv_error_set(e, rc, "VM %s is %s: %s is not possible. %s", name,
		state_text(c->power_state), r->verb, r->otherwise);
}
