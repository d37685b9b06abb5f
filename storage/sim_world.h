/* The simulated world behind storage/sim.h: its objects and what requests do to them. */
#ifndef REEVE_STORAGE_SIM_WORLD_H
#define REEVE_STORAGE_SIM_WORLD_H

#include "base/map.h"
#include "storage/claim.h"
#include "storage/driver.h"
#include "storage/sim.h"

enum { SIM_PAGE = 4096, SIM_LOCATION_MAX = 128 };

struct sim_page {
	uint64_t index; /* the key */
	uint8_t bytes[SIM_PAGE];
};

struct sim_vdi {
	struct list node;
	struct uuid uuid;
	struct sim_sr *sr;
	enum storage_format format;
	uint64_t size;
	struct map pages;
	struct claims claims;
};

struct sim_sr {
	struct list node, vdis;
	struct uuid uuid, owner; /* owner: of one that is not shared */
	char type[16], location[SIM_LOCATION_MAX];
	uint64_t size, used;
	struct uuid hung_host;
	bool hung, hung_for_one;
};

struct storage_sim_world {
	struct loop *loop;
	struct prng prng;
	uint64_t map_seed;
	struct storage_sim_faults faults;
	struct list srs;
	struct list parked; /* tasks of hung SRs */
};

struct sim_task {
	struct list node, parked;
	struct storage_sim_world *world;
	struct storage_request *r;
	struct timer timer;
	bool stop, began, fail, fail_after;
	uint64_t copied, total;
	struct storage_vdi_info *vdis;
	struct storage_claim *claims;
	uint8_t *data;
};

struct sim_sr *sim_sr_find(const struct storage_sim_world *w, const struct uuid *uuid);
void sim_sr_free(struct sim_sr *sr);
struct sim_vdi *sim_vdi_in(const struct sim_sr *sr, const struct uuid *uuid);
int sim_vdi_new(struct sim_vdi **out, struct storage_sim_world *w, struct sim_sr *sr,
	const struct uuid *uuid, enum storage_format format, uint64_t size) RV_MUST_CHECK;
void sim_vdi_free(struct sim_vdi *v);
/* RV_ESPACE, RV_ENOMEM. The range is the caller's to check. */
int sim_vdi_write(struct sim_vdi *v, uint64_t offset, const uint8_t *data,
	size_t len) RV_MUST_CHECK;
void sim_vdi_read(const struct sim_vdi *v, uint64_t offset, uint8_t *data, size_t len);
bool sim_vdi_holds(const struct sim_vdi *v, uint64_t offset, size_t len);

/* Carries out the task's request at once and fills *out. */
int sim_task_effect(struct sim_task *t, struct storage_result *out) RV_MUST_CHECK;
/* The claims of a copy under way. */
int sim_copy_begin(struct sim_task *t, struct rv_error *e) RV_MUST_CHECK;
void sim_copy_end(struct sim_task *t);

#endif
