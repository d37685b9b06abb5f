/*
 * One function per intent; what applies is read off from top to bottom. The owner's
 * record is committed before a domain may run, so a recorded domain may have run, and one
 * that is not recorded has not.
 */
#include "vm/vm_verdict.h"

#define INTERRUPTED "the daemon was restarted in the middle; it was undone"

static struct vm_verdict keep(void)
{
	return (struct vm_verdict){.what = VM_KEEP};
}

static struct vm_verdict rerun(enum vm_operation kind)
{
	return (struct vm_verdict){.what = VM_RERUN, .kind = kind};
}

/* The domain stays, as power_state; the task ends with rc. */
static struct vm_verdict stays(enum vm_power_state state, int rc, const char *why)
{
	return (struct vm_verdict){.what = VM_SETTLE,
		.keep_domain = true,
		.power_state = state,
		.rc = rc,
		.why = why};
}

/* No domain stays. */
static struct vm_verdict goes(enum vm_power_state state, int rc, const char *why)
{
	return (struct vm_verdict){.what = VM_SETTLE,
		.destroy = true,
		.power_state = state,
		.rc = rc,
		.why = why};
}

static struct vm_verdict with_image_dropped(struct vm_verdict v)
{
	v.drop_image = true;
	return v;
}

static struct vm_verdict with_note(struct vm_verdict v, const char *note)
{
	v.note = note;
	return v;
}

/* It was up, and is down, and nobody ended it. What is protected is started by the
 * master, wherever it fits best now (it may be this host that was fenced). */
static struct vm_verdict down(int rc, const char *why)
{
	struct vm_verdict v = goes(VM_POWER_STATE_HALTED, rc, why);

	v.lost = true;
	return v;
}

static struct vm_verdict vanished(const struct vm_seen *s, int rc)
{
	bool fenced = s->same_boot && s->fenced;
	struct vm_verdict v = down(rc,
		fenced ? "it was fenced: its host did not hear from the pool's master "
			 "for a lease's time, so reeve-fenced ended it"
		: s->same_boot ? "its domain vanished: another tool destroyed it"
			       : "its host was restarted: its domain is gone");

	/* A guest that vanished from a running host is treated as crashed. */
	v.restart = rc == 0 && s->same_boot && s->power_state == VM_POWER_STATE_RUNNING &&
		    s->after_crash == VM_AFTER_RESTART;
	return with_note(v, fenced ? "VM_FENCED" : "VM_CRASHED");
}

static struct vm_verdict decide_idle(const struct vm_seen *s)
{
	bool on = s->power_state == VM_POWER_STATE_RUNNING ||
		  s->power_state == VM_POWER_STATE_PAUSED;
	struct vm_verdict v;

	if (s->kind != VM_OP_COUNT)
		return rerun(s->kind); /* hot plug, or a clone's source */
	if (!on) {
		if (s->recorded || s->attached || s->leftovers)
			return goes(s->power_state, 0, "leftovers were removed");
		return keep();
	}
	switch (s->found) {
	case VM_FOUND_NONE:
		if (s->ending)
			return with_note(goes(VM_POWER_STATE_HALTED, 0,
						 "it had been shut down, and its domain "
						 "is gone at last"),
				"VM_SHUTDOWN");
		return vanished(s, 0);
	case VM_FOUND_BUILDING:
		return with_note(
			down(0, "its domain was never completed and was removed"),
			"VM_HALF_MADE");
	case VM_FOUND_SUSPENDED:
		v = stays(VM_POWER_STATE_RUNNING, 0,
			"it was suspended for a save that "
			"failed, and goes on");
		v.resume_guest = true;
		return v;
	case VM_FOUND_ENDED:
		return s->preserved ? keep()
				    : (struct vm_verdict){.what = VM_GUEST_ENDED};
	case VM_FOUND_PAUSED:
		if (s->power_state == VM_POWER_STATE_PAUSED && !s->leftovers)
			return keep();
		return with_note(stays(VM_POWER_STATE_PAUSED, 0,
					 "its domain was paused by another tool"),
			"VM_STATE_CORRECTED");
	case VM_FOUND_RUNNING:
		if (s->power_state == VM_POWER_STATE_RUNNING && !s->leftovers)
			return keep();
		return with_note(stays(VM_POWER_STATE_RUNNING, 0,
					 "its domain was unpaused by another tool"),
			"VM_STATE_CORRECTED");
	}
	return keep();
}

static struct vm_verdict decide_start(const struct vm_seen *s)
{
	if (s->recorded && (s->found == VM_FOUND_RUNNING || s->found == VM_FOUND_ENDED))
		return stays(VM_POWER_STATE_RUNNING, 0, NULL);
	if (s->recorded && s->found == VM_FOUND_PAUSED && s->start_paused)
		return stays(VM_POWER_STATE_PAUSED, 0, NULL);
	if (s->recorded && s->found == VM_FOUND_NONE)
		return down(RV_EAGAIN, "its domain is gone and may have run");
	return goes(VM_POWER_STATE_HALTED, RV_EAGAIN, INTERRUPTED);
}

static struct vm_verdict decide_resume(const struct vm_seen *s)
{
	if (s->power_state != VM_POWER_STATE_SUSPENDED)
		return with_image_dropped(stays(s->power_state, 0, NULL));
	if (!s->recorded)
		return goes(VM_POWER_STATE_SUSPENDED, RV_EAGAIN, INTERRUPTED);
	switch (s->found) {
	case VM_FOUND_RUNNING:
	case VM_FOUND_ENDED:
	case VM_FOUND_SUSPENDED:
		return with_image_dropped(stays(VM_POWER_STATE_RUNNING, 0, NULL));
	case VM_FOUND_PAUSED:
		if (s->start_paused)
			return with_image_dropped(stays(VM_POWER_STATE_PAUSED, 0, NULL));
		return goes(VM_POWER_STATE_SUSPENDED, RV_EAGAIN, INTERRUPTED);
	case VM_FOUND_BUILDING:
		return goes(VM_POWER_STATE_SUSPENDED, RV_EAGAIN, INTERRUPTED);
	case VM_FOUND_NONE:
		break;
	}
	/* It may have run: old memory never meets disks that have moved on. */
	return with_note(
		with_image_dropped(down(RV_ESTATE,
			"its domain is gone and may have run for a moment, so its "
			"suspended memory no longer fits its disks and was dropped")),
		"VM_CRASHED");
}

static struct vm_verdict decide_shutdown(const struct vm_seen *s)
{
	bool lives = s->found == VM_FOUND_RUNNING || s->found == VM_FOUND_PAUSED;

	if (s->kind == VM_OP_CLEAN_SHUTDOWN && lives)
		return stays(s->found == VM_FOUND_PAUSED ? VM_POWER_STATE_PAUSED
							 : VM_POWER_STATE_RUNNING,
			RV_EAGAIN,
			"the daemon was restarted while it waited for the guest, which "
			"runs on and may still end");
	return rerun(VM_OP_HARD_SHUTDOWN);
}

static struct vm_verdict decide_reboot(const struct vm_seen *s)
{
	bool lives = s->found == VM_FOUND_RUNNING || s->found == VM_FOUND_PAUSED;

	if (s->advanced && s->recorded &&
		(s->found == VM_FOUND_RUNNING || s->found == VM_FOUND_ENDED))
		return stays(VM_POWER_STATE_RUNNING, 0, NULL);
	if (!s->advanced && s->kind == VM_OP_CLEAN_REBOOT && lives)
		return stays(s->found == VM_FOUND_PAUSED ? VM_POWER_STATE_PAUSED
							 : VM_POWER_STATE_RUNNING,
			RV_EAGAIN,
			"the daemon was restarted while it waited for the guest, which "
			"runs on and may still reboot");
	if (s->leftovers) {
		struct vm_verdict v = down(RV_EAGAIN,
			"the daemon was restarted in the middle; it is started again");

		v.restart = true;
		return v;
	}
	return rerun(VM_OP_HARD_REBOOT);
}

static struct vm_verdict decide_suspend(const struct vm_seen *s)
{
	struct vm_verdict v;

	if (s->power_state == VM_POWER_STATE_SUSPENDED)
		return goes(VM_POWER_STATE_SUSPENDED, 0, NULL);
	switch (s->found) {
	case VM_FOUND_NONE:
	case VM_FOUND_BUILDING:
		return with_image_dropped(vanished(s, RV_EAGAIN));
	case VM_FOUND_PAUSED:
		return with_image_dropped(
			stays(VM_POWER_STATE_PAUSED, RV_EAGAIN, INTERRUPTED));
	case VM_FOUND_RUNNING:
	case VM_FOUND_ENDED:
		return with_image_dropped(
			stays(VM_POWER_STATE_RUNNING, RV_EAGAIN, INTERRUPTED));
	case VM_FOUND_SUSPENDED:
		break;
	}
	v = with_image_dropped(stays(VM_POWER_STATE_RUNNING, RV_EAGAIN, INTERRUPTED));
	v.resume_guest = true;
	return v;
}

struct vm_verdict vm_decide(const struct vm_seen *s)
{
	switch (s->intent) {
	case VM_INTENT_NONE:
		return decide_idle(s);
	case VM_INTENT_START:
		return decide_start(s);
	case VM_INTENT_RESUME:
		return decide_resume(s);
	case VM_INTENT_SHUTDOWN:
		return decide_shutdown(s);
	case VM_INTENT_REBOOT:
		return decide_reboot(s);
	case VM_INTENT_SUSPEND:
		return decide_suspend(s);
	case VM_INTENT_PAUSE:
		return rerun(VM_OP_PAUSE);
	case VM_INTENT_UNPAUSE:
		return rerun(VM_OP_UNPAUSE);
	case VM_INTENT_DESTROY:
		return rerun(VM_OP_DESTROY);
	case VM_INTENT_PROVISION:
		/* A clone's target is settled with its source. */
		return s->kind == VM_OP_CLONE ? keep() : rerun(VM_OP_PROVISION);
	case VM_INTENT_MIGRATE:
	case VM_INTENT_COUNT:
		break; /* migrate/'s own */
	}
	return keep();
}
