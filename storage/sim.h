/*
 * A simulated driver behind the same port: SRs and VDIs in memory, shared by the
 * simulated hosts of one loop, with seeded latency and faults. VDIs hold real bytes
 * (sparse pages), so that a test can see whether a disk arrived byte for byte.
 *
 * The world outlives the hosts' `struct storage`: a simulated kill -9 of a daemon is
 * storage_free and storage_new; claims and VDIs stay.
 */
#ifndef REEVE_STORAGE_SIM_H
#define REEVE_STORAGE_SIM_H

#include "storage/storage.h"

struct storage_sim_world;

struct storage_sim_faults {
	int64_t latency_min_us, latency_max_us; /* of each request; default 200..2000 */
	uint32_t fail_ppm;			/* RV_EIO, nothing done */
	uint32_t fail_after_ppm;		/* takes effect, then RV_EIO */
	uint32_t hang_ppm;	   /* answers only after hang_us: deadlines fire */
	int64_t hang_us;	   /* default 120 s */
	uint64_t copy_bytes_per_s; /* default 256 MiB/s */
};

/* Returned owned. All hosts that use it live on `l`. */
int storage_sim_world_new(
	struct storage_sim_world **out, struct loop *l, uint64_t seed) RV_MUST_CHECK;
void storage_sim_world_free(struct storage_sim_world *w); /* after all hosts; NULL-safe */

/* Adds a driver of this type name (a literal: "file", "nfs", ...) to a host's storage.
 * With STORAGE_CAN_SHARE in `features`, an SR created on one host attaches on the others;
 * else it belongs to the host that made it. device-config: "location", any text, one SR
 * per text (and host, when not shared); "size", optional, in bytes: default 1 TiB. */
int storage_sim_add(struct storage *st, struct storage_sim_world *w, const char *type,
	uint32_t features) RV_MUST_CHECK;

void storage_sim_set_faults(
	struct storage_sim_world *w, const struct storage_sim_faults *faults);
/* The named SR does not answer `host` (none: anybody) until healed. */
void storage_sim_set_hung(
	struct storage_sim_world *w, struct uuid sr, struct uuid host, bool hung);

/* A guest's own access, past the port, at once: the backend of the simulated hypervisor.
 * RV_ENOENT, RV_EINVAL beyond the end, RV_ENOTALLOWED when `host` does not hold the VDI
 * active (for writing). */
int storage_sim_guest_write(struct storage_sim_world *w, struct uuid host,
	struct uuid vdi, uint64_t offset, const void *data, size_t len) RV_MUST_CHECK;
int storage_sim_guest_read(struct storage_sim_world *w, struct uuid host, struct uuid vdi,
	uint64_t offset, void *data, size_t len) RV_MUST_CHECK;

/* For invariants. A hash over size and contents; 0 when it does not exist. */
uint64_t storage_sim_vdi_hash(const struct storage_sim_world *w, struct uuid vdi);
size_t storage_sim_vdi_count(const struct storage_sim_world *w, struct uuid sr);
/* How many claims a VDI has for writing and for reading; the writer's host and
 * generation. */
struct storage_sim_claims {
	uint32_t writers, readers;
	struct uuid writer_host, writer_holder;
	uint64_t writer_generation;
};
struct storage_sim_claims storage_sim_vdi_claims(
	const struct storage_sim_world *w, struct uuid vdi);

#endif
