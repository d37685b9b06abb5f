/*
 * What must be so: after every event, at every ending of a task, after a recovery, and
 * when everything has come to rest.
 */
#ifndef REEVE_TESTS_SIM_MODEL_H
#define REEVE_TESTS_SIM_MODEL_H

#include "world.h"

void model_init(struct sim_host *h);
void model_fini(struct sim_host *h);

/* A pool was opened: from its first applied entry on it is compared with what its former
 * lives had applied. */
void model_follow(struct sim_host *h);
/* It leads: everything ever applied is there again. */
void model_recovered(struct sim_host *h);

/* After each event. */
void model_event(struct sim_host *h);

/* The host is at rest: nothing at work, every task ended. */
bool model_at_rest(struct sim_host *h);
/* And then nothing is left over anywhere. */
void model_settled(struct sim_host *h);
/* Why model_at_rest says no, for the failure. */
void model_unrest(struct sim_host *h, char *text, size_t size);

/* --- what clients were told --- */

struct sim_task *model_task(struct sim_host *h, const struct uuid *uuid);
struct sim_task *model_asked(struct sim_host *h, struct uuid uuid, enum vm_operation kind,
	const struct vm_op_args *args);
void model_accepted(struct sim_host *h, struct sim_task *t);
void model_refused(struct sim_host *h, struct sim_task *t, int rc);
struct sim_numbers *model_numbers(struct sim_host *h, struct uuid vm);
void model_wrote(struct sim_host *h, struct sim_numbers *n, int64_t number, int rc);
struct sim_disk *model_disk(struct sim_host *h, struct uuid vdi);

#endif
