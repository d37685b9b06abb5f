/*
 * Fencing on a simulated host, for tests and for trying Reeve without Xen.
 *
 * reeved itself simulates the hypervisor, on a file (xen/sim_machine.h) that outlives it.
 * So the simulated host's processors stop when that process is killed, and a domain is
 * destroyed by taking it out of the file; other domains stay in it, and run on when
 * reeved is started again. The watchdog is a process of its own: where it is not kept
 * quiet it kills reeved and restarts the simulated host, all of whose domains are then
 * gone. It listens to a FIFO beside the file, so that a reeve-fenced that is started in
 * place of one that was killed takes it over.
 */
#ifndef REEVE_FENCE_SIM_H
#define REEVE_FENCE_SIM_H

#include "fence/port.h"

/* `machine`: reeved's STATE_DIR/simulated-machine. */
int fence_sim_open(
	struct fence_port **out, const char *machine, struct rv_error *e) RV_MUST_CHECK;

#endif
