/*
 * The "bridge" driver: Linux bridges and VLAN devices by rtnetlink (libmnl).
 *
 * The kernel answers netlink under its RTNL lock, which others may hold for long, so all
 * requests run on one worker thread, in order, with a socket of its own. The worker lives
 * in the network namespace of the thread that calls net_bridge_new.
 */
#ifndef REEVE_NET_BRIDGE_H
#define REEVE_NET_BRIDGE_H

#include "net/net.h"

/* Returned owned. Tries whether the rights are there and the kernel has bridges:
 * RV_EPERM or RV_EUNSUPPORTED with what is missing, and then the caller may take
 * net/sim.h and say so. Real loop only. */
int net_bridge_new(struct net **out, struct loop *l, struct rv_error *e) RV_MUST_CHECK;

#endif
