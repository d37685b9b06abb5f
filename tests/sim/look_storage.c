#include "look.h"

#include "storage/sim_world.h"

void look_vdis(struct storage_sim_world *w, look_vdi_fn *fn, void *arg)
{
	LIST_FOR_EACH (s, &w->srs) {
		struct sim_sr *sr = CONTAINER_OF(s, struct sim_sr, node);

		LIST_FOR_EACH (v, &sr->vdis) {
			struct sim_vdi *vdi = CONTAINER_OF(v, struct sim_vdi, node);
			struct storage_sim_claims c =
				storage_sim_vdi_claims(w, vdi->uuid);
			struct look_vdi out = {.uuid = vdi->uuid,
				.writer = c.writer_holder,
				.writers = c.writers,
				.readers = c.readers};

			fn(arg, &out);
		}
	}
}
