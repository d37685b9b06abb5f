/* A simulated driver behind the same port: interfaces in memory, seeded latency and
 * faults. For the deterministic simulation, and for hosts without the rights for real
 * bridges. */
#ifndef REEVE_NET_SIM_H
#define REEVE_NET_SIM_H

#include "net/net.h"

struct net_sim_config {
	uint64_t seed;
	int devices; /* eth0 ... up to 16; eth0 carries the host's address */
	int64_t latency_min_us, latency_max_us; /* 0, 0: 100..1000 */
	uint32_t fail_ppm;			/* RV_EIO, nothing done */
	uint32_t fail_after_ppm;		/* takes effect, then RV_EIO */
	uint32_t hang_ppm;			/* answers after 120 s */
};

/* Returned owned; works on both loops. */
int net_sim_new(struct net **out, struct loop *l,
	const struct net_sim_config *config) RV_MUST_CHECK;

/* The world outside: a device vanishes or comes, its cable is pulled. */
int net_sim_device(
	struct net *n, const char *name, bool present, bool carrier) RV_MUST_CHECK;
void net_sim_set_faults(
	struct net *n, uint32_t fail_ppm, uint32_t fail_after_ppm, uint32_t hang_ppm);
/* Plugged VIFs, for invariants. */
size_t net_sim_vif_count(const struct net *n);

#endif
