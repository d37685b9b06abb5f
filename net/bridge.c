#include "net/bridge.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "net/driver.h"
#include "net/rtnl.h"
#include "reactor/worker.h"

/* A request is one job on the worker; what it finds out comes back in the request. */
struct bridge_net {
	struct net net; /* first: what callers hold */
	struct net_queue queue;
	struct net_vifs vifs; /* the loop's */
	struct worker *worker;
	struct job job;
	struct rtnl rt;		/* the worker's */
	struct net_request *at; /* the job's */
	bool closing;
};

struct mark {
	char text[UUID_TEXT_SIZE + 8];
};

static struct mark mark(const char *prefix, const struct uuid *uuid)
{
	char text[UUID_TEXT_SIZE];
	struct mark m;
	snprintf(m.text, sizeof m.text, "%s%s", prefix, uuid_format(uuid, text));
	return m;
}

/* --- networks, on the worker --- */

/* The bridge's own address, from the network's UUID: stable, and a mark that is there
 * from the first moment on, before the alias. */
static void bridge_mac(const struct uuid *network, uint8_t mac[6])
{
	mac[0] = 0x02;
	mac[1] = 0x52; /* R */
	for (int i = 0; i < 4; i++)
		mac[2 + i] = (uint8_t)(network->b[i] ^ network->b[i + 4] ^
				       network->b[i + 8] ^ network->b[i + 12]);
}

static bool is_mac(const struct rtnl_link *link, const uint8_t mac[6])
{
	char text[NET_MAC_SIZE];
	snprintf(text, sizeof text, "%02x:%02x:%02x:%02x:%02x:%02x", mac[0], mac[1],
		mac[2], mac[3], mac[4], mac[5]);
	return strcmp(link->interface.mac, text) == 0;
}

static int not_bridge(const char *name, struct rv_error *e)
{
	return rv_error_set(e, RV_EEXIST,
		"interface %s exists and is no bridge: choose another bridge name", name);
}

static int find_bridge(struct bridge_net *b, const char *name, struct rtnl_link *link,
	struct rv_error *e)
{
	int rc = rtnl_link_get(&b->rt, name, link, e);
	if (rc == RV_ENOENT)
		return rv_error_set(e, RV_ENOTATTACHED,
			"bridge %s does not exist on this host: is its network up here?",
			name);
	if (rc == 0 && link->interface.kind != NET_KIND_BRIDGE)
		return not_bridge(name, e);
	return rc;
}

static int network_adopt(struct bridge_net *b, const struct net_call *call,
	struct rtnl_link *link, struct rv_error *e)
{
	uint8_t mac[6];
	struct mark m = mark("reeve:", &call->network);
	bridge_mac(&call->network, mac);
	if (link->interface.kind != NET_KIND_BRIDGE)
		return not_bridge(call->bridge, e);
	if (strcmp(link->alias, m.text) == 0)
		return 0;
	if (*link->alias == '\0' && is_mac(link, mac))
		return rtnl_set_alias(&b->rt, link->interface.index, m.text, e);
	return rv_error_set(e, RV_EEXIST,
		"bridge %s exists and was not made for this network: introduce it as "
		"unmanaged, or choose another bridge name",
		call->bridge);
}

static int network_up_unmanaged(
	struct bridge_net *b, const struct net_call *call, struct rv_error *e)
{
	struct rtnl_link link;
	int rc = rtnl_link_get(&b->rt, call->bridge, &link, e);
	if (rc == RV_ENOENT)
		return rv_error_set(e, RV_ENOENT,
			"bridge %s does not exist on this host: make it in the host's "
			"network "
			"configuration, or let Reeve make it (managed=true)",
			call->bridge);
	if (rc)
		return rc;
	if (link.interface.kind != NET_KIND_BRIDGE)
		return not_bridge(call->bridge, e);
	if (!link.interface.up)
		return rv_error_set(e, RV_ENOTATTACHED,
			"bridge %s is down: bring it up (ip link set %s up)",
			call->bridge, call->bridge);
	return 0;
}

static int network_up(struct bridge_net *b, struct net_request *r, struct rv_error *e)
{
	const struct net_call *call = &r->call;
	struct rtnl_link link;
	uint8_t mac[6];
	if (call->unmanaged)
		return network_up_unmanaged(b, call, e);
	bridge_mac(&call->network, mac);
	int rc = rtnl_link_get(&b->rt, call->bridge, &link, e);
	if (rc == RV_ENOENT) {
		rc = rtnl_bridge_add(&b->rt, call->bridge, mac, call->mtu, e);
		if (rc == 0) {
			r->result.bridge_made = true;
			rc = rtnl_link_get(&b->rt, call->bridge, &link, e);
		}
	}
	if (rc == 0)
		rc = network_adopt(b, call, &link, e);
	if (rc == 0 && call->mtu && link.interface.mtu != call->mtu)
		rc = rtnl_set_mtu(&b->rt, link.interface.index, call->mtu, e);
	if (rc == 0 && !link.interface.up)
		rc = rtnl_set_up(&b->rt, link.interface.index, e);
	if (rc)
		rv_error_prefix(e, "network on bridge %s", call->bridge);
	return rc;
}

static int network_down(struct bridge_net *b, struct net_request *r, struct rv_error *e)
{
	const struct net_call *call = &r->call;
	struct mark m = mark("reeve:", &call->network);
	struct rtnl_link *links;
	size_t count, bridge = SIZE_MAX;
	const char *port = NULL;
	int rc = rtnl_links(&b->rt, &links, &count, e);
	if (rc)
		return rc;
	for (size_t i = 0; i < count; i++)
		if (strcmp(links[i].interface.name, call->bridge) == 0 &&
			strcmp(links[i].alias, m.text) == 0)
			bridge = i;
	/* Gone, or somebody else's. */
	if (bridge == SIZE_MAX)
		goto out;
	for (size_t i = 0; i < count; i++)
		if (links[i].master == links[bridge].interface.index)
			port = links[i].interface.name;
	if (port)
		rc = rv_error_set(e, RV_EBUSY,
			"bridge %s still has %s in it: unplug that first", call->bridge,
			port);
	else
		rc = rtnl_link_remove(&b->rt, links[bridge].interface.index, e);
out:
	free(links);
	return rc;
}

/* --- PIFs, on the worker --- */

struct port {
	struct rtnl_link *links; /* owned */
	size_t count;
	struct rtnl_link *device, *port, *bridge; /* NULL: not there */
	char vlan_name[NET_NAME_SIZE];
};

static int port_find(struct bridge_net *b, const struct net_call *call, struct port *p,
	struct rv_error *e)
{
	*p = (struct port){0};
	int rc = rtnl_links(&b->rt, &p->links, &p->count, e);
	for (size_t i = 0; rc == 0 && i < p->count; i++) {
		struct rtnl_link *link = &p->links[i];
		if (strcmp(link->interface.name, call->device) == 0)
			p->device = link;
		if (strcmp(link->interface.name, call->bridge) == 0)
			p->bridge = link;
	}
	if (rc || !p->device)
		return rc;
	if (call->vlan == NET_VLAN_NONE) {
		p->port = p->device;
		return 0;
	}
	net_vlan_name(call->device, call->vlan, p->vlan_name);
	for (size_t i = 0; i < p->count; i++) {
		struct rtnl_link *link = &p->links[i];
		if (link->interface.kind == NET_KIND_VLAN &&
			link->interface.vlan == call->vlan &&
			link->lower == p->device->interface.index)
			p->port = link;
	}
	return 0;
}

static int port_check(
	const struct net_call *call, const struct port *p, struct rv_error *e)
{
	if (!p->device)
		return rv_error_set(e, RV_ENOENT,
			"device %s is not on this host: look with pif-scan",
			call->device);
	if (!p->bridge)
		return rv_error_set(e, RV_ENOTATTACHED,
			"bridge %s does not exist on this host: is its network up here?",
			call->bridge);
	if (p->bridge->interface.kind != NET_KIND_BRIDGE)
		return not_bridge(call->bridge, e);
	if (p->device->interface.kind == NET_KIND_LOOPBACK ||
		p->device->interface.kind == NET_KIND_BRIDGE)
		return rv_error_set(e, RV_EINVAL, "%s is %s: it can't carry a network",
			call->device,
			p->device->interface.kind == NET_KIND_BRIDGE ? "a bridge itself"
								     : "the loopback");
	if (!p->port || p->port->master == p->bridge->interface.index)
		return 0;
	if (p->port->master)
		return rv_error_set(e, RV_EBUSY,
			"%s is in %s already: take it out there first",
			p->port->interface.name, p->port->interface.master);
	if (p->port->interface.address_count)
		return rv_error_set(e, RV_ENOTALLOWED,
			"%s carries the address %s of this host: in a bridge it would be "
			"cut "
			"off. Put the address on a bridge over %s in the host's network "
			"configuration and introduce that bridge as unmanaged",
			p->port->interface.name, p->port->interface.address,
			p->port->interface.name);
	return 0;
}

/* Makes the VLAN device; refuses when its name belongs to something else. */
static int port_make_vlan(struct bridge_net *b, const struct net_call *call,
	const struct port *p, struct rtnl_link *made, struct rv_error *e)
{
	struct mark m = mark("reeve:", &call->pif);
	int rc = rtnl_link_get(&b->rt, p->vlan_name, made, e);
	if (rc == 0)
		return rv_error_set(e, RV_EEXIST,
			"interface %s exists and is not VLAN %d on %s: rename or remove "
			"it",
			p->vlan_name, call->vlan, call->device);
	if (rc != RV_ENOENT)
		return rc;
	rc = rtnl_vlan_add(
		&b->rt, p->vlan_name, p->device->interface.index, call->vlan, e);
	if (rc == 0)
		rc = rtnl_link_get(&b->rt, p->vlan_name, made, e);
	if (rc)
		return rc;
	rc = rtnl_set_alias(&b->rt, made->interface.index, m.text, e);
	struct rv_error ignored;
	if (rc && rtnl_link_remove(&b->rt, made->interface.index, &ignored))
		log_warn("net.vlan", "device=%s msg=\"left behind\"", p->vlan_name);
	return rc;
}

static int port_enslave(struct bridge_net *b, const struct net_call *call,
	const struct port *p, const struct rtnl_link *port, struct rv_error *e)
{
	struct mark m = mark("reeve-", &call->pif);
	int index = port->interface.index;
	int rc = 0;
	/* The mark first: what is marked and not in the bridge is repaired by the next
	 * plug. */
	if (!uuid_is_none(&port->plugged) && !uuid_eq(&port->plugged, &call->pif)) {
		struct mark old = mark("reeve-", &port->plugged);
		rc = rtnl_altname(&b->rt, index, old.text, false, e);
	}
	if (rc == 0 && !uuid_eq(&port->plugged, &call->pif))
		rc = rtnl_altname(&b->rt, index, m.text, true, e);
	if (rc == 0 && call->mtu && port->interface.mtu != call->mtu)
		rc = rtnl_set_mtu(&b->rt, index, call->mtu, e);
	if (rc == 0)
		rc = rtnl_set_master(&b->rt, index, p->bridge->interface.index, e);
	return rc;
}

static int pif_plug(struct bridge_net *b, struct net_request *r, struct rv_error *e)
{
	const struct net_call *call = &r->call;
	struct port p;
	struct rtnl_link made;
	int rc = port_find(b, call, &p, e);
	if (rc == 0)
		rc = port_check(call, &p, e);
	struct rtnl_link *port = p.port;
	if (rc == 0 && !port) {
		rc = port_make_vlan(b, call, &p, &made, e);
		port = &made;
	}
	if (rc == 0 && port->master != p.bridge->interface.index)
		rc = port_enslave(b, call, &p, port, e);
	if (rc == 0)
		rc = rtnl_set_up(&b->rt, p.device->interface.index, e);
	if (rc == 0 && port != p.device)
		rc = rtnl_set_up(&b->rt, port->interface.index, e);
	if (rc == 0)
		memcpy(r->result.port, port->interface.name, NET_NAME_SIZE);
	else
		rv_error_prefix(e, "plugging %s into %s", call->device, call->bridge);
	free(p.links);
	return rc;
}

static int pif_unplug(struct bridge_net *b, struct net_request *r, struct rv_error *e)
{
	const struct net_call *call = &r->call;
	struct mark made = mark("reeve:", &call->pif),
		    plugged = mark("reeve-", &call->pif);
	struct port p;
	int rc = port_find(b, call, &p, e);
	if (rc || !p.port)
		goto out; /* gone with its device */
	int index = p.port->interface.index;
	if (p.port != p.device && strcmp(p.port->alias, made.text) == 0) {
		rc = rtnl_link_remove(&b->rt, index, e);
	} else if (uuid_eq(&p.port->plugged, &call->pif)) {
		if (p.bridge && p.port->master == p.bridge->interface.index)
			rc = rtnl_set_master(&b->rt, index, 0, e);
		if (rc == 0)
			rc = rtnl_altname(&b->rt, index, plugged.text, false, e);
	}
	if (rc)
		rv_error_prefix(e, "unplugging %s from %s", call->device, call->bridge);
out:
	free(p.links);
	return rc;
}

/* --- the rest, on the worker --- */

static int scan(struct bridge_net *b, struct net_request *r, struct rv_error *e)
{
	struct rtnl_link *links;
	size_t count;
	int rc = rtnl_links(&b->rt, &links, &count, e);
	if (rc)
		return rc;
	r->interfaces = calloc(count ? count : 1, sizeof *r->interfaces);
	if (!r->interfaces)
		rc = rv_error_set(e, RV_ENOMEM, "no memory to list the interfaces");
	for (size_t i = 0; rc == 0 && i < count; i++)
		r->interfaces[i] = links[i].interface;
	r->result.interface_count = rc ? 0 : count;
	free(links);
	return rc;
}

static int vif_plug(struct bridge_net *b, struct net_request *r, struct rv_error *e)
{
	struct rtnl_link link;
	int rc = find_bridge(b, r->call.bridge, &link, e);
	if (rc == 0 && !link.interface.up)
		rc = rv_error_set(e, RV_ENOTATTACHED,
			"bridge %s is down on this host: bring its network up",
			r->call.bridge);
	if (rc == 0 && strcmp(link.interface.mac, r->call.mac) == 0)
		rc = rv_error_set(e, RV_EEXIST,
			"MAC address %s is that of bridge %s itself: give the VIF "
			"another",
			r->call.mac, r->call.bridge);
	if (rc == 0 && r->call.mtu == 0)
		r->call.mtu = link.interface.mtu;
	return rc;
}

static void job_run(struct job *job)
{
	struct bridge_net *b = CONTAINER_OF(job, struct bridge_net, job);
	struct net_request *r = b->at;
	struct rv_error *e = &r->result.error;
	int rc = 0;
	switch (r->call.verb) {
	case NET_SCAN:
		rc = scan(b, r, e);
		break;
	case NET_UP:
		rc = network_up(b, r, e);
		break;
	case NET_DOWN:
		rc = network_down(b, r, e);
		break;
	case NET_PIF_PLUG:
		rc = pif_plug(b, r, e);
		break;
	case NET_PIF_UNPLUG:
		rc = pif_unplug(b, r, e);
		break;
	case NET_VIF_PLUG:
		rc = vif_plug(b, r, e);
		break;
	case NET_VIF_UNPLUG:
		break;
	}
	if (rc == 0)
		rv_error_clear(e); /* what was looked for and may be missing */
	else if (e->code == 0)
		e->code = rc;
}

/* --- on the loop --- */

static void job_done(struct job *job, int rc)
{
	struct bridge_net *b = CONTAINER_OF(job, struct bridge_net, job);
	struct net_request *r = b->at;
	struct rv_error *e = &r->result.error;
	if (rc || b->closing)
		return;
	b->at = NULL;
	if (e->code == 0 && r->call.verb == NET_VIF_PLUG &&
		net_vifs_plug(&b->vifs, &r->call, &r->result.vif_backend, e))
		memset(&r->result.vif_backend, 0, sizeof r->result.vif_backend);
	net_queue_finish(r);
}

static void run(struct net_request *r)
{
	struct bridge_net *b = r->queue->owner;
	char text[UUID_TEXT_SIZE];
	const struct uuid *vif;
	if (r->call.verb == NET_VIF_UNPLUG) {
		net_vifs_unplug(&b->vifs, &r->call.vif);
		net_queue_finish(r);
		return;
	}
	if (r->call.verb == NET_DOWN && (vif = net_vifs_on(&b->vifs, &r->call.network))) {
		rv_error_set(&r->result.error, RV_EBUSY,
			"bridge %s still has VIF %s plugged: unplug it first",
			r->call.bridge, uuid_format(vif, text));
		net_queue_finish(r);
		return;
	}
	b->at = r;
	int rc = worker_submit(b->worker, &b->job);
	if (rc) {
		b->at = NULL;
		rv_error_set(&r->result.error, rc, "network worker: try again later");
		net_queue_finish(r);
	}
}

static int bridge_start(struct net *n, const struct net_call *call,
	struct net_request **out, struct rv_error *e)
{
	struct bridge_net *b = CONTAINER_OF(n, struct bridge_net, net);
	return net_queue_start(&b->queue, call, out, e);
}

static void bridge_free(struct net *n)
{
	struct bridge_net *b = CONTAINER_OF(n, struct bridge_net, net);
	b->closing = true;
	worker_free(b->worker);
	net_queue_fini(&b->queue);
	net_vifs_fini(&b->vifs);
	rtnl_close(&b->rt);
	free(b);
}

static const struct net_ops ops = {
	.name = "bridge",
	.start = bridge_start,
	.cancel = net_queue_cancel,
	.free = bridge_free,
};

/* Whether we may, and the kernel can: a bridge made and removed at once. */
static int try_rights(struct rtnl *rt, struct prng *prng, struct rv_error *e)
{
	char name[NET_NAME_SIZE];
	struct rtnl_link link;
	struct uuid random = uuid_random(prng);
	uint8_t mac[6];
	bridge_mac(&random, mac);
	snprintf(name, sizeof name, "rvtry%08x", (unsigned)prng_next(prng));
	int rc = rtnl_bridge_add(rt, name, mac, 0, e);
	if (rc)
		return rc;
	rc = rtnl_link_get(rt, name, &link, e);
	return rc ? rc : rtnl_link_remove(rt, link.interface.index, e);
}

int net_bridge_new(struct net **out, struct loop *l, struct rv_error *e)
{
	struct bridge_net *b = calloc(1, sizeof *b);
	if (!b)
		return rv_error_set(e, RV_ENOMEM, "no memory for the network driver");
	b->net.ops = &ops;
	net_queue_init(&b->queue, l, run, b);
	net_vifs_init(&b->vifs, prng_next(loop_prng(l)));
	b->job.run = job_run;
	b->job.done = job_done;
	b->job.name = "net.bridge";
	int rc = rtnl_open(&b->rt, e);
	if (rc == 0)
		rc = try_rights(&b->rt, loop_prng(l), e);
	if (rc == 0) {
		rc = worker_new(&b->worker, l, "net.bridge");
		if (rc)
			rv_error_set(e, rc, "no worker thread for the network driver");
	}
	if (rc) {
		rtnl_close(&b->rt);
		net_vifs_fini(&b->vifs);
		free(b);
		return rc;
	}
	*out = &b->net;
	return 0;
}
