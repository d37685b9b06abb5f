/* Looks at once at what the simulated ports hold, past them: the truth of this moment. */
#ifndef REEVE_TESTS_SIM_LOOK_H
#define REEVE_TESTS_SIM_LOOK_H

#include "storage/sim.h"
#include "xen/hyper.h"

/* Returns how many. */
size_t look_domains(struct hyper *h, struct hyper_domain *out, size_t max);
/* Whether a domain has a disk of that number. */
bool look_has_disk(struct hyper *h, uint32_t domid, uint32_t devid);
bool look_has_nic(struct hyper *h, uint32_t domid, uint32_t devid);

struct look_vdi {
	struct uuid uuid, writer;
	uint32_t writers, readers;
};
typedef void look_vdi_fn(void *arg, const struct look_vdi *v);
void look_vdis(struct storage_sim_world *w, look_vdi_fn *fn, void *arg);

#endif
