/* The adversary: at random moments it breaks something, and later heals it. */
#ifndef REEVE_TESTS_SIM_FAULTS_H
#define REEVE_TESTS_SIM_FAULTS_H

#include "world.h"

void faults_start(struct sim_world *w);
/* Everything that was broken works again; nothing new is broken. */
void faults_stop(struct sim_world *w);
/* A daemon comes up: it is told what is still broken, and perhaps when it dies. */
void faults_host_up(struct sim_host *h);
/* Adds what the hypervisor's driver has done to the totals; before hyper_free. */
void faults_collect(struct sim_host *h);
/* vm_point_fn. */
bool faults_point(void *arg, const char *point, const struct uuid *vm);
/* After each event: whether it dies now. */
void faults_event(struct sim_host *h);

#endif
