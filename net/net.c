#include "net/net.h"

#include <string.h>

static const char *const verb_names[] = {
	[NET_SCAN] = "scan",
	[NET_UP] = "network_up",
	[NET_DOWN] = "network_down",
	[NET_PIF_PLUG] = "pif_plug",
	[NET_PIF_UNPLUG] = "pif_unplug",
	[NET_VIF_PLUG] = "vif_plug",
	[NET_VIF_UNPLUG] = "vif_unplug",
};

enum { VERB_COUNT = sizeof verb_names / sizeof verb_names[0] };

const char *net_verb_name(enum net_verb verb)
{
	return (size_t)verb < VERB_COUNT ? verb_names[verb] : "unknown";
}

static int check_uuid(
	const struct uuid *uuid, enum net_verb verb, const char *what, struct rv_error *e)
{
	if (uuid_is_none(uuid))
		return rv_error_set(
			e, RV_EINVAL, "%s names no %s", net_verb_name(verb), what);
	return 0;
}

static int check_pif(const struct net_call *call, struct rv_error *e)
{
	int rc = check_uuid(&call->pif, call->verb, "PIF", e);
	if (rc == 0)
		rc = net_name_check(call->device, "device", e);
	if (rc == 0)
		rc = net_name_check(call->bridge, "bridge", e);
	if (rc == 0 && call->vlan != NET_VLAN_NONE &&
		(call->vlan < 1 || call->vlan > 4094))
		rc = rv_error_set(e, RV_EINVAL, "VLAN tag %d is not between 1 and 4094",
			call->vlan);
	return rc;
}

static int check_network(const struct net_call *call, struct rv_error *e)
{
	int rc = check_uuid(&call->network, call->verb, "network", e);
	return rc ? rc : net_name_check(call->bridge, "bridge", e);
}

/* `mac` gets the form that drivers see. */
static int check_call(
	const struct net_call *call, char mac[static NET_MAC_SIZE], struct rv_error *e)
{
	int rc = 0;
	if (!call->done || (size_t)call->verb >= VERB_COUNT)
		return rv_error_set(e, RV_EINVAL, "not a network call");
	if (call->mtu && (call->mtu < NET_MTU_MIN || call->mtu > NET_MTU_MAX))
		return rv_error_set(e, RV_EINVAL, "MTU %d is not between %d and %d",
			call->mtu, NET_MTU_MIN, NET_MTU_MAX);
	switch (call->verb) {
	case NET_SCAN:
		break;
	case NET_UP:
	case NET_DOWN:
		rc = check_network(call, e);
		break;
	case NET_PIF_PLUG:
	case NET_PIF_UNPLUG:
		rc = check_pif(call, e);
		break;
	case NET_VIF_PLUG:
		rc = check_network(call, e);
		if (rc == 0)
			rc = check_uuid(&call->vif, call->verb, "VIF", e);
		if (rc == 0)
			rc = net_mac_parse(call->mac, mac, e);
		break;
	case NET_VIF_UNPLUG:
		rc = check_uuid(&call->vif, call->verb, "VIF", e);
		break;
	}
	return rc;
}

int net_start(struct net *n, const struct net_call *call, struct net_request **out,
	struct rv_error *e)
{
	char mac[NET_MAC_SIZE] = "";
	int rc = check_call(call, mac, e);
	if (rc)
		return rc;
	/* Drivers see only what was checked. */
	struct net_call clean = *call;
	bool pif = call->verb == NET_PIF_PLUG || call->verb == NET_PIF_UNPLUG;
	if (!pif)
		clean.device = NULL;
	if (call->verb == NET_SCAN || call->verb == NET_VIF_UNPLUG)
		clean.bridge = NULL;
	clean.mac = call->verb == NET_VIF_PLUG ? mac : NULL;
	return n->ops->start(n, &clean, out, e);
}

void net_cancel(struct net *n, struct net_request *r)
{
	n->ops->cancel(r);
}

void net_free(struct net *n)
{
	if (n)
		n->ops->free(n);
}
