/* Networks and PIFs: what to ask of the network port, and record. */
#include "daemon/methods.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "daemon/chore.h"
#include "daemon/daemon.h"

/* --- network.destroy --- */

static int step_down(struct chore *c, uint64_t token, struct rv_error *e)
{
	struct net_call call = {.verb = NET_DOWN,
		.network = c->network,
		.bridge = c->text,
		.vlan = NET_VLAN_NONE};

	return chore_net(c, token, &call, e);
}

static void network_remove(struct chore *c, struct txn *t)
{
	txn_delete(t, CLASS_NETWORK, c->network);
}

static const struct chore_kind network_destroy_kind = {.name = "network.destroy",
	.steps = (chore_step_fn *const[]){step_down, NULL},
	.record = network_remove};

void network_destroy(struct call *call)
{
	const struct db *db = pool_db(call->daemon->pool);
	const struct row *network = call_row(call, "self"), *vif, *pif;
	struct chore *c;

	if (!network)
		return;
	vif = db_next_ref(db, VIF_NETWORK, row_uuid(network), NULL);
	pif = db_next_ref(db, PIF_NETWORK, row_uuid(network), NULL);
	if (vif) {
		call_failf(call, RV_EBUSY,
			"network %s: VM %s has a VIF in it; destroy that first",
			row_name(network), row_name(db_follow(db, vif, VIF_VM)));
		return;
	}
	if (pif) {
		call_failf(call, RV_EBUSY,
			"network %s: PIF %s of host %s leads to it; give that PIF "
			"another network first",
			row_name(network), db_string(pif, PIF_DEVICE),
			row_name(db_follow(db, pif, PIF_HOST)));
		return;
	}
	c = chore_new(call, &network_destroy_kind);
	if (!c)
		return;
	c->self = c->network = row_uuid(network);
	snprintf(c->text, sizeof c->text, "%s", db_string(network, NETWORK_BRIDGE));
	chore_start(c);
}

/* --- PIF.scan, PIF.introduce --- */

static int step_scan(struct chore *c, uint64_t token, struct rv_error *e)
{
	struct net_call call = {.verb = NET_SCAN, .vlan = NET_VLAN_NONE};

	return chore_net(c, token, &call, e);
}

static const struct row *pif_of_device(
	const struct db *db, struct uuid host, const char *device)
{
	for (const struct row *pif = db_next_ref(db, PIF_HOST, host, NULL); pif;
		pif = db_next_ref(db, PIF_HOST, host, pif))
		if (strcmp(db_string(pif, PIF_DEVICE), device) == 0 &&
			db_int(pif, PIF_VLAN) < 0)
			return pif;
	return NULL;
}

/* A PIF for an interface, and a network for it where none is given. */
static void pif_add(struct chore *c, struct txn *t, const struct net_interface *interface,
	struct uuid pif, struct uuid network, bool managed)
{
	char text[64];

	if (uuid_is_none(&network)) {
		network = uuid_random(loop_prng(c->daemon->loop));
		txn_create(t, CLASS_NETWORK, network);
		snprintf(text, sizeof text, "%s of the pool", interface->name);
		txn_set_string(t, network, NETWORK_NAME_LABEL, text);
		txn_set_string(
			t, network, NETWORK_BRIDGE, net_bridge_name(&network, text));
		txn_set_int(t, network, NETWORK_MTU, interface->mtu);
	}
	txn_create(t, CLASS_PIF, pif);
	txn_set_ref(t, pif, PIF_HOST, c->host);
	txn_set_ref(t, pif, PIF_NETWORK, network);
	txn_set_string(t, pif, PIF_DEVICE, interface->name);
	txn_set_string(t, pif, PIF_MAC, interface->mac);
	txn_set_int(t, pif, PIF_MTU, interface->mtu);
	txn_set_bool(t, pif, PIF_PHYSICAL, interface->kind == NET_KIND_PHYSICAL);
	txn_set_bool(t, pif, PIF_MANAGED, managed && !interface->address_count);
	txn_set_bool(t, pif, PIF_MANAGEMENT, interface->address_count > 0);
}

static void scan_record(struct chore *c, struct txn *t)
{
	const struct db *db = pool_db(c->daemon->pool);

	for (size_t i = 0; i < c->interface_count; i++) {
		const struct net_interface *interface = &c->interfaces[i];

		if ((interface->kind == NET_KIND_PHYSICAL ||
			    interface->kind == NET_KIND_BOND) &&
			!pif_of_device(db, c->host, interface->name))
			pif_add(c, t, interface, uuid_random(loop_prng(c->daemon->loop)),
				UUID_NONE, true);
	}
}

static const struct chore_kind scan_kind = {.name = "pif.scan",
	.steps = (chore_step_fn *const[]){step_scan, NULL},
	.record = scan_record,
	.cancellable = true};

/* The scan has come: is the device there? */
static int step_find(struct chore *c, uint64_t token, struct rv_error *e)
{
	for (size_t i = 0; i < c->interface_count; i++) {
		if (strcmp(c->interfaces[i].name, c->text) != 0)
			continue;
		c->interfaces[0] = c->interfaces[i];
		chore_answer(c, token, 0, NULL);
		return 0;
	}
	return rv_error_set(e, RV_ENOENT,
		"this host has no interface '%s'; `ip link` lists those it has", c->text);
}

static void introduce_record(struct chore *c, struct txn *t)
{
	pif_add(c, t, &c->interfaces[0], c->pif, c->network, !c->existed);
}

static const struct chore_kind introduce_kind = {.name = "pif.introduce",
	.steps = (chore_step_fn *const[]){step_scan, step_find, NULL},
	.record = introduce_record,
	.cancellable = true};

/* False: the call has been failed, since a host's interfaces are known there alone. */
static bool host_is_here(struct call *call, struct uuid host)
{
	const struct row *row = db_row(pool_db(call->daemon->pool), CLASS_HOST, host);

	if (row && uuid_eq(&host, &call->daemon->host))
		return true;
	call_failf(call, row ? RV_ENOTALLOWED : RV_ENOENT,
		row ? "host %s is another machine; ask it there"
		    : "there is no such host%s",
		row ? row_name(row) : "");
	return false;
}

void pif_scan(struct call *call)
{
	struct chore *c;

	if (!host_is_here(call, call_ref(call, "host")))
		return;
	c = chore_new(call, &scan_kind);
	if (!c)
		return;
	c->self = c->host = call->daemon->host;
	chore_start(c);
}

void pif_introduce(struct call *call)
{
	const char *device = call_text(call, "device");
	struct rv_error e = {0};
	struct chore *c;

	if (!host_is_here(call, call_ref(call, "host")))
		return;
	if (net_name_check(device, "device", &e)) {
		call_fail(call, &e);
		return;
	}
	if (pif_of_device(pool_db(call->daemon->pool), call->daemon->host, device)) {
		call_failf(call, RV_EEXIST, "interface %s of this host is known already",
			device);
		return;
	}
	c = chore_new(call, &introduce_kind);
	if (!c)
		return;
	c->host = call->daemon->host;
	c->network = call_ref(call, "network");
	c->existed =
		!call_bool(call, "managed", true); /* an admin's own: left as it is */
	c->self = c->pif = uuid_random(loop_prng(call->daemon->loop));
	snprintf(c->text, sizeof c->text, "%s", device);
	uuid_format(&c->pif, c->result);
	chore_start(c);
}

/* --- PIF.plug, PIF.unplug --- */

/* What the port needs to know of a PIF and its network. False: one of them has gone. */
static bool pif_call(struct chore *c, struct net_call *call)
{
	const struct db *db = pool_db(c->daemon->pool);
	const struct row *pif = db_row(db, CLASS_PIF, c->pif), *network;

	if (!pif)
		return false;
	network = db_follow(db, pif, PIF_NETWORK);
	call->network = row_uuid(network);
	call->pif = c->pif;
	call->bridge = db_string(network, NETWORK_BRIDGE);
	call->unmanaged = !db_bool(network, NETWORK_MANAGED);
	call->mtu = (int)db_int(network, NETWORK_MTU);
	call->device = db_string(pif, PIF_DEVICE);
	call->vlan =
		db_int(pif, PIF_VLAN) < 0 ? NET_VLAN_NONE : (int)db_int(pif, PIF_VLAN);
	return true;
}

static int step_pif(
	struct chore *c, uint64_t token, enum net_verb verb, struct rv_error *e)
{
	struct net_call call = {.verb = verb};

	if (!pif_call(c, &call))
		return rv_error_set(e, RV_ENOENT, "the PIF has been removed meanwhile");
	if (verb == NET_UP)
		call.vlan = NET_VLAN_NONE;
	return chore_net(c, token, &call, e);
}

static int step_up(struct chore *c, uint64_t token, struct rv_error *e)
{
	return step_pif(c, token, NET_UP, e);
}

static int step_plug(struct chore *c, uint64_t token, struct rv_error *e)
{
	return step_pif(c, token, NET_PIF_PLUG, e);
}

static int step_unplug(struct chore *c, uint64_t token, struct rv_error *e)
{
	return step_pif(c, token, NET_PIF_UNPLUG, e);
}

static void pif_want(struct chore *c, struct txn *t)
{
	txn_set_bool(t, c->pif, PIF_WANTED, true);
}

static void pif_unwant(struct chore *c, struct txn *t)
{
	txn_set_bool(t, c->pif, PIF_WANTED, false);
}

static void record_plugged(struct chore *c, struct txn *t)
{
	txn_set_bool(t, c->pif, PIF_CURRENTLY_ATTACHED, true);
}

static void record_unplugged(struct chore *c, struct txn *t)
{
	txn_set_bool(t, c->pif, PIF_CURRENTLY_ATTACHED, false);
}

/* Not plugged, and why. It stays wanted: attach.c tries again. */
static void record_not_plugged(struct chore *c, struct txn *t)
{
	struct value why = {0};

	record_unplugged(c, t);
	if (value_from_cstr(&why, c->op.error.detail))
		return;
	if (pool_set_live(c->daemon->pool, c->pif, PIF_LAST_ERROR, &why, NULL))
		log_debug("pif.plug", "msg=\"removed meanwhile\"");
	value_fini(&why);
}

static const struct chore_kind plug_kind = {.name = "pif.plug",
	.journal = pif_want,
	.steps = (chore_step_fn *const[]){step_up, step_plug, NULL},
	.record = record_plugged,
	.undo = step_unplug,
	.give_up = record_not_plugged,
	.cancellable = true};

static const struct chore_kind unplug_kind = {.name = "pif.unplug",
	.journal = pif_unwant,
	.steps = (chore_step_fn *const[]){step_unplug, NULL},
	.record = record_unplugged,
	.give_up = pif_want};

static void pif_chore(struct call *call, const struct chore_kind *kind)
{
	const struct row *pif = call_row(call, "self");
	struct chore *c;

	if (!pif || !host_is_here(call, db_ref(pif, PIF_HOST)))
		return;
	c = chore_new(call, kind);
	if (!c)
		return;
	c->self = c->pif = row_uuid(pif);
	chore_start(c);
}

void pif_plug(struct call *call)
{
	pif_chore(call, &plug_kind);
}

void pif_unplug(struct call *call)
{
	const struct db *db = pool_db(call->daemon->pool);
	const struct row *pif = call_row(call, "self");

	if (!pif)
		return;
	if (db_bool(pif, PIF_DISALLOW_UNPLUG) || db_bool(pif, PIF_MANAGEMENT)) {
		call_failf(call, RV_ENOTALLOWED, "PIF %s: %s", db_string(pif, PIF_DEVICE),
			db_bool(pif, PIF_MANAGEMENT) ? "the host is reached through it; "
						       "unplugging would cut it off"
						     : "disallow-unplug is set");
		return;
	}
	for (const struct row *vif =
			db_next_ref(db, VIF_NETWORK, db_ref(pif, PIF_NETWORK), NULL);
		vif; vif = db_next_ref(db, VIF_NETWORK, db_ref(pif, PIF_NETWORK), vif)) {
		if (!db_bool(vif, VIF_CURRENTLY_ATTACHED))
			continue;
		call_failf(call, RV_EBUSY,
			"PIF %s: running VM %s uses its network; shut it down first",
			db_string(pif, PIF_DEVICE), row_name(db_follow(db, vif, VIF_VM)));
		return;
	}
	pif_chore(call, &unplug_kind);
}

struct chore *pif_plug_chore(
	struct daemon *d, const struct row *pif, timer_fn *after, void *arg)
{
	struct chore *c = chore_new_own(d, &plug_kind, after, arg);

	if (!c)
		return NULL;
	c->self = c->pif = row_uuid(pif);
	c->host = d->host;
	return c;
}
