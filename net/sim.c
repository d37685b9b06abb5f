#include "net/sim.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "net/driver.h"

enum { SIM_MAX_DEVICES = 16, SIM_HANG_US = 120 * 1000000 };

/* A bridge, a device, or a VLAN on one. */
struct sim_link {
	struct list node;
	struct net_interface at;
};

struct sim_net {
	struct net net; /* first: what callers hold */
	struct net_queue queue;
	struct net_vifs vifs;
	struct prng prng;
	struct net_sim_config config;
	struct list links;
	int next_index;
	struct timer timer; /* of the request that runs */
};

/* --- links --- */

static struct sim_link *link_find(const struct sim_net *s, const char *name)
{
	LIST_FOR_EACH (node, &s->links) {
		struct sim_link *link = CONTAINER_OF(node, struct sim_link, node);
		if (strcmp(link->at.name, name) == 0)
			return link;
	}
	return NULL;
}

static struct sim_link *link_add(struct sim_net *s, const char *name, enum net_kind kind)
{
	struct sim_link *link = calloc(1, sizeof *link);
	if (!link)
		return NULL;
	snprintf(link->at.name, sizeof link->at.name, "%s", name);
	link->at.kind = kind;
	link->at.index = s->next_index++;
	link->at.mtu = 1500;
	link->at.vlan = NET_VLAN_NONE;
	link->at.carrier = true;
	net_mac_random(&s->prng, link->at.mac);
	list_init(&link->node);
	list_push_back(&s->links, &link->node);
	return link;
}

/* A device takes its VLANs with it. */
static void link_remove(struct sim_net *s, struct sim_link *link)
{
	char name[NET_NAME_SIZE];
	memcpy(name, link->at.name, sizeof name);
	list_remove(&link->node);
	free(link);
	LIST_FOR_EACH_SAFE (node, &s->links) {
		struct sim_link *other = CONTAINER_OF(node, struct sim_link, node);
		if (strcmp(other->at.master, name) == 0)
			other->at.master[0] = '\0';
		if (strcmp(other->at.lower, name) == 0) {
			list_remove(&other->node);
			free(other);
		}
	}
}

static struct sim_link *port_find(const struct sim_net *s, const struct net_call *call)
{
	if (call->vlan == NET_VLAN_NONE)
		return link_find(s, call->device);
	LIST_FOR_EACH (node, &s->links) {
		struct sim_link *link = CONTAINER_OF(node, struct sim_link, node);
		if (link->at.vlan == call->vlan &&
			strcmp(link->at.lower, call->device) == 0)
			return link;
	}
	return NULL;
}

/* --- effects --- */

static int no_bridge(const char *name, struct rv_error *e)
{
	return rv_error_set(e, RV_ENOTATTACHED,
		"bridge %s does not exist on this host: is its network up here?", name);
}

static int network_up(struct sim_net *s, struct net_request *r, struct rv_error *e)
{
	const struct net_call *call = &r->call;
	struct sim_link *bridge = link_find(s, call->bridge);
	if (bridge && (bridge->at.kind != NET_KIND_BRIDGE ||
			      (!call->unmanaged &&
				      !uuid_eq(&bridge->at.owner, &call->network))))
		return rv_error_set(e, RV_EEXIST,
			"interface %s exists and was not made for this network: choose "
			"another "
			"bridge name",
			call->bridge);
	if (!bridge && call->unmanaged)
		return rv_error_set(e, RV_ENOENT,
			"bridge %s does not exist on this host: make it first",
			call->bridge);
	if (!bridge) {
		bridge = link_add(s, call->bridge, NET_KIND_BRIDGE);
		if (!bridge)
			return rv_error_set(e, RV_ENOMEM, "no memory for a bridge");
		bridge->at.managed = true;
		bridge->at.owner = call->network;
		r->result.bridge_made = true;
	}
	bridge->at.up = true;
	if (call->mtu)
		bridge->at.mtu = call->mtu;
	return 0;
}

static int network_down(struct sim_net *s, struct net_request *r, struct rv_error *e)
{
	const struct net_call *call = &r->call;
	struct sim_link *bridge = link_find(s, call->bridge);
	const struct uuid *vif = net_vifs_on(&s->vifs, &call->network);
	char text[UUID_TEXT_SIZE];
	if (vif)
		return rv_error_set(e, RV_EBUSY,
			"bridge %s still has VIF %s plugged: unplug it first",
			call->bridge, uuid_format(vif, text));
	if (!bridge || !bridge->at.managed || !uuid_eq(&bridge->at.owner, &call->network))
		return 0;
	LIST_FOR_EACH (node, &s->links) {
		const struct sim_link *port = CONTAINER_OF(node, struct sim_link, node);
		if (strcmp(port->at.master, call->bridge) == 0)
			return rv_error_set(e, RV_EBUSY,
				"bridge %s still has %s in it: unplug that first",
				call->bridge, port->at.name);
	}
	link_remove(s, bridge);
	return 0;
}

static int pif_check(const struct sim_net *s, const struct net_call *call,
	const struct sim_link *port, struct rv_error *e)
{
	const struct sim_link *device = link_find(s, call->device);
	const struct sim_link *bridge = link_find(s, call->bridge);
	if (!device)
		return rv_error_set(e, RV_ENOENT,
			"device %s is not on this host: look with pif-scan",
			call->device);
	if (!bridge || bridge->at.kind != NET_KIND_BRIDGE)
		return no_bridge(call->bridge, e);
	if (device->at.kind == NET_KIND_BRIDGE || device->at.kind == NET_KIND_LOOPBACK)
		return rv_error_set(
			e, RV_EINVAL, "%s can't carry a network", call->device);
	if (port && *port->at.master && strcmp(port->at.master, call->bridge) != 0)
		return rv_error_set(e, RV_EBUSY,
			"%s is in %s already: take it out there first", port->at.name,
			port->at.master);
	if (port && port->at.address_count)
		return rv_error_set(e, RV_ENOTALLOWED,
			"%s carries the address %s of this host: in a bridge it would be "
			"cut "
			"off",
			port->at.name, port->at.address);
	return 0;
}

static int pif_plug(struct sim_net *s, struct net_request *r, struct rv_error *e)
{
	const struct net_call *call = &r->call;
	struct sim_link *port = port_find(s, call);
	char name[NET_NAME_SIZE];
	int rc = pif_check(s, call, port, e);
	if (rc)
		return rc;
	if (!port) {
		net_vlan_name(call->device, call->vlan, name);
		port = link_add(s, name, NET_KIND_VLAN);
		if (!port)
			return rv_error_set(e, RV_ENOMEM, "no memory for a VLAN");
		port->at.vlan = call->vlan;
		snprintf(port->at.lower, sizeof port->at.lower, "%s", call->device);
	}
	port->at.managed = true;
	port->at.owner = call->pif;
	port->at.up = true;
	snprintf(port->at.master, sizeof port->at.master, "%s", call->bridge);
	memcpy(r->result.port, port->at.name, NET_NAME_SIZE);
	return 0;
}

static int pif_unplug(struct sim_net *s, const struct net_call *call)
{
	struct sim_link *port = port_find(s, call);
	if (!port || !uuid_eq(&port->at.owner, &call->pif))
		return 0;
	if (port->at.kind == NET_KIND_VLAN) {
		link_remove(s, port);
		return 0;
	}
	port->at.managed = false;
	port->at.owner = UUID_NONE;
	port->at.master[0] = '\0';
	return 0;
}

static int scan(const struct sim_net *s, struct net_request *r, struct rv_error *e)
{
	size_t count = 0;
	LIST_FOR_EACH (node, &s->links)
		count++;
	r->interfaces = calloc(count ? count : 1, sizeof *r->interfaces);
	if (!r->interfaces)
		return rv_error_set(e, RV_ENOMEM, "no memory to list the interfaces");
	LIST_FOR_EACH (node, &s->links)
		r->interfaces[r->result.interface_count++] =
			CONTAINER_OF(node, struct sim_link, node)->at;
	return 0;
}

static int effect(struct sim_net *s, struct net_request *r, struct rv_error *e)
{
	const struct sim_link *bridge;
	switch (r->call.verb) {
	case NET_SCAN:
		return scan(s, r, e);
	case NET_UP:
		return network_up(s, r, e);
	case NET_DOWN:
		return network_down(s, r, e);
	case NET_PIF_PLUG:
		return pif_plug(s, r, e);
	case NET_PIF_UNPLUG:
		return pif_unplug(s, &r->call);
	case NET_VIF_PLUG:
		bridge = link_find(s, r->call.bridge);
		if (!bridge || !bridge->at.up)
			return no_bridge(r->call.bridge, e);
		if (r->call.mtu == 0)
			r->call.mtu = bridge->at.mtu;
		return net_vifs_plug(&s->vifs, &r->call, &r->result.vif_backend, e);
	case NET_VIF_UNPLUG:
		net_vifs_unplug(&s->vifs, &r->call.vif);
		return 0;
	}
	return 0;
}

/* --- the driver --- */

static void on_timer(void *arg)
{
	struct sim_net *s = arg;
	struct net_request *r = s->queue.running;
	struct rv_error *e = &r->result.error;
	if (prng_chance_ppm(&s->prng, s->config.fail_ppm)) {
		rv_error_set(e, RV_EIO, "simulated fault in %s: try again",
			net_verb_name(r->call.verb));
	} else {
		int rc = effect(s, r, e);
		if (rc == 0 && prng_chance_ppm(&s->prng, s->config.fail_after_ppm))
			rv_error_set(e, RV_EIO,
				"simulated fault: %s was done, and its answer lost",
				net_verb_name(r->call.verb));
	}
	net_queue_finish(r);
}

static void run(struct net_request *r)
{
	struct sim_net *s = r->queue->owner;
	int64_t latency_us =
		prng_range(&s->prng, s->config.latency_min_us, s->config.latency_max_us);
	if (prng_chance_ppm(&s->prng, s->config.hang_ppm))
		latency_us = SIM_HANG_US;
	timer_start_us(&s->timer, latency_us);
}

static int sim_start(struct net *n, const struct net_call *call, struct net_request **out,
	struct rv_error *e)
{
	struct sim_net *s = CONTAINER_OF(n, struct sim_net, net);
	return net_queue_start(&s->queue, call, out, e);
}

static void sim_free(struct net *n)
{
	struct sim_net *s = CONTAINER_OF(n, struct sim_net, net);
	timer_stop(&s->timer);
	net_queue_fini(&s->queue);
	net_vifs_fini(&s->vifs);
	LIST_FOR_EACH_SAFE (node, &s->links)
		free(CONTAINER_OF(node, struct sim_link, node));
	free(s);
}

static const struct net_ops ops = {
	.name = "sim",
	.simulated = true,
	.start = sim_start,
	.cancel = net_queue_cancel,
	.free = sim_free,
};

static int add_devices(struct sim_net *s)
{
	struct sim_link *lo = link_add(s, "lo", NET_KIND_LOOPBACK);
	if (!lo)
		return RV_ENOMEM;
	lo->at.up = true;
	for (int i = 0; i < s->config.devices && i < SIM_MAX_DEVICES; i++) {
		char name[NET_NAME_SIZE];
		snprintf(name, sizeof name, "eth%d", i);
		struct sim_link *device = link_add(s, name, NET_KIND_PHYSICAL);
		if (!device)
			return RV_ENOMEM;
		device->at.up = true;
		device->at.speed_mbit = 10000;
		if (i == 0) {
			device->at.address_count = 1;
			snprintf(device->at.address, sizeof device->at.address,
				"192.0.2.1/24");
		}
	}
	return 0;
}

int net_sim_new(struct net **out, struct loop *l, const struct net_sim_config *config)
{
	struct sim_net *s = calloc(1, sizeof *s);
	if (!s)
		return RV_ENOMEM;
	s->net.ops = &ops;
	s->config = *config;
	if (s->config.latency_max_us == 0) {
		s->config.latency_min_us = 100;
		s->config.latency_max_us = 1000;
	}
	s->next_index = 1;
	prng_seed(&s->prng, config->seed);
	list_init(&s->links);
	net_queue_init(&s->queue, l, run, s);
	net_vifs_init(&s->vifs, config->seed);
	timer_init(&s->timer, l, "net.sim", on_timer, s);
	int rc = add_devices(s);
	if (rc) {
		sim_free(&s->net);
		return rc;
	}
	*out = &s->net;
	return 0;
}

int net_sim_device(struct net *n, const char *name, bool present, bool carrier)
{
	struct sim_net *s = CONTAINER_OF(n, struct sim_net, net);
	struct sim_link *device = link_find(s, name);
	if (device && !present) {
		link_remove(s, device);
		return 0;
	}
	if (!device && present)
		device = link_add(s, name, NET_KIND_PHYSICAL);
	if (present && !device)
		return RV_ENOMEM;
	if (present)
		device->at.carrier = carrier;
	return 0;
}

void net_sim_set_faults(
	struct net *n, uint32_t fail_ppm, uint32_t fail_after_ppm, uint32_t hang_ppm)
{
	struct sim_net *s = CONTAINER_OF(n, struct sim_net, net);
	s->config.fail_ppm = fail_ppm;
	s->config.fail_after_ppm = fail_after_ppm;
	s->config.hang_ppm = hang_ppm;
}

size_t net_sim_vif_count(const struct net *n)
{
	const struct sim_net *s = CONTAINER_OF(n, struct sim_net, net);
	return s->vifs.by_uuid.count;
}
