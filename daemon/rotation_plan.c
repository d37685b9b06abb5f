#include "daemon/rotation_plan.h"

enum rotation_step rotation_decide(const struct rotation_facts *f)
{
	if (!f->trust_right)
		return ROTATION_TRUST;
	if (!f->shown_recorded)
		return ROTATION_CONFIRM;
	if (f->prepared && !f->prepared_right)
		return ROTATION_DISCARD;
	if (f->prepared)
		return f->prepared_recorded ? ROTATION_FORCE : ROTATION_RECORD;
	if (f->next_recorded) /* its files are gone: it will never be shown */
		return ROTATION_CONFIRM;
	return f->wanted ? ROTATION_PREPARE : ROTATION_NOTHING;
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
