#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "net/driver.h"

struct vif {
	struct uuid uuid;
	/* The key of by_mac: no padding in it. */
	struct {
		struct uuid network;
		char mac[NET_MAC_SIZE];
	} key;
};

void net_vifs_init(struct net_vifs *v, uint64_t seed)
{
	map_init(&v->by_uuid, seed);
	map_init(&v->by_mac, seed);
}

void net_vifs_fini(struct net_vifs *v)
{
	size_t cursor = 0;
	for (struct vif *vif; (vif = map_next(&v->by_uuid, &cursor));)
		free(vif);
	map_fini(&v->by_uuid);
	map_fini(&v->by_mac);
}

static int vif_new(struct net_vifs *v, const struct net_call *call, struct rv_error *e)
{
	struct vif *vif = calloc(1, sizeof *vif);
	int rc = vif ? 0 : RV_ENOMEM;
	if (rc == 0) {
		vif->uuid = call->vif;
		vif->key.network = call->network;
		memcpy(vif->key.mac, call->mac, strlen(call->mac));
		rc = map_add(&v->by_uuid, &vif->uuid, sizeof vif->uuid, vif);
	}
	if (rc == 0) {
		rc = map_add(&v->by_mac, &vif->key, sizeof vif->key, vif);
		if (rc)
			map_remove(&v->by_uuid, &vif->uuid, sizeof vif->uuid);
	}
	if (rc) {
		free(vif);
		return rv_error_set(e, rc, "no memory for a VIF");
	}
	return 0;
}

int net_vifs_plug(struct net_vifs *v, const struct net_call *call,
	struct net_vif_backend *backend, struct rv_error *e)
{
	struct vif probe = {0};
	char other[UUID_TEXT_SIZE];
	probe.key.network = call->network;
	memcpy(probe.key.mac, call->mac, strlen(call->mac));
	const struct vif *same_mac = map_get(&v->by_mac, &probe.key, sizeof probe.key);
	if (same_mac && !uuid_eq(&same_mac->uuid, &call->vif))
		return rv_error_set(e, RV_EEXIST,
			"MAC address %s is plugged into this network already, by VIF %s: "
			"give "
			"one of them another",
			call->mac, uuid_format(&same_mac->uuid, other));
	if (!same_mac) {
		if (v->by_uuid.count >= NET_MAX_VIFS)
			return rv_error_set(e, RV_ELIMIT,
				"this host has %d VIFs plugged, the most it can",
				NET_MAX_VIFS);
		net_vifs_unplug(v, &call->vif); /* it was elsewhere before */
		int rc = vif_new(v, call, e);
		if (rc)
			return rc;
	}
	*backend = (struct net_vif_backend){.mtu = call->mtu ? call->mtu : 1500};
	snprintf(backend->bridge, sizeof backend->bridge, "%s", call->bridge);
	snprintf(backend->mac, sizeof backend->mac, "%s", call->mac);
	snprintf(backend->script, sizeof backend->script, "vif-bridge");
	snprintf(backend->spec, sizeof backend->spec,
		"mac=%s,bridge=%s,mtu=%d,script=vif-bridge", backend->mac,
		backend->bridge, backend->mtu);
	return 0;
}

void net_vifs_unplug(struct net_vifs *v, const struct uuid *uuid)
{
	struct vif *vif = map_remove(&v->by_uuid, uuid, sizeof *uuid);
	if (!vif)
		return;
	map_remove(&v->by_mac, &vif->key, sizeof vif->key);
	free(vif);
}

const struct uuid *net_vifs_on(const struct net_vifs *v, const struct uuid *network)
{
	size_t cursor = 0;
	for (const struct vif *vif; (vif = map_next(&v->by_uuid, &cursor));)
		if (uuid_eq(&vif->key.network, network))
			return &vif->uuid;
	return NULL;
}
