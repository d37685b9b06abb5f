/*
 * The network port: one host's interfaces, and the virtual networks on them.
 *
 * A network is a bridge on each host where it is up; a PIF puts a device (or a VLAN on
 * one) into it; a VIF is plugged into it when a VM starts. The driver is chosen per host:
 * "bridge" (net/bridge.h), later "openvswitch", "sim" (net/sim.h) where rights are
 * missing or the hypervisor is simulated too.
 *
 * Reeve changes only what it made: bridges and VLANs carry the alias "reeve:UUID", a
 * device that it put into a bridge the alternative name "reeve-UUID" (of the PIF). An
 * admin's own bridge is used as it is (`unmanaged`) and never changed or removed. A
 * device that carries an address of the host is never put into a bridge: that would cut
 * the host off.
 *
 * Calls are requests, as in storage/storage.h: net_start copies its arguments; `done` is
 * called exactly once, from the loop, never inside a call. At the deadline it gets
 * RV_ETIMEDOUT with settled == false while the kernel is still at it. Each request says
 * what shall be and may be repeated; repeating one that succeeded succeeds.
 */
#ifndef REEVE_NET_NET_H
#define REEVE_NET_NET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/prng.h"
#include "base/uuid.h"
#include "reactor/loop.h"

struct net_request;

enum {
	NET_NAME_SIZE = 16, /* of an interface, with NUL */
	NET_MAC_SIZE = 18,  /* "00:16:3e:..", with NUL */
	NET_ALIAS_SIZE = 256,
	NET_ADDRESS_SIZE = 52, /* "fe80::1/64" and the like */
	NET_MAX_INTERFACES = 4096,
	NET_MAX_REQUESTS = 4096,
	NET_MAX_VIFS = 8192,
	NET_VLAN_NONE = -1,
	NET_MTU_MIN = 576,   /* RFC 791: what every host must take; Linux has 68 */
	NET_MTU_MAX = 65517, /* Linux's xen-netback: ETH_MAX_MTU - VLAN_ETH_HLEN */
};

enum net_verb {
	/* All interfaces of the host. -> interfaces */
	NET_SCAN,
	/* The network is up on this host: `bridge` exists and is up. network, bridge, mtu
	 * (0: the kernel's), unmanaged. -> bridge_made */
	NET_UP,
	/* Removes a bridge that net_up made (refused while something is plugged into it);
	 * leaves an unmanaged one. network, bridge. */
	NET_DOWN,
	/* `device`, or VLAN `vlan` on it, is a port of `bridge`. pif, device, vlan,
	 * bridge, mtu. -> port. Refused: a device that carries an address, is in another
	 * bridge, is loopback or itself a bridge. */
	NET_PIF_PLUG,
	/* Undoes that; leaves what an admin had plugged himself. pif, device, vlan,
	   bridge. */
	NET_PIF_UNPLUG,
	/* Checks the bridge and the MAC and reserves the MAC on this network: vif,
	 * network, bridge, mac, mtu. -> vif_backend. RV_EEXIST names the VIF or device
	 * that has it. */
	NET_VIF_PLUG,
	/* vif. */
	NET_VIF_UNPLUG,
};

const char *net_verb_name(enum net_verb verb); /* "pif_plug" */

enum net_kind {
	NET_KIND_PHYSICAL,
	NET_KIND_BRIDGE,
	NET_KIND_VLAN,
	NET_KIND_BOND,
	NET_KIND_LOOPBACK,
	NET_KIND_VIRTUAL
};

struct net_interface {
	char name[NET_NAME_SIZE];
	enum net_kind kind;
	char mac[NET_MAC_SIZE];
	int index, mtu;
	bool up, carrier;
	int speed_mbit;			/* 0: unknown */
	char master[NET_NAME_SIZE];	/* the bridge or bond it is a port of; or empty */
	char lower[NET_NAME_SIZE];	/* of a VLAN */
	int vlan;			/* NET_VLAN_NONE */
	char address[NET_ADDRESS_SIZE]; /* first global address, else empty */
	uint32_t address_count;
	bool managed;	   /* made (or plugged) by Reeve */
	struct uuid owner; /* network or PIF of the mark */
};

/* What a hypervisor driver needs. */
struct net_vif_backend {
	/* libxl's vif syntax: "mac=..,bridge=..,mtu=..,script=vif-bridge" */
	char spec[128];
	char bridge[NET_NAME_SIZE], mac[NET_MAC_SIZE];
	char script[32];
	int mtu;
};

/* Pointers are borrowed for the callback. */
struct net_result {
	int rc; /* error.code */
	struct rv_error error;
	bool settled; /* false only with RV_ETIMEDOUT */
	const struct net_interface *interfaces;
	size_t interface_count;
	bool bridge_made;
	char port[NET_NAME_SIZE];
	struct net_vif_backend vif_backend;
};

typedef void net_done_fn(void *arg, uint64_t token, const struct net_result *result);

/* Everything is borrowed for net_start only. */
struct net_call {
	enum net_verb verb;
	struct uuid network, pif, vif;
	const char *bridge, *device, *mac;
	int vlan; /* NET_VLAN_NONE, or 1..4094. Mind: 0 is refused, so set it */
	int mtu;
	bool unmanaged;

	int64_t deadline_ms; /* 0: 30 s */
	net_done_fn *done;
	void *arg;
	uint64_t token;
};

struct net;

/* What a driver provides. */
struct net_ops {
	const char *name; /* "bridge", "sim" */
	bool simulated;
	int (*start)(struct net *n, const struct net_call *call, struct net_request **out,
		struct rv_error *e);
	void (*cancel)(struct net_request *r);
	void (*free)(struct net *n);
};

struct net {
	const struct net_ops *ops;
};

/* 0, or at once: RV_EINVAL (names, MAC, tag, MTU: checked here, for every driver),
 * RV_ELIMIT, RV_ENOMEM. *out (may be NULL) is borrowed and valid until done. */
int net_start(struct net *n, const struct net_call *call, struct net_request **out,
	struct rv_error *e) RV_MUST_CHECK;
/* A request that waits ends with RV_ECANCELLED; one at work with its outcome. */
void net_cancel(struct net *n, struct net_request *r);
/* Drops requests without callbacks. Bridges and plugged devices stay. NULL-safe. */
void net_free(struct net *n);

/* --- names and MACs (net/name.c; pure) --- */

/* 1..15 characters of letters, digits, '.', '_', '-', not beginning with '-' or '.';
 * `what` ("bridge") begins the message. */
int net_name_check(const char *name, const char *what, struct rv_error *e) RV_MUST_CHECK;

/* The bridge name of a network: "rv" and 12 hex digits of its UUID. */
char *net_bridge_name(const struct uuid *network, char name[static NET_NAME_SIZE]);
/* "eth0.100", or for long device names "vl" and a hash. */
char *net_vlan_name(const char *device, int vlan, char name[static NET_NAME_SIZE]);

/* Six hex pairs with colons; refuses multicast and zero. Writes the lower-case form. */
int net_mac_parse(const char *text, char mac[static NET_MAC_SIZE],
	struct rv_error *e) RV_MUST_CHECK;
/* Locally administered, unicast; from `prng`. */
char *net_mac_random(struct prng *prng, char mac[static NET_MAC_SIZE]);

#endif
