/* What the files of the model look up. */
#ifndef REEVE_TESTS_SIM_MODEL_LOOK_H
#define REEVE_TESTS_SIM_MODEL_LOOK_H

#include <stdlib.h>

#include "model.h"

enum { XVD_FIRST = 202 << 8 };

static inline const struct db *db_of(struct sim_host *h)
{
	return pool_db(h->pool);
}

static inline const char *text_of(struct uuid uuid, char *text)
{
	return uuid_format(&uuid, text);
}

static inline uint32_t disk_number(const struct row *vbd)
{
	return XVD_FIRST | (uint32_t)(atoi(db_string(vbd, VBD_USERDEVICE)) << 4);
}

/* What was ever seen or accepted is still there, and looked at. */
void model_tasks_are_there(struct sim_host *h);

#endif
