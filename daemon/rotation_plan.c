#include "daemon/rotation_plan.h"

enum rotation_step rotation_decide(const struct rotation_facts *f)
{
	/* Before the CA of what is shown is trusted no more: the disk must hold together
	 * at any time. */
	if (f->prior_believed && !f->shown_believed)
		return ROTATION_FALL_BACK;
	if (!f->trust_right)
		return ROTATION_TRUST;
	/* What nobody would believe is not put on record. */
	if (!f->shown_recorded && f->shown_believed)
		return ROTATION_CONFIRM;
	if (f->prepared && !f->prepared_right)
		return ROTATION_DISCARD;
	if (f->prepared)
		return f->prepared_recorded ? ROTATION_FORCE : ROTATION_RECORD;
	/* Its files are gone: it will never be shown. */
	if (f->next_recorded && f->shown_believed)
		return ROTATION_CONFIRM;
	if (f->wanted)
		return ROTATION_PREPARE;
	return f->prior && !f->prior_believed ? ROTATION_FORGET : ROTATION_NOTHING;
}

const char *rotation_step_name(enum rotation_step step)
{
	static const char *const names[] = {
		[ROTATION_NOTHING] = "nothing",
		[ROTATION_TRUST] = "trust",
		[ROTATION_PREPARE] = "prepare",
		[ROTATION_DISCARD] = "discard",
		[ROTATION_RECORD] = "record",
		[ROTATION_FORCE] = "force",
		[ROTATION_CONFIRM] = "confirm",
		[ROTATION_FALL_BACK] = "fall-back",
		[ROTATION_FORGET] = "forget",
	};

	return names[step];
}

bool rotation_is_due(int64_t issued_s, int64_t expires_s, int64_t now_s)
{
	return now_s >= expires_s - (expires_s - issued_s) / 3;
}

bool rotation_expires_soon(int64_t issued_s, int64_t expires_s, int64_t now_s)
{
	return now_s >= expires_s - (expires_s - issued_s) / 12;
}
