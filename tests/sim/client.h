/* Seeded clients: each issues random operations on its host's pool, thinks, goes on. */
#ifndef REEVE_TESTS_SIM_CLIENT_H
#define REEVE_TESTS_SIM_CLIENT_H

#include "world.h"

void client_start(struct sim_client *c, struct sim_world *w, struct sim_host *h, int i);
bool client_done(const struct sim_client *c);
/* The action that asks for this operation. */
enum sim_action client_action(enum vm_operation kind);

#endif
