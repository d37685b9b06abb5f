/*
 * Links and addresses by rtnetlink. Blocking: for the bridge driver's worker only.
 * Functions return 0 or a code; `e` has the kernel's own words (extended
 * acknowledgement).
 */
#ifndef REEVE_NET_RTNL_H
#define REEVE_NET_RTNL_H

#include "net/net.h"

struct mnl_socket;

struct rtnl {
	struct mnl_socket *socket;
	int ethtool_fd; /* for speeds */
	uint32_t port, sequence;
	void *buffer;
};

/* A link as the driver needs it. The interface's master and lower are filled in only by
 * rtnl_links, which knows all names. */
struct rtnl_link {
	struct net_interface interface;
	char kind[24]; /* "bridge", "vlan", ...; empty: a device */
	char alias[NET_ALIAS_SIZE];
	int master, lower;   /* indexes; 0: none */
	struct uuid plugged; /* of an alternative name "reeve-UUID"; or none */
};

int rtnl_open(struct rtnl *rt, struct rv_error *e) RV_MUST_CHECK;
void rtnl_close(struct rtnl *rt); /* idempotent */

/* All links with their addresses; *links is returned owned (free). */
int rtnl_links(struct rtnl *rt, struct rtnl_link **links, size_t *count,
	struct rv_error *e) RV_MUST_CHECK;
/* One link, without addresses. RV_ENOENT. */
int rtnl_link_get(struct rtnl *rt, const char *name, struct rtnl_link *link,
	struct rv_error *e) RV_MUST_CHECK;

/* mtu 0: the kernel's. */
int rtnl_bridge_add(struct rtnl *rt, const char *name, const uint8_t mac[6], int mtu,
	struct rv_error *e) RV_MUST_CHECK;
int rtnl_vlan_add(struct rtnl *rt, const char *name, int lower, int vlan,
	struct rv_error *e) RV_MUST_CHECK;
int rtnl_link_remove(struct rtnl *rt, int index, struct rv_error *e) RV_MUST_CHECK;
int rtnl_set_up(struct rtnl *rt, int index, struct rv_error *e) RV_MUST_CHECK;
int rtnl_set_mtu(struct rtnl *rt, int index, int mtu, struct rv_error *e) RV_MUST_CHECK;
int rtnl_set_master(
	struct rtnl *rt, int index, int master, struct rv_error *e) RV_MUST_CHECK;
int rtnl_set_alias(
	struct rtnl *rt, int index, const char *alias, struct rv_error *e) RV_MUST_CHECK;
int rtnl_altname(struct rtnl *rt, int index, const char *name, bool add,
	struct rv_error *e) RV_MUST_CHECK;

#endif
