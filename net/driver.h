/*
 * What the drivers of the network port share: a queue that runs one request at a time, in
 * order, with deadlines and exactly one `done` each, and the table of plugged VIFs.
 */
#ifndef REEVE_NET_DRIVER_H
#define REEVE_NET_DRIVER_H

#include "base/list.h"
#include "base/map.h"
#include "net/net.h"

struct net_queue;

enum net_request_state { NET_WAITING, NET_RUNNING, NET_SETTLING };

struct net_request {
	struct list node;
	struct net_queue *queue;
	struct net_call call; /* names point to the copies below */
	char bridge[NET_NAME_SIZE], device[NET_NAME_SIZE], mac[NET_MAC_SIZE];
	enum net_request_state state;
	struct timer deadline;
	struct defer report;
	struct net_result result;
	struct net_interface *interfaces; /* owned; what result points to */
};

/* Embed it. `run` begins a request; net_queue_finish ends it, also from inside `run`. */
struct net_queue {
	struct loop *loop;
	struct list requests;
	size_t count;
	struct net_request *running;
	void (*run)(struct net_request *r);
	void *owner;
	struct defer pump;
};

void net_queue_init(struct net_queue *q, struct loop *l,
	void (*run)(struct net_request *r), void *owner);
/* The request that runs must be at rest. */
void net_queue_fini(struct net_queue *q);
int net_queue_start(struct net_queue *q, const struct net_call *call,
	struct net_request **out, struct rv_error *e) RV_MUST_CHECK;
void net_queue_cancel(struct net_request *r);
/* With r->result.error set, or not. */
void net_queue_finish(struct net_request *r);

/* --- plugged VIFs --- */

/* Which MAC is whose, per network. Embed it. */
struct net_vifs {
	struct map by_uuid, by_mac;
};

void net_vifs_init(struct net_vifs *v, uint64_t seed);
void net_vifs_fini(struct net_vifs *v);
/* Adds or renews; fills *backend. RV_EEXIST names the VIF that has the MAC. */
int net_vifs_plug(struct net_vifs *v, const struct net_call *call,
	struct net_vif_backend *backend, struct rv_error *e) RV_MUST_CHECK;
void net_vifs_unplug(struct net_vifs *v, const struct uuid *vif);
/* A VIF plugged into this network, or NULL. */
const struct uuid *net_vifs_on(const struct net_vifs *v, const struct uuid *network);

#endif
